"""The classifier of chest X-rays: what it is shown, where its encoder starts, how it is drawn, calibrated, exported."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

torch = pytest.importorskip("torch", reason="training needs the extra 'train' (torch)")
onnxruntime = pytest.importorskip("onnxruntime", reason="exporting needs the extra 'train' (onnxruntime)")

from build_engines.recipes.augmentation.xrays import Changes, change, elsewhere, show  # noqa: E402
from build_engines.recipes.cxr_pneumonia import NAME, SEEDS, SHARES, CxrPneumonia, answered, figures  # noqa: E402
from build_engines.recipes.data import chest_xrays, phantom  # noqa: E402
from build_engines.recipes.data.chest_xrays import VIEWS, ChestXray  # noqa: E402
from build_engines.recipes.data.sources import CLASSES  # noqa: E402
from build_engines.recipes.ladder.xray_classes import ROWS, SYSTEMS, text_of  # noqa: E402
from build_engines.recipes.networks.classifier import Classifier  # noqa: E402
from build_engines.recipes.networks.encoders import MobileNetV2  # noqa: E402
from build_engines.recipes.networks.unet import UNet  # noqa: E402
from build_engines.recipes.packaging.export import export, export_all, trace  # noqa: E402
from build_engines.recipes.packaging.temperature import cool, even, temperature  # noqa: E402
from build_engines.recipes.packaging.unfold import unfold  # noqa: E402
from engines.inference.analyse import analyse  # noqa: E402
from engines.inference.preprocessing import Box, bounding_box  # noqa: E402
from engines.packages.package import load_package  # noqa: E402
from engines.runtimes.base import RuntimeSettings, create_engine  # noqa: E402
from engines.serving.engine_set import utc_now  # noqa: E402
from engines.types import Classification, LabelMap, Radiograph  # noqa: E402

SIDE = 96


def xray(target: int = 0, source: str = "nih", patient: str = "1", seed: int = 1) -> ChestXray:
    """A chest with two lungs, with noise on it so that no two pixels are alike."""
    noise = np.random.default_rng(seed).integers(0, 60, (SIDE, SIDE))
    lungs = np.zeros((SIDE, SIDE), bool)
    lungs[20:64, 14:40] = lungs[20:64, 56:84] = True
    image = (np.where(lungs, 60, 190) + noise).astype(np.uint8)
    box = bounding_box(lungs, 0.05)
    assert box is not None
    return ChestXray(patient, image, lungs, box, target, source, patient, "train", "train")


def with_other(image: ChestXray, where: np.ndarray) -> ChestXray:
    """The same X-ray with other pixels in a place."""
    other = np.random.default_rng(9).integers(0, 256, image.image.shape).astype(np.uint8)
    return replace(image, image=np.where(where, other, image.image))


def recipe(*cases: ChestXray, **switches: object) -> CxrPneumonia:
    """One of a tiny size on random weights."""
    made = CxrPneumonia(cases, cases, cases, transfer=False, images=6, **switches)
    return replace(made, toml=text_of(NAME, made, 64))


def test_lungs_are_looked_for_once_and_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chest_xrays, "KEPT", tmp_path / "kept")
    images = tmp_path / "cxr" / "images"
    images.mkdir(parents=True)
    Picture.fromarray((255 * phantom.radiograph((200, 240))).astype(np.uint8)).save(images / "chest.png")
    Picture.fromarray(np.zeros((90, 70), np.uint8)).save(images / "black.png")
    header = "file,class,split,split_by_source,source,patient\n"
    lines = "chest.png,viral,test,train,cxnet,7\nblack.png,normal,train,train,nih,8\n"
    (tmp_path / "cxr" / "manifest.csv").write_text(header + lines)
    chest, black = chest_xrays.read_chest_xrays(tmp_path)
    assert chest.lungs.mean() > 0.1
    assert not chest.lungs[: chest.box.top].any()
    assert (chest.target, chest.split, chest.patient) == (2, "test", "cxnet 7")
    # Nothing is found in a black image; it is kept whole.
    assert not black.lungs.any()
    assert black.box == Box(0, 0, 90, 70)
    assert len(list((tmp_path / "kept").iterdir())) == 1
    # The second time no engine is opened.
    monkeypatch.setattr(chest_xrays, "open_engines", None)
    again, _ = chest_xrays.read_chest_xrays(tmp_path)
    assert np.array_equal(again.lungs, chest.lungs)


def test_what_is_outside_of_the_lungs_tells_nothing_of_them() -> None:
    case = xray()
    shown, masked = recipe(case, view="outside"), VIEWS["outside"](case, case.box)
    assert not masked[case.lungs].any()
    assert masked.any()
    assert np.array_equal(shown.tensor(case), shown.tensor(with_other(case, case.lungs)))
    # Nor does the outline of the lungs: other lungs in the same box leave the same picture.
    blob = replace(case, lungs=np.zeros_like(case.lungs))
    assert np.array_equal(shown.tensor(case), shown.tensor(blob))
    assert not np.array_equal(shown.tensor(case), shown.tensor(with_other(case, ~case.lungs)))


def test_what_is_inside_of_the_lungs_tells_nothing_of_their_surroundings() -> None:
    case = xray()
    shown = recipe(case, view="inside")
    assert np.array_equal(shown.tensor(case), shown.tensor(with_other(case, ~case.lungs)))
    assert not np.array_equal(shown.tensor(case), shown.tensor(with_other(case, case.lungs)))


def test_training_without_augmentation_sees_what_serving_sees() -> None:
    case = xray()
    off = Changes(geometry=False, tone=False, surroundings=False)
    shown = recipe(case, changes=off)
    image, mask = shown.training_image(case, np.random.default_rng(1))
    served = shown.tensor(case)
    # Serving averages before it makes smaller, training does not, and the borders are a pixel apart.
    assert np.abs(image.numpy() - served)[:, 8:-8, 4:-4].mean() < 0.05
    assert 0.3 < mask.float().mean() < 0.8


def test_training_outside_of_the_lungs_is_not_shown_them_either() -> None:
    case = xray()
    for seed in range(5):
        one, other = (
            show(x, VIEWS["outside"], (64, 64), np.random.default_rng(seed))[0]
            for x in (case, with_other(case, case.lungs))
        )
        assert torch.equal(one, other)


def test_other_surroundings_leave_the_lungs_as_they_are() -> None:
    case, other = xray(seed=1), xray(seed=2)
    image, lungs, seen = show(case, VIEWS["lung crop"], (64, 64), None).chunk(3)
    lungs = (lungs > 0.5).float()
    placed = show(with_other(other, np.ones_like(other.lungs)), VIEWS["whole"], (64, 64), None)
    # This draw takes the other X-ray, not grey.
    changed, _ = elsewhere(image, lungs, seen, placed, np.random.default_rng(1))
    within = lungs > 0.5
    assert (changed - image)[within].abs().mean() < 0.02
    assert (changed - image)[~within].abs().mean() > 0.05


def test_each_source_has_its_share_of_a_batch() -> None:
    sources = [(name, source) for name, shares in SHARES.items() for source in shares for _ in range(3)]
    cases = tuple(xray(CLASSES.index(name), source, str(index)) for index, (name, source) in enumerate(sources))
    chances = recipe(*cases).chances
    assert np.isclose(chances.sum(), 1)
    nih = np.array([case.source == "nih" for case in cases])
    assert np.isclose(chances[nih].sum(), 0.5)
    # Without Montgomery the normal class is drawn as often as before.
    fewer = tuple(case for case in cases if case.source != "mont")
    chances = recipe(*fewer).chances
    assert np.isclose(chances[[case.target == 0 for case in fewer]].sum(), sum(SHARES["normal"].values()))
    assert np.allclose(recipe(*cases, balanced=False).chances, 1 / len(cases))


def test_an_encoder_started_from_a_package_answers_as_the_exported_one(tmp_path: Path) -> None:
    trained = UNet(2, MobileNetV2(0.5))
    for parameter in trained.parameters():
        parameter.data.add_(0.05 * torch.randn_like(parameter))
    images = torch.rand(4, 1, 64, 64)
    trained(images)  # so that the running statistics are of these images
    trained.eval()
    import onnx

    onnx.save_model(trace(trained, images[:1].numpy(), "image", ["probabilities"]), tmp_path / "model.onnx")
    fresh = MobileNetV2(0.5)
    unfold(fresh, tmp_path / "model.onnx", images, "encoder.")
    fresh.eval()
    with torch.no_grad():
        for ours, theirs in zip(fresh(images), trained.encoder(images), strict=True):
            assert torch.allclose(ours, theirs, atol=1e-3 * float(theirs.abs().max()))
    # In training too, where batches give the statistics: here those of the same images.
    with torch.no_grad():
        ours, theirs = fresh.train()(images)[0], trained.encoder(images)[0]
    assert float((ours - theirs).abs().mean() / theirs.abs().mean()) < 0.1


def test_an_encoder_of_another_kind_is_refused(tmp_path: Path) -> None:
    import onnx

    network = UNet(2, MobileNetV2(0.25)).eval()
    image = torch.zeros(1, 1, 64, 64).numpy()
    onnx.save_model(trace(network, image, "image", ["probabilities"]), tmp_path / "model.onnx")
    with pytest.raises(ValueError, match="another one"):
        unfold(MobileNetV2(0.5), tmp_path / "model.onnx", torch.from_numpy(image), "encoder.")


def test_mask_and_class_come_from_one_encoder_and_become_one_package(tmp_path: Path) -> None:
    cases = (xray(0), xray(1), xray(2, "cxnet"))
    made = recipe(*cases, outlines=True)
    made = replace(made, toml=made.toml.replace(NAME, "both"), name="both")
    network = made.network()
    images, target = made.batch(np.random.default_rng(1))
    made.loss(network.logits(images), target).backward()
    learning = {name for name, parameter in network.named_parameters() if float(parameter.grad.abs().sum()) > 0}
    # The stem is moved by both, and each head by its own.
    assert {"classifier.encoder.stem.0.weight", "classifier.linear.weight", "last.weight"} <= learning
    export(made, network, tmp_path / "both")
    package = load_package(tmp_path / "both")
    assert package.description.tasks == ("segmentation", "classification")
    answers = package.golden().outputs
    assert answers["mask"].shape == (1, 2, 64, 64)
    assert answers["probabilities"].shape == (1, 3)
    assert answers["probabilities"].sum() == pytest.approx(1, abs=1e-3)


def test_a_node_answers_what_the_recipe_computed_and_turns_the_maps_of_mirror_images_back(tmp_path: Path) -> None:
    case = xray()
    made = replace(recipe(case), toml=CxrPneumonia.toml.replace("[160, 160]", "[64, 64]"))
    torch.manual_seed(1)
    network = made.network().train()
    with torch.no_grad():  # the normalisations learn what there is; before, nothing comes through them
        for _ in range(20):
            network.logits(made.batch(np.random.default_rng(1))[0])
        network.linear.weight.mul_(10)
    network.eval()
    export_all(made, [network] * len(SEEDS), tmp_path / NAME)
    package, region = load_package(tmp_path / NAME), LabelMap(case.lungs.astype(np.uint8), ())
    assert package.input.flips == (1,)

    def answer(image: np.ndarray, lungs: LabelMap) -> Classification:
        xray = Radiograph(image.astype(np.float32), None, "")
        found = analyse(package, engine, xray, clock=utc_now, region=lungs).classification
        assert found is not None
        return found

    with create_engine(package, RuntimeSettings(threads=1, precision="fp32")) as engine:
        here = answer(case.image, region)
        there = answer(case.image[:, ::-1], LabelMap(region.array[:, ::-1], ()))
    [expected] = made.predict(network, [case])
    probabilities = [entry.probability for entry in here.classes]
    assert max(probabilities) - min(probabilities) > 0.05
    np.testing.assert_allclose(probabilities, expected, atol=2e-3)
    # shown with both sides, the network sees the same in an X-ray and its mirror image, at mirrored places
    np.testing.assert_allclose([entry.probability for entry in there.classes], expected, atol=2e-3)
    for one, other in zip(here.classes, there.classes, strict=True):
        assert one.activation is not None
        assert other.activation is not None
        np.testing.assert_allclose(one.activation, other.activation[:, ::-1], atol=3)
    sides = np.stack([entry.activation for entry in here.classes]).astype(float)  # type: ignore[arg-type]
    assert np.abs(sides - sides[..., ::-1]).max() > 20, "the maps must tell sides"


def test_an_ensemble_answers_with_the_mean_of_its_networks(tmp_path: Path) -> None:
    made = recipe(xray())
    text = made.toml.replace(
        "[classification]", '[network]\nfiles = ["model.onnx", "model_2.onnx"]\n\n[classification]'
    )
    made = replace(made, toml=text)
    torch.manual_seed(1)
    networks = [made.network().eval() for _ in range(2)]
    export_all(made, networks, tmp_path / NAME)
    package = load_package(tmp_path / NAME)
    golden = package.golden()
    image = torch.from_numpy(golden.input.astype(np.float32))
    with torch.no_grad():
        mean = torch.stack([network(image) for network in networks]).mean(dim=0).numpy()
    assert np.abs(golden.outputs["probabilities"] - mean).max() < 2e-3
    with pytest.raises(ValueError, match="zip"):
        export_all(made, networks[:1], tmp_path / NAME)


def test_the_temperature_undoes_what_made_a_network_too_sure() -> None:
    random = np.random.default_rng(1)
    logits = torch.from_numpy(random.normal(0, 1.5, (1, 4000, 3)))
    chances = logits[0].softmax(dim=1).numpy()
    targets = np.array([random.choice(3, p=row / row.sum()) for row in chances])
    assert temperature(3.0 * logits, targets) == pytest.approx(3.0, rel=0.1)
    network = Classifier(3, MobileNetV2(0.25)).eval()
    image = torch.from_numpy(phantom.radiograph((64, 64)))[None, None]
    with torch.no_grad():
        before = network.logits(image)
        cool([network], 3.0)
        assert torch.allclose(network.logits(image), before / 3.0, atol=1e-6)


def test_evened_out_a_network_answers_as_if_classes_were_equally_frequent() -> None:
    network = Classifier(3, MobileNetV2(0.25)).eval()
    image, shares = torch.from_numpy(phantom.radiograph((64, 64)))[None, None], [0.5, 0.3, 0.2]
    with torch.no_grad():
        before = network(image) / torch.tensor(shares)
        even([network], shares)
        assert torch.allclose(network(image), before / before.sum(), atol=1e-5)


def test_the_figures_hold_the_one_on_nih_alone() -> None:
    cases = (xray(0, "nih", "1"), xray(1, "nih", "2"), xray(0, "shen", "3"), xray(2, "cxnet", "4"))
    # The normal of NIH looks more like pneumonia than the pneumonia does; that of Shenzhen does not.
    probabilities = np.array([[0.4, 0.6, 0.0], [0.5, 0.5, 0.0], [0.9, 0.1, 0.0], [0.1, 0.1, 0.8]])
    found = figures(cases, probabilities)
    assert found["nih.auc_pneumonia_vs_normal"].value == 0
    assert found["auc_pneumonia_vs_normal"].value == 0.5
    assert found["auc_viral_vs_normal"].value == 1
    assert found["shen.accuracy"].value == 1
    assert answered(cases, probabilities).figures(np.arange(4))["accuracy"] == 0.5


def test_held_out_figures_say_so() -> None:
    cases = tuple(
        replace(xray(target, source, str(target)), split_by_source="external_test")
        for target, source in ((0, "mont"), (2, "hannover"))
    )
    found = figures(cases, np.array([[0.8, 0.1, 0.1], [0.2, 0.1, 0.7]]))
    assert found["held_out.auc_viral_vs_normal"].value == 1
    assert "auc_viral_vs_normal" not in found


def test_every_row_of_the_ablation_changes_one_switch() -> None:
    assert all(len(system.switches) <= 1 for system in SYSTEMS.values() if system.table == "ablation")
    assert set(SYSTEMS) <= set(ROWS)


def test_change_masks_nothing_where_no_lungs_were_found() -> None:
    case = replace(xray(), lungs=np.zeros((SIDE, SIDE), bool), box=Box(0, 0, SIDE, SIDE))
    shown = show(case, VIEWS["lung crop"], (64, 64), None)
    image, mask = change(shown, lambda: shown, Changes(tone=False), (1, 99), np.random.default_rng(1))
    assert image.std() > 0.05
    assert not mask.any()
