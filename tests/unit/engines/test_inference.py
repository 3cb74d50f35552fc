from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engines.errors import PermanentError
from engines.inference.analyse import analyse
from engines.packages.package import ModelPackage, load_package
from engines.runtimes.base import Engine, Outputs, RuntimeSettings, create_engine
from engines.types import Findings, Image, LabelMap, Radiograph, Volume
from tests.small_models import activating_package, classifier_package, volume_package, xray_package

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def ct_model(models: Path) -> ModelPackage:
    return load_package(volume_package(models))


@pytest.fixture(scope="module")
def xray_model(models: Path) -> ModelPackage:
    return load_package(xray_package(models))


@pytest.fixture(scope="module")
def activating(models: Path) -> ModelPackage:
    return load_package(classifier_package(models, "tiny-cropped-where", uid_root="96", activation=True))


@pytest.fixture(scope="module")
def classifier(models: Path) -> ModelPackage:
    return load_package(classifier_package(models))


def run(package: ModelPackage, image: Image, region: LabelMap | None = None, probabilities: bool = False) -> Findings:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        return analyse(package, engine, image, clock=lambda: NOON, region=region, probabilities=probabilities)


def ct(array: np.ndarray, affine: np.ndarray, unit: str = "[hnsf'U]") -> Volume:
    return Volume(array, affine, tuple(f"1.2.{number}" for number in range(len(array))), unit)


def xray(array: np.ndarray) -> Radiograph:
    return Radiograph(array.astype(np.float32), None, "1.2.3")


def positions(volume: Volume) -> np.ndarray:
    """LPS position of every voxel, shape [slice, row, column, 3]."""
    index = np.stack(np.meshgrid(*map(np.arange, volume.array.shape), indexing="ij"), axis=-1)
    return index @ volume.affine[:3, :3].T + volume.affine[:3, 3]


def lopsided(shape: tuple[int, int, int], affine: np.ndarray) -> tuple[Volume, np.ndarray]:
    """A dark ball on the patient's left and a smaller, bright one on the right, and the labels it should get."""
    volume = ct(np.full(shape, -1000, np.int16), affine)
    place = positions(volume)
    centre = place.reshape(-1, 3).mean(axis=0)
    labels = np.zeros(shape, np.uint8)
    labels[np.linalg.norm(place - centre - (12, 3, 5), axis=-1) < 9] = 1
    labels[np.linalg.norm(place - centre - (-14, -4, -6), axis=-1) < 7] = 2
    volume.array[labels == 1] = -500
    volume.array[labels == 2] = 0
    return volume, labels


def orientation(slice_: tuple[int, int, int], row: tuple[int, int, int], column: tuple[int, int, int]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.array([slice_, row, column], float).T
    affine[:3, 3] = [31.0, -17.0, 211.0]
    return affine


ORIENTATIONS = {
    "axial, feet first": orientation((0, 0, 1), (0, 1, 0), (1, 0, 0)),
    "axial, head first": orientation((0, 0, -1), (0, 1, 0), (1, 0, 0)),
    "axial, prone": orientation((0, 0, 1), (0, -1, 0), (-1, 0, 0)),
    "coronal": orientation((0, 1, 0), (0, 0, -1), (1, 0, 0)),
    "sagittal": orientation((1, 0, 0), (0, 0, -1), (0, 1, 0)),
}


@pytest.mark.parametrize("affine", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_left_stays_left_in_every_orientation(ct_model: ModelPackage, affine: np.ndarray) -> None:
    volume, expected = lopsided((56, 52, 60), affine)
    findings = run(ct_model, volume)
    labels = findings.label_map.array
    assert labels.shape == volume.array.shape
    left = {number: positions(volume)[labels == number][:, 0].mean() for number in (1, 2)}
    assert left[1] > left[2] + 20
    for number in (1, 2):
        both = int(((labels == number) & (expected == number)).sum())
        assert 2 * both / ((labels == number).sum() + (expected == number).sum()) > 0.85


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(angle=st.floats(-30, 30), spacing=st.floats(0.8, 4.0), origin=st.floats(-300, 300))
def test_centres_of_mass_survive_any_tilt_spacing_and_origin(
    ct_model: ModelPackage, angle: float, spacing: float, origin: float
) -> None:
    cos, sin = np.cos(np.deg2rad(angle)), np.sin(np.deg2rad(angle))
    affine = np.eye(4)
    affine[:3, :3] = np.array([[0, 0, 1], [sin, cos, 0], [cos, -sin, 0]]).T * [spacing, 1, 1]
    affine[:3, 3] = origin
    volume, expected = lopsided((round(60 / spacing), 60, 60), affine)
    labels = run(ct_model, volume).label_map.array
    for number in (1, 2):
        found = positions(volume)[labels == number].mean(axis=0)
        np.testing.assert_allclose(found, positions(volume)[expected == number].mean(axis=0), atol=1.0)


def test_findings_say_who_when_on_what_and_how_long(ct_model: ModelPackage) -> None:
    volume, _ = lopsided((56, 52, 60), ORIENTATIONS["axial, feet first"])
    findings = run(ct_model, volume)
    assert findings.model == ct_model.identity
    assert findings.engine.runtime.startswith("openvino ")
    assert findings.analysed_at == NOON
    assert set(findings.seconds) == {"preprocess", "infer", "postprocess"}
    assert [segment.label for segment in findings.label_map.present] == ["Dark", "Bright"]
    assert {measurement.segment for measurement in findings.measurements} == {1, 2}


def test_a_repeated_run_gives_the_same_labels(ct_model: ModelPackage) -> None:
    volume, _ = lopsided((40, 44, 60), ORIENTATIONS["coronal"])
    first, second = (run(ct_model, volume).label_map.array for _ in range(2))
    np.testing.assert_array_equal(first, second)


def test_float_volumes_are_analysed_as_integers_are(ct_model: ModelPackage) -> None:
    volume, _ = lopsided((40, 44, 60), ORIENTATIONS["coronal"])
    real = ct(volume.array.astype(np.float32), volume.affine)
    np.testing.assert_array_equal(run(ct_model, volume).label_map.array, run(ct_model, real).label_map.array)


def test_an_xrays_fields_lie_on_its_own_pixels_and_only_the_largest_is_kept(xray_model: ModelPackage) -> None:
    array = np.zeros((130, 90))
    array[20:80, 10:40] = 100
    array[100:110, 60:70] = 100
    labels = run(xray_model, xray(array)).label_map.array
    expected = np.zeros(array.shape, np.uint8)
    expected[20:80, 10:40] = 1
    assert labels.shape == array.shape
    assert not labels[95:, 55:].any()
    assert 2 * (labels & expected).sum() / (labels.sum() + expected.sum()) > 0.9


EIGHT_WAYS: dict[tuple[str, str], Callable[[np.ndarray], np.ndarray]] = {
    ("L", "F"): lambda upright: upright,
    ("R", "F"): lambda upright: upright[:, ::-1],
    ("L", "H"): lambda upright: upright[::-1],
    ("R", "H"): lambda upright: upright[::-1, ::-1],
    ("F", "L"): lambda upright: upright.T,
    ("F", "R"): lambda upright: upright.T[::-1],
    ("H", "L"): lambda upright: upright.T[:, ::-1],
    ("H", "R"): lambda upright: upright.T[::-1, ::-1],
}


class Seen:
    """An engine that keeps the tensors which it is given."""

    def __init__(self, engine: Engine) -> None:
        self.identity, self._engine, self.tensors = engine.identity, engine, []

    def infer(self, tensor: np.ndarray) -> Outputs:
        self.tensors.append(tensor)
        return self._engine.infer(tensor)


def lopsided_xray() -> np.ndarray:
    array = np.random.default_rng(5).random((130, 90)).astype(np.float32) * 20
    array[20:80, 10:40] = 100
    array[90:110, 50:70] = 90
    return array


@pytest.mark.parametrize("pixel", [None, (0.2, 0.35)], ids=["square", "not square"])
@pytest.mark.parametrize("orientation", EIGHT_WAYS, ids="-".join)
def test_an_xray_is_read_upright_and_its_labels_lie_on_the_stored_pixels(
    xray_model: ModelPackage, orientation: tuple[str, str], pixel: tuple[float, float] | None
) -> None:
    turn = EIGHT_WAYS[orientation]
    transposed = orientation[0] in "HF"
    stored = turn(lopsided_xray())
    spacing = pixel and (pixel[::-1] if transposed else pixel)
    with create_engine(xray_model, RuntimeSettings(threads=1)) as engine:
        seen = Seen(engine)
        upright, turned = (
            analyse(xray_model, seen, image, clock=lambda: NOON).label_map.array
            for image in (
                Radiograph(lopsided_xray(), pixel, "1.2.3"),
                Radiograph(stored, spacing, "1.2.3", orientation),
            )
        )
    np.testing.assert_array_equal(*seen.tensors)
    np.testing.assert_array_equal(turned, turn(upright))
    assert turned[stored > 95].mean() > 0.9
    assert turned.flags.c_contiguous


@pytest.mark.parametrize("orientation", [("A", "F"), ("P", "F"), ("L", "A"), ("F", "A")], ids="-".join)
def test_a_view_that_is_not_frontal_stays_as_it_is(xray_model: ModelPackage, orientation: tuple[str, str]) -> None:
    with create_engine(xray_model, RuntimeSettings(threads=1)) as engine:
        seen = Seen(engine)
        for image in (xray(lopsided_xray()), Radiograph(lopsided_xray(), None, "1.2.3", orientation)):
            analyse(xray_model, seen, image, clock=lambda: NOON)
    np.testing.assert_array_equal(*seen.tensors)


def test_pixels_that_are_not_square_are_seen_as_a_reader_sees_them(xray_model: ModelPackage) -> None:
    square = np.kron(lopsided_xray(), np.ones((2, 1), np.float32))
    with create_engine(xray_model, RuntimeSettings(threads=1)) as engine:
        seen = Seen(engine)
        for image in (xray(square), Radiograph(lopsided_xray(), None, "1.2.3", aspect=2.0)):
            analyse(xray_model, seen, image, clock=lambda: NOON)
    one, other = seen.tensors
    assert np.abs(one - other).mean() < 0.03


@pytest.mark.parametrize("orientation", EIGHT_WAYS, ids="-".join)
def test_a_crop_follows_the_turn(classifier: ModelPackage, orientation: tuple[str, str]) -> None:
    turn, mask = EIGHT_WAYS[orientation], np.zeros((130, 90), np.uint8)
    mask[15:70, 5:45] = 1
    with create_engine(classifier, RuntimeSettings(threads=1)) as engine:
        seen = Seen(engine)
        for image, region in (
            (Radiograph(lopsided_xray(), None, "1.2.3"), mask),
            (Radiograph(turn(lopsided_xray()), None, "1.2.3", orientation), turn(mask)),
        ):
            analyse(classifier, seen, image, clock=lambda: NOON, region=LabelMap(region, ()))
    np.testing.assert_array_equal(*seen.tensors)


def test_a_classifier_sees_only_the_region_it_is_cropped_to(classifier: ModelPackage) -> None:
    array = np.zeros((64, 64))
    array[:32] = 1.0
    array[40, 5] = array[8, 8] = 2.0  # keeps both windows alike
    bright, dark = np.zeros((2, 64, 64), np.uint8)
    bright[2:30, 2:30] = 1
    array[8, 8], array[20, 20] = 1.0, 0.0
    dark[36:60, 2:30] = 1
    for mask, label in ((bright, "Bright"), (dark, "Dark")):
        findings = run(classifier, xray(array), LabelMap(mask, ()))
        assert findings.label_map is None
        assert findings.classification.best.label == label
        assert sum(entry.probability for entry in findings.classification.classes) == pytest.approx(1)


def test_an_image_of_the_wrong_kind_is_refused(ct_model: ModelPackage, xray_model: ModelPackage) -> None:
    with pytest.raises(PermanentError, match="tiny-ct takes a Volume, not a Radiograph"):
        run(ct_model, xray(np.zeros((4, 4))))
    with pytest.raises(PermanentError, match="tiny-cxr takes a Radiograph, not a Volume"):
        run(xray_model, ct(np.zeros((4, 4, 4), np.int16), np.eye(4)))


def test_too_few_slices_are_refused_with_both_numbers(ct_model: ModelPackage) -> None:
    with pytest.raises(PermanentError, match="at least 4 slices, the series has 3"):
        run(ct_model, ct(np.zeros((3, 4, 4), np.int16), np.eye(4)))


def test_a_volume_that_is_not_in_hounsfield_units_is_refused(ct_model: ModelPackage) -> None:
    with pytest.raises(PermanentError, match="the series is in '1'"):
        run(ct_model, ct(np.zeros((4, 4, 4), np.int16), np.eye(4), unit="1"))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_image_with_nan_or_infinity_is_refused(
    ct_model: ModelPackage, xray_model: ModelPackage, value: float
) -> None:
    array = np.zeros((4, 8, 8), np.float32)
    array[2, 3, 4] = value
    with pytest.raises(PermanentError, match="the series holds NaN or infinity"):
        run(ct_model, ct(array, np.eye(4)))
    with pytest.raises(PermanentError, match="the image holds NaN or infinity"):
        run(xray_model, xray(array[2]))


def test_a_crop_without_a_label_map_of_the_same_image_is_refused(classifier: ModelPackage) -> None:
    with pytest.raises(PermanentError, match="needs the label map of tiny-cxr"):
        run(classifier, xray(np.zeros((8, 8))))
    with pytest.raises(PermanentError, match="needs the label map of tiny-cxr"):
        run(classifier, xray(np.zeros((8, 8))), LabelMap(np.zeros((9, 9), np.uint8), ()))


def test_a_crop_to_an_empty_label_map_is_refused(classifier: ModelPackage) -> None:
    with pytest.raises(PermanentError, match="tiny-cxr found nothing"):
        run(classifier, xray(np.zeros((8, 8))), LabelMap(np.zeros((8, 8), np.uint8), ()))


def spot() -> tuple[np.ndarray, np.ndarray]:
    """A bright spot in a crop, a brighter one beside the crop, and the crop's mask."""
    array, mask = np.zeros((130, 90), np.float32), np.zeros((130, 90), np.uint8)
    array[40:54, 14:26] = 100
    array[100:120, 60:80] = 500
    mask[15:70, 5:45] = 1
    return array, mask


@pytest.mark.parametrize("pixel", [None, (0.2, 0.35)], ids=["square", "not square"])
@pytest.mark.parametrize("orientation", EIGHT_WAYS, ids="-".join)
def test_an_activation_map_lies_on_what_the_network_saw_on_the_stored_pixels(
    activating: ModelPackage, orientation: tuple[str, str], pixel: tuple[float, float] | None
) -> None:
    turn, (array, mask) = EIGHT_WAYS[orientation], spot()
    spacing = pixel and (pixel[::-1] if orientation[0] in "HF" else pixel)
    image = Radiograph(turn(array), spacing, "1.2.3", orientation)
    dark, bright = (
        entry.activation for entry in run(activating, image, LabelMap(turn(mask), ())).classification.classes
    )
    assert bright.dtype == np.uint8
    assert bright.shape == image.array.shape
    assert bright.flags.c_contiguous
    assert not dark.any(), "what speaks against a class is 0"
    assert bright.max() == 255
    assert not bright[turn(mask) == 0].any(), "nothing is said about what was not seen"
    seen = turn((array > 0) & (mask > 0))
    # A cell is about 7 pixels wide: the spot's edges blur by that much, its middle stays.
    places = np.argwhere(np.ones_like(bright, bool)).reshape(*bright.shape, 2)
    np.testing.assert_allclose(
        np.average(places.reshape(-1, 2), axis=0, weights=bright.ravel()), np.argwhere(seen).mean(axis=0), atol=1.5
    )
    assert bright[seen].mean() > 150
    assert bright[turn(mask) == 1].mean() < 60


def test_activation_maps_of_an_image_share_one_scale(tmp_path: Path) -> None:
    """The tiny network's maps mirror each other: with half of the brightness taken off, both classes get a half."""
    package = load_package(activating_package(tmp_path))
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        halves = Shifted(engine, {"activation": np.float32(-2.0)})
        array = np.zeros((32, 32), np.float32)
        array[:, 16:] = 1.0
        findings = analyse(package, halves, xray(array), clock=lambda: NOON)
    dark, bright = (entry.activation for entry in findings.classification.classes)
    # Bright: 8 - 2 = 6 on the right; Dark: 0 - 2 on the left and -8 - 2 on the right, so nothing.
    assert bright[:, 30].min() == 255
    assert not bright[:, 1].any()
    assert not dark.any()


class Shifted:
    """An engine that adds a number to some of its outputs."""

    def __init__(self, engine: Engine, by: dict[str, np.float32]) -> None:
        self.identity, self._engine, self._by = engine.identity, engine, by

    def infer(self, tensor: np.ndarray) -> Outputs:
        return {name: answer + self._by.get(name, 0) for name, answer in self._engine.infer(tensor).items()}


def test_a_model_without_activation_maps_gives_none(classifier: ModelPackage) -> None:
    array, mask = spot()
    classes = run(classifier, xray(array), LabelMap(mask, ())).classification.classes
    assert [entry.activation for entry in classes] == [None, None]


def test_probabilities_are_kept_only_where_they_are_asked_for(ct_model: ModelPackage, xray_model: ModelPackage) -> None:
    volume, _ = lopsided((56, 52, 60), ORIENTATIONS["coronal"])
    assert run(ct_model, volume).label_map.probabilities is None
    assert run(xray_model, xray(lopsided_xray())).label_map.probabilities is None


@pytest.mark.parametrize("affine", ORIENTATIONS.values(), ids=ORIENTATIONS.keys())
def test_a_volumes_probabilities_agree_with_its_labels(ct_model: ModelPackage, affine: np.ndarray) -> None:
    volume, _ = lopsided((56, 52, 60), affine)
    label_map = run(ct_model, volume, probabilities=True).label_map
    np.testing.assert_array_equal(label_map.array, run(ct_model, volume).label_map.array)
    agree(label_map)
    assert label_map.probabilities.max(axis=(1, 2, 3)).min() > 250


@pytest.mark.parametrize("orientation", EIGHT_WAYS, ids="-".join)
def test_an_xrays_probabilities_agree_with_its_labels(xray_model: ModelPackage, orientation: tuple[str, str]) -> None:
    stored = EIGHT_WAYS[orientation](lopsided_xray())
    label_map = run(xray_model, Radiograph(stored, None, "1.2.3", orientation), probabilities=True).label_map
    agree(label_map)


def agree(label_map: LabelMap) -> None:
    """The probability of a voxel's own label is the largest; where it is background, that has more than any."""
    labels, probabilities = label_map.array, label_map.probabilities.astype(int)
    assert label_map.probabilities.dtype == np.uint8
    assert probabilities.shape == (len(label_map.segments), *labels.shape)
    background = 255 - probabilities.sum(axis=0)
    best = np.concatenate([background[None], probabilities]).argmax(axis=0)
    lead = np.abs(np.diff(np.sort(np.concatenate([background[None], probabilities]), axis=0)[-2:], axis=0))[0]
    clear = lead > 2
    assert clear.mean() > 0.9
    np.testing.assert_array_equal(best[clear], labels[clear])


def test_what_is_no_part_of_the_largest_component_has_no_probability(xray_model: ModelPackage) -> None:
    array = np.zeros((130, 90))
    array[20:80, 10:40] = 100
    array[100:115, 55:75] = 100
    probabilities = run(xray_model, xray(array), probabilities=True).label_map.probabilities
    assert probabilities[0, 40, 25] == 255
    assert probabilities[0, 104:111, 60:70].max() == 0
