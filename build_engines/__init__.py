"""ONNX to compiled, verified engine; recipes that train and export the shipped models."""
