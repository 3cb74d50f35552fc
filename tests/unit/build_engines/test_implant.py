"""Nodules that are put into a chest are where the lesions say, and nothing else is changed."""

import numpy as np
import pytest

from build_engines.recipes.data.implant import AIRY, APART_MM, implant
from build_engines.recipes.data.nodules import NodulePatch
from build_engines.recipes.data.sources import LabelledCt
from engines.types import Volume

AXES = np.meshgrid(*(np.arange(51),) * 3, indexing="ij", sparse=True)


def nodule(diameter: float, name: str = "1_nod1", value: float = 30.0) -> NodulePatch:
    """A ball in the middle of a patch, beside it a wall that is not to be put in."""
    mask = sum((axis - 25) ** 2 for axis in AXES) <= (diameter / 2) ** 2
    image = np.where(mask, value, -850).astype(np.float32)
    image[:, :, :4] = 50.0
    return NodulePatch(name, image, mask)


def chest(affine: np.ndarray | None = None, shape: tuple[int, int, int] = (40, 80, 80)) -> LabelledCt:
    """Lungs of -850 HU in tissue, on voxels of 3 × 2 × 2 mm."""
    labels = np.zeros(shape, np.uint8)
    labels[4:-4, 10:-10, 8:36], labels[4:-4, 10:-10, 44:72] = 2, 1
    if affine is None:
        affine = np.diag([1.0, 1.0, 1.0, 1.0])
        affine[:3, :3] = np.diag([3.0, 2.0, 2.0])[::-1]
    array = np.where(labels, -850, 40).astype(np.int16)
    return LabelledCt(Volume(array, affine, tuple(map(str, range(shape[0])))), labels)


def test_each_nodule_is_where_its_lesion_says() -> None:
    ct = chest()
    volume, lesions = implant(ct, [nodule(6), nodule(12), nodule(20)], np.random.default_rng(1))
    assert [lesion.diameter_mm for lesion in lesions] == pytest.approx([6, 12, 20], rel=0.1)
    changed = np.argwhere(np.abs(volume.array - ct.volume.array) > 200) @ ct.volume.affine[:3, :3].T
    nearest = np.array([[np.linalg.norm(place - lesion.centre) for lesion in lesions] for place in changed])
    assert (nearest.min(axis=1) < np.array([6, 12, 20])[nearest.argmin(axis=1)] / 2 + 3.5).all()
    for lesion in lesions:
        index = np.linalg.inv(ct.volume.affine) @ (*lesion.centre, 1)
        assert volume.array[tuple(np.round(index[:3]).astype(int))] > -500
        sides = np.subtract(lesion.high, lesion.low)
        # as exact as the voxels, which are 2 × 2 × 3 mm
        np.testing.assert_allclose(sides, lesion.diameter_mm, atol=4.0)


def test_nodules_stay_in_the_lungs_and_apart() -> None:
    ct = chest()
    volume, lesions = implant(ct, [nodule(14, f"{number}_n") for number in range(12)], np.random.default_rng(2))
    assert len(lesions) > 6
    np.testing.assert_array_equal(volume.array[ct.labels == 0], ct.volume.array[ct.labels == 0])
    for number, one in enumerate(lesions):
        for other in lesions[:number]:
            assert np.linalg.norm(np.subtract(one.centre, other.centre)) > 14 + APART_MM - 3


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)])
def test_lesions_are_in_the_patient_however_the_series_lies(flips: tuple[int, int, int]) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.diag([3.0, 2.0, 2.0])[::-1] * flips
    affine[:3, 3] = (13.0, -40.0, 210.0)
    ct = chest(affine)
    volume, [lesion] = implant(ct, [nodule(16)], np.random.default_rng(3))
    places = np.argwhere(volume.array - ct.volume.array > 400) @ affine[:3, :3].T + affine[:3, 3]
    np.testing.assert_allclose(places.mean(axis=0), lesion.centre, atol=1.5)


def test_the_same_seed_gives_the_same_ct() -> None:
    first, second, third = (implant(chest(), [nodule(8)], np.random.default_rng(seed))[0].array for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, second)
    assert (first != third).any()


def test_the_wall_beside_a_nodule_is_left_behind() -> None:
    ct = chest()
    volume, [lesion] = implant(ct, [nodule(8)], np.random.default_rng(4))
    away = np.linalg.norm(
        np.argwhere(volume.array - ct.volume.array > 100) @ ct.volume.affine[:3, :3].T - np.array(lesion.centre), axis=1
    )
    assert away.max() < 8


def test_a_nodule_without_a_place_is_left_out() -> None:
    ct = chest()
    full = LabelledCt(Volume(np.full_like(ct.volume.array, AIRY + 1), ct.volume.affine, ct.volume.sources), ct.labels)
    volume, lesions = implant(full, [nodule(8)], np.random.default_rng(1))
    assert lesions == ()
    np.testing.assert_array_equal(volume.array, full.volume.array)
    nowhere = LabelledCt(ct.volume, np.zeros_like(ct.labels))
    assert implant(nowhere, [nodule(8)], np.random.default_rng(1))[1] == ()
