import hypothesis.extra.numpy as arrays
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from service.results.contours import Points, Polygon, inside, polygons, simplified
from tests.unit.service.results.examples import Example

MASKS = arrays.arrays(bool, arrays.array_shapes(min_dims=2, max_dims=2, max_side=12))
FINER = 8
"""So many times finer than the pixels is the grid of the second opinion."""


def drawn(polygon: Polygon, shape: tuple[int, int]) -> NDArray[np.bool_]:
    """Second opinion: Pillow draws the rings on a finer grid, read at the centres of the pixels."""
    rows, columns = (FINER * size for size in shape)
    canvas = Image.new("1", (columns, rows))
    for number, ring in enumerate(polygon.rings):
        corners = [(float(FINER * (c + 0.5)), float(FINER * (r + 0.5))) for r, c in ring]
        ImageDraw.Draw(canvas).polygon(corners, fill=number == 0)
    return np.asarray(canvas)[FINER // 2 :: FINER, FINER // 2 :: FINER]


def together(found: list[Polygon], shape: tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels of all regions."""
    return inside([ring for polygon in found for ring in polygon.rings], shape)


@given(MASKS)
def test_the_pixels_within_the_polygons_of_a_mask_are_the_mask(mask: NDArray[np.bool_]) -> None:
    assert np.array_equal(together(polygons(mask), mask.shape), mask)


@given(MASKS)
def test_pillow_finds_the_same_pixels_within_the_polygons(mask: NDArray[np.bool_]) -> None:
    found = np.zeros(mask.shape, bool)
    for polygon in polygons(mask):
        found |= drawn(polygon, mask.shape)
    assert np.array_equal(found, mask)


@given(MASKS, st.floats(0.0, 3.0))
def test_a_simplified_ring_stays_within_the_tolerance(mask: NDArray[np.bool_], tolerance: float) -> None:
    for ring in (ring for polygon in polygons(mask) for ring in polygon.rings):
        fewer = simplified(ring, tolerance)
        assert len(fewer) >= 3
        assert all(distance(point, fewer) <= tolerance + 1e-9 for point in ring)


def distance(point: Points, ring: Points) -> float:
    """From a point to the nearest of the ring's edges."""
    nearest = np.inf
    for start, end in zip(ring, np.roll(ring, -1, axis=0), strict=True):
        share = np.clip((point - start) @ (end - start) / ((end - start) @ (end - start)), 0, 1)
        nearest = min(nearest, float(np.linalg.norm(point - start - share * (end - start))))
    return nearest


def test_a_ring_around_a_hole_is_one_region_with_a_hole() -> None:
    mask = np.ones((7, 7), bool)
    mask[2:5, 2:5] = False
    [polygon] = polygons(mask)
    [hole] = polygon.holes
    assert np.ptp(polygon.outer, axis=0).tolist() == [7, 7]
    assert np.ptp(hole, axis=0).tolist() == [3, 3]


def test_an_island_in_a_hole_is_a_region_of_its_own() -> None:
    mask = np.ones((9, 9), bool)
    mask[2:7, 2:7] = False
    mask[4, 4] = True
    assert sorted(len(polygon.holes) for polygon in polygons(mask)) == [0, 1]


def test_straight_edges_have_no_corners_on_the_way() -> None:
    [polygon] = polygons(np.ones((100, 50), bool))
    assert len(polygon.outer) == 8  # the corners of pixels are cut


def test_nothing_has_no_polygons_and_no_polygon_holds_no_pixel() -> None:
    assert polygons(np.zeros((4, 5), bool)) == []
    assert not inside([], (4, 5)).any()


def test_pixels_beyond_the_image_are_left_out() -> None:
    square = np.array([[-3.0, -3.0], [-3.0, 9.0], [1.5, 9.0], [1.5, -3.0]])
    assert inside([square], (4, 5)).sum() == 2 * 5


def test_a_simplified_circle_has_a_fifth_of_its_corners_and_nearly_all_of_its_pixels() -> None:
    row, column = np.ogrid[:200, :200]
    mask = (row - 100) ** 2 + (column - 90) ** 2 < 80**2
    [polygon] = polygons(mask)
    fewer = simplified(polygon.outer, 1.0)
    assert len(fewer) < len(polygon.outer) / 5
    again = inside([fewer], mask.shape)
    assert 2 * (again & mask).sum() / (again.sum() + mask.sum()) > 0.99


@pytest.mark.parametrize("label", [1, 2])
def test_a_real_lung_comes_back_voxel_by_voxel(chest_64: Example, label: int) -> None:
    assert chest_64.findings.label_map is not None
    for plane in chest_64.findings.label_map.array == label:
        assert np.array_equal(together(polygons(plane), plane.shape), plane)
