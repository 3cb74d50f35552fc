from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from pydicom import Dataset

from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.types import ResultObject
from tests.unit.service.results.damage import copies, damaged
from tests.unit.service.results.examples import (
    Example,
    analysis_of,
    lung_findings,
    pneumonia_findings,
    small_ct,
    small_radiograph,
)
from tests.unit.service.results.report_content import about, below
from tests.unit.service.results.test_result_report import with_nodule

Damage = Callable[[Dataset], None]


def measurement_groups(dataset: Dataset) -> list[Dataset]:
    return [item for item in below(dataset) if about(item) == "Measurement Group"]


def line(dataset: Dataset, group: int) -> Dataset:
    """The first line in a group: the outline of the second, an axis of the third."""
    return next(item for item in below(measurement_groups(dataset)[group]) if item.ValueType == "SCOORD")


def moved(group: int, columns: float, rows: float) -> Damage:
    def damage(dataset: Dataset) -> None:
        points = np.array(line(dataset, group).GraphicData).reshape(-1, 2) + np.array([columns, rows])
        line(dataset, group).GraphicData = points.ravel().tolist()

    return damage


def columns_for_rows(dataset: Dataset) -> None:
    points = np.array(line(dataset, 1).GraphicData).reshape(-1, 2)
    line(dataset, 1).GraphicData = points[:, ::-1].ravel().tolist()


def not_closed(dataset: Dataset) -> None:
    line(dataset, 1).GraphicData = list(line(dataset, 1).GraphicData)[:-2]


def half_of_the_outline(dataset: Dataset) -> None:
    points = np.array(line(dataset, 1).GraphicData).reshape(-1, 2)
    line(dataset, 1).GraphicData = np.concatenate([points[:3], points[:1]]).ravel().tolist()


def around_the_smaller_part(dataset: Dataset) -> None:
    line(dataset, 1).GraphicData = [2.0, 2.5, 2.5, 2.0, 3.5, 2.0, 4, 2.5, 4, 3.5, 3.5, 4, 2.5, 4, 2, 3.5, 2, 2.5]


def on_the_neighbour(group: int) -> Damage:
    def damage(dataset: Dataset) -> None:
        line(dataset, group).ContentSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4.5.4"

    return damage


def on_a_frame(dataset: Dataset) -> None:
    line(dataset, 1).ContentSequence[0].ReferencedSOPSequence[0].ReferencedFrameNumber = 2


def a_circle(dataset: Dataset) -> None:
    line(dataset, 1).GraphicType = "CIRCLE"


def longer(dataset: Dataset) -> None:
    value = next(item for item in below(dataset) if about(item) == "Long Axis").MeasuredValueSequence[0]
    value.NumericValue = "7.5"


def without_line(dataset: Dataset) -> None:
    del next(item for item in below(dataset) if about(item) == "Long Axis").ContentSequence


def without_group(number: int) -> Damage:
    def damage(dataset: Dataset) -> None:
        container = next(item for item in below(dataset) if about(item) == "Imaging Measurements")
        container.ContentSequence = [group for index, group in enumerate(container.ContentSequence) if index != number]

    return damage


def groups_in_another_order(dataset: Dataset) -> None:
    container = next(item for item in below(dataset) if about(item) == "Imaging Measurements")
    container.ContentSequence = list(container.ContentSequence)[::-1]


def coded(name: str, value: str) -> Damage:
    def damage(dataset: Dataset) -> None:
        next(item for item in below(dataset) if about(item) == name).ConceptCodeSequence[0].CodeValue = value

    return damage


def worded(name: str, text: str) -> Damage:
    def damage(dataset: Dataset) -> None:
        next(item for item in below(dataset) if about(item) == name).TextValue = text

    return damage


def without_supporting_information(dataset: Dataset) -> None:
    dataset.ContentSequence = [item for item in dataset.ContentSequence if about(item) != "Supporting Information"]


def another_form(dataset: Dataset) -> None:
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"


DAMAGES: dict[str, Damage] = {
    "an outline half a pixel too far": moved(1, 0.5, 0.5),
    "an outline a pixel too far": moved(1, 0.0, 1.0),
    "an outline outside of the image": moved(1, 15.0, 0.0),
    "columns for rows": columns_for_rows,
    "an outline that is not closed": not_closed,
    "half of the outline": half_of_the_outline,
    "an outline around the smaller part": around_the_smaller_part,
    "an outline on the neighbour": on_the_neighbour(1),
    "an outline on a frame of an image that has none": on_a_frame,
    "a circle": a_circle,
    "no outline": without_group(1),
    "an axis somewhere else": moved(2, 0.0, 1.0),
    "an axis on the neighbour": on_the_neighbour(2),
    "a longer axis": longer,
    "an axis without a line": without_line,
    "no axes": without_group(2),
    "groups in another order": groups_in_another_order,
    "absent": coded("Presence of property", "272519000"),
    "another category": coded("Finding category", "123037004"),
    "another model": worded("Algorithm Name", "other"),
    "another version of the model": worded("Algorithm Version", "9"),
    "another tracking identifier": worded("Tracking Identifier", "ct-lung Left lung"),
    "no reference to the pictures": without_supporting_information,
    "another form": another_form,
}


def caught(example: Example, damage: Damage, folder: Path) -> pytest.ExceptionInfo[Quarantined]:
    analysis = analysis_of(example.findings, example.image, example.headers)
    return refused(encode(analysis, folder), analysis, damage)


def refused(objects: Sequence[ResultObject], analysis: Analysis, damage: Damage) -> pytest.ExceptionInfo[Quarantined]:
    damaged(objects[-1].path, damage)
    with pytest.raises(Quarantined, match="SR") as refusal:
        self_check(objects, analysis)
    return refusal


@pytest.fixture(scope="module")
def nodule(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, tuple[ResultObject, ...]]:
    example, profile = with_nodule(), ResultProfile(objects=("SEG", "SC", "SR"))
    analysis = analysis_of(example.findings, example.image, example.headers, profile=profile)
    return analysis, encode(analysis, tmp_path_factory.mktemp("nodule"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_report_that_draws_or_says_something_else_is_caught(
    name: str, nodule: tuple[Analysis, tuple[ResultObject, ...]], tmp_path: Path
) -> None:
    analysis, objects = nodule
    refused(copies(objects, tmp_path), analysis, DAMAGES[name])


def test_a_changed_box_of_a_class_is_caught(tmp_path: Path) -> None:
    example = Example(*small_radiograph((40, 30)), pneumonia_findings())
    refusal = caught(example, moved(0, 0.0, -1.0), tmp_path / "moved")
    assert "region of the group of Pneumonia" in str(refusal.value)
    caught(example, without_group(0), tmp_path / "missing")


def test_a_changed_statement_of_what_has_no_place_is_caught(tmp_path: Path) -> None:
    radiograph = Example(*small_radiograph(), pneumonia_findings())

    def likelier(dataset: Dataset) -> None:
        certainties = [item for item in below(dataset) if about(item) == "Certainty of Finding"]
        certainties[-1].MeasuredValueSequence[0].NumericValue = "99"

    refusal = caught(radiograph, likelier, tmp_path / "certainty")
    assert "other certainties" in str(refusal.value)


@pytest.mark.parametrize(
    "damage",
    [coded("Lung", "52101004"), coded("Laterality", "24028007"), worded("Tracking Identifier", "x"), without_group(0)],
)
def test_a_report_of_nothing_that_says_something_is_caught(damage: Damage, tmp_path: Path) -> None:
    volume, headers = small_ct()
    nothing = np.zeros(volume.array.shape, np.uint8)
    caught(Example(volume, headers, lung_findings(nothing, volume)), damage, tmp_path)
