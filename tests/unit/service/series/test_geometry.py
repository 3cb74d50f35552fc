import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.errors import Quarantined
from service.series.geometry import Plane, along_normal, axes, grid_of, plane_name

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


def plane(position: list[float], orientation: list[float], spacing: list[float]) -> Plane:
    return Plane(np.asarray(position, float), axes(orientation, spacing))


def axial(positions: list[float]) -> list[Plane]:
    return [plane([0, 0, z], AXIAL, [1, 1]) for z in positions]


def in_order(planes: list[Plane]) -> list[Plane]:
    return [planes[index] for index in np.argsort(along_normal(planes))]


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
    turned = rotation(angles)
    along_row, along_column = turned[:, 0], turned[:, 1]
    normal = np.cross(along_row, along_column)
    shuffled = np.random.default_rng(seed).permutation(count)
    planes = [
        plane((np.array(origin) + normal * gap * k).tolist(), [*along_row, *along_column], list(spacing))
        for k in shuffled
    ]
    grid = grid_of(in_order(planes))
    assert grid.at is None
    affine = grid.affine
    for k, row, column in [(0, 0, 0), (count - 1, 10, 20), (1, 511, 3)]:
        expected = (
            np.array(origin) + normal * gap * k + along_column * spacing[0] * row + along_row * spacing[1] * column
        )
        np.testing.assert_allclose((affine @ [k, row, column, 1])[:3], expected, atol=1e-4)


@pytest.mark.parametrize(
    ("positions", "message"),
    [([0, 1, 1, 2, 3], "lie at the position of another one"), ([0], "single slice")],
)
def test_what_is_no_stack_is_refused_with_the_reason(positions: list[float], message: str) -> None:
    with pytest.raises(Quarantined, match=message):
        grid_of(axial(positions))


@pytest.mark.parametrize(
    ("positions", "at", "missing"),
    [
        ([0, 1, 2, 4, 5], (0, 1, 2, 4, 5), 1),
        ([0, 2, 4, 6, 8, 10, 18, 20, 22], (0, 1, 2, 3, 4, 5, 9, 10, 11), 3),
        ([0, 4, 8, 12, 16, 23, 30, 37], (0, 1, 2, 3, 4, 5.75, 7.5, 9.25), 0),
        ([0, 1, 2.2, 3, 4.2], (0, 1.25, 2.75, 3.75, 5.25), 0),
    ],
)
def test_uneven_slices_lie_at_the_steps_of_one_affine(
    positions: list[float], at: tuple[float, ...], missing: int
) -> None:
    """Hand-worked: the step is the common smaller distance, adjusted so that the last slice lies on a whole step."""
    grid = grid_of(axial(positions))
    assert grid.missing == missing
    assert grid.largest_mm == pytest.approx(max(np.diff(positions)))
    assert grid.at is not None
    for position, step in zip(positions, grid.at, strict=True):
        np.testing.assert_allclose((grid.affine @ [step, 0, 0, 1])[:3], [0, 0, position], atol=1e-9)
    whole = round(grid.at[-1])
    assert grid.at[-1] == pytest.approx(whole)
    if at[-1] == whole:
        assert grid.at == pytest.approx(at)


@given(
    gaps=st.lists(st.floats(0.5, 12.0), min_size=2, max_size=30),
    tilt=st.floats(-30, 30),
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
)
def test_every_slice_lies_where_its_header_says_whatever_the_gaps_tilt_and_orientation(
    gaps: list[float], tilt: float, turn: tuple[float, float, float]
) -> None:
    turned = rotation(turn)
    step = turned[:, 2] + np.tan(np.radians(tilt)) * turned[:, 1]
    places = np.concatenate([[0], np.cumsum(gaps)])
    orientation = [*turned[:, 0], *turned[:, 1]]
    grid = grid_of(in_order([plane((step * place).tolist(), orientation, [0.7, 0.8]) for place in places]))
    normal = np.cross(turned[:, 0], turned[:, 1])
    ordered = sorted(places, key=lambda place: place * float(step @ normal))
    at = range(len(places)) if grid.at is None else grid.at
    tolerance = 0.02 * np.median(gaps) + 0.051 if grid.at is None else 1e-9
    for place, where in zip(ordered, at, strict=True):
        off = (grid.affine @ [where, 3, 5, 1])[:3] - (step * place + turned[:, 1] * 3 * 0.7 + turned[:, 0] * 5 * 0.8)
        assert np.linalg.norm(off) <= tolerance / np.cos(np.radians(tilt)) + 1e-6
    assert grid.tilt_degrees == pytest.approx(abs(tilt), abs=1e-6)


@pytest.mark.parametrize("spacing", [0.625, 0.75, 1.25, 2.0])
def test_positions_that_the_scanner_has_rounded_to_a_tenth_are_even(spacing: float) -> None:
    grid = grid_of(axial([round(spacing * k, 1) for k in range(41)]))
    assert grid.at is None
    np.testing.assert_allclose(grid.affine[2, 0], spacing, atol=1e-9)


def test_a_gantry_tilt_shears_the_affine_as_worked_by_hand() -> None:
    """Slices 5 mm apart along the normal, whose first pixels all lie at one y: the GE way of a tilted head."""
    c, s = np.cos(np.radians(18.5)), np.sin(np.radians(18.5))
    planes = [plane([-125, -123.54, 5 / c * k], [1, 0, 0, 0, c, -s], [0.5, 0.5]) for k in range(10)]
    grid = grid_of(planes)
    assert grid.tilt_degrees == pytest.approx(18.5, abs=1e-6)
    assert grid.typical_mm == pytest.approx(5)
    expected = [[0, 0, 0.5, -125], [0, 0.5 * c, 0, -123.54], [5 / c, -0.5 * s, 0, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(grid.affine, expected, atol=1e-9)
    assert abs(np.linalg.det(grid.affine[:3, :3])) == pytest.approx(5 * 0.5 * 0.5), "a tilt changes no voxel's volume"


def test_a_field_of_view_that_was_moved_is_refused() -> None:
    planes = [*axial([0, 1, 2, 3]), plane([20, 0, 4], AXIAL, [1, 1]), plane([20, 0, 5], AXIAL, [1, 1])]
    with pytest.raises(Quarantined, match="beside the line of the others"):
        grid_of(planes)


@pytest.mark.parametrize(
    ("orientation", "name"),
    [
        (AXIAL, "axial"), ([-1, 0, 0, 0, 1, 0], "axial"), ([1, 0, 0, 0, 0, -1], "coronal"),
        ([0, 1, 0, 0, 0, -1], "sagittal"), ([1, 0, 0, 0, 0.9483237, -0.3173047], "axial"),
        ([1, 0, 0, 0, 0.7071068, 0.7071068], "oblique"),
    ],
)  # fmt: skip
def test_a_plane_has_the_name_of_the_axis_that_it_stands_on(orientation: list[float], name: str) -> None:
    assert plane_name(plane([0, 0, 0], orientation, [1, 1])) == name


@pytest.mark.parametrize(
    ("orientation", "spacing", "message"),
    [
        ([1, 0, 0, 1, 0, 0], [1, 1], "perpendicular"),
        ([2, 0, 0, 0, 1, 0], [1, 1], "perpendicular"),
        (AXIAL, [0, 1], "PixelSpacing"),
        (AXIAL, [1, float("nan")], "2 numbers"),
    ],
)
def test_attributes_that_describe_no_plane_are_refused(
    orientation: list[float], spacing: list[float], message: str
) -> None:
    with pytest.raises(Quarantined, match=message):
        plane([0, 0, 0], orientation, spacing)
