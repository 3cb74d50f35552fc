"""The detector of nodules: its targets, what it learns, and the package that comes of it."""

from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")
onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs the extra 'train' (onnxruntime)")

from build_engines.recipes import ct_nodule, training  # noqa: E402
from build_engines.recipes.ct_nodule import CtNodule  # noqa: E402
from build_engines.recipes.networks.blocks import Network  # noqa: E402
from build_engines.recipes.networks.centre3d import STRIDE, Centre3d  # noqa: E402
from build_engines.recipes.networks.centre_targets import Ball, Targets, centre_loss, targets  # noqa: E402
from build_engines.recipes.packaging.export import export  # noqa: E402
from engines.inference.detection import detect, extent, to_patient  # noqa: E402
from engines.inference.sliding_window import Window  # noqa: E402
from engines.packages.package import load_package  # noqa: E402
from tests.unit.build_engines.test_implant import chest, nodule  # noqa: E402

STEPS = 12
SHAPE = (32, 48, 32)


def recipe(toml: str = ct_nodule.TOML) -> CtNodule:
    nodules = tuple(nodule(8 + number, f"{number}_n") for number in range(8))
    lungs = chest(shape=(60, 90, 90))
    return CtNodule(
        (lungs,),
        nodules,
        lungs,
        nodules[:2],
        Path(),
        toml=toml,
        steps=STEPS,
        learning_rate=5e-3,
        chest_patches=1,
        lidc_patches=1,
    )


def perfect(target: Targets, largest: float) -> tuple[torch.Tensor, torch.Tensor]:
    """The answer that a target asks for, as logits."""
    side = (target.boxes[3:] / largest).clamp(0.01, 0.99)
    boxes = torch.cat([target.boxes[:3], torch.log(side / (1 - side))])
    return torch.where(target.heat > 0.999, 12.0, -12.0), boxes


def test_a_perfect_answer_is_decoded_to_the_nodules_and_costs_nothing() -> None:
    balls = [Ball(np.array([10.3, 30.8, 12.0]), 9.0), Ball(np.array([20.0, 9.6, 21.4]), 16.0)]
    target = targets(balls, SHAPE)
    assert int((target.heat > 0.999).sum()) == 2

    class Perfect(Centre3d):
        def logits(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            heat, boxes = perfect(target, self.largest)
            return heat[None], boxes[None]

    places, scores = Perfect(32.0)(torch.zeros(1, 1, *SHAPE))
    section = load_section()
    found = detect(section, [Window((0, 0, 0), {"boxes": places[0].numpy(), "scores": scores[0].numpy()})],
                   extent(SHAPE), to_patient(np.eye(4)))  # fmt: skip
    assert len(found.found) == 2
    for ball in balls:
        [box] = [each for each in found.found if each.diameter_mm == pytest.approx(ball.diameter, abs=0.01)]
        np.testing.assert_allclose(np.add(box.low, box.high) / 2, ball.centre, atol=0.01)
    heat, boxes = perfect(target, 32.0)
    stacked = Targets.stack([target])
    assert centre_loss(heat[None], boxes[None], stacked, 32.0) < 1e-3
    assert centre_loss(-heat[None], boxes[None], stacked, 32.0) > 10
    assert centre_loss(heat[None], boxes[None] + 1, stacked, 32.0) > 0.2


def load_section():  # type: ignore[no-untyped-def]
    from build_engines.recipes.ct_nodule import SETTINGS
    from engines.packages.head_sections import DetectionSection

    return DetectionSection(**SETTINGS["detection"])


def test_what_is_cut_or_on_a_seam_counts_for_nothing() -> None:
    counts = np.ones(SHAPE, bool)
    counts[:, :, 14:18] = False
    balls = [Ball(np.array([0.5, 24.0, 8.0]), 8.0), Ball(np.array([16.0, 24.0, 16.0]), 8.0)]
    target = targets(balls, SHAPE, counts)
    assert float(target.heat.max()) == 0.0
    for ball in balls:
        assert target.counts[tuple((ball.centre // STRIDE).astype(int))] == 0
    assert target.counts[4, 2, 0] == 1


def test_batches_hold_nodules_where_the_targets_say() -> None:
    random = np.random.default_rng(1)
    made = recipe()
    found = []
    for _ in range(2):
        image, target = made.batch(random)
        assert image.shape == (2, 1, 80, 80, 80)
        assert float(image.min()) >= 0
        assert float(image.max()) <= 1
        for number, z, y, x in torch.nonzero(target.heat > 0.999).tolist():
            middle = np.array([z, y, x]) * STRIDE + (STRIDE - 1) / 2 + target.boxes[number, :3, z, y, x].numpy()
            low = np.clip(np.round(middle).astype(int), 1, 78)
            inside = image[number, 0, low[0] - 1 : low[0] + 2, low[1] - 1 : low[1] + 2, low[2] - 1 : low[2] + 2]
            found.append(float(inside.median()))
    assert len(found) > 4
    # nodules are near 0.7 of the window and lung is near 0.1
    assert np.mean(np.array(found) > 0.4) > 0.9


def test_a_few_steps_lower_the_loss_and_export_a_package_that_computes_the_same(tmp_path: Path) -> None:
    small = ct_nodule.TOML.replace(str(ct_nodule.INPUT["patch"]), "[32, 48, 32]")
    assert small != ct_nodule.TOML
    made = recipe(small)
    losses: list[float] = []
    kept: list[Network] = []
    training.train(made, STEPS, 1, None, lambda progress: losses.append(progress.loss), kept.append)
    assert np.mean(losses[-3:]) < np.mean(losses[:3])
    export(made, kept[0], tmp_path / made.name)
    package = load_package(tmp_path / made.name)
    golden = package.golden()
    assert golden.outputs["boxes"].shape == (1, 8 * 12 * 8, 6)
    with torch.no_grad():
        places, scores = kept[0](torch.from_numpy(golden.input))
    np.testing.assert_allclose(golden.outputs["boxes"], places.numpy(), atol=0.2)
    np.testing.assert_allclose(golden.outputs["scores"], scores.numpy(), atol=0.01)
    assert "Research use only" in (package.folder / "CARD.md").read_text(encoding="utf-8")
