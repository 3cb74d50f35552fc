"""Models that PyTorch is needed for: TorchScript in a MONAI bundle, and nnU-Net trainings."""

import json
import pickle
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="these need the extra 'train' (torch)")
pytest.importorskip("dynamic_network_architectures", reason="these need the extra 'train'")

from build_engines.importers.choices import choose  # noqa: E402
from build_engines.importers.monai import read_bundle  # noqa: E402
from build_engines.importers.nnunet import read_nnunet  # noqa: E402
from build_engines.importers.nnunet_network import build_network, read_checkpoint  # noqa: E402
from build_engines.importers.package_writer import Imported, write_package  # noqa: E402
from engines.errors import ModelPackageError  # noqa: E402
from engines.inference.analyse import analyse  # noqa: E402
from engines.runtimes.base import RuntimeSettings, create_engine  # noqa: E402
from engines.types import Findings, Volume  # noqa: E402
from tests.source_models import bundle, damaged, one_sided_volume  # noqa: E402

PATCH = (16, 24, 32)
SPACING = (2.0, 1.5, 1.0)
INTENSITIES = {"mean": 60.0, "std": 90.0, "percentile_00_5": -120.0, "percentile_99_5": 380.0}

NEW: dict[str, Any] = {
    "spacing": list(SPACING),
    "patch_size": list(PATCH),
    "normalization_schemes": ["CTNormalization"],
    "use_mask_for_norm": [False],
    "architecture": {
        "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
        "arch_kwargs": {
            "n_stages": 3,
            "features_per_stage": [4, 8, 8],
            "conv_op": "torch.nn.modules.conv.Conv3d",
            "kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
            "strides": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
            "n_conv_per_stage": [2, 2, 2],
            "n_conv_per_stage_decoder": [2, 2],
            "conv_bias": True,
            "norm_op": "torch.nn.modules.instancenorm.InstanceNorm3d",
            "norm_op_kwargs": {"eps": 1e-05, "affine": True},
            "dropout_op": None,
            "dropout_op_kwargs": None,
            "nonlin": "torch.nn.LeakyReLU",
            "nonlin_kwargs": {"inplace": True},
        },
        "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
    },
}
OLD: dict[str, Any] = {
    **{key: value for key, value in NEW.items() if key != "architecture"},
    "UNet_class_name": "PlainConvUNet",
    "UNet_base_num_features": 4,
    "unet_max_num_features": 8,
    "n_conv_per_stage_encoder": [2, 2, 2],
    "n_conv_per_stage_decoder": [2, 2],
    "num_pool_per_axis": [1, 2, 2],
    "pool_op_kernel_sizes": [[1, 1, 1], [1, 2, 2], [2, 2, 2]],
    "conv_kernel_sizes": [[1, 3, 3], [3, 3, 3], [3, 3, 3]],
}
RESIDUAL: dict[str, Any] = {
    **NEW,
    "architecture": {
        **NEW["architecture"],
        "network_class_name": "dynamic_network_architectures.architectures.unet.ResidualEncoderUNet",
        "arch_kwargs": {
            **{key: value for key, value in NEW["architecture"]["arch_kwargs"].items() if key != "n_conv_per_stage"},
            "n_blocks_per_stage": [1, 1, 1],
        },
    },
}
LABELS: dict[str, Any] = {"background": 0, "spleen": 1, "liver": 2}


def training(
    folder: Path,
    plan: dict[str, Any] = NEW,
    *,
    folds: int = 1,
    labels: dict[str, Any] = LABELS,
    mirrored: tuple[int, ...] | None = None,
    plans: dict[str, Any] | None = None,
    dataset: dict[str, Any] | None = None,
    name: str = "3d_fullres",
) -> Path:
    """What nnU-Net leaves of a training, with random weights."""
    source = folder / f"nnUNetTrainer__nnUNetPlans__{name}"
    source.mkdir(parents=True)
    regions = any(isinstance(value, list) for value in labels.values())
    channels = len([label for label in labels if label != "ignore"]) - (1 if regions else 0)
    written = {
        "dataset_name": "Dataset042_Abdomen",
        "plans_name": "nnUNetPlans",
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "foreground_intensity_properties_per_channel": {"0": INTENSITIES},
        "configurations": {name: plan},
        **(plans or {}),
    }
    described = {
        "channel_names": {"0": "CT"},
        "labels": labels,
        "numTraining": 12,
        "file_ending": ".nii.gz",
        "licence": "CC-BY-4.0",
        **(dataset or {}),
    }
    (source / "plans.json").write_text(json.dumps(written))
    (source / "dataset.json").write_text(json.dumps(described))
    (source / "dataset_fingerprint.json").write_text(json.dumps({"spacings": [[2.5, 0.7, 0.7], [5.0, 0.9, 0.9]]}))
    for fold in range(folds):
        torch.manual_seed(fold + 1)
        network = build_network(plan, 1, channels)
        with torch.no_grad():
            for weight in network.parameters():
                weight.copy_(weight.half().float())
        checkpoint = {
            "network_weights": network.state_dict(),
            "optimizer_state": {"state": {}, "param_groups": [{"lr": 0.01}]},
            "grad_scaler_state": None,
            # what nnU-Net's logger keeps are NumPy scalars
            "logging": {"mean_fg_dice": [np.float64(0.5), np.float32(0.6)]},
            "_best_ema": np.float64(0.5),
            "current_epoch": 1000,
            "init_args": {"configuration": name, "fold": fold, "device": torch.device("cpu")},
            "trainer_name": "nnUNetTrainer",
            "inference_allowed_mirroring_axes": mirrored,
        }
        (source / f"fold_{fold}").mkdir()
        torch.save(checkpoint, source / f"fold_{fold}/checkpoint_final.pth")
    return source


def by_hand(source: Path, plan: dict[str, Any], array: np.ndarray, channels: int, fold: int = 0) -> np.ndarray:
    """The logits of a fold for an array as nnU-Net reads it: normalised as it does."""
    network = build_network(plan, 1, channels).eval()
    path = source / f"fold_{fold}/checkpoint_final.pth"
    network.load_state_dict(read_checkpoint(path)["network_weights"])
    clipped = np.clip(array.astype(np.float32), INTENSITIES["percentile_00_5"], INTENSITIES["percentile_99_5"])
    tensor = torch.from_numpy(np.ascontiguousarray((clipped - INTENSITIES["mean"]) / INTENSITIES["std"]))[None, None]
    with torch.no_grad():
        logits: np.ndarray = network(tensor)[0].numpy()
    return logits


def imported(source: Path, out: Path, **said: Any) -> Imported:
    trust = said.pop("trust", False)
    return write_package(read_nnunet(source, choose(said, trust=trust)), out)


def findings(package: Imported, image: Volume) -> Findings:
    with create_engine(package.package, RuntimeSettings()) as engine:
        return analyse(package.package, engine, image, clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))


def agreement(one: np.ndarray, other: np.ndarray) -> float:
    return float((one == other).mean())


@pytest.mark.parametrize("plan", [NEW, OLD, RESIDUAL], ids=["new", "before-2.2", "residual"])
def test_a_training_labels_a_volume_as_nnunet_would(tmp_path: Path, plan: dict[str, Any]) -> None:
    source = training(tmp_path, plan)
    package = imported(source, tmp_path / "models")
    volume = one_sided_volume(PATCH, SPACING)
    # nnU-Net: SimpleITK's array as it is
    expected = by_hand(source, plan, volume.array, 3).argmax(axis=0)
    found = findings(package, volume).label_map
    assert found is not None
    assert agreement(found.array, expected) > 0.999
    assert agreement(found.array, expected[:, :, ::-1]) < 0.99
    assert package.package.identity.name == "dataset042-abdomen-3d-fullres"
    assert package.package.identity.licence == "CC-BY-4.0"
    assert package.package.description.training.ranges["slice_step_mm"].largest == 5.0  # type: ignore[index]


def test_axes_that_the_plans_exchange_are_exchanged(tmp_path: Path) -> None:
    order = [2, 0, 1]
    plan = {**NEW, "spacing": [SPACING[axis] for axis in order], "patch_size": [32, 16, 24]}
    source = training(tmp_path, plan, plans={"transpose_forward": order, "transpose_backward": [1, 2, 0]})
    package = imported(source, tmp_path / "models")
    assert package.package.input.model_dump()["axes"] == "LHP"
    volume = one_sided_volume(PATCH, SPACING)
    logits = by_hand(source, plan, volume.array.transpose(order), 3)
    expected = logits.argmax(axis=0).transpose(1, 2, 0)
    found = findings(package, volume).label_map
    assert found is not None
    assert agreement(found.array, expected) > 0.999


def test_images_that_were_turned_to_ras_first_are_turned_alike(tmp_path: Path) -> None:
    source = training(tmp_path, plans={"image_reader_writer": "NibabelIOWithReorient"})
    package = imported(source, tmp_path / "models")
    assert package.package.input.model_dump()["axes"] == "HAR"
    volume = one_sided_volume(PATCH, SPACING)
    expected = by_hand(source, NEW, volume.array[:, ::-1, ::-1], 3).argmax(axis=0)[:, ::-1, ::-1]
    found = findings(package, volume).label_map
    assert found is not None
    assert agreement(found.array, expected) > 0.999


def test_folds_are_an_ensemble_and_mirrored_axes_are_flips(tmp_path: Path) -> None:
    source = training(tmp_path, folds=2, mirrored=(0, 2))
    result = imported(source, tmp_path / "models")
    described = result.package.description
    assert described.network.files == ("fold_0.onnx", "fold_1.onnx")
    assert result.package.input.flips == (0, 2)
    volume = one_sided_volume(PATCH, SPACING)
    sums = np.zeros((3, *PATCH))
    for fold in (0, 1):
        for axes in ((), (0,), (2,), (0, 2)):
            logits = by_hand(source, NEW, np.flip(volume.array, axes), 3, fold)
            exponents = np.exp(np.flip(logits, [axis + 1 for axis in axes]))
            sums += exponents / exponents.sum(axis=0)
    found = findings(result, volume).label_map
    assert found is not None
    assert agreement(found.array, sums.argmax(axis=0)) > 0.999
    assert any("8 runs a window" in remark.text for remark in result.remarks)


def test_regions_become_segments_that_overlap(tmp_path: Path) -> None:
    labels = {"background": 0, "liver": [1, 2], "liver tumor": [2], "ignore": 3}
    source = training(tmp_path, labels=labels, dataset={"regions_class_order": [1, 2]})
    result = imported(source, tmp_path / "models")
    section = result.package.description.segmentation
    assert section is not None
    assert section.overlapping
    assert [entry.label for entry in section.segments] == ["Liver", "Liver tumor"]
    volume = one_sided_volume(PATCH, SPACING)
    logits = by_hand(source, NEW, volume.array, 2)
    found = findings(result, volume)
    masks = {segment.label: each.array == segment.number for each in found.label_maps for segment in each.segments}
    for name, channel in zip(("Liver", "Liver tumor"), logits, strict=True):
        assert agreement(masks[name], channel >= 0) > 0.999, name


def test_standardised_images_are_standardised_by_themselves(tmp_path: Path) -> None:
    source = training(tmp_path, {**NEW, "normalization_schemes": ["ZScoreNormalization"]})
    described = imported(source, tmp_path / "models").package.input
    assert described.standardise


def test_a_checkpoint_with_code_is_not_run_unless_trusted(tmp_path: Path) -> None:
    canary = tmp_path / "canary"

    class Hostile:
        def __reduce__(self) -> tuple[Any, ...]:
            return (Path.touch, (canary,))

    source = training(tmp_path)
    path = source / "fold_0/checkpoint_final.pth"
    checkpoint = read_checkpoint(path)
    torch.save({**checkpoint, "logging": Hostile()}, path, pickle_module=pickle)
    with pytest.raises(ModelPackageError, match=r"is code that reading runs.*--trust"):
        imported(source, tmp_path / "models")
    assert not canary.exists()
    imported(source, tmp_path / "models", trust=True)
    assert canary.exists()


def test_plans_import_nothing_but_layers_and_known_architectures(tmp_path: Path) -> None:
    settings = {**NEW["architecture"]["arch_kwargs"], "nonlin": "os.system"}
    plan = {**NEW, "architecture": {**NEW["architecture"], "arch_kwargs": settings}}
    with pytest.raises(ModelPackageError, match=r"os\.system is no layer of PyTorch"):
        build_network(plan, 1, 3)
    plan = {**NEW, "architecture": {**NEW["architecture"], "network_class_name": "mymodule.MyNet"}}
    with pytest.raises(ModelPackageError, match=r"mymodule\.MyNet is not known; choose one of PlainConvUNet"):
        build_network(plan, 1, 3)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"plan": {**NEW, "previous_stage": "3d_lowres"}}, "second stage of a cascade"),
        ({"plan": {**NEW, "patch_size": [64, 64], "spacing": [1, 1]}}, "2D configuration"),
        ({"dataset": {"channel_names": {"0": "T1"}}}, "channel_names says 'T1'; Wetread takes volumes of CT only"),
        ({"dataset": {"channel_names": {"0": "CT", "1": "PET"}}}, "takes CT, PET"),
        ({"labels": {"background": 0, "spleen": 1, "liver": 3}}, r"\[1, 3\], not 1, 2, 3"),
        ({"plan": {**NEW, "normalization_schemes": ["RescaleTo01Normalization"]}}, "--set window=LOW,HIGH"),
        ({"plans": {"configurations": {"2d": NEW}}}, "no configuration '3d_fullres'; name one of 2d"),
        ({"plans": {"configurations": {"3d_fullres": {"inherits_from": "3d_fullres"}}}}, "inherits from itself"),
    ],
)
def test_a_training_that_is_no_model_for_us_is_refused(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    source = training(tmp_path, **{"folds": 0, **changes})
    with pytest.raises(ModelPackageError, match=expected):
        imported(source, tmp_path / "models")


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    source = training(tmp_path)
    plans = json.loads((source / "plans.json").read_text())
    plans["configurations"]["3d_fullres"]["architecture"]["arch_kwargs"]["features_per_stage"] = [4, 8, 16]
    (source / "plans.json").write_text(json.dumps(plans))
    with pytest.raises(ModelPackageError, match=r"the weights are not those of the network that plans.json describes"):
        imported(source, tmp_path / "models")


def script_bundle(folder: Path) -> Path:
    torch.manual_seed(4)
    network = torch.nn.Sequential(
        torch.nn.Conv3d(1, 6, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv3d(6, 2, 3, padding=1)
    ).eval()
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(weight.half().float())
    source = bundle(
        folder / "script",
        None,
        preprocessing=[
            {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS"},
            {"_target_": "Spacingd", "keys": "image", "pixdim": [1.0, 1.5, 2.0]},
            {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": -100, "a_max": 300, "b_min": 0, "b_max": 1,
             "clip": True},
        ],
        postprocessing=[{"_target_": "Activationsd", "keys": "pred", "softmax": True}],
        channels={"0": "background", "1": "liver"},
        shape=(32, 24, 16),
    )  # fmt: skip
    torch.jit.script(network).save(str(source / "models/model.ts"))
    return source


def test_a_torchscript_bundle_runs_only_when_trusted_and_then_as_monai_would(tmp_path: Path) -> None:
    source = script_bundle(tmp_path)
    with pytest.raises(ModelPackageError, match=r"TorchScript, which is a program.*--trust"):
        read_bundle(source, choose({}))
    package = write_package(read_bundle(source, choose({}, trust=True)), tmp_path / "models")
    volume = one_sided_volume(PATCH, SPACING)
    array = volume.array.transpose(2, 1, 0)[::-1, ::-1].astype(np.float32)
    tensor = torch.from_numpy(np.ascontiguousarray((np.clip(array, -100, 300) + 100) / 400))[None, None]
    with torch.no_grad():
        logits = torch.jit.load(str(source / "models/model.ts"))(tensor)[0].numpy()
    expected = logits.argmax(axis=0)[::-1, ::-1].transpose(2, 1, 0)
    found = findings(package, volume).label_map
    assert found is not None
    assert agreement(found.array, expected) > 0.999
    assert 0 < expected.mean() < 1


@pytest.mark.parametrize("name", ["plans.json", "dataset.json", "dataset_fingerprint.json"])
def test_whatever_is_wrong_in_a_training_is_told_and_never_a_crash(tmp_path: Path, name: str) -> None:
    source = training(tmp_path, folds=0)
    path = source / name
    for where, document in damaged(json.loads(path.read_text())):
        path.write_text(json.dumps(document))
        try:
            read_nnunet(source, choose({}))
        except ModelPackageError:
            continue
        except Exception as error:
            pytest.fail(f"{where}: {error!r}")


def test_whatever_is_wrong_in_an_architecture_is_told_and_never_a_crash() -> None:
    for where, plan in damaged(NEW):
        try:
            build_network(plan, 1, 3)
        except ModelPackageError:
            continue
        except Exception as error:
            pytest.fail(f"{where}: {error!r}")
