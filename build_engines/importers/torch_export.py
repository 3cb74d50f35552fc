"""From PyTorch networks to ONNX; needs the extra ``train``."""

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import onnx

from engines.errors import ModelPackageError, RuntimeUnavailable

OPSET = 17


def import_torch() -> Any:
    """Give PyTorch.

    Raises
    ------
    RuntimeUnavailable
        It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise RuntimeUnavailable("PyTorch is not installed; pip install 'wetread[train]'") from error
    return torch


def export_script(path: Path, shape: Sequence[int]) -> onnx.ModelProto:
    """Convert a TorchScript file. Its code runs."""
    torch = import_torch()
    try:
        network = torch.jit.load(str(path), map_location="cpu").eval()
    except (RuntimeError, ValueError) as error:
        raise ModelPackageError(f"{path} cannot be read as TorchScript: {_first_line(error)}") from error
    return export_network(network, shape)


def export_network(network: Any, shape: Sequence[int]) -> onnx.ModelProto:
    """Convert a network with fixed shapes.

    Raises
    ------
    ModelPackageError
        It has operators that ONNX does not have, or does not take this shape.
    """
    torch = import_torch()
    buffer: Any = io.BytesIO()
    try:
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.onnx.export(
                network, (torch.zeros(*shape),), buffer, input_names=["image"], opset_version=OPSET, dynamo=False
            )
    except Exception as error:  # the exporter's errors have no common class but this
        raise ModelPackageError(
            f"PyTorch cannot convert the network for an input of {list(shape)}: {_first_line(error)}"
        ) from error
    return onnx.load_from_string(buffer.getvalue())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
