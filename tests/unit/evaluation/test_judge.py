"""Judging small real models on cases whose answers are known."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from engines.packages.package import ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import EngineSet, open_engines
from engines.types import Image, Radiograph, Volume
from evaluation.cases import Case, Lesion
from evaluation.errors import DataError
from evaluation.judge import judge
from evaluation.judgement import Judgement
from tests.small_models import (
    classifier_package,
    detector_package,
    overlapping_package,
    volume_package,
    xray_package,
)


@contextmanager
def serving(*packages: ModelPackage) -> Iterator[EngineSet]:
    with open_engines({package.name: package for package in packages}, RuntimeSettings(threads=1)) as engines:
        yield engines


def judged(package: ModelPackage, cases: Sequence[Case], **more: object) -> Judgement:
    with serving(package) as engines:
        return judge(package, engines, cases, "made up", rounds=100, **more)  # type: ignore[arg-type]


# classification: "Bright" has the probability of a sigmoid of 16 · (share of bright pixels) - 8


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(classifier_package(tmp_path_factory.mktemp("models"), crop_to=None))


@pytest.fixture(scope="module")
def free_classifier(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(classifier_package(tmp_path_factory.mktemp("models"), crop_to=None, exclusive=False))


def striped(share: float) -> Callable[[], Radiograph]:
    """An X-ray of which this share of the columns is bright."""

    def read() -> Radiograph:
        array = np.zeros((64, 64), np.float32)
        array[:, : round(64 * share)] = 255
        return Radiograph(array, None, "")

    return read


def xray(number: int, share: float, label: str, **groups: str) -> Case:
    return Case(f"case {number}", f"patient {number // 2}", striped(share), label, groups=groups)


SHARES = ((0.9, "bright"), (0.7, "bright"), (0.45, "bright"), (0.1, "dark"), (0.3, "dark"), (0.6, "dark"))


def test_classes_are_judged_by_the_names_of_the_reference(classifier: ModelPackage) -> None:
    found = judged(classifier, [xray(number, share, label) for number, (share, label) in enumerate(SHARES)])
    assert found.n == 6
    assert found.model == "tiny-class 0.1.0"
    assert found.metrics["accuracy"].value == pytest.approx(4 / 6)
    assert found.metrics["auc_bright_vs_dark"].value == pytest.approx(8 / 9)
    assert found.metrics["sensitivity_bright"].value == pytest.approx(2 / 3)
    assert [case.answer for case in found.cases] == ["bright", "bright", "dark", "dark", "dark", "bright"]
    assert found.cases[0].expected == "bright"
    assert found.cases[0].figures["probability_bright"] > 0.95
    assert {curve.title for curve in found.curves} == {
        "ROC, bright vs dark",
        "ROC, bright vs rest",
        "ROC, dark vs rest",
        "Precision–recall, bright vs rest",
        "Precision–recall, dark vs rest",
        "Calibration, 15 bins",
    }
    assert not found.thresholds
    assert any("no validation cases" in note for note in found.notes)


def test_thresholds_are_chosen_on_the_validation_cases_alone(classifier: ModelPackage) -> None:
    cases = [xray(number, share, label) for number, (share, label) in enumerate(SHARES)]
    # where bright begins at 0.62: the case of 0.6 that is dark is dark then, and two of three are found
    validation = [xray(0, 0.64, "bright"), xray(1, 0.61, "dark"), xray(2, 0.8, "bright"), xray(3, 0.2, "dark")]
    found = judged(classifier, cases, validation=validation)
    assert 0.8 < found.thresholds["bright"] < 0.95
    assert found.n == 6
    assert found.metrics["specificity_bright_at_threshold"].value == 1.0
    assert found.metrics["specificity_bright"].value == pytest.approx(2 / 3)
    [roc] = [curve for curve in found.curves if curve.title == "ROC, bright vs rest"]
    [mark] = roc.marks.values()
    assert mark == (0.0, pytest.approx(2 / 3))
    assert any("validation cases" in note for note in found.notes)


def test_progress_counts_validation_and_judged_cases(classifier: ModelPackage) -> None:
    seen: list[tuple[int, int]] = []
    cases = [xray(number, share, label) for number, (share, label) in enumerate(SHARES[:2])]
    judged(classifier, cases, validation=cases, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 4), (2, 4), (3, 4), (4, 4)]


def test_a_class_that_the_model_does_not_have_is_a_problem_of_its_case(classifier: ModelPackage) -> None:
    # "normal" is no class either where one of two classes is always there
    labels = ("bright", "gloomy", "dark", "normal")
    found = judged(classifier, [xray(number, 0.9, label) for number, label in enumerate(labels)])
    assert found.n == 2
    assert "gloomy" in found.cases[1].problem
    assert "Dark, Bright" in found.cases[1].problem
    assert "normal" in found.cases[3].problem
    assert any(note.startswith("2 of 4 cases could not be judged") for note in found.notes)


def test_one_class_alone_has_no_area_and_says_so(classifier: ModelPackage) -> None:
    found = judged(classifier, [xray(0, 0.9, "bright"), xray(2, 0.4, "bright")])
    assert found.metrics["accuracy"].value == 0.5
    assert not [name for name in found.metrics if name.startswith("auc")]
    assert any(note.startswith("No case is dark") for note in found.notes)


def test_an_image_that_shows_none_of_classes_that_stand_alone_is_normal(free_classifier: ModelPackage) -> None:
    # "Dark" and "Bright" have a sigmoid each of opposite logits, so one of them is always answered
    found = judged(free_classifier, [xray(0, 0.9, "bright"), xray(1, 0.9, "normal"), xray(2, 0.1, "dark")])
    assert found.n == 3
    assert [case.expected for case in found.cases] == ["bright", "none", "dark"]
    assert found.metrics["specificity_bright"].value == 0.5


def test_subgroups_have_five_cases_and_more_than_one_value(classifier: ModelPackage) -> None:
    cases = [
        xray(number, 0.9, "bright", source="a" if number < 6 else "b" if number < 11 else "c", sex="F")
        for number in range(12)
    ]
    found = judged(classifier, cases)
    assert {words: count for words, (count, _) in found.subgroups.items()} == {"source = a": 6, "source = b": 5}
    assert found.subgroups["source = a"][1]["accuracy"].value == 1.0


# segmentation: "Dark" near -500 HU, "Bright" near 0 HU


@pytest.fixture(scope="module")
def segmenter(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(volume_package(tmp_path_factory.mktemp("models")))


UPRIGHT = np.array([[0, 0, 2, 0], [0, 2, 0, 0], [2, 0, 0, 0], [0, 0, 0, 1]], float)


def ct(values: np.ndarray) -> Volume:
    return Volume(values.astype(np.int16), UPRIGHT, tuple(map(str, range(len(values)))))


def two_boxes() -> tuple[Volume, dict[str, np.ndarray]]:
    values = np.full((8, 12, 16), -1000)
    values[2:6, 3:9, 2:7], values[2:6, 3:9, 9:14] = -500, 0
    return ct(values), {"Dark": values == -500, "bright": values == 0}


def test_segments_are_judged_by_their_labels_whatever_their_case(segmenter: ModelPackage) -> None:
    volume, masks = two_boxes()
    found = judged(segmenter, [Case("one", "a", lambda: volume, masks=lambda: masks)])
    for name in ("dice", "dice_dark", "dice_bright", "iou_dark", "mean_iou", "pixel_accuracy"):
        assert found.metrics[name].value == pytest.approx(1.0)
    assert found.metrics["hausdorff95_mm_bright"].value == 0.0
    assert found.metrics["volume_mae_ml"].value == pytest.approx(0.0)
    assert np.isnan(found.metrics["dice"].low)
    assert any("one patient's" in note for note in found.notes)
    assert found.cases[0].answer == "dark, bright"


def test_a_reference_that_does_not_tell_segments_apart_is_compared_with_both(segmenter: ModelPackage) -> None:
    volume, masks = two_boxes()
    together = {"Dark+Bright": masks["Dark"] | masks["bright"]}
    found = judged(segmenter, [Case("one", "a", lambda: volume, masks=lambda: together)])
    assert found.metrics["dice_dark_and_bright"].value == pytest.approx(1.0)


def test_a_mask_of_something_else_beside_is_told_and_not_compared(segmenter: ModelPackage) -> None:
    volume, masks = two_boxes()
    more = {**masks, "Heart": masks["Dark"]}
    found = judged(segmenter, [Case("one", "a", lambda: volume, masks=lambda: more)])
    assert found.metrics["dice"].value == pytest.approx(1.0)
    assert "dice_heart" not in found.metrics
    assert any("Heart" in note for note in found.notes)


def test_left_and_right_that_are_exchanged_are_all_wrong(segmenter: ModelPackage) -> None:
    volume, masks = two_boxes()
    exchanged = {"Dark": masks["bright"], "Bright": masks["Dark"]}
    found = judged(segmenter, [Case("one", "a", lambda: volume, masks=lambda: exchanged)])
    assert found.metrics["dice"].value == 0.0
    assert found.metrics["hausdorff95_mm"].value > 5


def test_segments_that_overlap_are_judged_one_by_one(tmp_path: Path) -> None:
    package = load_package(overlapping_package(tmp_path))
    values = np.full((8, 12, 16), -1000)
    values[1:7, 2:10, 2:14], values[3:5, 4:8, 5:11] = -500, 0
    masks = {"Whole": values >= -500, "Core": values == 0}
    found = judged(package, [Case("one", "a", lambda: ct(values), masks=lambda: masks)])
    assert found.metrics["dice_whole"].value == found.metrics["dice_core"].value == pytest.approx(1.0)
    assert "pixel_accuracy" not in found.metrics
    assert any("overlap" in note for note in found.notes)


def test_an_x_ray_without_spacing_has_distances_in_pixels(tmp_path: Path) -> None:
    package = load_package(xray_package(tmp_path))
    array = np.zeros((64, 96), np.float32)
    array[16:48, 24:72] = 255
    found = judged(package, [Case("one", "a", lambda: Radiograph(array, None, ""), masks=lambda: {"field": array > 0})])
    assert found.metrics["hausdorff95_px"].value <= 2
    assert "hausdorff95_mm" not in found.metrics


@pytest.mark.parametrize(
    ("masks", "words"),
    [
        ({"Heart": np.zeros((8, 12, 16), bool)}, "no segment Heart"),
        ({"Dark": np.zeros((8, 12, 15), bool)}, r"shape [8, 12, 15], its image [8, 12, 16]"),
    ],
)
def test_a_mask_that_fits_nothing_is_a_problem_of_its_case(
    segmenter: ModelPackage, masks: dict[str, np.ndarray], words: str
) -> None:
    volume, good = two_boxes()
    cases = [
        Case("one", "a", lambda: volume, masks=lambda: masks),
        Case("two", "b", lambda: volume, masks=lambda: good),
    ]
    found = judged(segmenter, cases)
    assert found.n == 1
    assert words in found.cases[0].problem
    assert found.metrics["dice"].value == pytest.approx(1.0)


def broken(error: Exception) -> Callable[[], Image]:
    def read() -> Image:
        raise error

    return read


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (DataError("scan.nii has no slices"), "scan.nii has no slices"),
        (OSError("cannot identify Doe^John.png"), "cannot be read (OSError)"),
        (ValueError("bad pixel in Doe^John.png"), "cannot be read (ValueError)"),
        (RuntimeError("Exception thrown in SimpleITK: Doe^John.nii"), "cannot be read (RuntimeError)"),
    ],
)
def test_an_image_that_cannot_be_read_is_told_without_what_may_name_a_patient(
    segmenter: ModelPackage, error: Exception, words: str
) -> None:
    volume, good = two_boxes()
    cases = [Case("one", "a", broken(error), masks=lambda: good), Case("two", "b", lambda: volume, masks=lambda: good)]
    found = judged(segmenter, cases)
    assert found.n == 1
    assert words in found.cases[0].problem
    assert "Doe" not in found.cases[0].problem


def test_an_image_of_the_wrong_kind_and_one_of_which_nothing_is_known_are_problems(segmenter: ModelPackage) -> None:
    volume, masks = two_boxes()
    cases = [
        Case("an X-ray", "a", striped(0.5), masks=lambda: masks),
        Case("only a class", "b", lambda: volume, label="normal"),
    ]
    found = judged(segmenter, cases)
    assert found.n == 0
    assert not found.metrics
    assert "takes a Volume, not a Radiograph" in found.cases[0].problem
    assert found.cases[1].problem == "nothing is known of it that the model answers"


# detection: balls of 10 mm, which are boxes of 5 voxels of 2 mm


@pytest.fixture(scope="module")
def detector(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return load_package(detector_package(tmp_path_factory.mktemp("models")))


def ct_with_balls(*centres: tuple[int, int, int]) -> Volume:
    values = np.full((24, 32, 40), -1000)
    for centre in centres:
        values[np.linalg.norm(np.moveaxis(np.indices(values.shape), 0, -1) - centre, axis=-1) < 2.75] = 0
    return ct(values)


def lesion_at(centre: tuple[int, int, int], diameter: float) -> Lesion:
    """In LPS mm: x is the column's."""
    place = tuple(2.0 * each for each in reversed(centre))
    half = diameter / 2
    return Lesion(tuple(each - half for each in place), tuple(each + half for each in place), diameter)


def test_lesions_are_found_by_their_place_and_the_rest_is_false(detector: ModelPackage) -> None:
    here, there = (8, 8, 10), (16, 20, 28)
    cases = [
        Case("two balls", "a", lambda: ct_with_balls(here, there), lesions=(lesion_at(here, 10.0),)),
        Case("one ball", "b", lambda: ct_with_balls(there), lesions=(lesion_at(there, 6.0),)),
        Case("nothing", "c", lambda: ct_with_balls(), lesions=(lesion_at(here, 6.0),)),
        Case("clean", "d", lambda: ct_with_balls(), lesions=()),
    ]
    found = judged(detector, cases)
    assert found.n == 4
    assert found.metrics["lesion_sensitivity"].value == pytest.approx(2 / 3)
    assert found.metrics["lesion_sensitivity_from_8_mm"].value == 1.0
    assert found.metrics["lesion_sensitivity_below_8_mm"].value == 0.5
    assert found.metrics["false_positives_per_scan"].value == 0.25
    assert found.metrics["froc_sensitivity_at_8"].value == pytest.approx(2 / 3)
    assert found.metrics["diameter_mae_mm"].value == pytest.approx(2.0, abs=0.2)
    assert found.cases[0].answer == "1 found, 1 false"
    [froc] = found.curves
    assert froc.title == "FROC"
    assert froc.marks["all that is answered"] == (0.25, pytest.approx(2 / 3))


def test_lesions_of_an_x_ray_do_not_fit_a_ct(detector: ModelPackage) -> None:
    flat = Case("one", "a", lambda: ct_with_balls(), lesions=(Lesion((1.0, 2.0), (3.0, 4.0)),))
    [case] = judged(detector, [flat]).cases
    assert "another kind of coordinates" in case.problem


def test_lesions_of_an_x_ray_are_measured_in_millimetres_where_its_spacing_is_known(tmp_path: Path) -> None:
    package = load_package(detector_package(tmp_path, grid=(32, 48)))
    array = np.zeros((32, 48), np.float32)
    array[18:23, 28:33] = 255
    point = Lesion((20.0, 33.0), (20.0, 33.0), 3.0)
    # three pixels beside: 3 mm are less than the radius where a pixel is 0.4 mm, and more where it is 1 mm
    near, far = (
        judged(package, [Case("one", "a", lambda s=s: Radiograph(array, (s, s), ""), lesions=(point,))])
        for s in (0.4, 1.0)
    )
    assert near.metrics["lesion_sensitivity"].value == 1.0
    assert far.metrics["lesion_sensitivity"].value == 0.0
    # in pixels of no known size a diameter in mm says nothing, the box does
    box = Lesion((15.0, 20.0), (25.0, 34.0), 1.0)
    unknown = judged(package, [Case("one", "a", lambda: Radiograph(array, None, ""), lesions=(box,))])
    assert unknown.metrics["lesion_sensitivity"].value == 1.0
