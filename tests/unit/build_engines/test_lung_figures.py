"""The hard cases of the lung ladder, and its figures."""

import numpy as np
import pytest

from build_engines.recipes.data.hard_cts import AIR, HARD
from build_engines.recipes.data.phantom import chest
from build_engines.recipes.data.sources import LEFT, RIGHT, LabelledCt
from build_engines.recipes.figures.lungs import figures
from engines.types import Volume

SHAPE, SPACING = (48, 64, 80), (6.0, 5.0, 5.0)


@pytest.fixture(scope="module")
def ct() -> LabelledCt:
    values = chest(SHAPE, SPACING)
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (*SPACING, 1.0)
    lungs = (values > -900) & (values < -200)
    labels = np.where(lungs, np.where(np.arange(SHAPE[2]) > SHAPE[2] // 2, LEFT, RIGHT), 0).astype(np.uint8)
    return LabelledCt(Volume(values, affine, tuple(map(str, range(SHAPE[0])))), labels)


@pytest.mark.parametrize("name", HARD)
def test_a_hard_case_has_other_values_and_a_reference_on_its_own_grid(name: str, ct: LabelledCt) -> None:
    hard = HARD[name](ct)
    assert hard.labels.shape == hard.volume.array.shape
    assert set(np.unique(hard.labels)) == {0, LEFT, RIGHT}
    if hard.volume.array.shape == ct.volume.array.shape:
        assert not np.array_equal(hard.volume.array, ct.volume.array)


def test_the_original_is_left_as_it_was(ct: LabelledCt) -> None:
    before = ct.volume.array.copy(), ct.labels.copy()
    for change in HARD.values():
        change(ct)
    assert np.array_equal(ct.volume.array, before[0])
    assert np.array_equal(ct.labels, before[1])


def test_consolidation_lies_low_and_behind_and_stays_lung(ct: LabelledCt) -> None:
    hard = HARD["consolidation"](ct)
    assert np.array_equal(hard.labels, ct.labels)
    for label, part in ((RIGHT, 0.45), (LEFT, 0.15)):
        lung = ct.labels == label
        dense = lung & (hard.volume.array > -100)
        assert dense.sum() / lung.sum() == pytest.approx(part, abs=0.05)
        low, high = np.argwhere(dense).mean(axis=0), np.argwhere(lung & ~dense).mean(axis=0)
        assert low[0] < high[0]
        assert low[1] > high[1]


def test_thick_slices_lie_where_the_middle_one_of_three_lay(ct: LabelledCt) -> None:
    hard = HARD["thick_slices"](ct)
    assert hard.volume.spacing == pytest.approx((3 * SPACING[0], *SPACING[1:]))
    assert np.allclose(hard.volume.affine @ [4, 0, 0, 1], ct.volume.affine @ [13, 0, 0, 1])
    assert np.array_equal(hard.labels[4], ct.labels[13])
    assert hard.volume.sources[4] == "13"


def test_what_a_narrow_field_does_not_show_is_not_asked_for(ct: LabelledCt) -> None:
    hard = HARD["narrow_field"](ct)
    assert (hard.volume.array[:, 0, 0] == AIR).all()
    lost = (ct.labels > 0) & (hard.labels == 0)
    assert lost.any()
    assert (hard.volume.array[lost] == AIR).all()


def test_a_turned_patient_turns_with_the_reference(ct: LabelledCt) -> None:
    hard = HARD["turned"](ct)
    inside = hard.labels > 0
    assert inside.sum() == pytest.approx((ct.labels > 0).sum(), rel=0.05)
    assert np.median(hard.volume.array[inside]) < -700
    assert (hard.labels != ct.labels).mean() > 0.05


def test_a_perfect_answer_has_perfect_figures_and_swapped_sides_do_not(ct: LabelledCt) -> None:
    right = figures(lambda _: ct.labels, {"ct": ct})
    assert right["ct.dice_left_lung"].value == right["ct.dice_lung"].value == 1
    assert right["ct.hausdorff95_mm_right_lung"].value == right["ct.volume_mae_ml_lung"].value == 0
    swapped = figures(lambda _: np.array([0, RIGHT, LEFT], np.uint8)[ct.labels], {"ct": ct})
    assert swapped["ct.dice_lung"].value == 1
    assert swapped["ct.dice_left_lung"].value == 0
    assert np.isnan(right["ct.dice_lung"].low)
