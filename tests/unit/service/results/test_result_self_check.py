from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import Comprehensive3DSRStorage

from service.errors import Quarantined
from service.results.encode import encode
from service.results.predecessors import Predecessor
from service.results.self_check import self_check
from service.types import ResultObject
from tests.unit.service.results.damage import copies, damaged
from tests.unit.service.results.examples import (
    Example,
    analysis_of,
    pneumonia_findings,
    small_ct_example,
    small_radiograph,
)

Damage = Callable[[Dataset], None]


def set_(keyword: str, value: object) -> Damage:
    return lambda dataset: setattr(dataset, keyword, value)


def frames(dataset: Dataset) -> list[Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


def flip_positions(dataset: Dataset) -> None:
    positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames(dataset)]
    ordered = sorted({tuple(position) for position in positions}, key=lambda position: position[2])
    mirrored = dict(zip(ordered, reversed(ordered), strict=True))
    for frame, position in zip(frames(dataset), positions, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = list(mirrored[tuple(position)])


def flip_frames(dataset: Dataset) -> None:
    """Frames and positions both upside down: consistent in itself, but not with the references."""
    flip_positions(dataset)
    sources = [frame.DerivationImageSequence for frame in frames(dataset)]
    for frame, source in zip(frames(dataset), reversed(sources), strict=True):
        frame.DerivationImageSequence = source


def source_of_frame(dataset: Dataset) -> Dataset:
    source: Dataset = frames(dataset)[0].DerivationImageSequence[0].SourceImageSequence[0]
    return source


def dangling_source(dataset: Dataset) -> None:
    source_of_frame(dataset).ReferencedSOPInstanceUID = "1.2.3.9"


def source_of_the_neighbour(dataset: Dataset) -> None:
    source_of_frame(dataset).ReferencedSOPInstanceUID = source_of_frame_number(dataset, 1)


def source_of_frame_number(dataset: Dataset, index: int) -> str:
    return str(frames(dataset)[index].DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID)


def no_source(dataset: Dataset) -> None:
    frames(dataset)[0].DerivationImageSequence = []


def segment_number_nine(dataset: Dataset) -> None:
    frames(dataset)[0].SegmentIdentificationSequence[0].ReferencedSegmentNumber = 9


def other_segment_number(dataset: Dataset) -> None:
    identification = frames(dataset)[0].SegmentIdentificationSequence[0]
    identification.ReferencedSegmentNumber = 3 - identification.ReferencedSegmentNumber


def gap_in_segment_numbers(dataset: Dataset) -> None:
    dataset.SegmentSequence[1].SegmentNumber = 3


def swapped_labels(dataset: Dataset) -> None:
    one, other = dataset.SegmentSequence
    one.SegmentLabel, other.SegmentLabel = other.SegmentLabel, one.SegmentLabel


def other_laterality(dataset: Dataset) -> None:
    kind = dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0]
    kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeValue = "24028007"


def other_type(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].SegmentedPropertyTypeCodeSequence[0].CodeValue = "10200004"


def other_tracking_uid(dataset: Dataset) -> None:
    dataset.SegmentSequence[0].TrackingUID = "1.2.3"


def wider_pixels(dataset: Dataset) -> None:
    dataset.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.8, 0.75]


def other_orientation(dataset: Dataset) -> None:
    shared = dataset.SharedFunctionalGroupsSequence[0]
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = [-1, 0, 0, 0, 1, 0]


def shifted_frame(dataset: Dataset) -> None:
    position = frames(dataset)[0].PlanePositionSequence[0]
    position.ImagePositionPatient = [position.ImagePositionPatient[0] + 0.5, *position.ImagePositionPatient[1:]]


def one_voxel_less(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    place = next(index for index, value in enumerate(pixels) if value)
    pixels[place] &= pixels[place] - 1
    dataset.PixelData = bytes(pixels)


def short_pixel_data(dataset: Dataset) -> None:
    dataset.PixelData = dataset.PixelData[: len(dataset.PixelData) // 4 * 2]


def one_frame_less(dataset: Dataset) -> None:
    size = dataset.Rows * dataset.Columns * (dataset.NumberOfFrames - 1)
    dataset.PerFrameFunctionalGroupsSequence = frames(dataset)[:-1]
    dataset.NumberOfFrames -= 1
    dataset.PixelData = dataset.PixelData[: (size + 15) // 16 * 2]


def a_frame_twice(dataset: Dataset) -> None:
    frames(dataset)[1].DerivationImageSequence = frames(dataset)[0].DerivationImageSequence
    frames(dataset)[1].PlanePositionSequence = frames(dataset)[0].PlanePositionSequence


def fewer_references(dataset: Dataset) -> None:
    series = dataset.ReferencedSeriesSequence[0]
    series.ReferencedInstanceSequence = list(series.ReferencedInstanceSequence)[:-1]


def other_referenced_series(dataset: Dataset) -> None:
    dataset.ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.9"


def other_file_meta(dataset: Dataset) -> None:
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3.9"


def missing(keyword: str) -> Damage:
    return lambda dataset: dataset.__delattr__(keyword)


COMMON: dict[str, Damage] = {
    "another study": set_("StudyInstanceUID", "1.2.3.9"),
    "another patient": set_("PatientID", "P2"),
    "another name": set_("PatientName", "Doe^John"),
    "another sex": set_("PatientSex", "M"),
    "another accession number": set_("AccessionNumber", "A2"),
    "another character set": set_("SpecificCharacterSet", "ISO_IR 192"),
    "the source series as its own": set_("SeriesInstanceUID", "1.2.3.4.5"),
    "another SOP class": set_("SOPClassUID", "1.2.840.10008.5.1.4.1.1.7"),
    "another modality": set_("Modality", "OT"),
    "a name that does not say research": set_("SeriesDescription", "lungs"),
    "an unlike file meta": other_file_meta,
    "an attribute that the source does not have": set_("PatientWeight", "80"),
}

SEG_DAMAGES: dict[str, Damage] = {
    **COMMON,
    "another SOP instance": set_("SOPInstanceUID", "1.2.3.9"),
    "positions upside down": flip_positions,
    "frames upside down": flip_frames,
    "a foreign frame of reference": set_("FrameOfReferenceUID", "1.2.3.9"),
    "a dangling source": dangling_source,
    "the neighbour's source": source_of_the_neighbour,
    "a frame without source": no_source,
    "segment number 9": segment_number_nine,
    "the other segment's number": other_segment_number,
    "a gap in the segment numbers": gap_in_segment_numbers,
    "swapped labels": swapped_labels,
    "another laterality": other_laterality,
    "another type": other_type,
    "another tracking UID": other_tracking_uid,
    "wider pixels": wider_pixels,
    "another orientation": other_orientation,
    "a shifted frame": shifted_frame,
    "one voxel less": one_voxel_less,
    "short pixel data": short_pixel_data,
    "one frame less": one_frame_less,
    "a frame twice": a_frame_twice,
    "more frames said than there are": set_("NumberOfFrames", 99),
    "fewer references": fewer_references,
    "another referenced series": other_referenced_series,
    "other rows": set_("Rows", 12),
    "a fractional type": set_("SegmentationType", "FRACTIONAL"),
    "another content label": set_("ContentLabel", "CLINICAL"),
    "no segments": missing("SegmentSequence"),
    "no frames": missing("PerFrameFunctionalGroupsSequence"),
    "no pixel data": missing("PixelData"),
}


def items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or []:
        yield child
        yield from items(child)


def first_of_type(dataset: Dataset, value_type: str, concept: str) -> Dataset:
    return next(
        item
        for item in items(dataset)
        if item.ValueType == value_type and item.ConceptNameCodeSequence[0].CodeValue == concept
    )


def first_group(dataset: Dataset) -> Dataset:
    return first_of_type(dataset, "CONTAINER", "125007")


def without(concept: str) -> Damage:
    def damage(dataset: Dataset) -> None:
        group = first_group(dataset)
        group.ContentSequence = [
            item for item in group.ContentSequence if item.ConceptNameCodeSequence[0].CodeValue != concept
        ]

    return damage


def volume_of(dataset: Dataset) -> Dataset:
    value: Dataset = first_of_type(dataset, "NUM", "118565006").MeasuredValueSequence[0]
    return value


def other_value(dataset: Dataset) -> None:
    volume_of(dataset).NumericValue = "1234.5"


def value_in_litres(dataset: Dataset) -> None:
    volume_of(dataset).MeasurementUnitsCodeSequence[0].CodeValue = "L"


def value_in_apples(dataset: Dataset) -> None:
    volume_of(dataset).MeasurementUnitsCodeSequence[0].CodingSchemeDesignator = "99FRUIT"


def other_concept(dataset: Dataset) -> None:
    first_of_type(dataset, "NUM", "118565006").ConceptNameCodeSequence[0].CodeValue = "42798000"


def no_value(dataset: Dataset) -> None:
    first_of_type(dataset, "NUM", "118565006").MeasuredValueSequence = []


def other_finding(dataset: Dataset) -> None:
    first_of_type(dataset, "CODE", "121071").ConceptCodeSequence[0].CodeValue = "10200004"


def tracked_as_another(dataset: Dataset) -> None:
    first_of_type(dataset, "UIDREF", "112040").UID = "1.2.3.9"


def referenced_segment(dataset: Dataset) -> Dataset:
    reference: Dataset = first_of_type(dataset, "IMAGE", "121191").ReferencedSOPSequence[0]
    return reference


def segment_nine(dataset: Dataset) -> None:
    referenced_segment(dataset).ReferencedSegmentNumber = 9


def dangling_segment(dataset: Dataset) -> None:
    referenced_segment(dataset).ReferencedSOPInstanceUID = "1.2.3.9"


def dangling_image(dataset: Dataset) -> None:
    first_of_type(dataset, "IMAGE", "260753009").ReferencedSOPSequence[0].ReferencedSOPInstanceUID = "1.2.3.9"


def image_of_another_class(dataset: Dataset) -> None:
    image = first_of_type(dataset, "IMAGE", "260753009").ReferencedSOPSequence[0]
    image.ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.4"


def other_source_series(dataset: Dataset) -> None:
    first_of_type(dataset, "UIDREF", "121232").UID = "1.2.3.9"


def evidence_of_another_study(dataset: Dataset) -> None:
    dataset.CurrentRequestedProcedureEvidenceSequence[0].StudyInstanceUID = "1.2.3.9"


def evidence_of_another_series(dataset: Dataset) -> None:
    dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID = "1.2.3.9"


def less_evidence(dataset: Dataset) -> None:
    series = dataset.CurrentRequestedProcedureEvidenceSequence[0].ReferencedSeriesSequence[0]
    series.ReferencedSOPSequence = list(series.ReferencedSOPSequence)[1:]


def one_group_less(dataset: Dataset) -> None:
    measurements = first_of_type(dataset, "CONTAINER", "126010")
    measurements.ContentSequence = list(measurements.ContentSequence)[:-1]


def no_research_text(dataset: Dataset) -> None:
    first_of_type(dataset, "TEXT", "121106").TextValue = "For clinical use"


def other_template(dataset: Dataset) -> None:
    dataset.ContentTemplateSequence[0].TemplateIdentifier = "9999"


SR_DAMAGES: dict[str, Damage] = {
    **COMMON,
    "another SOP instance": set_("SOPInstanceUID", "1.2.3.9"),
    "another value": other_value,
    "a value in litres": value_in_litres,
    "a value in apples": value_in_apples,
    "another concept": other_concept,
    "no value": no_value,
    "another finding": other_finding,
    "no finding": without("121071"),
    "tracked as another": tracked_as_another,
    "no tracking UID": without("112040"),
    "no reference to its segment": without("121191"),
    "one measurement less": without("118565006"),
    "segment 9": segment_nine,
    "a dangling segmentation": dangling_segment,
    "a dangling image": dangling_image,
    "an image of another class": image_of_another_class,
    "another source series": other_source_series,
    "evidence of another study": evidence_of_another_study,
    "evidence of another series": evidence_of_another_series,
    "less evidence": less_evidence,
    "no evidence": missing("CurrentRequestedProcedureEvidenceSequence"),
    "one group less": one_group_less,
    "no research text": no_research_text,
    "another template": other_template,
    "a root that is no container": set_("ValueType", "TEXT"),
    "no content": missing("ContentSequence"),
}


@pytest.fixture(scope="module")
def example() -> Example:
    return small_ct_example()


@pytest.fixture(scope="module")
def written(example: Example, tmp_path_factory: pytest.TempPathFactory) -> tuple[ResultObject, ...]:
    analysis = analysis_of(example.findings, example.image, example.headers)
    return encode(analysis, tmp_path_factory.mktemp("written"))


@pytest.fixture
def objects(written: tuple[ResultObject, ...], tmp_path: Path) -> list[ResultObject]:
    return copies(written, tmp_path)


def check(objects: Sequence[ResultObject], example: Example) -> None:
    self_check(objects, analysis_of(example.findings, example.image, example.headers))


def test_what_was_encoded_passes(objects: list[ResultObject], example: Example) -> None:
    for entry in objects:
        pydicom.dcmread(entry.path).save_as(entry.path)
    check(objects, example)


@pytest.mark.parametrize("name", SEG_DAMAGES)
def test_a_damaged_segmentation_is_caught(name: str, objects: list[ResultObject], example: Example) -> None:
    damaged(objects[0].path, SEG_DAMAGES[name])
    with pytest.raises(Quarantined, match="SEG"):
        check(objects, example)


@pytest.mark.parametrize("name", SR_DAMAGES)
def test_a_damaged_report_is_caught(name: str, objects: list[ResultObject], example: Example) -> None:
    damaged(objects[1].path, SR_DAMAGES[name])
    with pytest.raises(Quarantined, match="SR"):
        check(objects, example)


def test_the_refusal_names_what_differs_and_nothing_of_the_patient(
    objects: list[ResultObject], example: Example
) -> None:
    damaged(objects[0].path, set_("PatientID", "P2-SECRET"))
    with pytest.raises(Quarantined, match="PatientID is not that of the source") as caught:
        check(objects, example)
    assert "SECRET" not in str(caught.value)
    assert "P1" not in str(caught.value)


@pytest.mark.parametrize("size", [0, 200, 2000])
def test_a_truncated_file_is_caught(size: int, objects: list[ResultObject], example: Example) -> None:
    for entry in objects:
        entry.path.write_bytes(entry.path.read_bytes()[:size])
        with pytest.raises(Quarantined, match=entry.kind):
            check([entry] if entry.kind == "SR" else objects, example)


def test_a_result_without_its_segmentation_is_caught(objects: list[ResultObject], example: Example) -> None:
    with pytest.raises(Quarantined, match="SEG, SR"):
        check(objects[1:], example)


def test_a_changed_probability_is_caught(tmp_path: Path) -> None:
    example = Example(*small_radiograph(), pneumonia_findings())
    objects = encode(analysis_of(example.findings, example.image, example.headers), tmp_path)

    def damage(dataset: Dataset) -> None:
        first_of_type(dataset, "NUM", "111012").MeasuredValueSequence[0].NumericValue = "99"

    damaged(objects[0].path, damage)
    with pytest.raises(Quarantined, match="Pneumonia states other values"):
        check(objects, example)


EARLIER = Predecessor("2.25.7", Comprehensive3DSRStorage, "2.25.8")


def named_document(dataset: Dataset) -> Dataset:
    document: Dataset = dataset.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].ReferencedSOPSequence[0]
    return document


def other_predecessor(dataset: Dataset) -> None:
    named_document(dataset).ReferencedSOPInstanceUID = "2.25.9"


def other_predecessor_class(dataset: Dataset) -> None:
    named_document(dataset).ReferencedSOPClassUID = "1.2.840.10008.5.1.4.1.1.88.33"


def other_predecessor_series(dataset: Dataset) -> None:
    dataset.PredecessorDocumentsSequence[0].ReferencedSeriesSequence[0].SeriesInstanceUID = "2.25.9"


def other_predecessor_study(dataset: Dataset) -> None:
    dataset.PredecessorDocumentsSequence[0].StudyInstanceUID = "2.25.9"


def one_predecessor_more(dataset: Dataset) -> None:
    dataset.PredecessorDocumentsSequence = [*dataset.PredecessorDocumentsSequence] * 2


PREDECESSOR_DAMAGES: dict[str, Damage] = {
    "another predecessor": other_predecessor,
    "another class of predecessor": other_predecessor_class,
    "another series of predecessor": other_predecessor_series,
    "another study of predecessor": other_predecessor_study,
    "a predecessor more": one_predecessor_more,
    "no predecessor": missing("PredecessorDocumentsSequence"),
    "another version": set_("SeriesDescription", "RESEARCH v3 ct-lung 0.1.0 report"),
    "a first version": set_("SeriesDescription", "RESEARCH ct-lung 0.1.0 report"),
}


@pytest.mark.parametrize("name", PREDECESSOR_DAMAGES)
def test_a_report_that_supersedes_another_one_than_it_must_is_caught(
    name: str, example: Example, tmp_path: Path
) -> None:
    parts = example.findings, example.image, example.headers
    objects = encode(analysis_of(*parts, predecessors=[EARLIER]), tmp_path)
    self_check(objects, analysis_of(*parts, predecessors=[EARLIER]))
    damaged(objects[1].path, PREDECESSOR_DAMAGES[name])
    with pytest.raises(Quarantined, match="SR"):
        self_check(objects, analysis_of(*parts, predecessors=[EARLIER]))


def test_a_report_that_supersedes_none_must_name_none(example: Example, tmp_path: Path) -> None:
    parts = example.findings, example.image, example.headers
    objects = encode(analysis_of(*parts, predecessors=[EARLIER]), tmp_path)
    with pytest.raises(Quarantined, match="SeriesDescription"):
        self_check(objects, analysis_of(*parts))


def test_a_report_that_supersedes_itself_is_caught(example: Example, tmp_path: Path) -> None:
    parts = example.findings, example.image, example.headers
    itself = encode(analysis_of(*parts), tmp_path)[1]
    with pytest.raises(Quarantined, match="itself"):
        encode(analysis_of(*parts, predecessors=[replace(EARLIER, sop_instance_uid=itself.sop_instance_uid)]), tmp_path)
