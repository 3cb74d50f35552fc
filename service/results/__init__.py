"""Findings become DICOM objects: SEG, SR and overlay pictures, each checked against its source series."""
