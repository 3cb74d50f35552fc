import numpy as np
import pytest
import SimpleITK as sitk  # noqa: N813
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.inference.activation_maps import activations_on_radiograph
from engines.inference.postprocessing import (
    drop_small_components,
    keep_largest_component,
    labels_on_radiograph,
    labels_on_source,
    masks_on_source,
    probabilities_on_radiograph,
    probabilities_on_source,
)
from engines.inference.preprocessing import fit, resample, resample_to_grid, window
from engines.types import Affine, Volume
from tests.unit.engines.test_preprocessing import EVERY_AXES, affines, ball


def dice(one: NDArray[np.bool_], other: NDArray[np.bool_]) -> float:
    return 2 * int((one & other).sum()) / int(one.sum() + other.sum())


@given(affine=affines())
@settings(deadline=None, max_examples=40)
def test_a_ball_comes_back_to_its_voxels_in_any_orientation(affine: Affine) -> None:
    volume, inside, _ = ball(affine)
    array, grid = resample_to_grid(volume, (2.0, 2.0, 2.0))
    foreground = window(array, -1000, 400)
    labels = labels_on_source(np.stack([1 - foreground, foreground]), grid, volume)
    assert labels.dtype == np.uint8
    assert labels.shape == volume.array.shape
    assert dice(labels == 1, inside) > 0.85


@given(affine=affines(), axes=st.sampled_from(EVERY_AXES))
@settings(deadline=None, max_examples=40)
def test_labels_come_back_to_the_same_voxels_whatever_the_axes_of_the_network(affine: Affine, axes: str) -> None:
    volume, _, _ = ball(affine)
    volume.array[2:6, 3:9, 20:26] = -300  # and a darker block in one corner only
    found = []
    for each in ("HPL", axes):
        array, grid = resample_to_grid(volume, (2.0, 2.0, 2.0), each)
        dark, bright = (np.clip(1 - np.abs(array - centre) / 700, 0, 1) for centre in (-300, 400))
        probabilities = np.stack([1 - np.maximum(dark, bright), dark, bright])
        found.append(labels_on_source((probabilities / probabilities.sum(axis=0)).astype(np.float32), grid, volume))
    np.testing.assert_array_equal(*found)


def many_classes(dtype: type) -> tuple[NDArray[np.floating], Affine, Volume, NDArray[np.float32]]:
    """Thirty classes, each around a point of its own; and each class's probability at every voxel of a finer volume."""
    random, shape = np.random.default_rng(8), (14, 15, 16)
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    distance = np.stack([((index - centre) ** 2).sum(axis=-1) for centre in random.random((30, 3)) * shape])
    logits = np.concatenate([np.full((1, *shape), -6.0), -distance])
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32).astype(dtype)
    grid = np.array([[0, 0, 2.0, 5], [0, 2.0, 0, -7], [2.0, 0, 0, 3], [0, 0, 0, 1]])
    affine = np.array([[0.1, 0.2, 0.9, 5.03], [0.1, 1.0, -0.2, -6.02], [1.1, -0.1, 0.1, 4.01], [0, 0, 0, 1]])
    volume = Volume(np.zeros((25, 24, 23), np.int16), affine, ("1.2",) * 25)
    to_grid = np.linalg.inv(grid) @ affine
    each = [
        resample(sitk.GetImageFromArray(entry.astype(np.float32)), volume.array.shape, to_grid, 0.0)
        for entry in probabilities[1:]
    ]
    return probabilities, grid, volume, np.stack([1 - np.sum(each, axis=0), *each])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_many_classes_slab_by_slab_are_labelled_as_all_of_them_at_once(dtype: type) -> None:
    probabilities, grid, volume, plain = many_classes(dtype)
    labels = labels_on_source(probabilities, grid, volume)
    ordered = np.sort(plain, axis=0)
    clear = ordered[-1] - ordered[-2] > 1e-3
    assert clear.mean() > 0.95
    assert len(np.unique(labels)) > 20
    np.testing.assert_array_equal(labels[clear], plain.argmax(axis=0)[clear])


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_probabilities_and_masks_slab_by_slab_are_those_of_the_whole_volume(dtype: type) -> None:
    probabilities, grid, volume, plain = many_classes(dtype)
    grades = probabilities_on_source(probabilities, grid, volume)
    assert np.abs(grades - plain[1:] * 255.0).max() <= 0.51
    for mask, expected in zip(masks_on_source(probabilities[1:], grid, volume), plain[1:], strict=True):
        np.testing.assert_array_equal(mask, expected >= 0.5)


def test_half_precision_maps_lose_their_small_components_as_others_do() -> None:
    probabilities, *_ = many_classes(np.float32)
    labels = probabilities.argmax(axis=0).astype(np.uint8)
    expected = keep_largest_component(labels)
    assert (expected != labels).any() or labels[0, 0, 0] != 30
    probabilities[:, 0, 0, 0], probabilities[30, 0, 0, 0] = 0, 1  # far from the rest of class 30
    for maps in (probabilities.astype(np.float16), probabilities):
        drop_small_components(maps)
        found = maps.argmax(axis=0)
        assert found[0, 0, 0] == 0
        np.testing.assert_array_equal(found.ravel()[1:], expected.ravel()[1:])


@given(affine=affines())
@settings(deadline=None, max_examples=15)
def test_the_shortcut_around_the_segments_changes_no_voxel(affine: Affine) -> None:
    volume, _, _ = ball(affine)
    array, grid = resample_to_grid(volume, (4.0, 4.0, 4.0))
    random = np.random.default_rng(3)
    logits = random.normal(0, 2, (3, *array.shape))
    logits[0] += 3
    probabilities = (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)
    whole = probabilities.copy()
    # One likely voxel in two opposite corners makes the region the whole grid.
    for corner in ((0, 0, 0), (-1, -1, -1)):
        whole[(slice(None), *corner)] = (0.0, 1.0, 0.0)
        probabilities[(slice(None), *corner)] = (1.0, 0.0, 0.0)
    first, second = labels_on_source(probabilities, grid, volume), labels_on_source(whole, grid, volume)
    centre = tuple(slice(length // 3, 2 * length // 3) for length in volume.array.shape)
    assert np.array_equal(first[centre], second[centre])


def test_two_segments_meet_where_their_probabilities_are_equal() -> None:
    affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    probabilities = np.zeros((3, 4, 4, 8), np.float32)
    probabilities[1, ..., :4] = 1
    probabilities[2, ..., 4:] = 1
    fine = affine.copy()
    fine[0, 2] = 0.5
    fine[0, 3] = -0.25
    source = Volume(np.zeros((4, 4, 16), np.int16), fine, tuple("abcd"))
    labels = labels_on_source(probabilities, affine, source)
    assert labels[1, 1].tolist() == [1] * 8 + [2] * 8


def test_voxels_outside_of_the_grid_are_background() -> None:
    affine = np.array([[0, 0, 1.0, 0], [0, 1.0, 0, 0], [1.0, 0, 0, 0], [0, 0, 0, 1]])
    shifted = affine.copy()
    shifted[0, 3] = 3
    probabilities = np.stack([np.zeros((4, 4, 4), np.float32), np.ones((4, 4, 4), np.float32)])
    labels = labels_on_source(probabilities, affine, Volume(np.zeros((4, 4, 4), np.int16), shifted, tuple("abcd")))
    assert labels[0, 0].tolist() == [1, 0, 0, 0]


def test_nothing_found_gives_only_background() -> None:
    affine = np.eye(4)
    probabilities = np.stack([np.ones((4, 4, 4), np.float32), np.zeros((4, 4, 4), np.float32)])
    assert not labels_on_source(
        probabilities, affine, Volume(np.zeros((4, 4, 4), np.int16), affine, tuple("abcd"))
    ).any()


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.2, 0.35), (0.5, 0.2)])
@pytest.mark.parametrize("shape", [(400, 300), (90, 250), (64, 64), (2000, 1500)])
def test_a_disc_comes_back_to_its_pixels(shape: tuple[int, int], pixel: tuple[float, float]) -> None:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = np.hypot(rows - shape[0] * 0.4, columns - shape[1] * 0.6) < min(shape) * 0.25
    tensor, placement = fit(inside.astype(np.float32), (128, 128), pixel)
    labels = labels_on_radiograph(np.stack([1 - tensor, tensor]), placement)
    assert labels.shape == shape
    assert dice(labels == 1, inside) > 0.95


def test_only_the_largest_component_of_each_label_is_kept() -> None:
    labels = np.zeros((6, 20, 20), np.uint8)
    labels[1:5, 2:8, 2:8] = 1
    labels[0, 15:17, 15:17] = 1
    labels[1:5, 2:8, 10:16] = 3
    labels[5, 18, 0] = 3
    kept = keep_largest_component(labels)
    expected = labels.copy()
    expected[0, 15:17, 15:17] = 0
    expected[5, 18, 0] = 0
    assert np.array_equal(kept, expected)


def test_the_largest_component_works_on_an_x_ray_too() -> None:
    labels = np.zeros((20, 20), np.uint8)
    labels[2:8, 2:8] = 1
    labels[15, 15] = 1
    kept = keep_largest_component(labels)
    assert kept[4, 4] == 1
    assert kept[15, 15] == 0


def test_no_labels_stay_no_labels() -> None:
    assert not keep_largest_component(np.zeros((3, 4, 5), np.uint8)).any()


@given(
    affine=affines(),
    gaps=st.lists(st.sampled_from([0.4, 1.0, 1.3, 2.0, 3.0]), min_size=6, max_size=12),
)
@settings(deadline=None, max_examples=30)
def test_uneven_slices_are_labelled_where_they_lie(affine: Affine, gaps: list[float]) -> None:
    """A probability that grows evenly through the patient is one half on a plane, which no slice may misplace."""
    at = (0.0, *(float(value) for value in np.cumsum(gaps)))
    at = tuple(value * round(at[-1]) / at[-1] for value in at)
    shape = (len(at), 9, 11)
    volume = Volume(np.zeros(shape, np.int16), affine, ("1.2",) * len(at), at=at)
    whole = Volume(np.zeros((round(at[-1]) + 1, *shape[1:]), np.int16), affine, ("1.2",) * (round(at[-1]) + 1))
    _, grid = resample_to_grid(whole, (1.0, 1.0, 1.0))
    size = np.ceil((np.abs(affine[:3, :3]) @ [round(at[-1]) + 1, *shape[1:]])[::-1]).astype(int)
    centre = (affine @ [at[-1] / 2, 4, 5, 1])[:3]
    across = affine[:3, 0] / np.linalg.norm(affine[:3, 0])

    def probability(positions: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(0.5 + (positions - centre) @ across / 200, 0, 1)

    index = np.stack(np.meshgrid(*(np.arange(length) for length in size), indexing="ij"), axis=-1)
    field = probability(index @ grid[:3, :3].T + grid[:3, 3])
    labels = labels_on_source(np.stack([1 - field, field]).astype(np.float32), grid, volume)
    slices = np.array(at)[:, None, None]
    voxels = np.stack(np.broadcast_arrays(slices, np.arange(9)[:, None], np.arange(11)), axis=-1)
    expected = probability(voxels @ affine[:3, :3].T + affine[:3, 3])
    clear = np.abs(expected - 0.5) > 1e-4
    np.testing.assert_array_equal(labels[clear] == 1, expected[clear] > 0.5)


@given(affine=affines(), gaps=st.none() | st.lists(st.sampled_from([0.4, 1.0, 2.0]), min_size=11, max_size=11))
@settings(deadline=None, max_examples=25)
def test_probabilities_are_interpolated_where_the_voxels_lie(affine: Affine, gaps: list[float] | None) -> None:
    """A probability that grows evenly through the patient is known at every voxel, faint ones too."""
    at = None if gaps is None else (0.0, *(float(value) for value in np.cumsum(gaps) * 20 / np.sum(gaps)))
    steps = np.arange(12.0) if at is None else np.array(at)
    volume = Volume(np.zeros((12, 9, 11), np.int16), affine, ("1.2",) * 12, at=at)
    _, grid = resample_to_grid(volume, (1.0, 1.0, 1.0))
    voxels = np.stack(np.meshgrid(steps, np.arange(9), np.arange(11), indexing="ij"), axis=-1)
    positions = voxels @ affine[:3, :3].T + affine[:3, 3]
    size = np.ceil(np.linalg.inv(grid)[:3, :3] @ (positions.reshape(-1, 3).max(axis=0) - grid[:3, 3])).astype(int) + 2
    low, high = positions.reshape(-1, 3).min(axis=0), positions.reshape(-1, 3).max(axis=0)
    slope = 1 / (2 * (high - low).sum())

    def field(places: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.clip(((places - low) * slope).sum(axis=-1), 0, 1)

    index = np.stack(np.meshgrid(*(np.arange(length) for length in size), indexing="ij"), axis=-1)
    one = field(index @ grid[:3, :3].T + grid[:3, 3])
    found = probabilities_on_source(np.stack([1 - one * 1.5, one, one / 2]).astype(np.float32), grid, volume)
    assert found.shape == (2, *volume.array.shape)
    inner = ((positions - grid[:3, 3]) @ np.linalg.inv(grid)[:3, :3].T >= 0).all(axis=-1)
    inner &= field(positions) > 0.02
    for segment, expected in zip(found, (field(positions), field(positions) / 2), strict=True):
        assert np.abs(segment[inner] - 255 * expected[inner]).max() < 0.6 + 255 * 3 * slope


def test_faint_probabilities_are_kept_where_no_voxel_is_labelled() -> None:
    affine = np.eye(4)
    probabilities = np.zeros((2, 6, 6, 6), np.float32)
    probabilities[1, 3, 3, 3] = 0.1
    probabilities[0] = 1 - probabilities[1]
    volume = Volume(np.zeros((6, 6, 6), np.int16), affine, tuple("abcdef"))
    found = probabilities_on_source(probabilities, affine, volume)
    assert found[0, 3, 3, 3] == 26
    assert found.sum() == 26
    assert not labels_on_source(probabilities, affine, volume).any()


def test_probabilities_of_an_x_ray_are_those_of_the_tensor_under_its_pixels() -> None:
    image = np.tile(np.linspace(0, 1, 100, dtype=np.float32), (80, 1))
    tensor, placement = fit(image, (64, 64))
    found = probabilities_on_radiograph(np.stack([1 - tensor, tensor]), placement)
    assert found.shape == (1, 80, 100)
    inner = found[0, 3:-3, 3:-3]
    np.testing.assert_allclose(inner, 255 * image[3:-3, 3:-3], atol=2.5)


@pytest.mark.parametrize("pixel", [(1.0, 1.0), (0.2, 0.35), (0.5, 0.2)])
@pytest.mark.parametrize("shape", [(400, 300), (90, 250), (2000, 1500)])
def test_an_activation_map_falls_on_the_pixels_that_its_cells_cover(
    shape: tuple[int, int], pixel: tuple[float, float]
) -> None:
    rows, columns = np.ogrid[: shape[0], : shape[1]]
    inside = (np.abs(rows / shape[0] - 0.4) < 0.2) & (np.abs(columns / shape[1] - 0.6) < 0.2)
    tensor, placement = fit(inside.astype(np.float32), (96, 96), pixel)
    cells = tensor.reshape(24, 4, 24, 4).mean(axis=(1, 3))
    (found,) = activations_on_radiograph(cells[None], placement, (96, 96))
    assert found.shape == shape
    assert found.max() == 255
    assert dice(found > 127, inside) > 0.85
    for axis, length in enumerate(shape):
        along = found.sum(axis=1 - axis, dtype=float)
        centre = (along * np.arange(length)).sum() / along.sum()
        assert centre == pytest.approx(np.argwhere(inside)[:, axis].mean(), abs=0.01 * length)


def test_activation_maps_of_several_classes_share_the_scale_of_the_largest() -> None:
    _, placement = fit(np.ones((40, 40), np.float32), (16, 16))
    maps = np.stack([np.full((4, 4), value, np.float32) for value in (5.0, 2.5, -3.0)])
    found = activations_on_radiograph(maps, placement, (16, 16))
    assert [int(each.min()) for each in found] == [int(each.max()) for each in found] == [255, 128, 0]


def test_where_nothing_speaks_for_any_class_the_activation_maps_are_empty() -> None:
    _, placement = fit(np.ones((40, 40), np.float32), (16, 16))
    assert not activations_on_radiograph(np.full((2, 4, 4), -1.0, np.float32), placement, (16, 16)).any()
