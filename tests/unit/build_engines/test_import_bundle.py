import json
import zipfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from typer.testing import CliRunner

from build_engines.cli import app
from build_engines.importers.choices import choose
from build_engines.importers.monai import read_bundle
from build_engines.importers.package_writer import Imported, write_package
from engines.errors import ModelPackageError
from engines.inference.analyse import analyse
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.types import Findings, Radiograph, Volume
from tests.small_models import answers
from tests.source_models import bundle, damaged, one_sided_volume, small_network

ROI = (20, 16, 12)
"""Along x, y, z, as MONAI counts."""

LOAD: list[dict[str, Any]] = [
    {"_target_": "LoadImaged", "keys": "@image_key"},
    {"_target_": "EnsureChannelFirstd", "keys": "@image_key"},
]
SPLEEN: list[dict[str, Any]] = [
    *LOAD,
    {"_target_": "Orientationd", "keys": "@image_key", "axcodes": "RAS"},
    {"_target_": "Spacingd", "keys": "@image_key", "pixdim": "@pixdim", "mode": "bilinear"},
    {
        "_target_": "monai.transforms.ScaleIntensityRanged",
        "keys": ["image"],
        "a_min": -57,
        "a_max": 164,
        "b_min": 0,
        "b_max": 1,
        "clip": True,
    },
    {"_target_": "EnsureTyped", "keys": "@image_key"},
]
SOFTMAX: list[dict[str, Any]] = [
    {"_target_": "Activationsd", "keys": "pred", "softmax": True},
    {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
    {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
    {"_target_": "SaveImaged", "keys": "pred", "output_dir": "$@bundle_root + '/eval'"},
]
CONFIG = {
    "image_key": "image",
    "display": {"highres": True},
    "pixdim": "$[1.5, 1.5, 2.0] if @display#highres else [3.0, 3.0, 3.0]",
}
CHANNELS = {"0": "background", "1": "spleen", "2": "kidney_left"}


def spleen(folder: Path, **changes: Any) -> Path:
    return bundle(
        folder,
        **{
            "network": small_network((1, 1, *ROI), 3),
            "preprocessing": SPLEEN,
            "postprocessing": SOFTMAX,
            "channels": CHANNELS,
            "shape": ROI,
            "config": CONFIG,
            **changes,
        },
    )


def imported(source: Path, out: Path, **said: Any) -> Imported:
    return write_package(read_bundle(source, choose(said)), out)


def findings(package: Imported, image: Volume | Radiograph) -> Findings:
    with create_engine(package.package, RuntimeSettings()) as engine:
        return analyse(package.package, engine, image, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))


def test_an_imported_bundle_labels_a_volume_as_monai_would(tmp_path: Path) -> None:
    source = spleen(tmp_path / "spleen_ct_segmentation")
    volume = one_sided_volume((12, 15, 18), (2.0, 1.5, 1.5))
    # MONAI: nibabel's order x, y, z; axes to the right, to the front, to the head; padded on both sides with 0
    array = volume.array.transpose(2, 1, 0)[::-1, ::-1].astype(np.float32)
    scaled = (np.clip(array, -57, 164) + 57) / 221
    padded = np.pad(scaled, ((1, 1), (0, 1), (0, 0)))
    logits = answers(source / "models/model.onnx", padded[None, None])["output"][0]
    expected = logits.argmax(axis=0)[1:19, :15][::-1, ::-1].transpose(2, 1, 0)
    found = findings(imported(source, tmp_path / "models"), volume)
    assert found.label_map is not None
    assert np.array_equal(found.label_map.array, expected)
    assert len(np.unique(expected)) == 3
    mirrored = expected[:, :, ::-1]
    assert not np.array_equal(mirrored, expected)


def test_what_the_bundle_says_is_in_the_package(tmp_path: Path) -> None:
    package = imported(spleen(tmp_path / "spleen_ct_segmentation"), tmp_path / "models").package
    assert (package.name, package.identity.version, package.identity.licence) == (
        "spleen-ct-segmentation",
        "0.3.1",
        "Apache-2.0",
    )
    described = package.input.model_dump()
    assert described["axes"] == "RAH"
    assert described["spacing_mm"] == (1.5, 1.5, 2.0)
    assert described["window"] == (-57.0, 164.0)
    assert described["patch"] == ROI
    assert (described["overlap"], described["blend"]) == (0.5, "constant")
    assert [(each.label, each.type.value) for each in package.segments] == [
        ("Spleen", "78961009"),
        ("Kidney left", "64033007"),
    ]
    assert package.segments[1].laterality is not None
    card = (package.folder / "CARD.md").read_text()
    assert "Random numbers" in card
    assert "TODO" in card


def test_a_zipped_bundle_is_the_same_as_its_folder(tmp_path: Path) -> None:
    source = spleen(tmp_path / "spleen")
    archive = tmp_path / "spleen.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        for path in sorted(source.rglob("*")):
            zipped.write(path, Path("spleen") / path.relative_to(source))
    whole = imported(source, tmp_path / "one").package
    zipped_package = imported(archive, tmp_path / "two").package
    assert whole.identity == zipped_package.identity
    assert (whole.folder / "model.toml").read_text() == (zipped_package.folder / "model.toml").read_text()


def test_an_archive_that_climbs_out_of_its_folder_writes_nothing_outside(tmp_path: Path) -> None:
    archive = tmp_path / "hostile.zip"
    with zipfile.ZipFile(archive, "w") as zipped:
        zipped.writestr("../../configs/metadata.json", "{}")
        zipped.writestr("/configs/metadata.json", "{}")
    with pytest.raises(ModelPackageError, match="it is no MONAI bundle"):
        read_bundle(archive, choose({}))


def test_no_code_of_a_bundle_runs(tmp_path: Path) -> None:
    canary = tmp_path / "canary"
    code = f"$__import__('pathlib').Path({str(canary)!r}).touch() or [1.5, 1.5, 2.0]"
    source = spleen(tmp_path / "hostile", config={**CONFIG, "pixdim": code, "imports": [code], "initialize": [code]})
    with pytest.raises(ModelPackageError, match=r"Spacingd.pixdim is .*not evaluated because it is code"):
        read_bundle(source, choose({}))
    assert not canary.exists()


def test_sigmoid_channels_become_overlapping_segments_and_background_is_left_out(tmp_path: Path) -> None:
    source = spleen(
        tmp_path / "regions",
        postprocessing=[
            {"_target_": "Activationsd", "keys": "pred", "sigmoid": True},
            {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5},
            {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", "applied_labels": [1]},
        ],
    )
    result = imported(source, tmp_path / "models")
    section = result.package.description.segmentation
    assert section is not None
    assert (section.overlapping, section.keep_largest, len(section.segments)) == (True, True, 2)
    golden = result.package.golden()
    logits = answers(source / "models/model.onnx", golden.input)["output"]
    expected = 1 / (1 + np.exp(-logits[:, 1:]))
    assert np.abs(golden.outputs["probabilities"] - expected).max() < 1e-3
    assert any("largest component of some labels" in remark.text for remark in result.remarks)


def test_deep_supervision_and_older_opsets_are_brought_to_shape(tmp_path: Path) -> None:
    network = small_network((1, 1, *ROI), 3, opset=11, extra_head=True, batch="batch")
    result = imported(spleen(tmp_path / "old", network=network), tmp_path / "models")
    model = onnx.load(result.package.networks[0])
    assert [output.name for output in model.graph.output] == ["probabilities"]
    assert model.opset_import[0].version == 17
    assert not [node for node in model.graph.node if node.op_type == "AveragePool"]
    assert [remark.what for remark in result.remarks if remark.kind == "left out"] == ["outputs"]


def test_an_x_ray_bundle_sees_the_picture_as_monai_loads_it(tmp_path: Path) -> None:
    size = (16, 24)  # columns, rows: MONAI's readers give pictures column by column
    network = small_network((1, 1, *size), 2)
    source = bundle(
        tmp_path / "cxr",
        network,
        preprocessing=[
            *LOAD,
            {"_target_": "Resized", "keys": "image", "spatial_size": [16, 24]},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ],
        postprocessing=SOFTMAX,
        channels={"0": "background", "1": "lung"},
        shape=size,
        inferer={"_target_": "SimpleInferer"},
        config={"image_key": "image"},
    )
    package = imported(source, tmp_path / "models")
    picture = np.random.default_rng(8).random((24, 16), dtype=np.float32)
    scaled = 2 * (picture - picture.min()) / (picture.max() - picture.min()) - 1
    logits = answers(source / "models/model.onnx", scaled.T[None, None])["output"][0]
    found = findings(package, Radiograph(picture, (1.0, 1.0), "1.2.3"))
    assert found.label_map is not None
    assert np.array_equal(found.label_map.array, logits.argmax(axis=0).T)
    assert 0 < found.label_map.array.mean() < 1


def test_a_classifier_bundle_becomes_a_classification(tmp_path: Path) -> None:
    from onnx import TensorProto, helper

    from tests.source_models import model

    network = model(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights"], ["output"]),
        ],
        {"weights": np.array([[-2.0, 2.0], [1.0, 1.0], [0.5, -1.0]], np.float32)},
        [1, 3, 16, 16],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 2])],
    )
    formats = {
        "inputs": {"image": {"num_channels": 3, "spatial_shape": [16, 16], "modality": "regular"}},
        "outputs": {
            "pred": {
                "type": "probabilities",
                "format": "classes",
                "num_channels": 2,
                "spatial_shape": [1, 2],
                "channel_def": {"0": "Normal", "1": "Pneumonia"},
            }
        },
    }
    source = bundle(
        tmp_path / "classes",
        network,
        preprocessing=[
            *LOAD,
            {"_target_": "Resized", "keys": "image", "spatial_size": [16, 16]},
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True, "channel_wise": True},
        ],
        postprocessing=[{"_target_": "AsDiscreted", "keys": "pred", "argmax": True, "to_onehot": 2}],
        channels={},
        shape=(16, 16),
        metadata={"network_data_format": formats},
        config={"image_key": "image"},
    )
    package = imported(source, tmp_path / "models")
    section = package.package.description.classification
    assert section is not None
    assert [entry.code.value for entry in section.classes] == ["17621005", "233604007"]
    picture = np.random.default_rng(8).random((40, 32), dtype=np.float32)
    found = findings(package, Radiograph(picture, (1.0, 1.0), "1.2.3")).classification
    assert found is not None
    assert sum(entry.probability for entry in found.classes) == pytest.approx(1)
    assert any("leaves out voxels of 0" in remark.text for remark in package.remarks)


@pytest.mark.parametrize(
    ("changes", "said", "expected"),
    [
        ({"preprocessing": SPLEEN[:3] + SPLEEN[4:]}, {}, r"no Spacing.*--set spacing_mm"),
        (
            {"preprocessing": [*SPLEEN, {"_target_": "scripts.own.Sharpend", "keys": "image"}]},
            {},
            r"inference.json: nothing in model.toml says what the transform scripts.own.Sharpend does",
        ),
        (
            {"preprocessing": [*SPLEEN[:4], {"_target_": "ScaleIntensityd", "keys": "image"}]},
            {},
            "scales every volume by its own values.*--set window=LOW,HIGH",
        ),
        ({"preprocessing": [*SPLEEN, SPLEEN[4]]}, {}, "follows another transform of the values"),
        ({"network": None}, {}, "neither models/model.onnx nor models/model.ts.*onnx_export"),
        ({"config": {**CONFIG, "pixdim": "@spacings"}}, {}, "Spacingd.pixdim is '@spacings'"),
        ({"config": {**CONFIG, "pixdim": "@image_key", "image_key": "@pixdim"}}, {}, "refers to itself"),
        (
            {
                "metadata": {
                    "network_data_format": {
                        "inputs": {"image": {"modality": "CT", "spatial_shape": ["16*n", "16*n", "8*n"]}},
                        "outputs": {"pred": {"type": "object", "format": "dict", "num_channels": 1}},
                    }
                }
            },
            {},
            "the output is 'object dict', as a detection's: .*export one that gives boxes and scores",
        ),
        ({}, {"labels": ["spleen"]}, r"shape \[1, 3, 20, 16, 12\], but its segments and the patch ask for \[1, 2,"),
        ({}, {"patch": [8, 8, 9]}, r"the network takes \[1, 1, 20, 16, 12\]"),
        (
            {"config": {**CONFIG, "pixdim": "@a0", **{f"a{n}": [f"@a{n + 1}"] * 9 for n in range(30)}}},
            {},
            "refers to itself, or to too much",
        ),
        ({}, {"name": "../elsewhere"}, "'elsewhere' can: give it with --name"),
        ({}, {"spacing_mm": 1.5}, "what you say of the model is wrong: spacing_mm"),
    ],
)
def test_what_cannot_be_taken_over_is_refused_with_a_reason(
    tmp_path: Path, changes: dict[str, Any], said: dict[str, Any], expected: str
) -> None:
    source = spleen(tmp_path / "spleen", **changes)
    with pytest.raises(ModelPackageError, match=expected):
        imported(source, tmp_path / "models", **said)
    assert not list((tmp_path / "models").glob("*")) if (tmp_path / "models").exists() else True


def test_what_i_say_goes_before_the_bundle(tmp_path: Path) -> None:
    source = spleen(
        tmp_path / "whole-body",
        preprocessing=[
            *SPLEEN[:4],
            {"_target_": "NormalizeIntensityd", "keys": "image", "nonzero": True},
            {"_target_": "ScaleIntensityd", "keys": "image", "minv": -1.0, "maxv": 1.0},
        ],
    )
    package = imported(
        source, tmp_path / "models", window=[-1000, 1000], range=[-1, 1], axes="LPH", body_part="CHEST"
    ).package
    described = package.input.model_dump()
    assert described["body_part"] == ("CHEST",)
    assert (described["window"], described["range"], described["axes"]) == ((-1000.0, 1000.0), (-1.0, 1.0), "LPH")


def test_values_that_are_not_clipped_are_scaled_alike(tmp_path: Path) -> None:
    unclipped = {**SPLEEN[4], "clip": False, "b_min": -1}
    source = spleen(tmp_path / "spleen", preprocessing=[*SPLEEN[:4], unclipped])
    package = imported(source, tmp_path / "models").package
    described = package.input.model_dump()
    (mean,), (deviation,) = described["mean"], described["deviation"]
    for value in (-1000.0, 0.0, 3000.0):
        assert (value - mean) / deviation == pytest.approx((value + 57) / 221 * 2 - 1, abs=1e-4)
    assert described["window"][1] > 3000


def test_the_golden_input_is_what_the_source_network_answers(tmp_path: Path) -> None:
    source = spleen(tmp_path / "spleen")
    golden = imported(source, tmp_path / "models").package.golden()
    logits = answers(source / "models/model.onnx", golden.input)["output"]
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert np.abs(golden.outputs["probabilities"] - expected).max() < 1e-3
    assert 0 <= golden.input.min() < golden.input.max() <= 1


def test_yaml_is_read_like_json(tmp_path: Path) -> None:
    import yaml

    source = spleen(tmp_path / "spleen")
    config = source / "configs/inference.json"
    config.with_suffix(".yaml").write_text(yaml.safe_dump(json.loads(config.read_text())))
    config.unlink()
    assert read_bundle(source, choose({})).input["axes"] == "RAH"


@pytest.mark.parametrize("name", ["metadata.json", "inference.json"])
def test_whatever_is_wrong_in_a_bundle_is_told_and_never_a_crash(tmp_path: Path, name: str) -> None:
    source = spleen(tmp_path / "spleen")
    path = source / "configs" / name
    refused = 0
    for where, document in damaged(json.loads(path.read_text())):
        path.write_text(json.dumps(document))
        try:
            read_bundle(source, choose({}))
        except ModelPackageError:
            refused += 1
        except Exception as error:
            pytest.fail(f"{where}: {error!r}")
    assert refused > 40


def test_the_command_imports_a_bundle_under_another_name(tmp_path: Path) -> None:
    source = spleen(tmp_path / "spleen")
    said = ["--name", "my-spleen", "--set", "body_part=ABDOMEN", "--set", "labels=spleen,pancreas", "--json"]
    result = CliRunner().invoke(app, ["import", "bundle", str(source), "--out", str(tmp_path / "models"), *said])
    assert result.exit_code == 0, result.output
    written = json.loads(result.stdout)
    assert (written["name"], written["tasks"]) == ("my-spleen", ["segmentation"])
    assert {remark["kind"] for remark in written["remarks"]} <= {"taken over", "assumed", "left out", "to check"}
    package = load_package(tmp_path / "models/my-spleen")
    assert [segment.label for segment in package.segments] == ["Spleen", "Pancreas"]
