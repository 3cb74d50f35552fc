"""A bare ONNX file: what the graph does not say is asked, or taken from a file of answers.

The questions are those of ``model.toml``; each has a default where the graph or common practice gives one. Without
somebody to ask, those that have none are an error that lists them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from build_engines.importers.choices import Choices, read_answer, terms_remark
from build_engines.importers.draft import (
    NOT_STATED,
    Classification,
    Detection,
    Draft,
    Head,
    Remark,
    Segmentation,
)
from build_engines.importers.monai import load_onnx
from build_engines.importers.normalise import dimensions, inputs_of
from build_engines.importers.package_writer import slug
from engines.errors import ModelPackageError

Ask = Callable[[str, str | None], str]
"""Puts a question with a default (None: there is none) to somebody, and gives the answer."""

Task = Literal["segmentation", "classification", "places", "scores", "none"]
TASKS: tuple[Task, ...] = ("segmentation", "classification", "places", "scores", "none")

CHANNELS = (1, 3)
"""What an image may have; more on this axis is something else."""


class Answers:
    """Answers in turn: from the options, from the file, from somebody, from a default.

    Parameters
    ----------
    given
        What was said beforehand.
    ask
        None if there is nobody.
    """

    def __init__(self, given: Mapping[str, Any], ask: Ask | None) -> None:
        self._given = given
        self._ask = ask
        self.missing: list[str] = []

    def __call__(self, key: str, question: str, default: Any = None, *, needed: bool = True) -> Any:
        """Give the answer to one question, or the default; note it as missing if there is neither."""
        if (given := _looked_up(self._given, key)) is not None:
            return given
        if self._ask is not None and needed:
            text = self._ask(f"{question} ({key})", None if default is None else _written(default))
            return read_answer(text)
        if default is None and needed:
            self.missing.append(f"{key} ({question})")
        return default


@dataclass(frozen=True)
class Graph:
    """What an ONNX file says of itself: input and outputs, each with its axes (None where a length is open)."""

    model: Any
    input: tuple[int | None, ...]
    outputs: Mapping[str, tuple[int | None, ...]]


def read_graph(path: Path) -> Graph:
    """Read an ONNX file.

    Raises
    ------
    ModelPackageError
        It is none, or has not one input of an image or volume.
    """
    model = load_onnx(path)
    inputs = inputs_of(model.graph)
    if len(inputs) != 1:
        raise ModelPackageError(
            f"{path} has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}); a package has one: "
            "export it with the image alone"
        )
    outputs = {value.name: tuple(dimensions(value)) for value in model.graph.output}
    return Graph(model, tuple(dimensions(inputs[0])), outputs)


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
    heads = _heads(graph, answers, 3 if volume else 2)
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
        "modality": _listed(answers("modality", "Modality", ["CT"], needed=False)),
        "minimum_slices": answers("minimum_slices", "Least slices", 10, needed=False),
        "spacing_mm": _numbers(spacing),
        "axes": str(axes).upper(),
        "window": _numbers(window),
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
        "modality": _listed(answers("modality", "Modality", ["CR", "DX"], needed=False)),
        "size": size,
        "percentiles": _numbers(answers("percentiles", "Percentiles of the image that become 0 and 1", [0.0, 100.0])),
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
        return {key: _numbers(value) for key, value in (("mean", mean), ("deviation", deviation)) if value is not None}
    bounds = _numbers(answers("range", "What the window is mapped to", [0.0, 1.0]))
    return {} if bounds == [0.0, 1.0] else {"range": bounds}


def _heads(graph: Graph, answers: Answers, dimensions: int) -> tuple[Head, ...]:
    tasks = {name: _task(graph, name, answers, dimensions) for name in graph.outputs}
    heads: list[Head] = []
    for name, task in tasks.items():
        if task == "segmentation":
            heads.append(_segmentation(graph, name, answers))
        elif task == "classification":
            labels = _labels(answers, name, graph, "Labels of its classes, in the order of its channels", 0)
            exclusive = answers(_key(graph, name, "exclusive"), "Do the classes exclude each other (softmax)", True)
            heads.append(Classification(labels, name, exclusive, "guess" if exclusive else "sigmoid"))
    places, scores = ([name for name, task in tasks.items() if task == kind] for kind in ("places", "scores"))
    if places or scores:
        if len(places) != 1 or len(scores) != 1:
            raise ModelPackageError(
                f"a detection needs one output of places and one of scores, not {len(places)} and {len(scores)}; "
                "say which with outputs.NAME.task"
            )
        heads.append(_detection(graph, places[0], scores[0], answers, dimensions))
    kinds = [type(head) for head in heads]
    if len(set(kinds)) != len(kinds):
        raise ModelPackageError(
            "a package has one output of each task; give that of every output, 'none' for those that are not wanted: "
            + ", ".join(f"outputs.{name}.task" for name in graph.outputs)
        )
    if not heads and not answers.missing:
        raise ModelPackageError(f"no output has a task; give one of {', '.join(TASKS[:-1])} to one of them")
    return tuple(heads)


def _segmentation(graph: Graph, name: str, answers: Answers) -> Segmentation:
    overlapping = bool(
        answers(
            _key(graph, name, "overlapping"), "May a voxel belong to several segments (sigmoid)", _alone(graph, name)
        )
    )
    labels = _labels(
        answers,
        name,
        graph,
        "Labels of its segments, in the order of its channels" + ("" if overlapping else ", without background"),
        0 if overlapping else 1,
    )
    largest = answers(_key(graph, name, "keep_largest"), "Keep the largest component of each only", False)
    return Segmentation(labels, name, overlapping, bool(largest), "sigmoid" if overlapping else "guess")


def _detection(graph: Graph, places: str, scores: str, answers: Answers, dimensions: int) -> Detection:
    numbers = graph.outputs[places][-1] if graph.outputs[places] else None
    points = numbers == dimensions
    return Detection(
        _labels(answers, scores, graph, "Labels of what is detected, in the order of its channels", 0),
        places,
        scores,
        dimensions,
        format=answers(
            _key(graph, places, "format"), "How places are written: corners, centre_size, points",
            "points" if points else "corners",
        ),
        order=answers(_key(graph, places, "order"), "Order of coordinates: axes, or reversed (x first)", "axes"),
        least_score=float(answers(_key(graph, scores, "least_score"), "Least score that counts", 0.5)),
    )  # fmt: skip


def _task(graph: Graph, name: str, answers: Answers, dimensions: int) -> str:
    task = answers(
        f"outputs.{name}.task", f"Task of the output {name}: {', '.join(TASKS)}", _likely(graph, name, dimensions)
    )
    if task is not None and task not in TASKS:
        raise ModelPackageError(f"outputs.{name}.task is {task!r}; choose one of {', '.join(TASKS)}")
    return str(task)


def _likely(graph: Graph, name: str, dimensions: int) -> Task | None:
    """Guess an output's task by its axes."""
    shape = graph.outputs[name]
    others = [other for other in graph.outputs if other != name]
    if len(shape) == dimensions + 2:
        return "segmentation"
    if len(shape) == 2 and not others:
        return "classification"
    if len(shape) == 3 and dimensions == 2 and not others:
        return "segmentation"
    if len(shape) == 3 and shape[-1] in (dimensions, 2 * dimensions) and others:
        return "places"
    if len(shape) in (2, 3) and any(_likely_places(graph.outputs[other], dimensions) for other in others):
        return "scores"
    return "classification" if len(shape) == 2 else None


def _likely_places(shape: Sequence[int | None], dimensions: int) -> bool:
    return len(shape) == 3 and shape[-1] in (dimensions, 2 * dimensions)


def _alone(graph: Graph, name: str) -> bool:
    """Whether an output has one channel, which can only be a sigmoid."""
    shape = graph.outputs[name]
    return len(shape) > 1 and (shape[1] == 1 or len(shape) < len(graph.input))


def _labels(answers: Answers, name: str, graph: Graph, question: str, background: int) -> tuple[str, ...]:
    shape = graph.outputs[name]
    channels = shape[1] if len(shape) > 1 else None
    told = f"{question} (it has {channels} channels)" if channels and len(shape) != 3 else question
    found = _listed(answers(_key(graph, name, "labels"), told) or [])
    return tuple(str(label) for label in found)


def _key(graph: Graph, name: str, key: str) -> str:
    return f"outputs.{name}.{key}" if len(graph.outputs) > 1 else key


def _looked_up(given: Mapping[str, Any], key: str) -> Any:
    """Look an answer up: ``outputs.NAME.key`` by its parts (a name may have dots)."""
    if not key.startswith("outputs."):
        return given.get(key)
    name, _, last = key.removeprefix("outputs.").rpartition(".")
    found = given.get("outputs", {}).get(name, {}).get(last)
    return given.get(last) if found is None and last != "labels" else found


def _optional(answers: Answers, *keys: str) -> dict[str, Any]:
    found = {key: answers(key, key, needed=False) for key in keys}
    return {key: _listed(value) for key, value in found.items() if value is not None}


def _known(grid: Sequence[int | None]) -> list[int] | None:
    return [length for length in grid if length is not None] if None not in grid else None


def _numbers(value: Any) -> list[float]:
    if value is None:
        return []
    try:
        return [float(each) for each in _listed(value)]
    except (TypeError, ValueError) as error:
        raise ModelPackageError(f"{value!r} should be numbers: {error}") from error


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]


def _written(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
