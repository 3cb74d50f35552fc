"""The CAD pipeline for nodules: what it finds in a drawn lung, what it says of it, and that it learns."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

pytest.importorskip("torch", reason="the deep classifier needs the extra 'train' (torch)")
pytest.importorskip("skimage", reason="features need the extra 'train' (scikit-image)")

import torch

from build_engines.recipes import training
from build_engines.recipes.data.nlst import read_nlst
from build_engines.recipes.ladder.cad import deep
from build_engines.recipes.ladder.cad.candidates import dot
from build_engines.recipes.ladder.cad.classify import CLASSIFIERS, describe_patches, describe_scan, scores
from build_engines.recipes.ladder.cad.features import GROUPS, describe
from build_engines.recipes.ladder.cad.judging import froc_figures, patch_figures, scored, single_figures
from build_engines.recipes.ladder.cad.preprocessing import prepare
from build_engines.recipes.ladder.cad.scans import NEITHER, NODULE, OTHER, Scan, search
from engines.types import Volume
from evaluation.cases import Lesion

LUNG, TISSUE = -850.0, 40.0
BALL, SUBPLEURAL = np.array((48.0, 60.0, 36.0)), np.array((66.0, 30.0, 60.0))
"""Middles of two nodules, slice, row and column in mm: one within the lung, one half in the chest wall at row 30."""

RADIUS = 5.0
STEP = 1.5


def chest() -> Volume:
    """A lung in tissue in air, with two nodules and a vessel along the slices."""
    grid = np.stack(np.meshgrid(*(STEP * np.arange(80),) * 3, indexing="ij"), axis=-1)
    image = np.full(grid.shape[:3], -1000.0, np.float32)
    image[6:-6, 6:-6, 6:-6] = TISSUE
    image[12:-12, 20:-12, 12:-12] = LUNG
    for centre in (BALL, SUBPLEURAL):
        image[np.linalg.norm(grid - centre, axis=-1) <= RADIUS] = TISSUE
    image[12:-12][np.hypot(grid[12:-12, ..., 1] - 80, grid[12:-12, ..., 2] - 80) <= 2.5] = TISSUE
    image += np.random.default_rng(1).normal(0, 20, image.shape).astype(np.float32)
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[::-1] * STEP
    return Volume(image, affine, ("",) * len(image))


def lesion(centre: NDArray[np.float64]) -> Lesion:
    x, y, z = centre[::-1].tolist()
    return Lesion((x - RADIUS, y - RADIUS, z - RADIUS), (x + RADIUS, y + RADIUS, z + RADIUS), 2 * RADIUS)


@pytest.fixture(scope="module")
def scan() -> Scan:
    return search(chest(), (lesion(BALL), lesion(SUBPLEURAL)))


def ball(radius: float, length: float = 0.0, side: int = 25) -> NDArray[np.uint8]:
    """A ball, or a rod with round ends."""
    middle = (side - 1) / 2
    z, y, x = (np.arange(side) - middle for _ in range(3))
    along = np.maximum(0, np.abs(z) - length)
    distance = np.sqrt(along[:, None, None] ** 2 + (y**2)[:, None] + x**2)
    return np.rint(200 / (1 + np.exp(3 * (distance - radius))) + 30).astype(np.uint8)


def test_both_nodules_come_first_and_the_vessel_later(scan: Scan) -> None:
    first = scan.places[:2]
    for centre in (BALL, SUBPLEURAL):
        assert np.linalg.norm(first - centre[::-1], axis=1).min() <= RADIUS
    assert abs(scan.candidates[0].diameter_mm - 2 * RADIUS) < 3


def test_a_nodule_at_the_chest_wall_is_inside_the_lungs_and_the_wall_is_not() -> None:
    lungs = prepare(chest())

    def at(slice_: float, row: float, column: float) -> bool:
        index = np.round(np.linalg.inv(lungs.affine) @ (column, row, slice_, 1)).astype(int)[:3]
        return bool(lungs.inside[tuple(index)])

    # the ball works on voxels of 3 mm, and may leave one of them at the wall
    assert at(66, 33, 60)
    assert not at(66, 20, 60)
    assert not at(14, 60, 60)


def test_a_ct_without_lungs_is_refused() -> None:
    volume = chest()
    with pytest.raises(ValueError, match="no lungs"):
        prepare(Volume(np.full_like(volume.array, 40), volume.affine, volume.sources))


def test_the_dot_filter_answers_dots_and_neither_lines_nor_plates() -> None:
    answers = dot(np.array([[-1.0, -1.0, -1.0], [-1.0, -1.0, -0.1], [-1.0, -0.1, -0.1], [-1.0, -1.0, 0.5]]))
    assert answers[0] == 1
    assert (answers[1:] <= 0.011).all()


def test_a_candidate_is_a_nodule_within_its_radius_and_nothing_to_learn_from_just_outside(scan: Scan) -> None:
    middle = np.linalg.inv(scan.affine) @ (*BALL[::-1], 1)
    steps = [0.8 * RADIUS, RADIUS + 3, RADIUS + 8]
    rows = [(round(middle[0]), round(middle[1] + step / STEP), round(middle[2])) for step in steps]
    moved = tuple(replace(scan.candidates[0], centre=centre) for centre in rows)
    assert replace(scan, candidates=moved).targets.tolist() == [NODULE, NEITHER, OTHER]


def test_features_tell_the_size_and_the_roundness_of_a_ball_and_of_a_rod() -> None:
    round_, long = (describe(image, 4.0)["shape"] for image in (ball(4.0), ball(4.0, length=8.0)))
    equal_radius, _, roundness, flatness, *_ = round_
    assert equal_radius == pytest.approx(4.0, abs=0.4)
    assert roundness == pytest.approx(1.0, abs=0.1)
    assert flatness == pytest.approx(1.0, abs=0.05)
    assert long[2] < roundness
    assert long[3] < 0.8


@pytest.mark.parametrize("dimension", [2, 3])
def test_features_are_the_same_for_a_turned_image(dimension: int) -> None:
    image = np.random.default_rng(1).integers(0, 255, (25,) * dimension, dtype=np.uint8)
    turned = np.rot90(image, axes=(0, 1))
    for name, values in describe(image, 4.0).items():
        # the patterns' neighbours between pixels are interpolated
        assert describe(turned, 4.0)[name] == pytest.approx(values, rel=1e-3, abs=0.02), name
        assert np.isfinite(values).all()


def test_gradients_of_a_ball_point_to_its_middle() -> None:
    mean_cosine = 2
    assert describe(ball(4.0), 4.0)["gradient"][mean_cosine] > 0.9
    assert describe(255 - ball(4.0), 4.0)["gradient"][mean_cosine] < -0.9


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classical_classifier_tells_disks_from_lines(kind: str) -> None:
    random = np.random.default_rng(1)
    disks, lines = ([ball(radius, length)[:, 12] for radius in random.uniform(2, 5, 30)] for length in (0.0, 12.0))
    described = describe_patches(np.stack(disks + lines), np.repeat([1, 0], 30))
    features = described.matrix(tuple(GROUPS))
    fitted = CLASSIFIERS[kind](1).fit(features[::2], described.targets[::2])
    found = scores(fitted, features[1::2])
    assert found[:15].min() > found[15:].max()
    assert ((found >= 0) & (found <= 1)).all()


def test_all_candidates_of_a_scan_are_described(scan: Scan) -> None:
    described = describe_scan(scan)
    assert described.matrix(("response", *GROUPS)).shape[0] == len(scan.candidates)
    assert (described.targets == scan.targets).all()


def test_a_few_steps_lower_the_deep_classifier_s_loss_and_nodules_score_higher(scan: Scan) -> None:
    recipe = replace(deep.training_cubes([scan], seed=1), images=8)
    assert recipe.nodules.shape[1:] == (deep.SIDE + 2 * deep.SHIFT,) * 3
    losses: list[float] = []
    network = training.train(recipe, 12, 1, None, lambda step: losses.append(step.loss), lambda _: None)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])

    def classify(cubes: NDArray[np.float32]) -> NDArray[np.float32]:
        with torch.no_grad():
            return network(torch.from_numpy(cubes)).numpy()

    found = deep.scores(scan, classify)
    assert np.median(found[scan.targets == NODULE]) > np.median(found[scan.targets == OTHER])


def test_perfect_scores_find_every_nodule_before_a_false_positive(scan: Scan) -> None:
    perfect = (scan.targets == NODULE).astype(np.float64)
    figures = froc_figures([scored(scan, perfect)] * 2)
    assert figures["froc_mean"].value == figures["froc_mean_from_8_mm"].value == 1
    assert np.isnan(figures["froc_mean_below_8_mm"].value)
    worst = froc_figures([scored(scan, -perfect)] * 2)
    assert worst["froc_sensitivity_at_0.125"].value == 0
    assert worst["lesion_sensitivity"].value == 1
    assert patch_figures([scan], [perfect])["auc"].value == 1


def test_false_positives_before_the_one_nodule_are_counted(scan: Scan) -> None:
    one = Scan(scan.image, scan.affine, scan.candidates, scan.lesions[:1])
    perfect = (one.targets == NODULE).astype(np.float64)
    assert single_figures(scored(one, perfect))["false_positives_before_nodule"].value == 0
    false = int((one.targets != NODULE).sum())
    assert single_figures(scored(one, -perfect))["false_positives_before_nodule"].value == false
    nothing = Scan(scan.image, scan.affine, scan.candidates, (lesion(np.zeros(3)),))
    assert single_figures(scored(nothing, perfect))["lesion_sensitivity"].value == 0


def test_the_real_nodule_lies_at_the_apex_of_the_left_lung(shared_data: Path) -> None:
    volume, marked = read_nlst(shared_data)
    lungs = prepare(volume)
    inside = np.argwhere(lungs.inside) @ lungs.affine[:3, :3].T + lungs.affine[:3, 3]
    x, _, z = marked.centre
    assert x > np.median(inside[:, 0])
    assert z > np.percentile(inside[:, 2], 85)
    assert (np.subtract(marked.high, marked.low) > 10).all()
    assert (np.subtract(marked.high, marked.low) < 30).all()
