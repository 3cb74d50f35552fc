"""What the words of a reference mean among the classes and segments of a model."""

import pytest

from engines.packages.head_sections import ClassEntry, ClassificationSection, CodeEntry
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.types import Code, Segment
from evaluation.matching import Match, class_names, class_of, name_of, segments_of


@pytest.fixture(scope="module")
def chest() -> ClassificationSection:
    section = load_package(SHIPPED_MODELS / "cxr-pneumonia").description.classification
    assert section is not None
    return section


def segments(*labels: str) -> tuple[Segment, ...]:
    code = Code("1", "99TEST", "a test")
    return tuple(Segment(number, label, code, code, (0, 0, 0)) for number, label in enumerate(labels, start=1))


LUNGS = segments("Left lung", "Right lung")


@pytest.mark.parametrize(
    ("label", "index"),
    [
        ("normal", 0),
        ("Normal", 0),
        ("pneumonia", 1),
        ("viral", 2),
        ("viral_pneumonia", 2),
        ("Viral Pneumonia", 2),
        ("75570004", 2),
        ("bacterial", None),
        ("viral bacterial", None),
        ("vir", None),
        ("", None),
        ("__", None),
    ],
)
def test_a_label_means_the_class_of_the_same_words_or_the_only_one_with_them(
    chest: ClassificationSection, label: str, index: int | None
) -> None:
    assert class_of(label, chest) == index


def test_a_word_of_two_classes_means_none_of_them() -> None:
    code = CodeEntry(value="1", scheme="99TEST", meaning="a test")
    classes = tuple(ClassEntry(label=label, code=code) for label in ("Left effusion", "Right effusion"))
    section = ClassificationSection(tensor="probabilities", classes=classes)
    assert class_of("effusion", section) is None
    assert class_of("left", section) == 0


def test_metrics_are_named_as_the_reference_names_the_classes(chest: ClassificationSection) -> None:
    assert class_names(["viral", "normal", "viral"], chest) == ("normal", "pneumonia", "viral")
    assert class_names([], chest) == ("normal", "pneumonia", "viral_pneumonia")
    # two words for one class: neither is better than the model's own
    assert class_names(["viral", "Viral pneumonia"], chest)[2] == "viral_pneumonia"


@pytest.mark.parametrize(
    ("label", "name"),
    [("Left lung", "left_lung"), ("Left lung+Right lung", "left_lung_and_right_lung"), ("Lobe (upper)", "lobe_upper")],
)
def test_a_label_becomes_a_name_in_lower_case(label: str, name: str) -> None:
    assert name_of(label) == name


def test_a_mask_means_the_segment_of_the_same_words() -> None:
    assert segments_of(["right lung", "left_lung"], LUNGS) == {
        "right_lung": Match(("right lung",), (2,)),
        "left_lung": Match(("left_lung",), (1,)),
    }


def test_a_mask_of_both_lungs_means_left_and_right_together() -> None:
    assert segments_of(["Lung"], LUNGS) == {"lung": Match(("Lung",), (1, 2))}
    joined = segments_of(["Left lung+Right lung"], LUNGS)
    assert joined == {"left_lung_and_right_lung": Match(("Left lung+Right lung",), (1, 2))}


def test_masks_of_left_and_right_are_one_for_a_model_that_does_not_tell_them_apart() -> None:
    assert segments_of(["Left lung", "Right lung"], segments("Lung")) == {
        "lung": Match(("Left lung", "Right lung"), (1,))
    }


def test_a_mask_of_something_else_means_nothing() -> None:
    assert segments_of(["Heart"], LUNGS) == {}
    assert segments_of(["Heart", "Left lung"], LUNGS).keys() == {"left_lung"}
