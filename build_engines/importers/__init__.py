"""Model packages from other people's models: MONAI bundles, nnU-Net v2 trainings, bare ONNX files."""
