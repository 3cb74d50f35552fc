"""Small models in the formats that other people's tools write, for the importers' tests."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from engines.types import Volume

Array = np.ndarray


def small_network(
    shape: tuple[int, ...], classes: int, *, opset: int = 17, extra_head: bool = False, batch: str | int = 1
) -> onnx.ModelProto:
    """Two layers of random, one-sided convolutions: an answer that depends on where each axis points to. Logits."""
    random = np.random.default_rng(3)
    spatial = len(shape) - 2

    def weight(out: int, into: int, size: int) -> Array:
        values = random.normal(size=(out, into, *[size] * spatial)) * np.sqrt(2 / (into * size**spatial))
        return values.astype(np.float16).astype(np.float32)

    weights = {
        "first": weight(6, shape[1], 3),
        "second": weight(8, 6, 3),
        "head": 4 * weight(classes, 8, 1),
        "bias": random.normal(size=classes).astype(np.float16).astype(np.float32),
    }
    nodes = [
        helper.make_node("Conv", ["input", "first"], ["a"], pads=[1] * (2 * spatial)),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Conv", ["b", "second"], ["c"], pads=[1] * (2 * spatial)),
        helper.make_node("Relu", ["c"], ["d"]),
        helper.make_node("Conv", ["d", "head", "bias"], ["output"]),
    ]
    outputs = [helper.make_tensor_value_info("output", TensorProto.FLOAT, [batch, classes, *shape[2:]])]
    if extra_head:
        nodes.append(
            helper.make_node("AveragePool", ["output"], ["deep"], kernel_shape=[2] * spatial, strides=[2] * spatial)
        )
        halves = [length // 2 for length in shape[2:]]
        outputs.append(helper.make_tensor_value_info("deep", TensorProto.FLOAT, [batch, classes, *halves]))
    return model(nodes, weights, [batch, *shape[1:]], outputs, opset=opset)


def model(
    nodes: list[onnx.NodeProto],
    weights: Mapping[str, Array],
    shape: list[Any],
    outputs: list[onnx.ValueInfoProto],
    *,
    opset: int = 17,
    kind: int = TensorProto.FLOAT,
) -> onnx.ModelProto:
    """A model with the input ``input``."""
    graph = helper.make_graph(
        nodes,
        "source",
        [helper.make_tensor_value_info("input", kind, shape)],
        outputs,
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)
    onnx.checker.check_model(made, full_check=True)
    return made


def bundle(
    folder: Path,
    network: onnx.ModelProto | None,
    *,
    preprocessing: list[dict[str, Any]],
    postprocessing: list[dict[str, Any]],
    channels: Mapping[str, str],
    shape: tuple[int, ...],
    inferer: dict[str, Any] | None = None,
    metadata: Mapping[str, Any] | None = None,
    config: Mapping[str, Any] | None = None,
) -> Path:
    """A MONAI bundle with configurations as the model zoo has them."""
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    described = {
        "version": "0.3.1",
        "name": folder.name,
        "monai_version": "1.4.0",
        "description": "A small model for tests",
        "intended_use": "Trying importers",
        "data_source": "Random numbers",
        "eval_metrics": {"mean_dice": 0.5},
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "hounsfield",
                    "modality": "CT" if len(shape) == 3 else "CR",
                    "num_channels": 1,
                    "spatial_shape": list(shape),
                    "channel_def": {"0": "image"},
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(channels),
                    "spatial_shape": list(shape),
                    "channel_def": dict(channels),
                }
            },
        },
        **(metadata or {}),
    }
    inference = {
        "imports": ["$import glob", "$import os"],
        "bundle_root": ".",
        "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
        "network_def": {"_target_": "UNet", "spatial_dims": len(shape)},
        "preprocessing": {"_target_": "Compose", "transforms": preprocessing},
        "inferer": inferer
        or {"_target_": "SlidingWindowInferer", "roi_size": list(shape), "sw_batch_size": 4, "overlap": 0.5},
        "postprocessing": {"_target_": "Compose", "transforms": postprocessing},
        "initialize": ["$monai.utils.set_determinism(seed=123)"],
        **(config or {}),
    }
    (folder / "configs/metadata.json").write_text(json.dumps(described), encoding="utf-8")
    (folder / "configs/inference.json").write_text(json.dumps(inference), encoding="utf-8")
    (folder / "LICENSE").write_text("Apache License\nVersion 2.0, January 2004\n", encoding="utf-8")
    if network is not None:
        onnx.save_model(network, folder / "models/model.onnx")
    return folder


def one_sided_volume(shape: tuple[int, int, int], spacing: tuple[float, float, float]) -> Volume:
    """A CT on an LPS grid, noise with a bright ball low, in front and on the patient's left."""
    random = np.random.default_rng(5)
    array = random.normal(0, 60, shape)
    z, y, x = np.meshgrid(*(np.linspace(-1, 1, length) for length in shape), indexing="ij")
    array += 400 * (((z + 0.4) ** 2 + (y + 0.4) ** 2 + (x - 0.5) ** 2) < 0.15)
    affine = np.eye(4)
    # columns of the affine: slice to z, row to y, column to x
    affine[:3, :3] = np.array([[0, 0, spacing[2]], [0, spacing[1], 0], [spacing[0], 0, 0]])
    return Volume(np.rint(array).astype(np.int16), affine, tuple(str(number) for number in range(shape[0])))


def damaged(document: Any) -> Iterator[tuple[str, Any]]:
    """The same document with one thing wrong: each value left out, or of another kind; and where that is."""
    for path in list(_paths(document)):
        for wrong in (None, "x", [], {}, -1, [0, "x"], {"_target_": 3}, "$x", "@x"):
            copy = json.loads(json.dumps(document))
            holder = copy
            for part in path[:-1]:
                holder = holder[part]
            holder[path[-1]] = wrong
            yield f"{path} = {wrong!r}", copy


def _paths(document: Any, before: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = document.items() if isinstance(document, dict) else enumerate(document)
    for key, value in entries:
        yield (*before, key)
        if isinstance(value, dict | list):
            yield from _paths(value, (*before, key))
