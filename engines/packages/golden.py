"""``golden.npz``: what the ONNX reference answers to one input, which every engine must reproduce."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelPackageError

LARGEST = 4_000_000_000
"""Bytes of all arrays of one file."""

Shape = tuple[int | None, ...]
"""Of a tensor as ``model.toml`` describes it; None is a length that only the network knows."""


class Golden(NamedTuple):
    """An input and the reference's answers by tensor, float32, each shaped as the network's tensor."""

    input: NDArray[np.float32]
    outputs: Mapping[str, NDArray[np.float32]]


def read_golden(path: Path, tensor: str, shape: Shape, outputs: Mapping[str, Shape]) -> Golden:
    """Read golden arrays; the file has one for each tensor of the network, under the tensor's name.

    Parameters
    ----------
    path
        The file.
    tensor, shape
        The network's input.
    outputs
        The network's outputs by name.

    Raises
    ------
    ModelPackageError
        The file cannot be read, lacks an array, or an array's shape is not the described one.
    """
    described = {tensor: shape, **outputs}
    try:
        _require_reasonable(path)
        with np.load(path, allow_pickle=False) as arrays:
            names = list(arrays)
            found = {name: _real(arrays[name]) for name in described if name in names}
    except ModelPackageError:
        raise
    except Exception as error:  # NumPy, its archive and three kinds of compression each have errors of their own
        raise ModelPackageError(f"{path} cannot be read ({error}); export the golden arrays again") from error
    if missing := described.keys() - found.keys():
        raise ModelPackageError(
            f"{path} has no array {', '.join(sorted(missing))}, which model.toml names as a tensor; it has "
            f"{', '.join(names)}; correct the name or export the golden arrays again"
        )
    for name, array in found.items():
        if not _is(array.shape, described[name]):
            expected = ", ".join("any" if length is None else str(length) for length in described[name])
            keys = "input.patch or input.size" if name == tensor else "the segments or classes"
            raise ModelPackageError(
                f"{path}: {name} has shape {list(array.shape)}, but model.toml describes [{expected}]; "
                f"correct {keys}, or export the model again"
            )
        if not np.isfinite(array).all():
            raise ModelPackageError(f"{path}: {name} holds NaN or infinity; export the golden arrays again")
    return Golden(found.pop(tensor), found)


def _require_reasonable(path: Path) -> None:
    """Refuse what would fill the memory: a small archive may hold very much."""
    with zipfile.ZipFile(path) as archive:
        size = sum(member.file_size for member in archive.infolist())
    if size > LARGEST:
        raise ModelPackageError(f"{path} holds {size / 1e9:.0f} GB; golden arrays have at most {LARGEST / 1e9:.0f} GB")


def _real(array: NDArray[Any]) -> NDArray[np.float32]:
    if array.dtype.kind not in "fiub":
        raise ValueError(f"an array of {array.dtype}, not of real numbers")
    return array.astype(np.float32, copy=False)


def _is(shape: tuple[int, ...], described: Shape) -> bool:
    return len(shape) == len(described) and all(
        length > 0 if wanted is None else length == wanted for length, wanted in zip(shape, described, strict=True)
    )
