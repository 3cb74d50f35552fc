import re
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from engines.errors import ModelPackageError
from engines.packages.description import Description, VolumeInput
from engines.packages.package import SHIPPED_MODELS, load_package, load_packages
from engines.packages.selection import VolumeSelection
from engines.types import Code
from tests.conftest import REPO_ROOT
from tests.small_models import activating_package, classifier_package, volume_package, xray_package

RARE = {"mean", "deviation", "standardise", "crop_to", "crop_margin_mm"}
"""Keys of a volume that the whole example cannot have beside ``range``, or as a model that others are cropped to."""

Edit = Callable[[str, str], None]

ENTRY = 'label = "One"\ncode = { value = "1", scheme = "SCT", meaning = "One" }\n'
CLASSES = f'[classification]\ntensor = "probabilities"\n[[classification.classes]]\n{ENTRY}'
DETECTION = f'[detection]\nplaces = "boxes"\nscores = "scores"\n[[detection.classes]]\n{ENTRY}'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return volume_package(tmp_path)


@pytest.fixture
def edit(folder: Path) -> Edit:
    """A function that replaces a piece of model.toml which is known to be there."""
    path = folder / "model.toml"

    def replace(old: str, new: str) -> None:
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new, 1))

    return replace


def refusal(folder: Path) -> str:
    with pytest.raises(ModelPackageError) as caught:
        load_package(folder)
    return str(caught.value)


def test_a_whole_package_gives_identity_segments_and_shapes(folder: Path) -> None:
    package = load_package(folder)
    assert package.name == "tiny-ct"
    assert len(package.identity.digest) == 64
    assert [(segment.number, segment.label) for segment in package.segments] == [(1, "Dark"), (2, "Bright")]
    assert package.segments[0].type == Code("39607008", "SCT", "Lung")
    assert package.input_shape == (1, 1, 8, 12, 16)
    assert package.output_shapes() == {"probabilities": (1, 3, 8, 12, 16)}
    assert package.golden().outputs["probabilities"].dtype == np.float32


def test_another_network_has_another_digest(tmp_path: Path) -> None:
    one = load_package(volume_package(tmp_path / "a"))
    other = load_package(volume_package(tmp_path / "b", patch=(8, 8, 8)))
    assert one.identity.digest != other.identity.digest


@pytest.mark.parametrize("name", ["model.onnx", "golden.npz", "CARD.md", "model.toml"])
def test_a_missing_file_is_named(folder: Path, name: str) -> None:
    (folder / name).unlink()
    assert f"has no {name}" in refusal(folder)


def test_broken_toml_is_refused_with_the_line(folder: Path) -> None:
    (folder / "model.toml").write_text("[identity\nname = 1\n")
    assert "line 1" in refusal(folder)


def test_a_misspelt_key_is_refused_with_the_right_spelling(folder: Path, edit: Edit) -> None:
    edit("minimum_slices", "minimum_slides")
    message = refusal(folder)
    assert "model.toml: input.minimum_slides is not a known key" in message
    assert "'minimum_slices'" in message


def test_a_missing_key_is_named(folder: Path, edit: Edit) -> None:
    edit('version = "0.1.0"\n', "")
    assert "identity.version is missing; add it" in refusal(folder)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("spacing_mm = [2.0, 2.0, 2.0]", "spacing_mm = [2.0, 0.0, 2.0]", "input.spacing_mm.2 = 0.0 is wrong"),
        ("overlap = 0.25", "overlap = 1.0", "input.overlap = 1.0 is wrong"),
        ("window = [-1000.0, 0.0]", "window = [400.0, -1000.0]", "lower < upper"),
        ("[segmentation]", "[segmentatoin]", "segmentatoin is not a known key; did you mean 'segmentation'?"),
        ("overlap = 0.25", 'axes = "HPF"', "must have one letter each of L/R, A/P and H/F"),
        ("colour = [230, 120, 90]", "colour = [230, 120, 900]", "segmentation.segments.1.colour.3 = 900 is wrong"),
        ('uid_root = "91"', 'uid_root = "0.1"', "identity.uid_root = '0.1' is wrong"),
        ("min_dice = 0.995\n", "", "needs verify.min_dice"),
        ("minimum_slices = 4", "minimum_slices = 4\nmaximum_slices = 3", "maximum_slices must not be less than"),
        ("minimum_slices = 4", 'plane = ["transverse"]', "input.plane.1 = 'transverse' is wrong"),
        ("minimum_slices = 4", 'contrast = "yes"', "input.contrast = 'yes' is wrong"),
        ("minimum_slices = 4", "max_gap_mm = 0", "input.max_gap_mm = 0 is wrong"),
        ("minimum_slices = 4", "slice_thickness_mm = [3.0, 1.0]", "slice_thickness_mm must be [least, largest]"),
        ("minimum_slices = 4", 'kernel = ["!"]', "input.kernel.1 = '!' is wrong"),
        ("minimum_slices = 4", 'presentation = ["FOR PROCESSING"]', "input.presentation has no meaning for this kind"),
        ('modality = ["CT"]', "modality = []", "input.modality = [] is wrong"),
        ('"mean_intensity"', '"mean_density"', "segmentation.segments.1.measurements.2 = 'mean_density' is wrong"),
        ("overlap = 0.25", 'axes = "HP"', "input.axes = 'HP' is wrong"),
        ("overlap = 0.25", "range = [1.0, 1.0]", "input: range must be [lower, upper] with lower < upper"),
        ("overlap = 0.25", "range = [0.0, 1.0]\nstandardise = true", "standardise exclude each other; keep one"),
        ("overlap = 0.25", "mean = [1.0]", "mean and deviation need each other"),
        ("overlap = 0.25", "mean = [1.0, 2.0]\ndeviation = [1.0]", "mean must hold one number, or one for each of 1"),
        ("overlap = 0.25", "mean = [1.0]\ndeviation = [0.0]", "input.deviation.1 = 0.0 is wrong"),
        ("overlap = 0.25", "channels = 0", "input.channels = 0 is wrong"),
        ("overlap = 0.25", "further_patches = [[8, 8]]", "input.further_patches.1.3 is missing"),
        ("overlap = 0.25", "further_patches = [[8, 8, 0]]", "input.further_patches.1.3 = 0 is wrong"),
        ("overlap = 0.25", "flips = [3]", "input.flips.1 = 3 is wrong"),
        ("overlap = 0.25", "flips = [1, 1]", "input.flips: [1, 1] names an axis twice"),
        ("overlap = 0.25", 'blend = "linear"', "input.blend = 'linear' is wrong"),
        ("overlap = 0.25", 'resize = "stretch"', "input.size is missing; add it"),
        ('tensor = "probabilities"', 'tensor = "image"', "the tensor image is named twice"),
        ("[verify]", "[network]\nfiles = []\n[verify]", "network.files = [] is wrong"),
        ("[verify]", '[network]\nfiles = ["../model.onnx"]\n[verify]', "network.files.1 = '../model.onnx' is wrong"),
        ("[verify]", '[network]\nfiles = ["a.onnx", "a.onnx"]\n[verify]', "network.files: a.onnx is there twice"),
        ("[verify]", '[network]\nfiles = ["a.int8.onnx"]\n[verify]', "a.int8.onnx is the name of a quantised copy"),
        ("[verify]", '[training]\noutside = "stop"\n[verify]', "training.outside = 'stop' is wrong"),
        (
            "[verify]",
            "[training.ranges]\np50 = { least = 0, largest = 1 }\n[verify]",
            "training.ranges.p50 is not measured of this kind of image; use p5, median",
        ),
        (
            "[verify]",
            "[training.ranges]\nmiddle = { least = 0, largest = 1 }\n[verify]",
            "middle is not measured of this",
        ),
        (
            "[verify]",
            "[training.ranges]\np5 = { least = 1, largest = 0 }\n[verify]",
            "largest must not be less than least",
        ),
        (
            "[verify]",
            "[training.ranges]\np5 = { least = 1 }\n[verify]",
            "training.ranges.p5.largest is missing; add it",
        ),
        ("min_dice", "[verify.fp8]\nmin_dice", "verify.fp8 is not a known key; remove it"),
        (
            "min_dice",
            "bf16.min_dise = 0.9\nmin_dice",
            "verify.bf16.min_dise is not a known key; did you mean 'min_dice'?",
        ),
        ("[verify]", CLASSES + "[verify]", "the tensor probabilities is named twice"),
        (
            "[verify]",
            CLASSES.replace('"probabilities"', '"c"\nactivation = "a"') + "[verify]",
            "needs verify.max_activation",
        ),
        (
            "[verify]",
            CLASSES.replace('"probabilities"', '"c"\nwindows = "max"') + "[verify]",
            'windows = "max" needs excl',
        ),
        ("[verify]", DETECTION + "[verify]", "a detection needs verify.max_place_error; add it"),
        (
            "[verify]",
            DETECTION.replace("boxes", "scores") + "[verify]\nmax_place_error = 1",
            "the tensor scores is named tw",
        ),
    ],
)
def test_a_wrong_value_is_refused_with_key_and_value(
    folder: Path, edit: Edit, old: str, new: str, expected: str
) -> None:
    edit(old, new)
    assert expected in refusal(folder)


def test_a_package_that_does_not_say_gets_whole_primary_series_with_small_gaps(folder: Path) -> None:
    wanted = load_package(folder).input
    assert isinstance(wanted, VolumeInput)
    assert (wanted.primary_only, wanted.accepts_partial, wanted.plane) == (True, False, ())
    assert wanted.bridged_mm == 6.0, "three steps of its grid"


def test_a_name_that_is_not_the_folders_is_refused(folder: Path) -> None:
    renamed = folder.rename(folder.with_name("other"))
    message = refusal(renamed)
    assert "'tiny-ct'" in message
    assert "'other'" in message


def test_a_patch_that_is_not_the_golden_inputs_shape_is_refused(folder: Path, edit: Edit) -> None:
    edit("patch = [8, 12, 16]", "patch = [8, 12, 24]")
    message = refusal(folder)
    assert "golden.npz: image has shape [1, 1, 8, 12, 16]" in message
    assert "[1, 1, 8, 12, 24]" in message


def test_a_segment_without_a_channel_is_refused(folder: Path, edit: Edit) -> None:
    text = (folder / "model.toml").read_text()
    start = text.index("[[segmentation.segments]]")
    segment = text[start : text.index("[[segmentation.segments]]", start + 1)]
    edit("[verify]", f"{segment}[verify]")
    assert "golden.npz: probabilities has shape [1, 3, 8, 12, 16], but model.toml describes [1, 4" in refusal(folder)


def test_golden_arrays_that_are_no_archive_are_refused(folder: Path) -> None:
    (folder / "golden.npz").write_bytes(b"not an archive")
    assert "golden.npz cannot be read" in refusal(folder)


def test_golden_arrays_without_an_output_are_refused(folder: Path) -> None:
    np.savez(folder / "golden.npz", image=np.zeros((1, 1, 8, 12, 16), np.float32))
    assert "has no array probabilities" in refusal(folder)


def test_golden_arrays_with_nan_are_refused(folder: Path) -> None:
    golden = load_package(folder).golden()
    golden.outputs["probabilities"][0, 0, 0, 0, 0] = np.nan
    np.savez(folder / "golden.npz", image=golden.input, **golden.outputs)
    assert "NaN" in refusal(folder)


def test_a_package_with_activation_maps_says_how_many_places_they_have(tmp_path: Path) -> None:
    package = load_package(activating_package(tmp_path))
    assert package.output_shapes() == {"probabilities": (1, 2), "activation": (1, 2, 8, 8)}
    assert package.golden().outputs["activation"].dtype == np.float32


def test_activation_maps_need_a_limit(tmp_path: Path) -> None:
    description = activating_package(tmp_path) / "model.toml"
    description.write_text(description.read_text().replace("max_activation_error = 0.02", ""))
    assert "needs verify.max_activation_error" in refusal(description.parent)


@pytest.mark.parametrize("shape", [(1, 3, 8, 8), (1, 2, 8), (1, 2)])
def test_activation_maps_of_another_shape_than_described_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    folder = activating_package(tmp_path)
    golden = load_package(folder).golden()
    np.savez(
        folder / "golden.npz",
        image=golden.input,
        probabilities=golden.outputs["probabilities"],
        activation=np.zeros(shape, np.float32),
    )
    assert f"activation has shape {list(shape)}" in refusal(folder)


def test_golden_arrays_without_the_described_activation_maps_are_refused(tmp_path: Path) -> None:
    folder = activating_package(tmp_path)
    golden = load_package(folder).golden()
    np.savez(folder / "golden.npz", image=golden.input, probabilities=golden.outputs["probabilities"])
    assert "activation" in refusal(folder)


def test_packages_of_several_folders_are_found_by_name(tmp_path: Path) -> None:
    volume_package(tmp_path / "one")
    xray_package(tmp_path / "two")
    classifier_package(tmp_path / "two")
    packages = load_packages(tmp_path / "one", tmp_path / "two")
    assert sorted(packages) == ["tiny-class", "tiny-ct", "tiny-cxr"]


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    volume_package(tmp_path / "one")
    volume_package(tmp_path / "two")
    with pytest.raises(ModelPackageError, match="'tiny-ct' is also in"):
        load_packages(tmp_path / "one", tmp_path / "two")


def test_two_models_of_one_uid_root_are_refused(tmp_path: Path) -> None:
    volume_package(tmp_path, uid_root="7")
    xray_package(tmp_path, uid_root="7")
    with pytest.raises(ModelPackageError, match=r"identity\.uid_root '7' is also that of tiny-ct"):
        load_packages(tmp_path)


def test_a_crop_to_an_unknown_model_is_refused_with_the_choice(tmp_path: Path) -> None:
    xray_package(tmp_path)
    classifier_package(tmp_path, crop_to="no-such")
    with pytest.raises(ModelPackageError, match=r"input\.crop_to 'no-such' is not a model here.*tiny-cxr"):
        load_packages(tmp_path)


def test_a_crop_to_a_model_without_an_xray_label_map_is_refused(tmp_path: Path) -> None:
    volume_package(tmp_path)
    classifier_package(tmp_path, crop_to="tiny-ct")
    with pytest.raises(ModelPackageError, match="must be a segmentation model of an X-ray"):
        load_packages(tmp_path)


def test_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelPackageError, match="does not exist"):
        load_packages(tmp_path / "nowhere")


def test_the_examples_of_the_documentation_are_valid() -> None:
    text = (REPO_ROOT / "docs" / "model-package.md").read_text(encoding="utf-8")
    whole, *parts = [tomllib.loads(block) for block in re.findall(r"```toml\n(.*?)```", text, re.DOTALL)]
    Description.model_validate(whole)
    assert set(VolumeInput.model_fields) - set(whole["input"]) <= set(VolumeSelection.model_fields) | RARE
    assert len(parts) == 4
    for part in parts:
        kinds = {"classification", "detection"} & part.keys()
        kept = {key: value for key, value in whole.items() if not kinds or key not in ("segmentation", "training")}
        if "size" in part.get("input", {}):
            kept |= {"classification": parts[1]["classification"]}
            kept = {key: value for key, value in kept.items() if key not in ("segmentation", "training")}
        Description.model_validate(kept | part)


def test_the_shipped_models_load() -> None:
    assert {"ct-lung", "ct-nodule", "cxr-lung", "cxr-pneumonia"} <= load_packages(SHIPPED_MODELS).keys()
