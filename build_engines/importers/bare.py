"""A bare ONNX file: what the graph does not say is asked, or taken from a file of answers.

The questions are those of ``model.toml``; each has a default where the graph or common practice gives one. Without
somebody to ask, those that have none are an error that lists them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from build_engines.importers.bare_outputs import read_heads
from build_engines.importers.choices import Choices, terms_remark
from build_engines.importers.draft import NOT_STATED, Draft, Remark
from build_engines.importers.package_writer import slug
from build_engines.importers.questions import Answers, Ask, listed, numbers, read_graph
from engines.errors import ModelPackageError

CHANNELS = (1, 3)
"""What an image may have; more on this axis is something else."""


def read_bare(path: Path, given: Mapping[str, Any], ask: Ask | None = None) -> Draft:
    """Read an ONNX file, and ask for what it does not say.

    Parameters
    ----------
    given
        What was said beforehand, as from `build_engines.importers.choices.read_answers`.
    ask
        None if there is nobody to ask.

    Raises
    ------
    ModelPackageError
        A question has no answer (all of them are listed), or an answer does not fit the graph.
    """
    graph = read_graph(path)
    answers = Answers(given, ask)
    volume, grid, channels = _layout(graph.input)
    name = answers("name", "What is the model called", slug(path.stem))
    keys, remarks = (_volume if volume else _radiograph)(answers, grid, channels)
    heads = read_heads(graph, answers, 3 if volume else 2)
    if answers.missing:
        raise ModelPackageError(
            f"{path} does not say everything; answer with --set KEY=VALUE or --answers FILE.toml: "
            + "; ".join(answers.missing)
        )
    licence = str(answers("licence", "Licence of the weights", NOT_STATED))
    return Draft(
        name=str(name),
        version=str(answers("version", "Version", "0.1.0")),
        licence=licence,
        intended_use=Choices().intended(str(answers("intended_use", "What is it for", "not stated"))),
        source=f"the ONNX file {path.name}",
        networks={"model.onnx": graph.model},
        input=keys,
        heads=heads,
        remarks=(*remarks, *terms_remark(licence)),
    )


def _layout(shape: Sequence[int | None]) -> tuple[bool, tuple[int | None, ...], int]:
    """Tell a volume from an X-ray by the input's axes: its grid, and how many channels it has."""
    if len(shape) not in (3, 4, 5):
        raise ModelPackageError(
            f"the network takes {len(shape)} axes; a volume has 5 ([1, channel, slice, row, column]), an X-ray 4"
        )
    if len(shape) == 3:
        return False, tuple(shape[1:]), 1
    last_is_channels = shape[1] not in (*CHANNELS, None) and shape[-1] in CHANNELS
    grid, channels = (shape[1:-1], shape[-1]) if last_is_channels else (shape[2:], shape[1])
    return len(shape) == 5, tuple(grid), channels or 1


def _volume(answers: Answers, grid: Sequence[int | None], channels: int) -> tuple[dict[str, Any], list[Remark]]:
    remarks = []
    patch = answers("patch", "Size of the patch, in voxels along the tensor's axes", _known(grid))
    spacing = answers("spacing_mm", "Size of a voxel in mm, along the tensor's axes")
    axes = answers("axes", "Where the tensor's axes point to: HPL is slices, rows, columns; MONAI's RAS is RAH", "HPL")
    window = answers("window", "Window in HU: lower, upper")
    keys: dict[str, Any] = {
        "modality": listed(answers("modality", "Modality", ["CT"], needed=False)),
        "minimum_slices": answers("minimum_slices", "Least slices", 10, needed=False),
        "spacing_mm": numbers(spacing),
        "axes": str(axes).upper(),
        "window": numbers(window),
        **_scaling(answers),
        "patch": patch,
        "overlap": answers("overlap", "Overlap of neighbouring patches", 0.25, needed=False),
        "blend": answers("blend", "Weight of a patch's voxels", "gaussian", needed=False),
        **_optional(answers, "body_part", "plane"),
    }
    if channels > 1:
        keys["channels"] = channels
        remarks.append(Remark("to check", "channels", f"{channels}: each is given the same image"))
    return keys, remarks


def _radiograph(answers: Answers, grid: Sequence[int | None], channels: int) -> tuple[dict[str, Any], list[Remark]]:
    remarks = []
    size = answers("size", "Rows and columns of the tensor", _known(grid))
    keys: dict[str, Any] = {
        "modality": listed(answers("modality", "Modality", ["CR", "DX"], needed=False)),
        "size": size,
        "percentiles": numbers(answers("percentiles", "Percentiles of the image that become 0 and 1", [0.0, 100.0])),
        **_scaling(answers),
        "resize": answers("resize", "pad keeps the proportions, stretch does not", "stretch"),
        **_optional(answers, "body_part", "view"),
    }
    if channels > 1:
        keys["channels"] = channels
        remarks.append(Remark("assumed", "channels", f"{channels}: the grey image is given so often"))
    return keys, remarks


def _scaling(answers: Answers) -> dict[str, Any]:
    """Ask how values are scaled after the window: to a range, by mean and deviation, or each image by itself."""
    mean, deviation = (answers(key, key, needed=False) for key in ("mean", "deviation"))
    if answers("standardise", "standardise", False, needed=False):
        return {"standardise": True}
    if mean is not None or deviation is not None:
        return {key: numbers(value) for key, value in (("mean", mean), ("deviation", deviation)) if value is not None}
    bounds = numbers(answers("range", "What the window is mapped to", [0.0, 1.0]))
    return {} if bounds == [0.0, 1.0] else {"range": bounds}


def _known(grid: Sequence[int | None]) -> list[int] | None:
    return [length for length in grid if length is not None] if None not in grid else None


def _optional(answers: Answers, *keys: str) -> dict[str, Any]:
    found = {key: answers(key, key, needed=False) for key in keys}
    return {key: listed(value) for key, value in found.items() if value is not None}
