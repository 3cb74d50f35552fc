"""What the outputs of a bare ONNX file are: guessed by their axes, asked where that does not tell."""

from collections.abc import Sequence
from typing import Literal

from build_engines.importers.draft import Classification, Detection, Head, Segmentation
from build_engines.importers.questions import Answers, Graph, listed
from engines.errors import ModelPackageError

Task = Literal["segmentation", "classification", "places", "scores", "none"]
TASKS: tuple[Task, ...] = ("segmentation", "classification", "places", "scores", "none")


def read_heads(graph: Graph, answers: Answers, dimensions: int) -> tuple[Head, ...]:
    """Say what the outputs are, as far as it is told; what is missing is noted in the answers.

    Parameters
    ----------
    dimensions
        3 for volumes, 2 for X-rays.

    Raises
    ------
    ModelPackageError
        An answer is none that is known, or the tasks do not make a model.
    """
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
    found = listed(answers(_key(graph, name, "labels"), told) or [])
    return tuple(str(label) for label in found)


def _key(graph: Graph, name: str, key: str) -> str:
    return f"outputs.{name}.{key}" if len(graph.outputs) > 1 else key
