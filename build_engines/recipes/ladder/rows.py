"""What the ladder is made of: systems of the literature, built here, trained on the same data and judged alike.

A row is either a network, which becomes a package and is judged through its compiled engine as a node would run it, or
a method that is no network. What was measured is kept in ``docs/ladder/ROW.json``; the tables are made of these files.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from time import perf_counter

import numpy as np
import onnx
from onnx import shape_inference

from build_engines.recipes.training import Recipe
from evaluation.estimate import Estimate

RESULTS = Path(__file__).resolve().parents[3] / "docs" / "ladder"


@dataclass(frozen=True)
class Result:
    """What was measured of one row.

    Attributes
    ----------
    trained_on, judged_on
        Data, split and number of images, in words.
    metrics
        By the metric's name, as in ``wetread evaluate --json``.
    parameters, operations
        Weights, and multiply-adds of one inference; None where it is no network.
    latency_ms
        Median time of one inference of the compiled engine (OpenVINO, FP32, two threads); of a method that has no
        engine, of its own code, and ``engine`` says which.
    steps, seconds, seed
        Of the training.
    """

    trained_on: str
    judged_on: str
    metrics: Mapping[str, Estimate]
    parameters: int | None = None
    operations: int | None = None
    latency_ms: float | None = None
    engine: str = "OpenVINO FP32"
    steps: int | None = None
    seconds: float | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Row:
    """One system of the ladder.

    Attributes
    ----------
    table
        It belongs to.
    words
        What it is, for the table.
    load
        Reads the data and gives the recipe; None for a method that is no network.
    run
        For what is no recipe: reads the data, trains with this seed and measures.
    trained_on, judged_on
        See `Result`; of a recipe.
    published
        The figure of the literature beside it, with its source; empty where there is none.
    """

    table: str
    words: str
    load: Callable[[Path], Recipe] | None = None
    run: Callable[[Path, int], Result] | None = None
    trained_on: str = ""
    judged_on: str = ""
    published: str = ""
    differs: str = ""


def save(name: str, result: Result) -> None:
    """Keep what was measured of a row; NaN is written as null."""
    RESULTS.mkdir(parents=True, exist_ok=True)
    text = json.dumps(asdict(result), indent=1, ensure_ascii=False, allow_nan=True).replace("NaN", "null")
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def saved(name: str) -> Result | None:
    """What was measured of a row, or None."""
    file = RESULTS / f"{name}.json"
    if not file.exists():
        return None
    fields = json.loads(file.read_text(encoding="utf-8"))
    number = {
        metric: Estimate(*(np.nan if value is None else value for value in (each["value"], each["low"], each["high"])))
        for metric, each in fields.pop("metrics").items()
    }
    return Result(metrics=number, **fields)


def size_of(file: Path) -> tuple[int, int]:
    """Count the weights of an ONNX network with static shapes, and the multiply-adds of one inference."""
    model = shape_inference.infer_shapes(onnx.load(file))
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.value_info, *model.graph.input, *model.graph.output)
    }
    weights = {tensor.name: list(tensor.dims) for tensor in model.graph.initializer}
    # A weight that is stored as FP16 has a cast behind it.
    cast = {node.output[0]: node.input[0] for node in model.graph.node if node.op_type == "Cast"}
    operations = 0
    for node in model.graph.node:
        if node.op_type in ("Conv", "ConvTranspose", "Gemm"):
            kernel = weights.get(cast.get(node.input[1], node.input[1]), [])
            places = shapes[node.input[0] if node.op_type == "ConvTranspose" else node.output[0]]
            spread = int(np.prod(places[2:])) if len(places) > 2 else 1
            operations += int(np.prod(kernel)) * spread * places[0]
    floats = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16)
    parameters = sum(int(np.prod(t.dims)) for t in model.graph.initializer if t.data_type in floats)
    return parameters, operations


def time_of(infer: Callable[[], object], rounds: int = 9) -> float:
    """Give the median time of a call in milliseconds, after one to warm up."""
    infer()
    seconds = []
    for _ in range(rounds):
        begun = perf_counter()
        infer()
        seconds.append(perf_counter() - begun)
    return 1000 * median(seconds)
