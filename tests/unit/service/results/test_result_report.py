from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from pydicom.uid import Comprehensive3DSRStorage, ComprehensiveSRStorage, EnhancedSRStorage

from engines.types import Code, Findings, LabelMap, Measurement
from service.results.encode import encode
from service.results.profile import ResultProfile
from service.types import ResultObject
from tests.unit.service.results.examples import (
    LEFT_LUNG,
    NODULE,
    RIGHT_LUNG,
    Example,
    analysis_of,
    lung_findings,
    pneumonia_findings,
    read_radiograph,
    small_ct,
    small_ct_example,
    small_labels,
    small_radiograph,
    two_fields,
)
from tests.unit.service.results.odd_sources import enhanced_ct
from tests.unit.service.results.report_content import about, below, groups, image_of, regions, stated
from tests.validators import dciodvfy_errors, dsrdump_text, tid1500

FORMS = {
    "comprehensive-3d": Comprehensive3DSRStorage,
    "comprehensive": ComprehensiveSRStorage,
    "enhanced": EnhancedSRStorage,
}
LONG_AXIS, MILLIMETRE = Code("103339001", "SCT", "Long Axis"), Code("mm", "UCUM", "mm")


def reported(example: Example, folder: Path, **profile: Any) -> tuple[ResultObject, ...]:
    """All objects, the report last; SEG and SR unless the profile says otherwise."""
    wanted = ResultProfile(**{"objects": ("SEG", "SR"), **profile})
    return encode(analysis_of(example.findings, example.image, example.headers, profile=wanted), folder)


def with_nodule(shape: tuple[int, int, int] = (5, 30, 40)) -> Example:
    """Two separate parts of a nodule, the larger one largest on the third slice, and its long axis."""
    volume, headers = small_ct(shape)
    labels = np.zeros(shape, np.uint8)
    labels[1:4, 10:14, 20:28] = labels[2, 14, 20:28] = NODULE.number
    labels[1:3, 2:4, 2:4] = NODULE.number
    ends = ((1.0, 10.0, 19.5), (1.0, 13.0, 27.5))
    length = float(np.hypot(3 * 0.8, 8 * 0.7))
    findings = lung_findings(labels, volume)
    measurements = (
        Measurement(NODULE.number, Code("118565006", "SCT", "Volume"), 0.25, Code("mL", "UCUM", "mL")),
        Measurement(NODULE.number, LONG_AXIS, length, MILLIMETRE, points=ends),
    )
    return Example(volume, headers, replace(findings, label_map=LabelMap(labels, (NODULE,)), measurements=measurements))


def activated(*maps: np.ndarray | None) -> Findings:
    findings = pneumonia_findings()
    assert findings.classification is not None
    classes = zip(findings.classification.classes, maps, strict=True)
    mapped = tuple(replace(entry, activation=activation) for entry, activation in classes)
    return replace(findings, classification=replace(findings.classification, classes=mapped))


@pytest.mark.parametrize("form", FORMS)
def test_each_form_holds_the_same_content_and_every_checker_reads_it(form: str, tmp_path: Path) -> None:
    volume, headers = small_ct()
    labels = small_labels(volume.array.shape)
    labels[labels == LEFT_LUNG.number] = 0
    half_found = Example(volume, headers, lung_findings(labels, volume))
    radiograph = Example(*small_radiograph(), pneumonia_findings())
    for number, example in enumerate((with_nodule(), half_found, radiograph)):
        folder = tmp_path / str(number)
        *_, sr = reported(example, folder, report=form)
        *_, usual = reported(example, folder)
        assert sr.sop_class_uid == FORMS[form]
        assert dciodvfy_errors(sr.path) == []
        assert "Research use only" in dsrdump_text(sr.path)
        content = [
            [(about(item), item.ValueType) for item in below(pydicom.dcmread(each.path))] for each in (sr, usual)
        ]
        assert content[0] == content[1]


def test_an_outline_runs_along_the_edges_of_the_largest_part_where_the_segment_is_largest(tmp_path: Path) -> None:
    example = with_nodule()
    whole_only = replace(example.findings, measurements=example.findings.measurements[:1])
    # where the diameter was measured, there is the outline
    for findings, index, lowest in ((whole_only, 2, 15), (example.findings, 1, 14)):
        _, sr = reported(replace(example, findings=findings), tmp_path)
        outlined = groups(sr.path)[1]
        [points] = regions(outlined)
        assert image_of(outlined).ReferencedSOPInstanceUID == example.headers[index].SOPInstanceUID
        assert np.array_equal(points[0], points[-1])
        assert (points.min(axis=0).tolist(), points.max(axis=0).tolist()) == ([20, 10], [28, lowest])
        # each corner is cut by half a pixel each way
        assert len(points) == 9


def test_outlines_of_real_lungs_have_few_points_and_lie_on_the_lungs(nlst_ct: Example, tmp_path: Path) -> None:
    _, sr = reported(nlst_ct, tmp_path)
    assert nlst_ct.findings.label_map is not None
    labels = nlst_ct.findings.label_map.array
    for segment, outlined in zip((LEFT_LUNG, RIGHT_LUNG), groups(sr.path)[1::2], strict=True):
        [points] = regions(outlined)
        assert len(points) <= 200
        uids = [header.SOPInstanceUID for header in nlst_ct.headers]
        index = uids.index(image_of(outlined).ReferencedSOPInstanceUID)
        sizes = (labels == segment.number).sum(axis=(1, 2))
        assert index == sizes.argmax()
        # drawn by another hand, eight times as large
        picture = Image.new("1", (512 * 8, 512 * 8))
        ImageDraw.Draw(picture).polygon([tuple(point * 8) for point in points], fill=1)
        drawn = np.asarray(picture)[4::8, 4::8]
        lung = labels[index] == segment.number
        assert 2 * (drawn & lung).sum() / (drawn.sum() + lung.sum()) > 0.97


def test_a_nodule_has_its_values_once_and_its_long_axis_from_end_to_end(tmp_path: Path) -> None:
    _, sr = reported(with_nodule(), tmp_path)
    whole, outlined, axes = groups(sr.path)
    assert stated(whole, "Volume") == ["0.25"]
    assert [item.ValueType for item in outlined.ContentSequence].count("NUM") == 0
    assert stated(axes, "Long Axis") == [f"{np.hypot(2.4, 5.6):.6g}"]
    [length] = [item for item in axes.ContentSequence if item.ValueType == "NUM"]
    [ends] = regions(length)
    assert ends.tolist() == [[20, 10.5], [28, 13.5]]
    assert image_of(length).ReferencedSOPInstanceUID == with_nodule().headers[1].SOPInstanceUID
    assert len({stated(group, "Tracking Unique Identifier")[0] for group in (whole, outlined, axes)}) == 1
    measured = [entry["measurementItems"] for entry in tid1500(sr.path, tmp_path)["Measurements"]]
    assert [len(items) for items in measured] == [1, 0, 1]


def test_a_segment_of_a_radiograph_has_its_frame_and_its_outline(shared_data: Path, tmp_path: Path) -> None:
    image, headers = read_radiograph(shared_data / "dicom" / "cr" / "wg04_RG1_JLSN.dcm")
    example = Example(image, headers, lung_findings(two_fields(image.array.shape), image))
    for form, keyword in (("binary", "ReferencedFrameNumber"), ("labelmap", "ReferencedSegmentNumber")):
        seg, sr = reported(example, tmp_path / form, segmentation=form)
        numbers = []
        for framed, outlined in zip(groups(sr.path)[::2], groups(sr.path)[1::2], strict=True):
            [reference] = [
                item.ReferencedSOPSequence[0]
                for item in framed.ContentSequence
                if about(item) == "Referenced Segmentation Frame"
            ]
            assert reference.ReferencedSOPInstanceUID == seg.sop_instance_uid
            numbers.append(reference[keyword].value)
            assert len(regions(outlined)[0]) > 20
            assert image_of(outlined).ReferencedSOPInstanceUID == image.source
        assert numbers == [1, 2]


def test_an_outline_on_a_frame_names_the_frame(shared_data: Path, tmp_path: Path) -> None:
    example = enhanced_ct(shared_data)
    *_, sr = reported(example, tmp_path)
    for outlined in groups(sr.path)[1::2]:
        reference = image_of(outlined)
        assert reference.ReferencedSOPInstanceUID == example.headers[0].SOPInstanceUID
        # both slices hold as many voxels; the first slice is the second frame
        assert reference.ReferencedFrameNumber == 2


def test_a_class_has_a_box_around_what_speaks_for_it_at_least_half_as_much_as_the_most(tmp_path: Path) -> None:
    image, headers = small_radiograph((40, 30))
    pneumonia, viral = np.zeros((2, 40, 30), np.uint8)
    pneumonia[8:20, 4:10], pneumonia[10:12, 5:7], pneumonia[30, 20] = 60, 200, 100
    viral[39, 29] = 3
    findings = activated(np.zeros((40, 30), np.uint8), pneumonia, viral)
    [sr] = reported(Example(image, headers, findings), tmp_path)
    boxes = {stated(group, "Finding")[0]: regions(group)[0].tolist() for group in groups(sr.path)}
    assert boxes == {
        "Pneumonia": [[5, 10], [21, 10], [21, 31], [5, 31], [5, 10]],
        "Viral pneumonia": [[29, 39], [30, 39], [30, 40], [29, 40], [29, 39]],
    }
    text = dsrdump_text(sr.path)
    assert text.count('"Certainty of Finding")=') == 3
    assert text.index("Qualitative Evaluations") < text.index('(17621005,SCT,"Normal")')


def test_without_a_map_the_most_probable_class_has_the_box_of_all_that_was_classified(tmp_path: Path) -> None:
    image, headers = small_radiograph((40, 30))
    labels = np.zeros((40, 30), np.uint8)
    labels[10:20, 5:25] = 1
    cropped = replace(pneumonia_findings(), label_map=LabelMap(labels, (LEFT_LUNG,)))
    for findings, box in (
        (pneumonia_findings(), [[0, 0], [30, 0], [30, 40], [0, 40], [0, 0]]),
        (cropped, [[5, 10], [25, 10], [25, 20], [5, 20], [5, 10]]),
    ):
        *_, sr = reported(Example(image, headers, findings), tmp_path)
        [pneumonia] = [group for group in groups(sr.path) if stated(group, "Certainty of Finding")]
        assert stated(pneumonia, "Finding") == ["Pneumonia"]
        assert stated(pneumonia, "Certainty of Finding") == ["81.25"]
        assert regions(pneumonia)[0].tolist() == box
        others = [item for item in below(pydicom.dcmread(sr.path)) if about(item) == "Certainty of Finding"]
        assert sorted(float(item.MeasuredValueSequence[0].NumericValue) for item in others) == [6.25, 12.5, 81.25]


def test_every_finding_has_a_place_because_ohif_shows_no_report_otherwise(tmp_path: Path) -> None:
    volume, headers = small_ct()
    empty = lung_findings(np.zeros(volume.array.shape, np.uint8), volume)
    radiograph = small_radiograph((40, 30))
    examples = [
        small_ct_example(),
        with_nodule(),
        Example(volume, headers, empty),
        Example(*radiograph, pneumonia_findings()),
        Example(*radiograph, activated(*np.zeros((3, 40, 30), np.uint8))),
        Example(*radiograph, lung_findings(np.zeros((40, 30), np.uint8), radiograph[0])),
    ]
    for number, example in enumerate(examples):
        *_, sr = reported(example, tmp_path / str(number))
        placed: dict[str, bool] = {}
        for group in groups(sr.path):
            [uid] = stated(group, "Tracking Unique Identifier")
            placed[uid] = placed.get(uid, False) or bool(regions(group))
        assert placed
        assert all(placed.values())


def test_without_a_seg_nothing_refers_to_one_and_the_rest_is_there(tmp_path: Path) -> None:
    [sr] = reported(with_nodule(), tmp_path, objects=("SR",))
    whole, outlined, axes = groups(sr.path)
    assert not [item for item in below(whole) if item.ValueType == "IMAGE"]
    assert stated(whole, "Volume") == ["0.25"]
    assert regions(outlined)
    assert stated(axes, "Long Axis")
    assert dciodvfy_errors(sr.path) == []


def test_segments_that_overlap_are_referred_to_in_the_seg_that_they_are_in(tmp_path: Path) -> None:
    example = small_ct_example()
    inside = np.zeros(example.image.array.shape, np.uint8)
    inside[3, 4:9, 3:8] = NODULE.number
    findings = replace(example.findings, overlapping=(LabelMap(inside, (NODULE,)),))
    *segs, sr = reported(replace(example, findings=findings), tmp_path)
    references = [
        (reference.ReferencedSOPInstanceUID, reference.ReferencedSegmentNumber)
        for group in groups(sr.path)
        for item in group.ContentSequence
        if about(item) == "Referenced Segment"
        for reference in item.ReferencedSOPSequence
    ]
    lungs, nodule = (seg.sop_instance_uid for seg in segs)
    assert references == [(lungs, 1), (lungs, 2), (nodule, 1)]


def test_the_report_refers_to_every_other_result_and_lists_the_images_that_it_points_at(tmp_path: Path) -> None:
    example = with_nodule()
    everything = ("SEG", "SC", "PDF", "RTSTRUCT", "GSPS", "KO", "SR")
    *others, sr = reported(example, tmp_path, objects=everything)
    dataset = pydicom.dcmread(sr.path)
    assert {entry.kind for entry in others} == set(everything) - {"SR"}
    referenced = {
        reference.ReferencedSOPInstanceUID
        for item in below(dataset)
        for reference in item.get("ReferencedSOPSequence") or []
    }
    pointed_at = {example.headers[1].SOPInstanceUID}
    assert referenced == {entry.sop_instance_uid for entry in others} | pointed_at
    [library] = [item for item in below(dataset) if about(item) == "Image Library Group"]
    assert len([item for item in library.ContentSequence if item.ValueType == "IMAGE"]) == 1
    evidence = {
        instance.ReferencedSOPInstanceUID
        for study in dataset.CurrentRequestedProcedureEvidenceSequence
        for series in study.ReferencedSeriesSequence
        for instance in series.ReferencedSOPSequence
    }
    assert evidence == {header.SOPInstanceUID for header in example.headers} | referenced
    assert dciodvfy_errors(sr.path) == []
    assert "Supporting Information" in dsrdump_text(sr.path)
