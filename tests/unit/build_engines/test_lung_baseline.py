"""Lungs without learning, on the synthetic chest and on one real CT."""

from pathlib import Path

import numpy as np
import pytest

from build_engines.recipes.data.phantom import TISSUE, chest
from build_engines.recipes.data.sources import LEFT, RIGHT
from build_engines.recipes.figures.lungs import read_other
from build_engines.recipes.ladder.lung_baseline import segment
from engines.types import Volume
from engines.verify import dice

SHAPE, SPACING = (50, 64, 80), (6.0, 5.0, 5.0)
COLUMNS = (np.arange(SHAPE[2]) - (SHAPE[2] - 1) / 2) * SPACING[2]


def volume_of(values: np.ndarray) -> Volume:
    affine = np.zeros((4, 4))
    affine[[2, 1, 0, 3], [0, 1, 2, 3]] = (*SPACING, 1.0)
    return Volume(values.astype(np.float32), affine, tuple(str(index) for index in range(len(values))))


@pytest.fixture(scope="module")
def synthetic() -> np.ndarray:
    return chest(SHAPE, SPACING)


def reference(synthetic: np.ndarray) -> dict[int, np.ndarray]:
    lungs = (synthetic > -900) & (synthetic < -500)
    lungs |= synthetic == TISSUE - 300
    return {LEFT: lungs & (COLUMNS > 0), RIGHT: lungs & (COLUMNS < 0)}


def test_left_and_right_lung_of_the_synthetic_chest_are_found(synthetic: np.ndarray) -> None:
    labels = segment(volume_of(synthetic))
    for label, lung in reference(synthetic).items():
        assert dice(labels == label, lung) > 0.95


def test_the_windpipe_is_no_lung_though_bronchi_join_them(synthetic: np.ndarray) -> None:
    values = synthetic.copy()
    values[30:32, 35:37, np.abs(COLUMNS) < 40] = -1000
    labels = segment(volume_of(values))
    airway = (synthetic < -990) & (np.abs(COLUMNS) < 12)
    airway[:, :30], airway[:, 42:] = False, False
    assert airway.any()
    assert not labels[airway].any()


def test_lungs_that_touch_are_torn_apart(synthetic: np.ndarray) -> None:
    values = synthetic.copy()
    values[36:38, 26:28, np.abs(COLUMNS) < 40] = -830
    labels = segment(volume_of(values))
    for label, lung in reference(synthetic).items():
        assert dice(labels == label, lung) > 0.93


def test_vessels_and_small_nodules_belong_to_the_lung(synthetic: np.ndarray) -> None:
    values = synthetic.copy()
    left = np.argwhere(reference(synthetic)[LEFT])
    slice_, row, column = left[len(left) // 2]
    values[slice_, row, column] = TISSUE
    assert segment(volume_of(values))[slice_, row, column] == LEFT


def test_lungs_that_a_narrow_field_of_view_cuts_are_found(synthetic: np.ndarray) -> None:
    rows = (np.arange(SHAPE[1]) - (SHAPE[1] - 1) / 2) * SPACING[1]
    seen = np.hypot(rows[:, None], COLUMNS) < 100
    labels = segment(volume_of(np.where(seen, synthetic, -1024)))
    for label, lung in reference(synthetic).items():
        assert dice(labels == label, lung & seen) > 0.9


def test_nothing_is_found_where_there_is_no_lung() -> None:
    for value in (-1000.0, 40.0):
        assert not segment(volume_of(np.full(SHAPE, value))).any()


def test_a_real_ct_is_outlined_well(shared_data: Path) -> None:
    ct = read_other(shared_data)
    labels = segment(ct.volume)
    for label in (LEFT, RIGHT):
        assert dice(labels == label, ct.labels == label) > 0.92
