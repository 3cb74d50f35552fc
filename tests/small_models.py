"""Throw-away model packages: networks of a few operators, written with ONNX's helpers, real in every other way."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

from build_engines.recipes.packaging.activation import add_activation

OPSET = 17
SHARPNESS = 20.0

IDENTITY = """\
[identity]
name = "{name}"
version = "0.1.0"
uid_root = "{uid_root}"
licence = "Apache-2.0"
intended_use = "Research use only: a test"
"""

SEGMENT = """\
[[segmentation.segments]]
label = "{label}"
category = {{ value = "123037004", scheme = "SCT", meaning = "Anatomical Structure" }}
type = {{ value = "39607008", scheme = "SCT", meaning = "Lung" }}
colour = [230, 120, 90]
measurements = {measurements}
"""

CLASS = """\
[[classification.classes]]
label = "{label}"
code = {{ value = "{value}", scheme = "SCT", meaning = "{label}" }}
"""

VERIFY = """\
[verify]
max_probability_error = 0.02
min_dice = 0.995
"""


CHEST = 'body_part = ["CHEST"]\nminimum_slices = 4'
EVERY_CT = "minimum_slices = 2\nprimary_only = false\nmax_gap_mm = 100.0\naccepts_partial = true"


def volume_package(
    models: Path,
    name: str = "tiny-ct",
    patch: Sequence[int] = (8, 12, 16),
    uid_root: str = "91",
    selection: str = CHEST,
) -> Path:
    """A pointwise network on a 2 mm grid: background near -1000 HU, "Dark" near -500 HU, "Bright" near 0 HU.

    Parameters
    ----------
    selection
        Keys of ``[input]`` that say which CTs it is meant for.
    """
    shape = [1, 1, *patch]
    description = (
        IDENTITY.format(name=name, uid_root=uid_root)
        + f"""
[input]
tensor = "image"
modality = ["CT"]
{selection}
spacing_mm = [2.0, 2.0, 2.0]
window = [-1000.0, 0.0]
patch = {list(patch)}
overlap = 0.25

[segmentation]
tensor = "probabilities"
keep_largest = true

"""
        + "".join(
            SEGMENT.format(label=label, measurements='["volume", "mean_intensity"]') for label in ("Dark", "Bright")
        )
        + VERIFY
    )
    return write(models / name, description, nearest([0.0, 0.5, 1.0], shape), random_image(shape))


def _field(name: str, uid_root: str, keys: str = "") -> str:
    """Describe a model with one segment, "Field", on an X-ray of 32 × 48 pixels; ``keys`` are further ones of it."""
    return (
        IDENTITY.format(name=name, uid_root=uid_root)
        + """
[input]
tensor = "image"
modality = ["CR", "DX"]
size = [32, 48]
percentiles = [0.0, 100.0]

[segmentation]
tensor = "probabilities"
"""
        + f"{keys}\n"
        + SEGMENT.format(label="Field", measurements="[]")
        + VERIFY
    )


def xray_package(models: Path, name: str = "tiny-cxr", uid_root: str = "92") -> Path:
    """A pointwise network on 32 × 48 pixels: "Field" is what is brighter than half of the window."""
    shape = [1, 1, 32, 48]
    description = _field(name, uid_root, "keep_largest = true\n")
    return write(models / name, description, nearest([0.0, 1.0], shape), random_image(shape))


def classifier_package(
    models: Path,
    name: str = "tiny-class",
    crop_to: str | None = "tiny-cxr",
    uid_root: str = "93",
    activation: bool = False,
    exclusive: bool = True,
) -> Path:
    """Tells an image that is bright on average from one that is dark, in the box of another model's segments.

    Parameters
    ----------
    exclusive
        Whether its classes sum to 1; if not, each has a sigmoid of its own.
    activation
        Whether it says where: on 8 × 8 cells, 8 times how bright a cell is for "Bright", and less than 0 for "Dark".
    """
    shape = [1, 1, 16, 16]
    crop = f'crop_to = "{crop_to}"\ncrop_margin = 0.0\n' if crop_to else ""
    description = (
        IDENTITY.format(name=name, uid_root=uid_root)
        + f"""
[input]
tensor = "image"
modality = ["CR", "DX"]
size = [16, 16]
percentiles = [0.0, 100.0]
{crop}
[classification]
tensor = "probabilities"
exclusive = {str(exclusive).lower()}
{'activation = "activation"' if activation else ""}

"""
        + "".join(CLASS.format(label=label, value=value) for label, value in (("Dark", "1"), ("Bright", "2")))
        + "[verify]\nmax_probability_error = 0.02\n"
        + ("max_activation_error = 0.02\n" if activation else "")
    )
    nodes = [
        helper.make_node("AveragePool", ["image"], ["cells"], kernel_shape=[2, 2], strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["cells"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1)
        if exclusive
        else helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    weights = {"weights": np.array([[-8.0], [8.0]], np.float32), "bias": np.array([4.0, -4.0], np.float32)}
    model = network(nodes, weights, shape, [1, 2])
    if activation:
        model = add_activation(model, "activation")
    return write(models / name, description, model, random_image(shape))


def activating_package(models: Path, name: str = "tiny-where", uid_root: str = "95") -> Path:
    """A classifier of the whole image that says where it looked."""
    return classifier_package(models, name, crop_to=None, uid_root=uid_root, activation=True)


def convolutional_package(models: Path, name: str = "tiny-unet", uid_root: str = "94") -> Path:
    """A U-Net of one level with random weights: every kind of operator that the shipped networks are made of."""
    random = np.random.default_rng(4)
    shape, width = [1, 1, 8, 16, 16], 4

    def kernel(out: int, into: int) -> np.ndarray:
        return (random.normal(size=(out, into, 3, 3, 3)) * np.sqrt(2 / (27 * into))).astype(np.float32)

    def convolution(source: str, target: str, weight: str) -> list[onnx.NodeProto]:
        return [
            helper.make_node("Conv", [source, weight], [f"{target}.conv"], pads=[1] * 6),
            helper.make_node("InstanceNormalization", [f"{target}.conv", "scale", "shift"], [f"{target}.norm"]),
            helper.make_node("Relu", [f"{target}.norm"], [target]),
        ]

    nodes = [
        *convolution("image", "high", "first"),
        helper.make_node("MaxPool", ["high"], ["pooled"], kernel_shape=[2] * 3, strides=[2] * 3),
        *convolution("pooled", "low", "second"),
        helper.make_node(
            "Resize",
            ["low", "", "scales"],
            ["up"],
            mode="linear",
            coordinate_transformation_mode="half_pixel",
        ),
        helper.make_node("Concat", ["high", "up"], ["both"], axis=1),
        *convolution("both", "last", "third"),
        helper.make_node("Conv", ["last", "head"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    weights = {
        "first": kernel(width, 1),
        "second": kernel(width, width),
        "third": kernel(width, 2 * width),
        "head": random.normal(size=(3, width, 1, 1, 1)).astype(np.float32),
        "scale": np.ones(width, np.float32),
        "shift": np.zeros(width, np.float32),
        "scales": np.array([1, 1, 2, 2, 2], np.float32),
    }
    description = (
        IDENTITY.format(name=name, uid_root=uid_root)
        + f"""
[input]
tensor = "image"
modality = ["CT"]
spacing_mm = [2.0, 2.0, 2.0]
window = [-1000.0, 0.0]
patch = {shape[2:]}

[segmentation]
tensor = "probabilities"

"""
        + "".join(SEGMENT.format(label=label, measurements="[]") for label in ("One", "Two"))
        + VERIFY
    )
    return write(models / name, description, network(nodes, weights, shape, [1, 3, *shape[2:]]), random_image(shape))


def overlapping_package(models: Path, name: str = "tiny-overlap", uid_root: str = "97") -> Path:
    """Segments of a CT on a 2 mm grid, a sigmoid each: "Whole" above -750 HU, and within it "Core" above -250 HU."""
    shape = [1, 1, 8, 12, 16]
    description = (
        IDENTITY.format(name=name, uid_root=uid_root)
        + f"""
[input]
tensor = "image"
modality = ["CT"]
{CHEST}
spacing_mm = [2.0, 2.0, 2.0]
window = [-1000.0, 0.0]
patch = {shape[2:]}

[segmentation]
tensor = "probabilities"
overlapping = true

"""
        + "".join(SEGMENT.format(label=label, measurements='["volume"]') for label in ("Whole", "Core"))
        + VERIFY
    )
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["probabilities"]),
    ]
    weights = {
        "weights": np.full((2, 1, 1, 1, 1), 2 * SHARPNESS, np.float32),
        "bias": -2 * SHARPNESS * np.array([0.25, 0.75], np.float32),
    }
    return write(models / name, description, network(nodes, weights, shape, [1, 2, *shape[2:]]), random_image(shape))


BALL = 5
"""Voxels or pixels across what a detector finds."""


def detector_package(
    models: Path,
    name: str = "tiny-nodules",
    grid: Sequence[int] = (12, 16, 20),
    uid_root: str = "98",
    format: str = "corners",
    order: str = "axes",
    crop_to: str | None = None,
) -> Path:
    """Finds what is bright and `BALL` across, as "Nodule": a box, or a point, on every voxel; and never a "Mass".

    A box's score is that of its mean value. Three lengths are a CT on a 2 mm grid between -1000 HU and 0 HU, two are an
    X-ray.

    Parameters
    ----------
    format, order
        How the network writes places (`engines.packages.description.DetectionSection`).
    """
    dimensions, shape = len(grid), [1, 1, *grid]
    selection = (
        f"""modality = ["CT"]
{CHEST}
spacing_mm = [2.0, 2.0, 2.0]
window = [-1000.0, 0.0]
patch = {list(grid)}
overlap = 0.5"""
        if dimensions == 3
        else f"""modality = ["CR", "DX"]
size = {list(grid)}
percentiles = [0.0, 100.0]"""
    )
    crop = f'crop_to = "{crop_to}"\n' if crop_to else ""
    description = (
        IDENTITY.format(name=name, uid_root=uid_root)
        + f"""
[input]
tensor = "image"
{selection}
{crop}
[detection]
places = "places"
scores = "scores"
format = "{format}"
order = "{order}"
most_overlap = 0.1
least_distance = {BALL}.0

"""
        + "".join(
            CLASS.replace("classification", "detection").format(label=label, value=value)
            for label, value in (("Nodule", "27925004"), ("Mass", "4147007"))
        )
        + "[verify]\nmax_probability_error = 0.02\nmax_place_error = 0.5\n"
    )
    index = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij"), axis=-1).reshape(-1, dimensions)
    low = index - BALL // 2
    written = {
        "corners": [low, low + BALL],
        "centre_size": [index + 0.5, np.full_like(low, BALL)],
        "points": [index],
    }[format]
    if order == "reversed":
        written = [each[:, ::-1] for each in written]
    weights = {
        "anchors": np.concatenate(written, axis=1)[None].astype(np.float32),
        "slope": np.array([40.0, 0.0], np.float32),
        "bias": np.array([-12.0 if dimensions == 3 else -24.0, -9.0], np.float32),
        "nothing": np.zeros(1, np.float32),
        "scales": np.array([0, -1, 1], np.int64),
    }
    nodes = [
        helper.make_node(
            "AveragePool",
            ["image"],
            ["mean"],
            kernel_shape=[BALL] * dimensions,
            pads=[BALL // 2] * (2 * dimensions),
            count_include_pad=1,
        ),
        helper.make_node("Reshape", ["mean", "scales"], ["listed"]),
        helper.make_node("Mul", ["listed", "slope"], ["sloped"]),
        helper.make_node("Add", ["sloped", "bias"], ["logits"]),
        helper.make_node("Sigmoid", ["logits"], ["scores"]),
        helper.make_node("Mul", ["listed", "nothing"], ["zeros"]),
        helper.make_node("Add", ["anchors", "zeros"], ["places"]),
    ]
    outputs = {"places": weights["anchors"].shape, "scores": (1, len(index), 2)}
    return write(models / name, description, network(nodes, weights, shape, outputs), random_image(shape))


def nearest(centres: Sequence[float], shape: Sequence[int]) -> onnx.ModelProto:
    """The class whose centre is nearest to a voxel's value: ``-(x - c)²`` is linear in ``x`` but for a common term."""
    spatial = len(shape) - 2
    centre = np.array(centres, np.float32)
    weights = {
        "weights": (2 * SHARPNESS * centre).reshape(-1, 1, *[1] * spatial),
        "bias": -SHARPNESS * centre**2,
    }
    nodes = [
        helper.make_node("Conv", ["image", "weights", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    return network(nodes, weights, shape, [1, len(centres), *shape[2:]])


def network(
    nodes: Sequence[onnx.NodeProto],
    weights: dict[str, np.ndarray],
    shape: Sequence[int],
    output: Sequence[int] | Mapping[str, Sequence[int]],
) -> onnx.ModelProto:
    """A model with weights kept as FP16 and cast to FP32, as the package contract says.

    Parameters
    ----------
    output
        Shape of "probabilities", or of each output by its name.
    """
    outputs = output if isinstance(output, Mapping) else {"probabilities": output}
    casts = [
        helper.make_node("Cast", [f"{name}.fp16"], [name], to=TensorProto.FLOAT) for name in weights if name != "scales"
    ]
    graph = helper.make_graph(
        [*casts, *nodes],
        "small",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, dims) for name, dims in outputs.items()],
        [
            numpy_helper.from_array(array, name)
            if name == "scales"
            else numpy_helper.from_array(array.astype(np.float16), f"{name}.fp16")
            for name, array in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    return model


def random_image(shape: Sequence[int]) -> np.ndarray:
    """Values in 0..1 with a fixed seed."""
    return np.random.default_rng(7).random(shape, dtype=np.float32)


def reference(model: Path | bytes, image: np.ndarray) -> np.ndarray:
    """What ONNX Runtime answers: the reference for every engine."""
    return answers(model, image)["probabilities"]


def answers(model: Path | bytes, image: np.ndarray) -> dict[str, np.ndarray]:
    """All outputs by name."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    return dict(zip(names, session.run(names, {session.get_inputs()[0].name: image}), strict=True))


def write(folder: Path, description: str, model: onnx.ModelProto, image: np.ndarray) -> Path:
    """Write a package with its golden arrays; give its folder."""
    folder.mkdir(parents=True)
    onnx.save_model(model, folder / "model.onnx")
    np.savez_compressed(folder / "golden.npz", image=image, **answers(folder / "model.onnx", image))
    (folder / "model.toml").write_text(description, encoding="utf-8")
    (folder / "CARD.md").write_text("# A test\n", encoding="utf-8")
    return folder


def hanging_package(models: Path, name: str = "tiny-hang", uid_root: str = "97") -> Path:
    """The network of `xray_package`, which counts to 10¹² first where most of an image is bright: it hangs."""
    shape = [1, 1, 32, 48]
    counted = helper.make_graph(
        [
            helper.make_node("Identity", ["go"], ["go_on"]),
            helper.make_node("Add", ["sum", "one"], ["sum_on"]),
        ],
        "count",
        [
            helper.make_tensor_value_info("step", TensorProto.INT64, []),
            helper.make_tensor_value_info("go", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum", TensorProto.FLOAT, [1]),
        ],
        [
            helper.make_tensor_value_info("go_on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("sum_on", TensorProto.FLOAT, [1]),
        ],
        [numpy_helper.from_array(np.ones(1, np.float32), "one")],
    )
    model = nearest([0.0, 1.0], shape)
    final = model.graph.node.pop()
    model.graph.node.extend(
        [
            helper.make_node("ReduceMean", ["image"], ["mean"], keepdims=0),
            helper.make_node("Greater", ["mean", "much"], ["bright"]),
            helper.make_node("Cast", ["bright"], ["once"], to=TensorProto.INT64),
            helper.make_node("Mul", ["once", "very_often"], ["times"]),
            helper.make_node("Loop", ["times", "", "nothing"], ["counted"], body=counted),
            helper.make_node("Mul", ["counted", "nothing"], ["zero"]),
            helper.make_node("Add", ["logits", "zero"], ["late"]),
            helper.make_node("Softmax", ["late"], list(final.output), axis=1),
        ]
    )
    model.graph.initializer.extend(
        [
            numpy_helper.from_array(np.array(0.6, np.float32), "much"),
            numpy_helper.from_array(np.array(10**12, np.int64), "very_often"),
            numpy_helper.from_array(np.zeros(1, np.float32), "nothing"),
        ]
    )
    description = _field(name, uid_root)
    return write(models / name, description, model, random_image(shape))
