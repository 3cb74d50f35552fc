import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from typer.testing import CliRunner, Result

from build_engines.cli import app
from build_engines.importers.bare import read_bare
from build_engines.importers.choices import read_answers
from build_engines.importers.package_writer import Imported, write_package
from engines.errors import ModelPackageError, WetreadError
from engines.inference.analyse import analyse
from engines.packages.package import load_packages
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.types import Findings, Radiograph, Volume
from tests.small_models import answers
from tests.source_models import model, one_sided_volume, small_network

PATCH = (12, 16, 20)
CT = """
name = "lesions"
licence = "MIT"
spacing_mm = [2.0, 1.5, 1.5]
window = [-100.0, 300.0]
labels = ["liver", "liver_tumor"]
"""


def saved(path: Path, network: onnx.ModelProto) -> Path:
    onnx.save_model(network, path)
    return path


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(app, ["import", *(str(argument) for argument in arguments)])


def findings(package: Imported, image: Volume | Radiograph) -> Findings:
    with create_engine(package.package, RuntimeSettings()) as engine:
        return analyse(package.package, engine, image, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def ct(tmp_path: Path) -> Path:
    return saved(tmp_path / "network.onnx", small_network((1, 1, *PATCH), 3))


def test_a_file_with_answers_becomes_a_model_that_labels_as_its_network_does(ct: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(CT)
    result = run("onnx", ct, "--out", tmp_path / "models", "--answers", file, "--json")
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert (written["name"], written["tasks"], written["uid_root"]) == ("lesions", ["segmentation"], "100")
    assert written["verification"]["ok"]
    package = load_packages(tmp_path / "models")["lesions"]
    volume = one_sided_volume(PATCH, (2.0, 1.5, 1.5))
    logits = answers(ct, ((np.clip(volume.array, -100, 300) + 100) / 400).astype(np.float32)[None, None])["output"]
    with create_engine(package, RuntimeSettings()) as engine:
        found = analyse(package, engine, volume, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
    assert found.label_map is not None
    assert np.array_equal(found.label_map.array, logits[0].argmax(axis=0))


def test_without_answers_and_nobody_to_ask_the_error_lists_what_is_missing(ct: Path, tmp_path: Path) -> None:
    result = run("onnx", ct, "--out", tmp_path / "models", "--set", "spacing_mm=2,2,2")
    assert isinstance(result.exception, ModelPackageError)
    for key in ("window", "labels"):
        assert f"{key} (" in str(result.exception)
    for key in ("spacing_mm", "patch", "axes"):
        assert f"{key} (" not in str(result.exception)


def test_somebody_who_is_there_is_asked_with_defaults(ct: Path, tmp_path: Path) -> None:
    asked: list[tuple[str, str | None]] = []

    def ask(question: str, default: str | None) -> str:
        asked.append((question, default))
        return {"window": "-100, 300", "spacing_mm": "2,1.5,1.5", "labels": "liver, liver_tumor"}.get(
            question.rpartition("(")[2].rstrip(")"), default or ""
        )

    package = write_package(read_bare(ct, {}, ask), tmp_path / "models").package
    described = package.input.model_dump()
    assert (described["patch"], described["axes"], described["window"]) == (PATCH, "HPL", (-100.0, 300.0))
    assert [segment.label for segment in package.segments] == ["Liver", "Liver tumor"]
    defaults = {question.rpartition("(")[2].rstrip(")"): default for question, default in asked}
    assert defaults["patch"] == "12, 16, 20"
    assert defaults["task" if "task" in defaults else "outputs.output.task"] == "segmentation"
    assert defaults["window"] is None


def test_logits_and_probabilities_are_told_apart(tmp_path: Path) -> None:
    logits = small_network((1, 1, *PATCH), 3)
    probabilities = small_network((1, 1, *PATCH), 3)
    probabilities.graph.node.append(helper.make_node("Softmax", ["output"], ["soft"], axis=1))
    probabilities.graph.output[0].name = "soft"
    kinds = []
    for name, network in (("logits", logits), ("probabilities", probabilities)):
        said = {**read_answers(None, ["spacing_mm=2,2,2", "window=0,1", "labels=a,b"]), "name": name}
        package = write_package(read_bare(saved(tmp_path / f"{name}.onnx", network), said), tmp_path / "models")
        graph = onnx.load(package.package.networks[0]).graph
        kinds.append([node.op_type for node in graph.node].count("Softmax"))
        assert np.allclose(package.package.golden().outputs["probabilities"].sum(axis=1), 1, atol=2e-3)
    assert kinds == [1, 1]


def test_every_package_gets_a_number_of_its_own(ct: Path, tmp_path: Path) -> None:
    roots = []
    for name in ("one", "two"):
        said = [*CT.split("\n")[3:5], "labels=a,b", f"name={name}"]
        pairs = [pair.replace(" ", "").replace("[", "").replace("]", "") for pair in said]
        roots.append(write_package(read_bare(ct, read_answers(None, pairs)), tmp_path / "models").package)
    assert [package.identity.uid_root for package in roots] == ["100", "101"]
    assert len(load_packages(tmp_path / "models")) == 2


def test_a_package_that_is_there_is_left_alone_unless_forced(ct: Path, tmp_path: Path) -> None:
    file = tmp_path / "answers.toml"
    file.write_text(CT)
    arguments = ("onnx", ct, "--out", tmp_path / "models", "--answers", file)
    assert run(*arguments).exit_code == 0
    mine = tmp_path / "models/lesions/CARD.md"
    mine.write_text("mine")
    again = run(*arguments)
    assert isinstance(again.exception, ModelPackageError)
    assert "exists and is left alone" in str(again.exception)
    assert mine.read_text() == "mine"
    assert run(*arguments, "--force").exit_code == 0
    assert mine.read_text() != "mine"
    assert load_packages(tmp_path / "models")["lesions"].identity.uid_root == "100"
    assert [path.name for path in (tmp_path / "models").iterdir()] == ["lesions"]


def test_the_summary_names_what_was_assumed_and_what_is_to_be_checked(ct: Path, tmp_path: Path) -> None:
    result = run(
        "onnx", ct, "--out", tmp_path / "models", "--set", "spacing_mm=2,2,2", "--set", "window=-100,300",
        "--set", "labels=liver,frobnicated region",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    shown = " ".join(result.stdout.split())
    assert "none is known for Frobnicated region: placeholders of the scheme 99WETREAD" in shown
    assert "softmax is appended" in shown
    assert "Verified on openvino" in shown
    toml = (tmp_path / "models/network/model.toml").read_text()
    assert 'scheme = "99WETREAD", meaning = "Frobnicated region" }     # TODO' in toml
    assert "# assumed: probabilities: the network gives logits: softmax is appended" in toml


def detector(shape: Sequence[int], places: list[list[float]]) -> onnx.ModelProto:
    """Boxes that are always the same, with a logit each: the mean of the picture, and its opposite."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["input"], ["mean"]),
        helper.make_node("Reshape", ["mean", "flat"], ["one"]),
        helper.make_node("Mul", ["one", "signs"], ["logits"]),
        helper.make_node("Mul", ["one", "nothing"], ["zero"]),
        helper.make_node("Reshape", ["zero", "column"], ["zeros"]),
        helper.make_node("Add", ["zeros", "boxes"], ["places"]),
    ]
    weights = {
        "flat": np.array([1, 1], np.int64),
        "column": np.array([1, 1, 1], np.int64),
        "signs": np.array([[8.0, -8.0]], np.float32),
        "nothing": np.array([0.0], np.float32),
        "boxes": np.array([places], np.float32),
    }
    numbers = len(places[0])
    return model(
        nodes,
        weights,
        list(shape),
        [
            helper.make_tensor_value_info("places", TensorProto.FLOAT, [1, 2, numbers]),
            helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 2]),
        ],
    )


def test_a_detector_says_where_on_the_picture(tmp_path: Path) -> None:
    path = saved(tmp_path / "boxes.onnx", detector((1, 1, 32, 32), [[4, 8, 12, 20], [1, 1, 3, 3]]))
    said = read_answers(None, ["outputs.places.order=reversed", "outputs.logits.labels=nodule", "resize=stretch"])
    package = write_package(read_bare(path, said), tmp_path / "models")
    assert package.package.description.tasks == ("detection",)
    picture = np.linspace(0, 1, 64 * 64, dtype=np.float32).reshape(64, 64)
    found = findings(package, Radiograph(picture, (1.0, 1.0), "1.2.3")).detections
    assert found is not None
    (only,) = found.found
    assert (only.label, only.code.value) == ("Nodule", "27925004")
    # x 4..12 and y 8..20 of 32 pixels on a picture of 64, in rows and columns whose centres are whole numbers
    assert only.low == pytest.approx((15.5, 7.5))
    assert only.high == pytest.approx((39.5, 23.5))
    assert only.score == pytest.approx(1 / (1 + np.exp(-4)), abs=0.01)


def test_two_outputs_make_a_multi_task_model(tmp_path: Path) -> None:
    network = small_network((1, 1, 16, 16), 2)
    network.graph.node.extend(
        [
            helper.make_node("GlobalAveragePool", ["output"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["classes"]),
        ]
    )
    network.graph.output.append(helper.make_tensor_value_info("classes", TensorProto.FLOAT, [1, 2]))
    path = saved(tmp_path / "both.onnx", network)
    said = read_answers(
        None,
        ["outputs.output.labels=lung", "outputs.classes.labels=normal,pneumothorax", "outputs.classes.exclusive=no"],
    )
    package = write_package(read_bare(path, said), tmp_path / "models")
    assert package.package.description.tasks == ("segmentation", "classification")
    section = package.package.description.classification
    assert section is not None
    assert not section.exclusive
    found = findings(package, Radiograph(np.random.default_rng(2).random((32, 32), np.float32), None, "1.2.3"))
    assert found.label_map is not None
    assert found.classification is not None


def test_colour_networks_with_channels_last_and_half_precision_are_brought_to_shape(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("Cast", ["input"], ["full"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["full"], ["means"], axes=[1, 2], keepdims=0),
        helper.make_node("Gemm", ["means", "weights"], ["logits"]),
        helper.make_node("Cast", ["logits"], ["output"], to=TensorProto.FLOAT16),
    ]
    network = model(
        nodes,
        {"weights": np.array([[3.0], [-1.0], [1.0]], np.float32)},
        ["n", 24, 16, 3],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT16, ["n", 1])],
        kind=TensorProto.FLOAT16,
    )
    path = saved(tmp_path / "keras.onnx", network)
    said = read_answers(
        None, ["labels=pneumothorax", "exclusive=no", "mean=0.5", "deviation=0.25", "percentiles=0,100"]
    )
    package = write_package(read_bare(path, said), tmp_path / "models")
    assert package.package.input_shape == (1, 3, 24, 16)
    picture = np.random.default_rng(2).random((24, 16), np.float32)
    found = findings(package, Radiograph(picture, None, "1.2.3")).classification
    assert found is not None
    scaled = (picture - picture.min()) / (picture.max() - picture.min())
    logit = 3 * (scaled.mean() - 0.5) / 0.25
    assert found.classes[0].probability == pytest.approx(1 / (1 + np.exp(-logit)), abs=2e-3)


def two_inputs() -> onnx.ModelProto:
    network = small_network((1, 1, 8, 8), 2)
    network.graph.input.append(helper.make_tensor_value_info("other", TensorProto.FLOAT, [1]))
    network.graph.node.append(helper.make_node("Identity", ["other"], ["same"]))
    network.graph.output.append(helper.make_tensor_value_info("same", TensorProto.FLOAT, [1]))
    return network


def one_not_a_number() -> onnx.ModelProto:
    network = small_network((1, 1, 8, 8), 2)
    network.graph.node.append(helper.make_node("Log", ["output"], ["nan"]))
    network.graph.output[0].name = "nan"
    return network


@pytest.mark.parametrize(
    ("network", "pairs", "expected"),
    [
        (two_inputs(), ["labels=a"], r"has 2 inputs \(input, other\)"),
        (one_not_a_number(), ["labels=a"], "holds NaN or infinity"),
        (small_network((1, 1, 8, 8), 3), ["labels=a"], r"has shape \[1, 3, 8, 8\], but its segments"),
        (small_network((1, 1, 8, 8), 3), ["labels=a,b", "size=9,8"], r"the network takes \[1, 1, 8, 8\]"),
        (small_network((1, 1, 8, 8), 3, extra_head=True), ["labels=a,b"], "one output of each task.*outputs.deep.task"),
        (small_network((1, 1, 8, 8), 3), ["labels=a,b", "outputs.output.task=guess"], "task is 'guess'; choose one of"),
        (small_network((1, 1, 8, 8), 3), ["labels=a,b", "windw=1,2"], "windw: not a key that is asked for"),
        (small_network((1, 1, 8, 8), 3), ["labels"], "should be KEY=VALUE"),
    ],
)
def test_a_network_that_is_no_model_yet_is_refused_with_a_reason(
    tmp_path: Path, network: onnx.ModelProto, pairs: list[str], expected: str
) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(network.SerializeToString())
    with pytest.raises(WetreadError, match=expected):
        write_package(read_bare(path, read_answers(None, pairs)), tmp_path / "models")
    assert not list(tmp_path.glob("models/*"))


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "network.onnx"
    path.write_bytes(b"not a network")
    with pytest.raises(ModelPackageError, match="cannot be read as ONNX"):
        read_bare(path, {})


def test_an_image_of_my_own_makes_the_golden_input(ct: Path, tmp_path: Path) -> None:
    import SimpleITK

    volume = one_sided_volume((24, 32, 40), (2.0, 1.5, 1.5))
    image = SimpleITK.GetImageFromArray(volume.array)
    image.SetSpacing((1.5, 1.5, 2.0))
    SimpleITK.WriteImage(image, tmp_path / "ball.nii.gz")
    file = tmp_path / "answers.toml"
    file.write_text(CT)
    draft = read_bare(ct, read_answers(file))
    package = write_package(draft, tmp_path / "models", golden=tmp_path / "ball.nii.gz").package
    middle = volume.array[6:18, 8:24, 10:30].astype(np.float32)
    assert np.abs(package.golden().input[0, 0] - (np.clip(middle, -100, 300) + 100) / 400).max() < 1e-3
