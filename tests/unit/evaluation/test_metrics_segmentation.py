"""Overlap, surfaces, volumes and pixels: by hand, and as SciPy measures distances."""

import numpy as np
import pytest

from engines.types import Radiograph, Volume
from evaluation.metrics.segmentation import compare, iou, pixel_figures, segmentation_figures
from evaluation.metrics.surfaces import straightened, surface_distances
from evaluation.metrics.volumes import volume_ml


def box(shape: tuple[int, ...], *ranges: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.bool_)
    mask[tuple(slice(*each) for each in ranges)] = True
    return mask


def ct(shape: tuple[int, int, int], affine: np.ndarray | None = None, at: tuple[float, ...] | None = None) -> Volume:
    """Slices of 3 mm, pixels of 2 mm × 1 mm."""
    straight = np.array([[0, 0, 1, 0], [0, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]], float)
    affine = straight if affine is None else affine
    return Volume(np.zeros(shape, np.int16), affine, tuple(map(str, range(shape[0]))), at=at)


def test_a_box_that_is_moved_overlaps_as_counted_by_hand() -> None:
    one, other = box((4, 10, 10), (1, 3), (2, 8), (2, 6)), box((4, 10, 10), (1, 3), (2, 8), (4, 8))
    found = compare({"lung": one}, {"lung": other}, ct((4, 10, 10))).figures
    assert found["dice"] == found["dice_lung"] == pytest.approx(0.5)
    assert found["iou"] == pytest.approx(1 / 3)
    assert found["hausdorff95_mm"] == pytest.approx(2.0)
    assert found["volume_mae_ml"] == 0.0


def test_a_volume_errs_by_its_difference_in_millilitres() -> None:
    # voxels of 6 mm³: 100 of the reference, 150 and 50 that were found
    reference, larger, smaller = (box((4, 10, 15), (0, 1), (0, 10), (0, width)) for width in (10, 15, 5))
    image = ct((4, 10, 15))
    agreements = [compare({"mass": reference}, {"mass": found}, image) for found in (larger, smaller)]
    figures = segmentation_figures(agreements, ["a", "b"], rounds=20)
    assert figures["volume_mae_ml"].value == pytest.approx(0.3)
    assert figures["volume_mse_ml2_mass"].value == pytest.approx(0.09)


def test_distances_are_those_between_all_pairs_of_surface_voxels() -> None:
    random = np.random.default_rng(1)
    from_noise = [random.random((9, 11, 13)) > 0.8 for _ in range(2)]
    spacing = (3.0, 2.0, 0.5)
    points = []
    for mask in from_noise:
        padded = np.pad(mask, 1)
        inner = np.logical_and.reduce(
            [np.roll(padded, step, axis)[1:-1, 1:-1, 1:-1] for axis in range(3) for step in (1, -1)]
        )
        points.append(np.argwhere(mask & ~inner) * spacing)
    between = np.linalg.norm(points[0][:, None] - points[1][None], axis=2)
    there, back = between.min(axis=0), between.min(axis=1)
    found = surface_distances(*from_noise, spacing)
    assert found.mean == pytest.approx(np.concatenate([there, back]).mean(), abs=1e-4)
    assert found.hausdorff95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-4)


def test_the_surface_of_a_ball_is_nowhere_inside_of_it() -> None:
    distance = np.linalg.norm(np.indices((41, 41, 41)) - 20, axis=0)
    found = surface_distances(distance < 15, distance < 10, (1, 1, 1))
    assert found.mean == pytest.approx(5.0, abs=0.3)
    assert surface_distances(distance < 15, distance < 15, (1, 1, 1)).hausdorff95 == 0.0


def test_a_mask_at_the_edge_of_the_image_ends_there() -> None:
    whole = np.ones((6, 6), np.bool_)
    # the first two columns are each 4 or 3 from the last that is kept; the sides are shared
    cut = box((6, 6), (0, 6), (0, 2))
    assert surface_distances(cut, whole, (1, 1)).hausdorff95 == pytest.approx(4.0)


def test_a_slab_of_two_slices_that_fill_the_image_is_nothing_but_surface() -> None:
    slab, half = box((4, 6, 6), (0, 2), (0, 6), (0, 6)), box((4, 6, 6), (0, 2), (0, 6), (0, 3))
    assert surface_distances(slab, slab, (1, 1, 1)).mean == 0.0
    assert surface_distances(slab, half, (1, 1, 1)).hausdorff95 == pytest.approx(3.0)


def test_nothing_found_of_nothing_is_right_and_nothing_found_of_something_as_wrong_as_can_be() -> None:
    nothing, something = np.zeros((4, 3, 4), np.bool_), box((4, 3, 4), (1, 2), (1, 2), (1, 2))
    agreed = compare({"mass": nothing}, {}, ct((4, 3, 4))).figures
    assert (agreed["dice"], agreed["iou"], agreed["hausdorff95_mm"], agreed["surface_distance_mm"]) == (1, 1, 0, 0)
    for reference, found in ((something, nothing), (nothing, something)):
        missed = compare({"mass": reference}, {"mass": found}, ct((4, 3, 4))).figures
        assert (missed["dice"], missed["iou"]) == (0, 0)
        assert missed["hausdorff95_mm"] == missed["surface_distance_mm"] == pytest.approx(np.sqrt(12**2 + 6**2 + 4**2))


def test_an_x_ray_without_spacing_is_measured_in_pixels() -> None:
    one, other = box((20, 20), (5, 15), (5, 15)), box((20, 20), (5, 15), (6, 16))
    plain = compare({"lung": one}, {"lung": other}, Radiograph(np.zeros((20, 20), np.float32), None, "")).figures
    spaced = compare({"lung": one}, {"lung": other}, Radiograph(np.zeros((20, 20), np.float32), (0.3, 0.2), ""))
    assert plain["hausdorff95_px"] == pytest.approx(1.0)
    assert spaced.figures["hausdorff95_mm"] == pytest.approx(0.2)
    assert "hausdorff95_mm" not in plain
    assert "volume_mae_ml" not in spaced.figures


def test_a_tilted_volume_is_measured_where_its_slices_really_lie() -> None:
    # a step of 3 mm up is 2 mm (one row) to the back: the same place in the patient wanders over the rows
    tilted = ct((8, 20, 20), np.array([[0, 0, 1, 0], [2, 2, 0, 0], [3, 0, 0, 0], [0, 0, 0, 1]], float))
    one, other = np.zeros((2, 8, 20, 20), np.bool_)
    for index in range(8):
        one[index, 10 - index, 5:15] = True
        other[index, 12 - index, 5:15] = True
    (upright, moved), spacing = straightened(tilted, (one, other))
    assert spacing == pytest.approx((3, 2, 1))
    assert len(np.flatnonzero(upright.any(axis=(0, 2)))) == len(np.flatnonzero(moved.any(axis=(0, 2)))) == 1
    found = compare({"plate": one}, {"plate": other}, tilted).figures
    assert found["hausdorff95_mm"] == found["surface_distance_mm"] == pytest.approx(4.0)


def test_a_gap_between_slices_is_as_long_as_it_is() -> None:
    uneven = ct((4, 6, 6), at=(0, 1, 2, 6))
    below, above = box((4, 6, 6), (2, 3), (0, 6), (0, 6)), box((4, 6, 6), (3, 4), (0, 6), (0, 6))
    masks, spacing = straightened(uneven, (below, above))
    assert spacing == pytest.approx((3, 2, 1))
    # planes at 0, 3, … 18 mm: those at 6, 9 and 12 mm are the slice at 6 mm, those at 15 and 18 mm the one at 18 mm
    assert [sorted(np.flatnonzero(mask.any(axis=(1, 2)))) for mask in masks] == [[2, 3, 4], [5, 6]]
    assert volume_ml(above, uneven) == pytest.approx(36 * 2 * 12 / 1000)
    assert volume_ml(below, uneven) == pytest.approx(36 * 2 * 3 * 2.5 / 1000)


def test_a_volume_with_perpendicular_axes_is_left_as_it_is_however_the_patient_lies() -> None:
    angle = 0.4
    turned = ct((4, 6, 6)).affine
    turned[:2] = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]) @ turned[:2]
    mask = box((4, 6, 6), (1, 3), (1, 4), (2, 5))
    [same], spacing = straightened(ct((4, 6, 6), turned), [mask])
    assert same is mask
    assert spacing == pytest.approx((3, 2, 1))


def test_pixels_of_all_images_are_counted_as_long_and_others_do() -> None:
    confusion = np.array([[80, 5, 0], [4, 6, 0], [0, 5, 0]])
    found = pixel_figures(confusion)
    overlaps = np.array([80 / 89, 6 / 20, 0])
    assert found["pixel_accuracy"] == pytest.approx(0.86)
    assert found["mean_pixel_accuracy"] == pytest.approx(np.mean([80 / 85, 6 / 10, 0]))
    assert found["mean_iou"] == pytest.approx(overlaps.mean())
    assert found["frequency_weighted_iou"] == pytest.approx((overlaps * [0.85, 0.1, 0.05]).sum())


def test_a_class_that_is_nowhere_true_counts_in_no_mean_of_classes() -> None:
    assert pixel_figures(np.array([[90, 0, 10], [0, 0, 0], [0, 0, 50]]))["mean_pixel_accuracy"] == pytest.approx(0.95)


def test_pixel_accuracies_are_those_of_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics", reason="scikit-learn is in the extras test and train")
    random = np.random.default_rng(8)
    true, answered = random.integers(3, size=(2, 30, 30))
    image = Radiograph(np.zeros((30, 30), np.float32), None, "")
    names = ("left", "right")
    agreement = compare(
        {name: true == index for index, name in enumerate(names, start=1)},
        {name: answered == index for index, name in enumerate(names, start=1)},
        image,
    )
    assert agreement.confusion is not None
    assert (agreement.confusion == metrics.confusion_matrix(true.ravel(), answered.ravel())).all()
    overlaps = metrics.jaccard_score(true.ravel(), answered.ravel(), average=None)
    found = pixel_figures(agreement.confusion)
    assert found["mean_iou"] == pytest.approx(overlaps.mean())
    assert found["pixel_accuracy"] == pytest.approx((true == answered).mean())
    assert agreement.figures["iou_left"] == iou(true == 1, answered == 1) == pytest.approx(overlaps[1])


def test_segments_that_overlap_have_no_table_of_pixels() -> None:
    mask = box((4, 4), (0, 3), (0, 3))
    image = Radiograph(np.zeros((4, 4), np.float32), None, "")
    agreement = compare({"whole": mask, "core": mask}, {"whole": mask, "core": mask}, image)
    assert agreement.confusion is None
    assert "pixel_accuracy" not in segmentation_figures([agreement], ["a"])


def test_a_figure_is_the_mean_of_the_cases_that_have_the_segment() -> None:
    image = Radiograph(np.zeros((10, 10), np.float32), None, "")
    half, whole = box((10, 10), (0, 5), (0, 10)), box((10, 10), (0, 10), (0, 10))
    agreements = [
        compare({"left": half}, {"left": half}, image),
        compare({"left": half, "right": ~half}, {"left": whole}, image),
    ]
    figures = segmentation_figures(agreements, ["a", "b"], rounds=50)
    assert figures["dice_left"].value == pytest.approx((1 + 2 / 3) / 2)
    assert figures["dice_right"].value == 0.0
    assert figures["dice"].value == pytest.approx((1 + 1 / 3) / 2)
    assert figures["dice_left"].low == pytest.approx(2 / 3)
