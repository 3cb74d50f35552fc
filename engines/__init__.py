"""Model packages, pre- and post-processing, inference. Knows no DICOM and no network."""
