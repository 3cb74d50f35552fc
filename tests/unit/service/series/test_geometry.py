import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import Quarantined
from service.series.geometry import affine_of, order, plane

AXIAL = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]


def rotation(angles: tuple[float, float, float]) -> NDArray[np.float64]:
    turn = np.eye(3)
    for axis, angle in enumerate(angles):
        c, s = np.cos(angle), np.sin(angle)
        one = np.eye(3)
        i, j = [k for k in range(3) if k != axis]
        one[i, i], one[i, j], one[j, i], one[j, j] = c, -s, s, c
        turn = turn @ one
    return turn


@given(
    angles=st.tuples(*[st.floats(-3, 3)] * 3),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    gap=st.floats(0.3, 8.0),
    spacing=st.tuples(st.floats(0.2, 3.0), st.floats(0.2, 3.0)),
    count=st.integers(2, 40),
    seed=st.integers(0, 1000),
)
def test_slices_in_any_order_and_orientation_give_the_affine_that_they_were_made_from(
    angles: tuple[float, float, float],
    origin: tuple[float, float, float],
    gap: float,
    spacing: tuple[float, float],
    count: int,
    seed: int,
) -> None:
    axes = rotation(angles)
    along_row, along_column = axes[:, 0], axes[:, 1]
    normal = np.cross(along_row, along_column)
    shuffled = np.random.default_rng(seed).permutation(count)
    planes = [
        plane((np.array(origin) + normal * gap * k).tolist(), [*along_row, *along_column], list(spacing))
        for k in shuffled
    ]
    ordered = [planes[index] for index in order(planes)]
    affine = affine_of(ordered)
    for k, row, column in [(0, 0, 0), (count - 1, 10, 20), (1, 511, 3)]:
        expected = (
            np.array(origin) + normal * gap * k + along_column * spacing[0] * row + along_row * spacing[1] * column
        )
        np.testing.assert_allclose((affine @ [k, row, column, 1])[:3], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ([0, 1, 2, 4, 5], r"1 slices are missing, after slice 3 \(2\.00 mm\), spacing 1\.00 mm"),
        ([0, 1, 2, 7, 8, 9], "4 slices are missing"),
        ([0, 1, 1, 2, 3], "lie at the position of another one"),
        ([0, 1.0, 2.2, 3.0, 4.2], "uneven slice spacing, 0.80 to 1.20 mm"),
        ([0, 4, 8, 12, 19, 26, 33], "uneven slice spacing, 4.00 to 7.00 mm"),
        ([0], "single slice"),
    ],
)
def test_what_is_no_even_stack_is_refused_with_the_reason(positions: list[float], message: str) -> None:
    planes = [plane([0, 0, z], AXIAL, [1, 1]) for z in positions]
    with pytest.raises(Quarantined, match=message):
        affine_of(planes)


@pytest.mark.parametrize("spacing", [0.625, 0.75, 1.25, 2.0])
def test_positions_that_the_scanner_has_rounded_to_a_tenth_are_even(spacing: float) -> None:
    planes = [plane([0, 0, round(spacing * k, 1)], AXIAL, [1, 1]) for k in range(41)]
    np.testing.assert_allclose(affine_of(planes)[2, 0], spacing, atol=1e-9)


def test_a_gantry_tilt_is_refused_with_its_angle() -> None:
    step = 5 * np.tan(np.radians(18.5))
    planes = [plane([0, step * k, 5 * k], AXIAL, [1, 1]) for k in range(10)]
    with pytest.raises(Quarantined, match=r"gantry tilt of 18\.5°"):
        affine_of(planes)


@pytest.mark.parametrize(
    ("orientation", "spacing", "message"),
    [
        ([1, 0, 0, 1, 0, 0], [1, 1], "perpendicular"),
        ([2, 0, 0, 0, 1, 0], [1, 1], "perpendicular"),
        (AXIAL, [0, 1], "PixelSpacing"),
        (AXIAL, [1, float("nan")], "not usable"),
    ],
)
def test_attributes_that_describe_no_plane_are_refused(
    orientation: list[float], spacing: list[float], message: str
) -> None:
    with pytest.raises(Quarantined, match=message):
        plane([0, 0, 0], orientation, spacing)
