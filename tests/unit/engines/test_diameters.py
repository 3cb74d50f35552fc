from itertools import product

import numpy as np
import pytest

from engines.inference.diameters import long_and_short_axis
from tests.unit.engines.shapes import outline_points

SPACING = (0.5, 0.8)


def ellipse(semi_axes: tuple[float, float], degrees: float, shape: tuple[int, int] = (70, 70)) -> np.ndarray:
    """Semi-axes in mm; the angle is that of the long axis to the rows."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    y, x = (row - shape[0] / 2) * SPACING[0], (column - shape[1] / 2) * SPACING[1]
    turn = np.deg2rad(degrees)
    along, across = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    return (along / semi_axes[0]) ** 2 + (across / semi_axes[1]) ** 2 < 1


@pytest.mark.parametrize("degrees", [0, 30, 45, 90, 160])
def test_the_axes_of_an_ellipse_are_found_in_any_direction_on_pixels_that_are_not_square(degrees: float) -> None:
    mask = np.stack([ellipse((9, 4), degrees), ellipse((12, 5), degrees), ellipse((8, 7), degrees)])
    long, short = long_and_short_axis(mask, SPACING)
    assert long.millimetres == pytest.approx(24, abs=0.9)
    assert short.millimetres == pytest.approx(10, abs=0.9)
    assert {end[0] for axis in (long, short) for end in axis.ends} == {1.0}


def test_the_axes_are_perpendicular_and_as_long_as_their_ends_are_apart() -> None:
    long, short = long_and_short_axis(ellipse((9, 5), 25)[None], SPACING)
    lines = [(np.array(axis.ends[1]) - axis.ends[0])[1:] * SPACING for axis in (long, short)]
    assert [np.hypot(*line) for line in lines] == pytest.approx([long.millimetres, short.millimetres])
    assert lines[0] @ lines[1] == pytest.approx(0, abs=1e-9)


def test_one_voxel_is_one_voxel_long() -> None:
    mask = np.zeros((3, 4, 5), bool)
    mask[1, 2, 4] = True
    long, short = long_and_short_axis(mask, (2.0, 3.0))
    assert (long.millimetres, long.ends) == (3.0, ((1.0, 2.0, 3.5), (1.0, 2.0, 4.5)))
    assert (short.millimetres, short.ends) == (2.0, ((1.0, 1.5, 4.0), (1.0, 2.5, 4.0)))


def test_two_lesions_on_a_slice_are_not_measured_as_one() -> None:
    mask = np.zeros((1, 10, 40), bool)
    mask[0, 2:4, 2:6] = mask[0, 2:4, 30:38] = True
    long, _ = long_and_short_axis(mask, (1.0, 1.0))
    assert long.millimetres == pytest.approx(8, abs=0.1)
    assert all(end[2] > 29 for end in long.ends)


def test_no_two_points_of_any_outline_are_farther_apart() -> None:
    for seed, density in product(range(12), (0.3, 0.55, 0.8)):
        mask = np.random.default_rng(seed).random((3, 17, 13)) < density
        mask[1, 8, 6] = True
        long, _ = long_and_short_axis(mask, SPACING)
        farthest = 0.0
        for points in outline_points(mask):
            ends = points * SPACING
            farthest = max(farthest, float(np.hypot(*(ends[:, None] - ends).transpose(2, 0, 1)).max()))
        assert long.millimetres == pytest.approx(farthest)
