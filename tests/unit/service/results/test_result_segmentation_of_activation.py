"""Class activations as a FRACTIONAL segmentation."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from engines.types import Classification, Findings
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import wanted
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.types import ResultObject
from tests.unit.service.results.examples import pneumonia_findings, small_radiograph
from tests.validators import dciodvfy_errors

PROFILE = ResultProfile(objects=("HEATMAP-SEG",))
SHAPE = (9, 7)


def activated(findings: Findings) -> Findings:
    """The first class has no map, the second speaks of the upper half, the third of nothing, a fourth of one corner."""
    assert findings.classification is not None
    normal, pneumonia, viral = findings.classification.classes
    upper, corner = np.zeros(SHAPE, np.uint8), np.zeros(SHAPE, np.uint8)
    upper[:5] = np.arange(5 * 7).reshape(5, 7) * 7
    corner[-1, -1] = 255
    classes = (
        normal,
        replace(pneumonia, activation=upper),
        replace(viral, activation=np.zeros(SHAPE, np.uint8)),
        replace(viral, label="Other pneumonia", activation=corner),
    )
    return replace(findings, classification=Classification(classes))


def written(folder: Path) -> tuple[ResultObject, Analysis]:
    image, headers = small_radiograph(SHAPE)
    analysis = Analysis(activated(pneumonia_findings()), image, headers, PROFILE)
    [entry] = encode(analysis, folder)
    return entry, analysis


def test_each_class_that_the_image_speaks_for_is_a_segment_with_its_map(tmp_path: Path) -> None:
    entry, analysis = written(tmp_path)
    dataset = pydicom.dcmread(entry.path)
    assert (dataset.SegmentationType, dataset.SegmentationFractionalType) == ("FRACTIONAL", "PROBABILITY")
    one, other = dataset.SegmentSequence
    assert (one.SegmentLabel, other.SegmentLabel) == ("Pneumonia", "Other pneumonia")
    assert one.SegmentedPropertyTypeCodeSequence[0].CodeValue == "233604007"
    assert one.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    assert one.TrackingUID == analysis.uids.tracking("Pneumonia")
    assert list(one.RecommendedDisplayCIELabValue) != list(other.RecommendedDisplayCIELabValue)
    assert analysis.findings.classification is not None
    maps = [found.activation for found in analysis.findings.classification.classes]
    assert np.array_equal(dataset.pixel_array, np.stack([maps[1], maps[3]]))  # type: ignore[list-item]
    assert "not the outline" in dataset.ImageComments
    assert dciodvfy_errors(entry.path) == []


def test_it_is_no_series_of_the_segmentation(tmp_path: Path) -> None:
    entry, analysis = written(tmp_path)
    assert entry.series_uid != analysis.uids.series("SEG")
    dataset = pydicom.dcmread(entry.path)
    organization = dataset.DimensionOrganizationSequence[0].DimensionOrganizationUID
    assert organization != analysis.uids.dimension_organization("SEG")


def test_without_an_activation_there_is_none() -> None:
    image, headers = small_radiograph(SHAPE)
    assert wanted(Analysis(pneumonia_findings(), image, headers, PROFILE)) == ()


def less_activation(dataset: Dataset) -> None:
    dataset.PixelData = bytes(value // 2 for value in dataset.PixelData)


def swapped(dataset: Dataset) -> None:
    size = SHAPE[0] * SHAPE[1]
    one, other, rest = np.split(np.frombuffer(dataset.PixelData, np.uint8), [size, 2 * size])
    dataset.PixelData = np.concatenate([other, one, rest]).tobytes()


def other_class(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "17621005"


def says_nothing(dataset: Dataset) -> None:
    dataset.ImageComments = "Research use only."


@pytest.mark.parametrize("damage", [less_activation, swapped, other_class, says_nothing])
def test_what_is_damaged_is_caught(damage: Callable[[Dataset], None], tmp_path: Path) -> None:
    entry, analysis = written(tmp_path)
    dataset = pydicom.dcmread(entry.path)
    damage(dataset)
    dataset.save_as(entry.path)
    with pytest.raises(Quarantined, match="self-check of the HEATMAP-SEG"):
        self_check([entry], analysis)
