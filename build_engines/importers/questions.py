"""What a graph does not say is asked: of options and a file first, then of somebody, then of common practice."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from build_engines.importers.choices import read_answer
from build_engines.importers.graph_input import dimensions, inputs_of
from build_engines.importers.onnx_file import load_onnx
from engines.errors import ModelPackageError

Ask = Callable[[str, str | None], str]
"""Puts a question with a default (None: there is none) to somebody, and gives the answer."""


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


def numbers(value: Any) -> list[float]:
    """Read an answer as numbers; none of them where there is no answer.

    Raises
    ------
    ModelPackageError
        It holds something else.
    """
    if value is None:
        return []
    try:
        return [float(each) for each in listed(value)]
    except (TypeError, ValueError) as error:
        raise ModelPackageError(f"{value!r} should be numbers: {error}") from error


def listed(value: Any) -> list[Any]:
    """Give an answer as a list, be it one thing or several."""
    return list(value) if isinstance(value, list | tuple) else [value]


def _looked_up(given: Mapping[str, Any], key: str) -> Any:
    """Look an answer up: ``outputs.NAME.key`` by its parts (a name may have dots)."""
    if not key.startswith("outputs."):
        return given.get(key)
    name, _, last = key.removeprefix("outputs.").rpartition(".")
    found = given.get("outputs", {}).get(name, {}).get(last)
    return given.get(last) if found is None and last != "labels" else found


def _written(default: Any) -> str:
    if isinstance(default, bool):
        return "yes" if default else "no"
    return ", ".join(map(str, default)) if isinstance(default, list | tuple) else str(default)
