"""``golden.npz``: what the ONNX reference answers to one input, which every engine must reproduce."""

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelPackageError

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
        with np.load(path, allow_pickle=False) as arrays:
            if missing := described.keys() - set(arrays):
                raise ModelPackageError(
                    f"{path} has no array {', '.join(sorted(missing))}, which model.toml names as a tensor; it has "
                    f"{', '.join(arrays)}; correct the name or export the golden arrays again"
                )
            found = {name: arrays[name].astype(np.float32, copy=False) for name in described}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelPackageError(f"{path} cannot be read ({error}); export the golden arrays again") from error
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


def _is(shape: tuple[int, ...], described: Shape) -> bool:
    return len(shape) == len(described) and all(
        length > 0 if wanted is None else length == wanted for length, wanted in zip(shape, described, strict=True)
    )
