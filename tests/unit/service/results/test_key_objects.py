from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset

from engines.types import Code, Measurement
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import wanted
from service.results.profile import Kind, ResultProfile
from service.results.self_check import self_check
from service.types import ResultObject
from tests.unit.service.results.damage import Damage, copies, damaged, set_, without
from tests.unit.service.results.examples import (
    Example,
    analysis_of,
    lung_findings,
    pneumonia_findings,
    small_ct,
    small_ct_example,
    small_radiograph,
)
from tests.unit.service.results.odd_sources import enhanced_ct, tilted_head
from tests.validators import dcentvfy_errors, dciodvfy_errors, dsrdump_text

KIND: tuple[Kind, ...] = ("KO",)
OBJECTS: tuple[Kind, ...] = ("SC", "GSPS", "KO")


def analysed(example: Example, objects: tuple[Kind, ...] = KIND) -> Analysis:
    profile = ResultProfile(objects=objects, captures=2)
    return analysis_of(example.findings, example.image, example.headers, profile=profile)


def written(example: Example, folder: Path) -> ResultObject:
    [result] = encode(analysed(example), folder)
    return result


def images(path: Path) -> list[Dataset]:
    items = pydicom.dcmread(path).ContentSequence
    return [item.ReferencedSOPSequence[0] for item in items if item.ValueType == "IMAGE"]


def chest() -> Example:
    """The left lung is largest on the fourth slice, the right one on the second, a diameter ends on the fifth."""
    volume, headers = small_ct()
    labels = np.zeros((5, 13, 11), np.uint8)
    labels[1, :8, :4], labels[2, :7, :4] = 2, 2
    labels[3, :8, 5:], labels[4, :7, 5:] = 1, 1
    ends = ((4.0, 1.0, 6.0), (4.0, 3.0, 7.0))
    length = Measurement(1, Code("103339001", "SCT", "Long Axis"), 5.0, Code("mm", "UCUM", "mm"), points=ends)
    findings = lung_findings(labels, volume)
    return Example(volume, headers, replace(findings, measurements=(*findings.measurements, length)))


def test_the_slices_are_those_where_segments_are_largest_and_diameters_end(tmp_path: Path) -> None:
    example = chest()
    uids = [image.ReferencedSOPInstanceUID for image in images(written(example, tmp_path).path)]
    assert uids == [example.headers[index].SOPInstanceUID for index in (1, 3, 4)]


def test_frames_of_a_multi_frame_image_are_pointed_to(shared_data: Path, tmp_path: Path) -> None:
    example = enhanced_ct(shared_data)
    labels = np.zeros(example.image.array.shape, np.uint8)
    labels[0, 10:20, 10:20] = 1  # the slice of the second frame
    result = written(replace(example, findings=lung_findings(labels, example.image)), tmp_path)
    [image] = images(result.path)
    assert image.ReferencedFrameNumber == 2
    assert dciodvfy_errors(result.path) == []


def test_pictures_and_presentation_states_of_the_same_analysis_are_pointed_to(tmp_path: Path) -> None:
    *pictures, state, document = encode(analysed(chest(), OBJECTS), tmp_path)
    found = images(document.path)
    slices, others = found[:3], found[3:]
    assert [image.ReferencedSOPInstanceUID for image in others] == [entry.sop_instance_uid for entry in pictures]
    drawn_by = {image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID for image in slices}
    assert drawn_by == {state.sop_instance_uid}
    text = dsrdump_text(document.path)
    assert text.count("(CT image,),(GSPS,)") == 3
    assert text.count("(SC image,)") == len(pictures) > 1


def test_validators_find_no_error(chest_64: Example, shared_data: Path, tmp_path: Path) -> None:
    for number, example in enumerate((chest_64, tilted_head(shared_data))):
        result = written(example, tmp_path / str(number))
        errors = [error for error in dciodvfy_errors(result.path) if "DeidentificationMethod" not in error]
        assert errors + dcentvfy_errors(result.path) == []
        text = dsrdump_text(result.path)
        assert '"Of Interest"' in text
        assert "Research use only. ct-lung 0.1.0. The slices where each segment is largest" in text


def test_an_x_ray_is_a_key_image_itself(tmp_path: Path) -> None:
    image, headers = small_radiograph()
    result = written(Example(image, headers, pneumonia_findings()), tmp_path)
    assert [item.ReferencedSOPInstanceUID for item in images(result.path)] == [image.source]
    assert dciodvfy_errors(result.path) == []


def test_no_slice_matters_where_nothing_was_found() -> None:
    volume, headers = small_ct()
    assert wanted(analysed(Example(volume, headers, lung_findings(np.zeros((5, 13, 11), np.uint8), volume)))) == ()


def test_the_same_findings_give_the_same_bytes(tmp_path: Path) -> None:
    one, other = (written(small_ct_example(), tmp_path / name).path.read_bytes() for name in "ab")
    assert one == other


def other_slice(dataset: Dataset) -> None:
    item = next(item for item in dataset.ContentSequence if item.ValueType == "IMAGE")
    item.ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.4.5.1"


def one_image_less(dataset: Dataset) -> None:
    dataset.ContentSequence = list(dataset.ContentSequence)[:-1]


def no_description(dataset: Dataset) -> None:
    dataset.ContentSequence = [item for item in dataset.ContentSequence if item.ValueType != "TEXT"]


def another_state(dataset: Dataset) -> None:
    for item in dataset.ContentSequence:
        if item.ValueType == "IMAGE" and "ReferencedSOPSequence" in item.ReferencedSOPSequence[0]:
            item.ReferencedSOPSequence[0].ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.9"


def another_class(dataset: Dataset) -> None:
    item = next(item for item in dataset.ContentSequence if item.ValueType == "IMAGE")
    item.ReferencedSOPSequence[0].ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"


EVIDENCE = "CurrentRequestedProcedureEvidenceSequence"
DAMAGES: dict[str, Damage] = {
    "another class of its own": set_("SOPClassUID", "1.2.840.10008.5.1.4.1.1.88.11"),
    "another instance": set_("SOPInstanceUID", "1.2.3.9"),
    "another modality": set_("Modality", "SR"),
    "another title": set_("ConceptNameCodeSequence.CodeValue", "113001"),
    "another template": set_("ContentTemplateSequence.TemplateIdentifier", "1500"),
    "no description": no_description,
    "another slice": other_slice,
    "an image less": one_image_less,
    "an unknown presentation state": another_state,
    "an image of another class": another_class,
    "evidence of another study": set_(f"{EVIDENCE}.StudyInstanceUID", "1.2.3.9"),
    "evidence of another series": set_(f"{EVIDENCE}.ReferencedSeriesSequence.SeriesInstanceUID", "1.2.3.9"),
    "less evidence": without(f"{EVIDENCE}.ReferencedSeriesSequence.ReferencedSOPSequence:0"),
}


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> tuple[Analysis, tuple[ResultObject, ...]]:
    analysis = analysed(chest(), OBJECTS)
    return analysis, encode(analysis, tmp_path_factory.mktemp("sound"))


@pytest.mark.parametrize("name", DAMAGES)
def test_a_damaged_document_is_caught(
    name: str, sound: tuple[Analysis, tuple[ResultObject, ...]], tmp_path: Path
) -> None:
    analysis, written = sound
    objects = copies(written, tmp_path)
    damaged(objects[-1].path, DAMAGES[name])
    with pytest.raises(Quarantined, match="KO"):
        self_check(objects, analysis)
