from pathlib import Path

import numpy as np
import pytest

from engines.inference.measurements import (
    ATTENUATION,
    LONG_AXIS,
    MAXIMUM,
    MEAN,
    MINIMUM,
    SHORT_AXIS,
    STANDARD_DEVIATION,
    VOLUME,
    measure,
)
from engines.packages.package import ModelPackage, load_package
from engines.types import Volume
from tests.small_models import volume_package


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(volume_package(tmp_path))


@pytest.fixture
def lesions(tmp_path: Path) -> ModelPackage:
    """All that can be measured of a segment, in another order than it is reported in."""
    folder = volume_package(tmp_path)
    description = (folder / "model.toml").read_text()
    everything = '["diameter", "intensity_deviation", "maximum_intensity", "minimum_intensity", "mean_intensity"]'
    assert '["volume", "mean_intensity"]' in description
    (folder / "model.toml").write_text(description.replace('["volume", "mean_intensity"]', everything))
    return load_package(folder)


def ct(array: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(array, affine, tuple(f"1.2.{number}" for number in range(len(array))))


def test_volume_and_mean_attenuation_of_a_known_block(package: ModelPackage) -> None:
    array = np.full((4, 10, 10), -1000, np.int16)
    labels = np.zeros(array.shape, np.uint8)
    labels[1:3, 2:7, 2:7] = 1
    array[1, 2:7, 2:7], array[2, 2:7, 2:7] = -900, -700
    volume, mean = measure(package, ct(array, np.diag([5.0, 2.0, 2.0, 1.0])), labels)
    assert (volume.segment, volume.concept, volume.unit.value) == (1, VOLUME, "mL")
    assert volume.value == pytest.approx(50 * 20 / 1000)
    assert (mean.concept, mean.derivation, mean.unit.value) == (ATTENUATION, MEAN, "[hnsf'U]")
    assert mean.value == pytest.approx(-800)


def test_a_tilted_gantry_does_not_change_the_volume(package: ModelPackage) -> None:
    labels = np.ones((4, 10, 10), np.uint8)
    array = np.zeros(labels.shape, np.int16)
    sheared = np.diag([5.0, 2.0, 2.0, 1.0])
    sheared[1, 0] = 1.7
    values = [measure(package, ct(array, affine), labels)[0].value for affine in (np.diag([5.0, 2, 2, 1]), sheared)]
    assert values[0] == pytest.approx(values[1])


def test_a_segment_without_a_voxel_is_not_measured(package: ModelPackage) -> None:
    labels = np.full((4, 4, 4), 2, np.uint8)
    found = measure(package, ct(np.zeros((4, 4, 4), np.int16), np.eye(4)), labels)
    assert {measurement.segment for measurement in found} == {2}


def test_int16_values_do_not_overflow_in_the_mean(package: ModelPackage) -> None:
    labels = np.ones((4, 300, 300), np.uint8)
    _, mean = measure(package, ct(np.full(labels.shape, 3000, np.int16), np.eye(4)), labels)
    assert mean.value == pytest.approx(3000)


def test_a_slice_stands_for_half_of_the_way_to_each_neighbour(package: ModelPackage) -> None:
    """Worked by hand: slices at 0, 5, 10 and 20 mm stand for 5, 5, 7.5 and 10 mm."""
    labels = np.ones((4, 10, 10), np.uint8)
    labels[0] = 0
    array = np.zeros(labels.shape, np.int16)
    affine = np.diag([5.0, 2.0, 2.0, 1.0])
    uneven = Volume(array, affine, ("1.2",) * 4, at=(0.0, 1.0, 2.0, 4.0))
    assert measure(package, uneven, labels)[0].value == pytest.approx(100 * 4 * (5 + 7.5 + 10) / 1000)


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_least_largest_and_standard_deviation_are_those_of_all_voxels(lesions: ModelPackage, dtype: type) -> None:
    random = np.random.default_rng(3)
    array = random.integers(-1024, 3071, (6, 20, 20)).astype(dtype)
    labels = random.integers(0, 3, array.shape).astype(np.uint8)
    found = measure(lesions, ct(array, np.eye(4)), labels)
    for number in (1, 2):
        inside = array[labels == number].astype(np.float64)
        stated = {entry.derivation: entry for entry in found if entry.segment == number and entry.derivation}
        assert list(stated) == [MEAN, MINIMUM, MAXIMUM, STANDARD_DEVIATION]
        assert {(entry.concept, entry.unit.value) for entry in stated.values()} == {(ATTENUATION, "[hnsf'U]")}
        expected = [inside.mean(), inside.min(), inside.max(), inside.std()]
        assert [entry.value for entry in stated.values()] == pytest.approx(expected)


def test_the_diameters_of_a_segment_are_in_mm_and_have_ends(lesions: ModelPackage) -> None:
    labels = np.zeros((5, 30, 30), np.uint8)
    labels[2, 10:14, 5:25] = 2
    found = measure(lesions, ct(np.zeros(labels.shape, np.int16), np.diag([3.0, 2.0, 0.5, 1.0])), labels)
    long, short = (entry for entry in found if entry.points)
    assert (long.segment, long.concept, long.unit.value) == (2, LONG_AXIS, "mm")
    assert (short.segment, short.concept, short.unit.value) == (2, SHORT_AXIS, "mm")
    assert long.value == pytest.approx(np.hypot(10, 8), abs=0.5)
    assert {point[0] for point in (*long.points, *short.points)} == {2.0}
