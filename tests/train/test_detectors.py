"""Detectors of nodules on slices: boxes, what they learn, and the tiles that they are trained and judged on."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")

from build_engines.recipes import training  # noqa: E402
from build_engines.recipes.augmentation import primitives  # noqa: E402
from build_engines.recipes.data.nodules import NodulePatch  # noqa: E402
from build_engines.recipes.data.sources import LabelledCt  # noqa: E402
from build_engines.recipes.ladder import nodule_detection, nodule_slices  # noqa: E402
from build_engines.recipes.ladder.nodule_detection import (  # noqa: E402
    PLACES,
    ROWS,
    SCORES,
    Judged,
    NoduleDetector,
)
from build_engines.recipes.ladder.nodule_slices import SIZE, Nodule, Scan, Tile, cut  # noqa: E402
from build_engines.recipes.ladder.unpackaged import Compiled, compiled  # noqa: E402
from build_engines.recipes.networks.anchors import anchors, decode, encode, flat, match, overlaps  # noqa: E402
from build_engines.recipes.networks.centre2d import Centre2d, heat_of  # noqa: E402
from build_engines.recipes.networks.faster_rcnn import POOLED, FasterRcnn, pooled  # noqa: E402
from build_engines.recipes.networks.pyramid import Detector  # noqa: E402
from build_engines.recipes.networks.ssd import Ssd  # noqa: E402
from engines.types import Volume  # noqa: E402

EVERY = [Ssd, Centre2d, FasterRcnn]


def scan(seed: int, balls: int = 2) -> Scan:
    """One or two bright balls of 10 mm in dark noise, with voxels of 2 × 1 × 1 mm."""
    random = np.random.default_rng(seed)
    radius, step = 5.0, np.array([2.0, 1.0, 1.0])
    image = random.normal(-850, 30, (30, 90, 90))
    labels = np.zeros(image.shape, np.uint8)
    nodules = []
    for number, low, high in ((1, 15, 40), (2, 50, 75))[:balls]:
        centre = np.array([15.0, *random.uniform(low, high, 2)])
        axes = np.ogrid[:30, :90, :90]
        square = sum(((axis - place) * mm) ** 2 for axis, place, mm in zip(axes, centre, step, strict=True))
        labels[np.asarray(square) <= radius**2] = number
        nodules.append(Nodule(centre, 2 * radius, f"{seed}_{number}"))
    image[labels > 0] = 40
    places = np.argwhere(np.ones((3, 3, 3))) + np.array([25, 45, 45])
    return Scan(image.astype(np.int16), labels, step, tuple(nodules), places)


@pytest.mark.parametrize("network", EVERY)
def test_each_detector_learns_to_find_bright_balls(network: type[Detector]) -> None:
    scans = [scan(seed) for seed in range(4)]
    recipe = NoduleDetector("balls", network, scans, scans, drawn=8)
    trained = training.train(recipe, 50, 1, None, lambda _: None, lambda _: None)
    engine = compiled(trained, np.zeros((1, 3, SIZE, SIZE), np.float32), (PLACES, SCORES))
    judged = nodule_detection.tiles_to_judge([scan(9), scan(10)], 2, np.random.default_rng(1))
    figures = nodule_detection.figures(engine, judged)
    assert figures["froc_sensitivity_at_0.5"].value > 0.8
    assert figures["average_precision_at_iou_0.3"].value > 0.6


@pytest.mark.parametrize("network", EVERY)
def test_a_compiled_detector_answers_as_the_trained_one(network: type[Detector]) -> None:
    detector = network().eval()
    image = np.random.default_rng(1).uniform(0, 1, (1, 3, SIZE, SIZE)).astype(np.float32)
    engine = compiled(detector, image, (PLACES, SCORES))
    with torch.no_grad():
        boxes, scores = detector(torch.from_numpy(image))
    answers = engine.infer(image)
    assert answers[PLACES].shape == boxes.shape
    assert answers[SCORES].shape == (*boxes.shape[:2], 1)
    # Sorted: which of two nearly equal proposals comes first is the rounding's choice.
    ours, theirs = (np.sort(each.ravel()) for each in (answers[SCORES], scores.numpy()))
    assert np.abs(ours - theirs).max() < 0.01


@pytest.mark.parametrize("network", EVERY)
def test_images_without_nodules_are_learnt_from_too(network: type[Detector]) -> None:
    detector = network().train()
    outputs = detector.logits(torch.rand(2, 3, SIZE, SIZE))
    loss = detector.loss(outputs, [torch.zeros(0, 4)] * 2)
    torch.autograd.backward(loss)
    assert torch.isfinite(loss)
    assert any(each.grad is not None and each.grad.abs().sum() > 0 for each in detector.features.parameters())


def test_a_box_that_is_encoded_is_decoded_again() -> None:
    around = anchors((4, 5), 4, (5.0, 9.0))
    boxes = around + torch.tensor([-1.0, 0.5, 2.0, 1.5])
    assert torch.allclose(decode(encode(boxes, around), around), boxes, atol=1e-4)


def test_anchors_lie_in_the_order_of_the_flat_head() -> None:
    sides, head = (5.0, 9.0), torch.zeros(1, 2 * 4, 4, 6)
    # The second size, third row, fifth column.
    head[0, 4:, 2, 4] = 1
    which = int(flat(head, 4)[0].sum(dim=1).argmax())
    expected = torch.tensor([4 * 2.5 - 4.5, 4 * 4.5 - 4.5, 4 * 2.5 + 4.5, 4 * 4.5 + 4.5])
    assert torch.equal(anchors((4, 6), 4, sides)[which], expected)


def test_overlaps_are_intersection_over_union() -> None:
    one = torch.tensor([[0.0, 0.0, 4.0, 4.0]])
    other = torch.tensor([[0.0, 2.0, 4.0, 6.0], [4.0, 4.0, 8.0, 8.0], [0.0, 0.0, 4.0, 4.0]])
    assert torch.allclose(overlaps(one, other), torch.tensor([[1 / 3, 0.0, 1.0]]))


def test_a_box_that_no_anchor_overlaps_enough_still_has_the_best_one() -> None:
    around, boxes = anchors((4, 4), 4, (4.0,)), torch.tensor([[1.0, 1.0, 13.0, 13.0]])
    assert int((match(around, boxes, 0.5)[1] >= 0).sum()) == 1
    assert int((match(around, boxes, 0.5, always=False)[1] >= 0).sum()) == 0


def test_regions_are_sampled_where_they_are() -> None:
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    # The middle of a place at stride 4, in pixels.
    features = torch.stack([4 * rows + 2, 4 * columns + 2])[None]
    box = torch.tensor([[[10.0, 20.0, 30.0, 50.0]]])
    sampled = pooled(features, box).reshape(2, POOLED, POOLED)
    assert torch.allclose(sampled[0, :, 0], 10 + 20 * (torch.arange(5) + 0.5) / 5, atol=1e-3)
    assert torch.allclose(sampled[1, 0], 20 + 30 * (torch.arange(5) + 0.5) / 5, atol=1e-3)


def test_the_heat_is_one_at_the_middle_only() -> None:
    heat, places = heat_of(torch.tensor([[8.0, 40.0, 16.0, 48.0]]), (16, 16))
    assert places.tolist() == [[3, 11]]
    assert heat[3, 11] == 1
    assert int((heat == 1).sum()) == 1


def test_boxes_lie_around_the_nodules_of_a_tile_however_it_is_turned() -> None:
    random = np.random.default_rng(1)
    for _ in range(8):
        source = scan(3, balls=1)
        linear = primitives.rotation(np.array([random.uniform(-3, 3), 0, 0])) * random.uniform(0.8, 1.2)
        tile = cut(source, nodule_slices.beside(source, source.nodules[0], random), linear)
        bright = tile.image[1].numpy() > 0.5
        low, high = np.argwhere(bright).min(axis=0), np.argwhere(bright).max(axis=0) + 1
        assert len(tile.boxes) == 1
        assert np.abs(tile.boxes[0].numpy() - [*low, *high]).max() <= 1


def test_implants_are_labelled_where_they_were_put() -> None:
    random = np.random.default_rng(1)
    lungs = np.zeros((40, 80, 80), np.uint8)
    lungs[4:-4, 8:-8, 8:-8] = 1
    affine = np.array([[0, 0, 2.0, -80], [0, 2.0, 0, -80], [3.0, 0, 0, 10], [0, 0, 0, 1]])
    before = random.normal(-850, 20, lungs.shape).astype(np.float32)
    ct = LabelledCt(Volume(before, affine, tuple(map(str, range(40)))), lungs)
    square = sum((axis - 25) ** 2 for axis in np.ogrid[:51, :51, :51])
    patches = [
        NodulePatch(f"{radius}_1", np.where(square < radius**2, 40, -850).astype(np.float32), square < radius**2)
        for radius in (5, 8)
    ]
    chest = nodule_slices.with_implants(ct, patches, random)
    changed = np.abs(chest.image - before) > 400
    assert len(chest.nodules) == 2
    assert {nodule.patient for nodule in chest.nodules} == {"5_1", "8_1"}
    assert 2 * (changed & (chest.labels > 0)).sum() / (changed.sum() + (chest.labels > 0).sum()) > 0.75
    for number, nodule in enumerate(chest.nodules, start=1):
        assert np.allclose(np.argwhere(chest.labels == number).mean(axis=0), nodule.centre, atol=1)


def test_tiles_that_judge_have_nodules_and_as_many_have_none() -> None:
    judged = nodule_detection.tiles_to_judge([scan(1), scan(2)], 3, np.random.default_rng(1))
    with_some = [each for each in judged if len(each.tile.boxes)]
    assert len(with_some) == 12
    assert len(judged) == 24
    assert {each.patient for each in judged} == {"1_1", "1_2", "2_1", "2_2"}


def test_a_box_at_the_nodule_is_a_hit_and_another_is_a_false_positive() -> None:
    box = torch.tensor([[10.0, 20.0, 18.0, 28.0]])
    tile = Tile(torch.zeros(3, SIZE, SIZE), box, (8.0,), ("1_1",))

    def engine(found: list[float]) -> Compiled:
        answers = {PLACES: np.array([[found]], np.float32), SCORES: np.array([[[0.9]]], np.float32)}
        return Compiled(lambda _: answers, 0, 0, 0.0)

    hit = nodule_detection.figures(engine([11, 20, 19, 28]), [Judged(tile, "1_1")])
    assert hit["froc_sensitivity_at_0.125"].value == 1
    assert hit["average_precision_at_iou_0.3"].value == 1
    miss = nodule_detection.figures(engine([40, 40, 48, 48]), [Judged(tile, "1_1")])
    assert miss["froc_sensitivity_at_8"].value == 0
    assert miss["false_positives_per_scan"].value == 1


def test_every_row_without_its_data_names_what_to_do(tmp_path: Path) -> None:
    for row in ROWS.values():
        assert row.run is not None
        with pytest.raises(FileNotFoundError, match="--data"):
            row.run(tmp_path, 1)
