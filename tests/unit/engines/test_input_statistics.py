from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from build_engines.recipes.data.sources import read_masks
from build_engines.recipes.packaging.ranges import as_toml, ranges
from engines.errors import PermanentError
from engines.inference.analyse import analyse
from engines.inference.input_statistics import input_statistics
from engines.inference.radiograph_path import radiograph_tensor
from engines.inference.volume_path import volume_tensor
from engines.packages.description import RadiographInput, VolumeInput
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.types import Image, InputStatistic, Radiograph, Volume
from evaluation.images import read_volume
from tests.small_models import volume_package

AXIAL = np.array([[0, 0, 2.0, 0], [0, 2.0, 0, 0], [2.0, 0, 0, 0], [0, 0, 0, 1]])


def statistics(package: ModelPackage, image: Image) -> dict[str, InputStatistic]:
    match package.input, image:
        case VolumeInput() as wanted, Volume():
            values = volume_tensor(wanted, image).values
        case RadiographInput() as wanted, Radiograph():
            values = radiograph_tensor(package, wanted, image, None).values
    return {entry.name: entry for entry in input_statistics(package, values, image)}


def outside(package: ModelPackage, image: Image) -> set[str]:
    return {name for name, entry in statistics(package, image).items() if entry.outside}


def ct(array: np.ndarray, affine: np.ndarray = AXIAL) -> Volume:
    return Volume(array.astype(np.float32), affine, ("1.2",) * len(array))


def body(pad: int = 0) -> np.ndarray:
    """A cylinder of soft tissue, 40 × 40 voxels of 2 mm, with two lungs, and as much air around it as is asked for."""
    array = np.full((30, 40, 40), 40.0)
    array[:, 10:30, 5:17] = array[:, 10:30, 23:35] = -850
    return np.pad(array, ((0, 0), (pad, pad), (pad, pad)), constant_values=-1024)


@pytest.fixture(scope="module")
def ct_lung() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "ct-lung")


@pytest.fixture(scope="module")
def cxr_lung() -> ModelPackage:
    return load_package(SHIPPED_MODELS / "cxr-lung")


@given(pad=st.integers(0, 40))
@settings(deadline=None, max_examples=20)
def test_air_around_the_patient_changes_nothing(ct_lung: ModelPackage, pad: int) -> None:
    small, large = (statistics(ct_lung, ct(body(each))) for each in (15, 15 + pad))
    for name in ("p5", "median", "p95"):
        # the edge of the body falls between other voxels of the grid
        assert large[name].value == pytest.approx(small[name].value, abs=10), name
    assert large["cross_section_cm2"].value == pytest.approx(64, rel=0.1)


def test_what_is_seen_across_the_body_does_not_depend_on_the_axes_of_the_network_or_of_the_scan(
    ct_lung: ModelPackage,
) -> None:
    wanted = ct_lung.input.model_copy(update={"axes": "RAH"})
    turned = ModelPackage(ct_lung.folder, ct_lung.description.model_copy(update={"input": wanted}), ct_lung.identity)
    coronal = np.array([[0, 0, 2.0, 0], [2.0, 0, 0, 0], [0, -2.0, 0, 0], [0, 0, 0, 1]])
    array = body(10)
    as_coronal = ct(np.ascontiguousarray(array.transpose(1, 0, 2)[:, ::-1]), coronal)
    sections = [
        statistics(package, image)["cross_section_cm2"].value
        for package in (ct_lung, turned)
        for image in (ct(array), as_coronal)
    ]
    assert sections == pytest.approx([64] * 4, rel=0.1)


def test_lengths_are_those_of_the_series_and_not_of_the_grid(ct_lung: ModelPackage) -> None:
    uneven = Volume(body()[:4], AXIAL, ("1.2",) * 4, at=(0.0, 1.0, 2.0, 7.0))
    found = statistics(ct_lung, uneven)
    assert [found[name].value for name in ("slice_step_mm", "extent_mm", "pixel_mm")] == [2.0, 16.0, 2.0]
    assert found["extent_mm"].unit == "mm"


def test_a_scan_of_air_is_flagged(ct_lung: ModelPackage) -> None:
    noise = np.random.default_rng(0).normal(-1000, 25, (60, 100, 100))
    assert {"p95", "median", "cross_section_cm2"} <= outside(ct_lung, ct(noise))
    assert statistics(ct_lung, ct(np.full((60, 100, 100), -1024)))["median"].value == -1000


def test_values_without_their_rescale_intercept_are_flagged(ct_lung: ModelPackage) -> None:
    assert "p5" in outside(ct_lung, ct(body(20) + 1024))


@pytest.mark.parametrize(
    "change", [lambda image: image, lambda image: image * 17 + 3], ids=["as it is", "other values"]
)
def test_an_xrays_statistics_do_not_depend_on_its_units(
    cxr_lung: ModelPackage, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    image = np.random.default_rng(1).random((300, 260)).astype(np.float32)
    image[:, 100:160] += 1
    one, other = (statistics(cxr_lung, Radiograph(each, None, "1")) for each in (image, change(image)))
    assert [entry.value for entry in one.values()] == pytest.approx([entry.value for entry in other.values()], abs=1e-4)


def test_noise_and_a_blank_image_are_flagged(cxr_lung: ModelPackage) -> None:
    noise = np.random.default_rng(1).random((1500, 1200)).astype(np.float32)
    assert "deviation" in outside(cxr_lung, Radiograph(noise, None, "1"))
    assert {"median", "deviation"} <= outside(cxr_lung, Radiograph(np.full((900, 900), 7, np.float32), None, "1"))


def test_chests_are_inside_a_head_is_outside(ct_lung: ModelPackage, shared_data: Path) -> None:
    assert outside(ct_lung, read_volume(shared_data / "ct_lung" / "LCTSC-Test-S1-202_ct.nii.gz")) == set()
    chest = read_volume(shared_data / "ct_lung" / "cip64" / "ct-64.nrrd")
    assert outside(ct_lung, chest) == set()
    head = np.pad(np.full((50, 60, 50), 35.0), 6, constant_values=900)  # brain in a skull
    head = np.pad(head, 20, constant_values=-1000)
    assert {"p5", "p95", "cross_section_cm2"} <= outside(ct_lung, ct(head))


def test_normal_chest_xrays_are_inside_and_inverted_ones_outside(cxr_lung: ModelPackage, shared_data: Path) -> None:
    cases = read_masks(shared_data, "montgomery", "test") + read_masks(shared_data, "shenzhen", "test")
    for case in cases:
        assert outside(cxr_lung, Radiograph(case.image, None, "1")) == set()
        assert outside(cxr_lung, Radiograph(255 - case.image, None, "1"))


def trained(folder: Path, what: str) -> ModelPackage:
    package = folder / "model.toml"
    training = f'[training]\noutside = "{what}"\n[training.ranges]\np95 = {{ least = -700, largest = -300 }}\n'
    package.write_text(package.read_text().replace("[verify]", training + "[verify]"))
    return load_package(folder)


def test_an_image_unlike_the_training_is_analysed_and_the_findings_say_so(tmp_path: Path) -> None:
    package = trained(volume_package(tmp_path), "note")
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        bright, dark = (
            analyse(package, engine, ct(np.full((8, 12, 16), value)), clock=lambda: datetime(2026, 1, 1, tzinfo=UTC))
            for value in (-100, -500)
        )
    assert bright.notes == (
        "The image is unlike those that tiny-ct was trained on: p95 -100 HU (in training -700 to -300).",
    )
    assert dark.notes == ()
    p95 = next(entry for entry in dark.input_statistics if entry.name == "p95")
    assert (p95.value, p95.unit, p95.least, p95.largest, p95.outside) == (pytest.approx(-500), "HU", -700, -300, False)


def test_an_image_unlike_the_training_is_refused_where_the_package_says_so(tmp_path: Path) -> None:
    package = trained(volume_package(tmp_path), "refuse")
    assert not outside(package, ct(np.full((8, 12, 16), -500)))
    with pytest.raises(PermanentError, match=r"tiny-ct was not trained .* p95 -100 HU \(in training -700 to -300\)"):
        statistics(package, ct(np.full((8, 12, 16), -100)))


def test_ranges_are_what_was_observed_and_a_margin() -> None:
    images = [
        tuple(InputStatistic(name, value, "HU") for name, value in (("p5", p5), ("pixel_mm", 0.7)))
        for p5 in (-900, -880)
    ]
    found = ranges(images, Volume)
    assert found.keys() == {"p5"}, "pixels of any size are averaged to the grid"
    assert found["p5"] == pytest.approx((-1040, -740), abs=1)
    assert as_toml(found) == "[training.ranges]\np5 = { least = -1040.0, largest = -740.0 }"
