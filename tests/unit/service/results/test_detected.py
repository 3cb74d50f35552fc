from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.types import Code, Detection, Detections, Radiograph, Volume
from service.results.detected import Detected, detected
from tests.unit.service.results.examples import findings, small_ct

CODE = Code("27925004", "SCT", "Nodule")


def on_images(image: Volume | Radiograph, low: tuple[float, ...], high: tuple[float, ...]) -> Detected:
    found = Detections((Detection("Nodule", CODE, 0.9, low, high),), (("Nodule", CODE),))
    [entry] = detected(findings(detections=found), image)
    return entry


def axial(shape: tuple[int, int, int] = (6, 10, 12), at: tuple[float, ...] | None = None) -> Volume:
    """Slices 3 mm apart, rows 2 mm, columns 1 mm; the first voxel at x 100, y 50, z -20."""
    affine = np.array([[0, 0, 1, 100], [0, 2, 0, 50], [3, 0, 0, -20], [0, 0, 0, 1]], float)
    return Volume(np.zeros(shape, np.int16), affine, tuple(map(str, range(shape[0]))), at=at)


def test_a_box_is_a_rectangle_on_each_slice_that_it_crosses() -> None:
    # x 103 to 107: columns 3 to 7; y 54 to 60: rows 2 to 5; z -17.5 to -10.5: slices 1 (-17), 2 (-14), 3 (-11)
    found = on_images(axial(), (103, 54, -17.5), (107, 60, -10.5))
    assert [*found.on] == [1, 2, 3]
    assert found.middle == 2
    for ring in found.on.values():
        np.testing.assert_allclose(ring[0], ring[-1])
        assert {tuple(point) for point in ring.round(6).tolist()} == {(2, 3), (2, 7), (5, 7), (5, 3)}


def test_a_box_that_reaches_beyond_the_image_ends_at_its_border() -> None:
    ring = on_images(axial(), (95, 40, -17.5), (104, 56, -16.5)).on[1]
    np.testing.assert_allclose(ring.min(axis=0), (-0.5, -0.5))
    np.testing.assert_allclose(ring.max(axis=0), (3, 4))


def test_a_box_between_two_slices_is_on_the_nearer_one() -> None:
    found = on_images(axial(), (103, 54, -16.4), (107, 60, -15.6))
    assert [*found.on] == [1]
    np.testing.assert_allclose(found.on[1].max(axis=0), (5, 7))


def test_a_flat_box_within_a_slice_is_on_it() -> None:
    assert [*on_images(axial(), (103, 54, -14), (107, 60, -14)).on] == [2]


def test_a_point_is_on_the_nearest_slice() -> None:
    found = on_images(axial(), (104.25, 57, -12.7), (104.25, 57, -12.7))
    assert [*found.on] == [found.middle] == [2]
    np.testing.assert_allclose(found.on[2], [[3.5, 4.25]])


def test_uneven_slices_are_met_where_they_lie() -> None:
    # at z -20, -17, -2, 1
    found = on_images(axial((4, 10, 12), (0.0, 1.0, 6.0, 7.0)), (103, 54, -3), (107, 60, 0.5))
    assert [*found.on] == [2]


def test_a_box_on_an_x_ray_is_where_it_is_within_the_image() -> None:
    image = Radiograph(np.zeros((10, 20), np.float32), None, "1")
    found = on_images(image, (2, 15.5), (6, 30))
    assert (found.middle, [*found.on]) == (0, [0])
    np.testing.assert_allclose(found.on[0], [[2, 15.5], [2, 19.5], [6, 19.5], [6, 15.5], [2, 15.5]])
    np.testing.assert_allclose(on_images(image, (2, 3), (2, 3)).on[0], [[2, 3]])


@settings(max_examples=80, deadline=None)
@given(
    st.tuples(*[st.floats(0.1, 0.9)] * 3),
    st.tuples(*[st.floats(1.0, 12.0)] * 3),
    st.booleans(),
    st.booleans(),
)
def test_a_ring_holds_the_pixels_that_lie_in_the_box_and_no_others(
    place: tuple[float, ...], size: tuple[float, ...], oblique: bool, sheared: bool
) -> None:
    volume, _ = small_ct((6, 13, 11), oblique=oblique)
    if sheared:  # a tilted gantry
        affine = volume.affine.copy()
        affine[:3, 0] += 0.4 * affine[:3, 1]
        volume = replace(volume, affine=affine)
    centre = (volume.affine @ (*np.multiply(place, np.array(volume.array.shape) - 1), 1))[:3]
    low, high = centre - np.array(size) / 2, centre + np.array(size) / 2
    found = on_images(volume, tuple(low.tolist()), tuple(high.tolist()))
    rows, columns = np.meshgrid(range(13), range(11), indexing="ij")
    for index in range(6):
        position = (
            np.stack([np.full_like(rows, 0), rows, columns, np.full_like(rows, 1)], axis=-1)
            @ volume.slice_affine(index).T
        )
        deep = np.minimum(position[..., :3] - low, high - position[..., :3]).min(axis=-1)
        if index == found.middle:
            assert len(found.on[index])
            continue
        if index not in found.on:
            assert not (deep > 1e-3).any()
            continue
        ring = found.on[index][:-1]
        ends = np.roll(ring, -1, axis=0)
        edges = ends - ring
        # on which side of each edge: the ring is convex
        sides = edges[:, 0, None] * (columns.ravel() - ring[:, 1, None]) - edges[:, 1, None] * (
            rows.ravel() - ring[:, 0, None]
        )
        held = ((sides >= -1e-6).all(axis=0) | (sides <= 1e-6).all(axis=0)).reshape(rows.shape)
        clear = np.abs(deep) > 1e-3
        np.testing.assert_array_equal(held[clear], (deep > 0)[clear])


@pytest.mark.parametrize("oblique", [False, True])
def test_no_ring_reaches_beyond_the_image(oblique: bool) -> None:
    volume, _ = small_ct(oblique=oblique)
    centre = (volume.affine @ (2, 6, 5, 1))[:3]
    found = on_images(volume, tuple((centre - 50).tolist()), tuple((centre + 50).tolist()))
    assert [*found.on] == [0, 1, 2, 3, 4]
    for ring in found.on.values():
        np.testing.assert_allclose(ring.min(axis=0), (-0.5, -0.5))
        np.testing.assert_allclose(ring.max(axis=0), np.array(volume.array.shape[1:]) - 0.5)
