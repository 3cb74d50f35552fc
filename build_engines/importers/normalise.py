"""From the graph that somebody exported to the one that a package wants: one input, and the described outputs."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import shape_inference, version_converter

from build_engines.importers.draft import Output, Remark
from build_engines.importers.graph_input import inputs_of, shape_input
from build_engines.importers.graph_output import keep_outputs, shape_output
from engines.errors import ModelPackageError

OPSET = 17
OLDEST_KEPT = 13
"""From this opset on, Softmax means what it says: along one axis."""

PREFIX = "net/"
"""Begins the name of every tensor of the source."""


class Normalised(NamedTuple):
    """A graph as the package wants it, and what was done to it."""

    model: onnx.ModelProto
    remarks: tuple[Remark, ...]


def normalise(
    source: onnx.ModelProto,
    shape: Sequence[int],
    outputs: Sequence[Output],
    probe: NDArray[np.float32],
    *,
    axes_swapped: bool = False,
) -> Normalised:
    """Bring a network to the shape that docs/model-package.md asks for.

    Its input is called ``image``, has the wanted shape and is FP32; every wanted output has its name, its shape and
    gives probabilities; all others are dropped, with what only they need. The opset is 17 where it can be converted.

    Parameters
    ----------
    source
        As exported. It is not changed.
    shape
        Of the input: ``[1, channel, …grid]``.
    outputs
        What is wanted.
    probe
        An input, to see whether an output gives logits or probabilities.
    axes_swapped
        Whether the network takes and gives images column by column.

    Raises
    ------
    ModelPackageError
        It has several inputs, control flow, operators of another domain, lacks an output, or an output cannot have the
        shape that the labels ask for.
    """
    model = onnx.ModelProto()
    model.CopyFrom(source)
    remarks: list[Remark] = []
    try:
        _one_input(model)
        remarks += _convert(model)
        _prefix(model.graph)
        shape_input(model.graph, shape, axes_swapped)
        remarks += keep_outputs(model.graph, outputs, PREFIX)
        remarks += _shape_outputs(model, outputs, probe, axes_swapped)
        _drop_unused(model.graph)
        model.ir_version = min(model.ir_version, 10)
        onnx.checker.check_model(model)
        inferred = shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, shape_inference.InferenceError) as error:
        raise ModelPackageError(f"the network is no valid ONNX graph: {error}; export it again") from error
    return Normalised(inferred, tuple(remarks))


def run(model: onnx.ModelProto, image: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Answer with ONNX Runtime, the reference: the outputs by name.

    Raises
    ------
    ModelPackageError
        ONNX Runtime refuses the graph or the input.
    """
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    try:
        session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        names = [output.name for output in session.get_outputs()]
        answers: Any = session.run(names, {session.get_inputs()[0].name: image})
    except Exception as error:  # ONNX Runtime's errors have no common class but this
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelPackageError(
            f"ONNX Runtime cannot run the network on an input of shape {list(image.shape)}: {reason}; "
            "give the patch or size that it was exported for, or export it again"
        ) from error
    return {name: np.asarray(answer) for name, answer in zip(names, answers, strict=True)}


def _one_input(model: onnx.ModelProto) -> None:
    inputs = inputs_of(model.graph)
    if len(inputs) != 1:
        raise ModelPackageError(
            f"the network has {len(inputs)} inputs ({', '.join(value.name for value in inputs)}); a package has one: "
            "export it with the image alone"
        )
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    if any(attribute.HasField("g") or attribute.graphs for node in model.graph.node for attribute in node.attribute):
        raise ModelPackageError("the network has control flow (If, Loop or Scan); export it traced, without branches")
    foreign = {node.domain for node in model.graph.node} - {"", "ai.onnx"}
    if foreign or model.functions:
        raise ModelPackageError(
            f"the network has operators of {', '.join(sorted(foreign)) or 'its own functions'}; export it with ONNX's "
            "own operators alone"
        )


def _convert(model: onnx.ModelProto) -> list[Remark]:
    opset = max(entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx"))
    if opset == OPSET:
        return []
    try:
        converted = version_converter.convert_version(model, OPSET)
        onnx.checker.check_model(converted)
    except Exception as error:  # the converter's errors are RuntimeError and its own
        if opset < OLDEST_KEPT:
            raise ModelPackageError(
                f"opset {opset} of the network cannot be converted to {OPSET} ({str(error).splitlines()[0]}); "
                "export it again with opset 17"
            ) from error
        return [Remark("to check", "opset", f"{opset} could not be converted to {OPSET} and is kept")]
    model.CopyFrom(converted)
    return [Remark("taken over", "opset", f"{opset}, converted to {OPSET}")]


def _prefix(graph: onnx.GraphProto) -> None:
    """Give all tensors new names, so that those of the package are free."""

    def renamed(name: str) -> str:
        return f"{PREFIX}{name}" if name else name

    for node in graph.node:
        node.input[:] = [renamed(name) for name in node.input]
        node.output[:] = [renamed(name) for name in node.output]
    for value in (*graph.input, *graph.output, *graph.initializer):
        value.name = renamed(value.name)
    del graph.value_info[:]


def _shape_outputs(
    model: onnx.ModelProto, outputs: Sequence[Output], probe: NDArray[np.float32], axes_swapped: bool
) -> list[Remark]:
    answers, remarks = run(model, probe), []
    found = [value.name for value in model.graph.output]
    del model.graph.output[:]
    for name, output in zip(found, outputs, strict=True):
        remarks += shape_output(model.graph, name, output, answers[name], probe.shape[2:], axes_swapped)
    return remarks


def _drop_unused(graph: onnx.GraphProto) -> None:
    """Drop nodes and weights that no output needs: heads of deep supervision, for example."""
    needed = {value.name for value in graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(graph.node):
        if needed & set(node.output):
            kept.append(node)
            needed.update(node.input)
    del graph.node[:]
    graph.node.extend(reversed(kept))
    for weight in [weight for weight in graph.initializer if weight.name not in needed]:
        graph.initializer.remove(weight)
