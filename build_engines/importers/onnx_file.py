"""Reading ONNX files of strangers."""

from pathlib import Path
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]

from engines.errors import ModelPackageError


def load_onnx(path: Path) -> Any:
    """Read an ONNX file with its external data.

    Raises
    ------
    ModelPackageError
        It is none.
    """
    try:
        return onnx.load(path)
    except (DecodeError, OSError, onnx.checker.ValidationError, ValueError) as error:
        raise ModelPackageError(f"{path} cannot be read as ONNX: {error}; export it again") from error
