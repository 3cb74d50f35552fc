from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.inference.preprocessing import (
    Box,
    bounding_box,
    crop,
    evenly_spaced,
    fit,
    percentile_window,
    resample_to_grid,
    scale,
    tensor_from_image,
    window,
)
from engines.packages.input_section import TensorInput
from engines.types import Affine, Volume

SHAPE = (24, 30, 28)
SPACING = (2.0, 2.5, 3.0)


@st.composite
def affines(draw: st.DrawFn) -> Affine:
    """Any orientation, spacing and position, with or without the shear of a tilted gantry."""
    rotation, _ = np.linalg.qr(np.random.default_rng(draw(st.integers(0, 10_000))).normal(size=(3, 3)))
    spacing = draw(st.tuples(*[st.floats(0.6, 3.0)] * 3))
    affine = np.eye(4)
    affine[:3, :3] = rotation * spacing
    affine[:3, 0] += draw(st.floats(-0.4, 0.4)) * affine[:3, 1]
    affine[:3, 3] = draw(st.tuples(*[st.floats(-300, 300)] * 3))
    return affine


def ball(affine: Affine, radius: float = 9.0) -> tuple[Volume, NDArray[np.bool_], NDArray[np.float64]]:
    """A bright ball near the middle of an otherwise empty volume, its voxels, and their positions in mm."""
    index = np.stack(np.meshgrid(*(np.arange(length) for length in SHAPE), indexing="ij"), axis=-1)
    position = index @ affine[:3, :3].T + affine[:3, 3]
    centre = affine[:3, :3] @ (11.0, 16.0, 13.0) + affine[:3, 3]
    inside = np.linalg.norm(position - centre, axis=-1) < radius
    array = np.where(inside, 400, -1000).astype(np.int16)
    return Volume(array, affine, tuple(str(number) for number in range(SHAPE[0]))), inside, position


@given(affine=affines())
@settings(deadline=None, max_examples=40)
def test_a_ball_keeps_its_centre_in_any_orientation_and_spacing(affine: Affine) -> None:
    volume, inside, position = ball(affine)
    array, grid = resample_to_grid(volume, SPACING)
    weight = window(array, -1000, 400)
    index = np.argwhere(weight > 0)
    found = index @ grid[:3, :3].T + grid[:3, 3]
    mean = np.average(found, axis=0, weights=weight[weight > 0])
    assert np.abs(mean - position[inside].mean(axis=0)).max() < 0.7


@given(affine=affines())
@settings(deadline=None, max_examples=25)
def test_the_grid_lies_along_the_patients_axes_and_covers_every_voxel(affine: Affine) -> None:
    volume, _, position = ball(affine)
    array, grid = resample_to_grid(volume, SPACING)
    assert np.array_equal(grid[:3, :3], np.array([[0, 0, 3.0], [0, 2.5, 0], [2.0, 0, 0]]))
    index = (position - grid[:3, 3]) @ np.linalg.inv(grid[:3, :3]).T
    assert index.min() >= -0.5 - 1e-6
    assert (index.max(axis=(0, 1, 2)) <= np.array(array.shape) - 0.5 + 1e-6).all()


def test_slices_grow_to_the_head_rows_to_the_back_and_columns_to_the_left() -> None:
    # Stored from the head down, with columns to the patient's right: the grid has to turn both around.
    affine = np.array([[0, 0, -1.0, 50], [0, 1.0, 0, -20], [-2.0, 0, 0, 90], [0, 0, 0, 1]])
    array = np.full((6, 4, 4), -1000, np.int16)
    array[0, 3, 0] = 500
    grid, _ = resample_to_grid(Volume(array, affine, tuple("abcdef")), (2.0, 1.0, 1.0))
    assert np.argwhere(grid == 500).tolist() == [[5, 3, 3]]


TOWARDS = {"L": (1, 0, 0), "R": (-1, 0, 0), "P": (0, 1, 0), "A": (0, -1, 0), "H": (0, 0, 1), "F": (0, 0, -1)}
EVERY_AXES = ["".join(code) for order in permutations(("LR", "PA", "HF")) for code in product(*order)]


@pytest.mark.parametrize("axes", EVERY_AXES)
def test_each_axis_of_the_grid_points_where_its_letter_says(axes: str) -> None:
    """A value that grows to the left by 1, to the posterior by 10 and to the head by 100 for each millimetre."""
    rotation, _ = np.linalg.qr(np.random.default_rng(2).normal(size=(3, 3)))
    affine = np.eye(4)
    affine[:3, :3] = rotation * (1.2, 1.0, 0.9)
    affine[:3, 3] = (20, -30, 400)
    positions = np.argwhere(np.ones((16, 18, 20), bool)) @ affine[:3, :3].T + affine[:3, 3]
    field = (positions @ (1.0, 10.0, 100.0)).reshape(16, 18, 20).astype(np.float32)
    grid, found = resample_to_grid(Volume(field, affine, ("1.2",) * 16), (1.0, 1.5, 2.0), axes)
    middle = tuple(length // 2 for length in grid.shape)
    for axis, (letter, spacing) in enumerate(zip(axes, (1.0, 1.5, 2.0), strict=True)):
        step = np.array(TOWARDS[letter]) * spacing
        np.testing.assert_allclose(found[:3, axis], step)
        after = tuple(place + (axis == along) for along, place in enumerate(middle))
        assert grid[after] - grid[middle] == pytest.approx(step @ (1.0, 10.0, 100.0), abs=0.1)
    here = found[:3, :3] @ middle + found[:3, 3]
    assert grid[middle] == pytest.approx(here @ (1.0, 10.0, 100.0), abs=0.1)


def test_a_network_of_monai_in_ras_sees_the_right_anterior_feet_corner_first() -> None:
    """MONAI's RAS names where the axes grow to: right, anterior, superior; so it is RAH here."""
    axial = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    array = np.zeros((4, 5, 6), np.float32)
    array[3, 0, 5] = 1.0  # at the head, anterior, the patient's left
    grid, _ = resample_to_grid(Volume(array, axial, tuple("abcd")), (1.0, 1.0, 1.0), "RAH")
    assert np.argwhere(grid == 1).tolist() == [[0, 4, 3]]


VALUES = np.array([[-1000.0, -300.0], [-300.0, 400.0]], np.float32)


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [[[0, 0.5], [0.5, 1]]]),
        ({"range": (-1.0, 1.0)}, [[[-1, 0], [0, 1]]]),
        ({"range": (0.0, 255.0), "channels": 2}, [[[0, 127.5], [127.5, 255]]] * 2),
        ({"mean": (-300.0,), "deviation": (350.0,)}, [[[-2, 0], [0, 2]]]),
        ({"mean": (0.0,), "deviation": (100.0,), "channels": 2}, [[[-10, -3], [-3, 4]]] * 2),
        (
            {"mean": (0.0, 400.0), "deviation": (100.0, 200.0), "channels": 2},
            [[[-10, -3], [-3, 4]], [[-7, -3.5], [-3.5, 0]]],
        ),
        ({"standardise": True}, [[[-(2**0.5), 0], [0, 2**0.5]]]),
    ],
    ids=["0 to 1", "range", "range and channels", "mean", "mean and channels", "mean of each channel", "standardise"],
)
def test_values_are_scaled_as_the_package_says(keys: dict[str, object], expected: list[object]) -> None:
    scaled = scale(TensorInput(tensor="image", **keys), VALUES, -1000.0, 400.0)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled, expected, atol=1e-5)


def test_a_constant_image_is_standardised_to_0() -> None:
    scaled = scale(TensorInput(tensor="image", standardise=True), np.full((2, 3, 4), 17, np.float32), -1000.0, 400.0)
    assert not scaled.any()


def test_scaling_leaves_the_values_as_they_are_for_the_statistics() -> None:
    kept = VALUES.copy()
    for keys in ({}, {"range": (-1.0, 1.0)}, {"standardise": True}):
        scale(TensorInput(tensor="image", **keys), kept, -1000.0, 400.0)
    np.testing.assert_array_equal(kept, VALUES)


@given(rows=st.integers(20, 700), columns=st.integers(20, 700))
@settings(deadline=None, max_examples=20)
def test_a_stretched_image_fills_the_tensor_and_its_corners_lie_in_the_corners(rows: int, columns: int) -> None:
    tensor, placement = fit(np.ones((rows, columns), np.float32), (96, 64), (0.4, 0.2), "stretch")
    np.testing.assert_allclose(tensor, 1, atol=1e-5)
    ends = tensor_from_image(placement) @ np.array([[-0.5, rows - 0.5], [-0.5, columns - 0.5], [1, 1]])
    np.testing.assert_allclose(ends[:2], [[-0.5, 95.5], [-0.5, 63.5]], atol=1e-9)


def test_the_grid_of_an_aligned_volume_of_the_same_spacing_is_the_volume_itself() -> None:
    array = np.random.default_rng(1).integers(-1000, 1000, (5, 6, 7)).astype(np.int16)
    affine = np.array([[0, 0, 1.5, -7], [0, 1.5, 0, 3], [2.0, 0, 0, 11], [0, 0, 0, 1]])
    grid, found = resample_to_grid(Volume(array, affine, tuple("abcde")), (2.0, 1.5, 1.5))
    assert np.allclose(grid, array)
    assert np.allclose(found, affine)


def test_noise_is_averaged_and_not_picked_when_the_grid_is_coarser() -> None:
    array = np.random.default_rng(1).normal(0, 100, (12, 80, 80)).astype(np.float32)
    affine = np.array([[0, 0, 0.5, 0], [0, 0.5, 0, 0], [3.0, 0, 0, 0], [0, 0, 0, 1]])
    grid, _ = resample_to_grid(Volume(array, affine, tuple("abcdefghijkl")), (3.0, 2.0, 2.0))
    assert grid.std() < 30


def test_outside_of_a_turned_volume_is_its_lowest_value() -> None:
    turn = np.array([[0, -np.sqrt(0.5), np.sqrt(0.5)], [0, np.sqrt(0.5), np.sqrt(0.5)], [1, 0, 0]])
    affine = np.eye(4)
    affine[:3, :3] = turn
    array = np.full((4, 20, 20), 40, np.int16)
    array[2, 10, 10] = -900
    grid, _ = resample_to_grid(Volume(array, affine, tuple("abcd")), (1.0, 1.0, 1.0))
    assert grid[0, 0, 0] == -900


@pytest.mark.parametrize(("value", "expected"), [(-3000, 0.0), (-1000, 0.0), (-300, 0.5), (400, 1.0), (3000, 1.0)])
def test_the_window_maps_to_0_to_1_and_clips(value: int, expected: float) -> None:
    mapped = window(np.array([value], np.int16), -1000, 400)
    assert mapped.dtype == np.float32
    assert mapped[0] == pytest.approx(expected)


def test_the_percentile_window_ignores_a_few_extreme_pixels() -> None:
    image = np.linspace(0, 1, 10_000, dtype=np.float32).reshape(100, 100)
    image[0, 0] = 1e6
    mapped = percentile_window(image, 1, 99)
    assert mapped[50, 50] == pytest.approx(0.505, abs=0.01)


def test_an_image_of_one_value_becomes_0() -> None:
    assert not percentile_window(np.full((8, 8), 7, np.float32), 1, 99).any()


@given(rows=st.integers(20, 700), columns=st.integers(20, 700), data=st.data())
@settings(deadline=None, max_examples=40)
def test_a_spot_lies_where_the_placement_says(rows: int, columns: int, data: st.DataObject) -> None:
    width = min(rows, columns, max(4, max(rows, columns) // 12))
    top = data.draw(st.integers(0, rows - width))
    left = data.draw(st.integers(0, columns - width))
    image = np.zeros((rows, columns), np.float32)
    image[top : top + width, left : left + width] = 1
    tensor, placement = fit(image, (128, 96))
    index = np.argwhere(tensor > 0)
    mean = np.average(index, axis=0, weights=tensor[tensor > 0])
    expected = tensor_from_image(placement) @ (top + (width - 1) / 2, left + (width - 1) / 2, 1)
    assert np.abs(mean - expected[:2]).max() < 1.0


def test_a_wide_image_is_padded_with_0_above_and_below() -> None:
    tensor, placement = fit(np.ones((100, 200), np.float32), (64, 64))
    assert tensor.shape == (64, 64)
    assert not tensor[:15].any()
    assert not tensor[-15:].any()
    assert np.allclose(tensor[17:47], 1)
    assert placement.scale == pytest.approx((0.32, 0.32))


def test_pixels_that_are_not_square_are_scaled_by_one_factor_in_millimetres() -> None:
    # 100 rows of 0.4 mm and 100 columns of 0.2 mm: twice as high as wide.
    tensor, placement = fit(np.ones((100, 100), np.float32), (64, 64), (0.4, 0.2))
    assert placement.scale == pytest.approx((0.64, 0.32))
    assert np.allclose(tensor[1:-1, 17:47], 1)
    assert not tensor[:, :15].any()
    assert not tensor[:, -15:].any()


def test_the_unit_of_the_pixel_does_not_matter() -> None:
    image = np.random.default_rng(1).random((50, 80), dtype=np.float32)
    assert np.allclose(fit(image, (64, 64), (0.3, 0.2))[0], fit(image, (64, 64), (1.5, 1.0))[0], atol=1e-6)


def test_the_bounding_box_is_wider_by_the_margin_and_stays_inside() -> None:
    mask = np.zeros((100, 100), bool)
    mask[40:60, 90:100] = True
    box = bounding_box(mask, 0.1)
    assert box == Box(top=38, left=89, bottom=62, right=100)
    assert crop(mask.astype(np.float32), box).shape == (24, 11)


def test_an_empty_mask_has_no_bounding_box() -> None:
    assert bounding_box(np.zeros((5, 5), bool), 0.1) is None


PLACES = st.lists(st.floats(0.5, 6.0), min_size=4, max_size=8).map(lambda gaps: np.concatenate([[0], np.cumsum(gaps)]))


@given(
    places=PLACES,
    tilt=st.floats(-0.5, 0.5),
    turn=st.tuples(*[st.floats(-3, 3)] * 3),
    gradient=st.tuples(*[st.floats(-3, 3)] * 3),
)
@settings(deadline=None)
def test_what_grows_evenly_in_the_patient_does_so_on_the_grid_whatever_the_gaps_tilt_and_orientation(
    places: NDArray[np.float64],
    tilt: float,
    turn: tuple[float, float, float],
    gradient: tuple[float, float, float],
) -> None:
    """Linear interpolation is exact for a linear field, so this tells of every misplaced slice."""
    axes = np.linalg.qr(np.random.default_rng(int(abs(turn[0]) * 1e6)).normal(size=(3, 3)))[0]
    steps = max(1, round(float(places[-1] / np.diff(places).min())))
    shape, at = (len(places), 14, 12), tuple(float(place) for place in places / places[-1] * steps)
    affine = np.eye(4)
    affine[:3, :3] = axes * [places[-1] / steps, 1.5, 2.0]
    affine[:3, 0] += tilt * affine[0, 0] * axes[:, 1]
    affine[:3, 3] = turn
    voxels = np.stack(np.meshgrid(at, np.arange(14), np.arange(12), indexing="ij"), axis=-1)
    positions = voxels @ affine[:3, :3].T + affine[:3, 3]
    field = (positions @ np.array(gradient) + 7).astype(np.float32)
    volume = Volume(field, affine, ("1.2",) * shape[0], at=at)
    grid, grid_affine = resample_to_grid(volume, (0.9, 0.8, 0.7))
    index = np.argwhere(np.ones(grid.shape, bool))
    where = index @ grid_affine[:3, :3].T + grid_affine[:3, 3]
    inner = (np.linalg.inv(affine) @ np.c_[where, np.ones(len(where))].T)[:3].T
    inside = np.all((inner >= 0.01) & (inner <= np.array([at[-1], 13, 11]) - 0.01), axis=1)
    assert inside.any()
    expected = where[inside] @ np.array(gradient) + 7
    np.testing.assert_allclose(grid[tuple(index[inside].T)], expected, atol=2e-3 + 1e-5 * float(np.abs(field).max()))


def test_evened_slices_keep_the_sources_nearest_to_them() -> None:
    array = np.arange(3, dtype=np.int16)[:, None, None] * np.full((3, 2, 2), 10, np.int16)
    even = evenly_spaced(Volume(array, np.eye(4), ("a", "b", "c"), at=(0.0, 1.0, 3.0)))
    assert even.array[:, 0, 0].tolist() == [0, 10, 15, 20]
    assert even.sources[0] == "a"
    assert even.sources[-1] == "c"
    assert even.at is None
