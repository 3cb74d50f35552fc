"""``golden.npz``: what the ONNX reference answers to one input, which every engine must reproduce."""

import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from engines.errors import ModelPackageError


class Golden(NamedTuple):
    """An input and the reference's answer, float32, each shaped as the network's tensor.

    ``output`` are the probabilities; ``activation`` are the class activation maps of a model that has them.
    """

    input: NDArray[np.float32]
    output: NDArray[np.float32]
    activation: NDArray[np.float32] | None = None


def read_golden(path: Path, input_shape: tuple[int, ...], output_shape: tuple[int, ...], activation: bool) -> Golden:
    """Read golden arrays.

    Parameters
    ----------
    path
        The file.
    input_shape, output_shape
        What ``model.toml`` describes.
    activation
        Whether it names a tensor of activation maps: ``[1, class, row, column]``, of any number of rows and columns.

    Raises
    ------
    ModelPackageError
        The file cannot be read, lacks an array, or an array's shape is not the described one.
    """
    names = Golden._fields if activation else Golden._fields[:2]
    try:
        with np.load(path, allow_pickle=False) as arrays:
            found = {name: arrays[name].astype(np.float32, copy=False) for name in names}
    except KeyError as error:
        raise ModelPackageError(f"{path}: {error.args[0]}; export the golden arrays again") from error
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelPackageError(f"{path} cannot be read ({error}); export the golden arrays again") from error
    described = {"input": input_shape, "output": output_shape}
    if activation:
        # Only the network knows how much it shrinks an image.
        grid = found["activation"].shape[2:]
        described["activation"] = (*output_shape, *(grid if len(grid) == 2 else (1, 1)))
    for name, array in found.items():
        if array.shape != described[name]:
            raise ModelPackageError(
                f"{path}: {name} has shape {list(array.shape)}, but model.toml describes {list(described[name])}; "
                f"correct {'input.patch or input.size' if name == 'input' else 'output.segments or output.classes'}"
                ", or export the model again"
            )
        if not np.isfinite(array).all():
            raise ModelPackageError(f"{path}: {name} holds NaN or infinity; export the golden arrays again")
    return Golden(**found)
