"""Findings become DICOM objects: SEG, SR, pictures and more, each checked against its source series."""
