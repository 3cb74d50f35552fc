from dataclasses import replace
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from pydicom.uid import Comprehensive3DSRStorage

from engines.types import Radiograph, Volume
from service.results.encode import encode
from service.results.predecessors import Predecessor
from service.results.stamp import series_description
from service.types import ResultObject
from tests.unit.service.results.examples import (
    LEFT_LUNG,
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
from tests.validators import dcentvfy_errors, dciodvfy_errors, dsrdump_text, segments, tid1500

RADIOGRAPHS = [
    "fo_CR-MONO1-10-chest_nopreamble",
    "txv_Fake_MONOHR1.dcm.dcm",
    "wg04_RG1_JLSN.dcm",
    "wg04_RG2_JPLY.dcm",
    "wg04_RG3_RLE.dcm",
]
CHARACTER_SETS = [
    "chrArab",
    "chrFrenMulti",
    "chrGreek",
    "chrH31",
    "chrH32",
    "chrI2",
    "chrKoreanMulti",
    "chrRuss",
    "chrX1",
    "chrX2",
]


EARLIER = Predecessor("2.25.7", Comprehensive3DSRStorage, "2.25.8")


def written(example: Example, folder: Path) -> tuple[ResultObject, ...]:
    return encode(analysis_of(example.findings, example.image, example.headers), folder)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * (one & other).sum() / (one.sum() + other.sum())


def on_grid_of(volume: Volume, image: SimpleITK.Image) -> np.ndarray:
    """The voxels of an image, nearest neighbour on the grid of the volume."""
    grid = SimpleITK.GetImageFromArray(np.zeros(volume.array.shape, np.uint8))
    axes = volume.affine[:3, 2::-1]
    spacing = np.linalg.norm(axes, axis=0)
    grid.SetSpacing(spacing.tolist())
    grid.SetDirection((axes / spacing).ravel().tolist())
    grid.SetOrigin(volume.affine[:3, 3].tolist())
    return SimpleITK.GetArrayFromImage(
        SimpleITK.Resample(image, grid, SimpleITK.Transform(), SimpleITK.sitkNearestNeighbor, 0)
    )


def test_a_real_ct_gives_a_seg_and_an_sr_in_its_study(nlst_ct: Example, tmp_path: Path) -> None:
    seg, sr = written(nlst_ct, tmp_path)
    assert (seg.kind, sr.kind) == ("SEG", "SR")
    source = nlst_ct.headers[0]
    for result in (seg, sr):
        dataset = pydicom.dcmread(result.path)
        assert result.path.name == f"{result.kind}-{dataset.SOPInstanceUID}.dcm"
        assert dataset.StudyInstanceUID == source.StudyInstanceUID
        assert (dataset.PatientID, dataset.PatientName) == (source.PatientID, source.PatientName)
        assert dataset.OtherPatientIDs == source.OtherPatientIDs
        assert dataset.SeriesInstanceUID != source.SeriesInstanceUID
        assert dataset.Manufacturer == "Wetread"
        assert "RESEARCH" in dataset.SeriesDescription


def test_a_real_ct_gives_objects_that_dicom3tools_finds_no_error_in(nlst_ct: Example, tmp_path: Path) -> None:
    for result in written(nlst_ct, tmp_path):
        assert dciodvfy_errors(result.path) == []


def test_dcmqi_finds_the_segments_where_they_were_found(chest_64: Example, tmp_path: Path) -> None:
    example = chest_64
    seg, _ = written(example, tmp_path)
    assert example.findings.label_map is not None
    assert isinstance(example.image, Volume)
    found = segments(seg.path, tmp_path / "dcmqi")
    assert [(entry.number, entry.label) for entry in found] == [(1, "Left lung"), (2, "Right lung")]
    for entry, segment in zip(found, (LEFT_LUNG, RIGHT_LUNG), strict=True):
        truth = example.findings.label_map.array == segment.number
        assert dice(on_grid_of(example.image, entry.image) > 0, truth) >= 0.999


def test_an_oblique_series_of_odd_size_keeps_every_voxel_in_its_place(tmp_path: Path) -> None:
    example = small_ct_example(oblique=True)
    assert isinstance(example.image, Volume)
    assert example.findings.label_map is not None
    seg, _ = written(example, tmp_path)
    assert dciodvfy_errors(seg.path) == []
    for entry in segments(seg.path, tmp_path / "dcmqi"):
        truth = example.findings.label_map.array == entry.number
        assert np.array_equal(on_grid_of(example.image, entry.image) > 0, truth)


def test_the_report_states_volume_and_mean_value_of_each_segment(nlst_ct: Example, tmp_path: Path) -> None:
    _, sr = written(nlst_ct, tmp_path)
    left, _, right, _ = tid1500(sr.path, tmp_path)["Measurements"]
    for group, segment in ((left, LEFT_LUNG), (right, RIGHT_LUNG)):
        volume, attenuation = (entry for entry in nlst_ct.findings.measurements if entry.segment == segment.number)
        assert group["Finding"]["CodeValue"] == "39607008"
        assert segment.laterality is not None
        assert group["Laterality"]["CodeValue"] == segment.laterality.value
        assert group["ReferencedSegment"] == segment.number
        assert group["SourceSeriesForImageSegmentation"] == nlst_ct.headers[0].SeriesInstanceUID
        assert group["TrackingIdentifier"] == f"ct-lung {segment.label}"
        assert group["measurementAlgorithmIdentification"]["AlgorithmName"] == "ct-lung"
        first, second = group["measurementItems"]
        assert (first["quantity"]["CodeMeaning"], first["units"]["CodeValue"]) == ("Volume", "mL")
        assert float(first["value"]) == pytest.approx(volume.value, rel=1e-5)
        assert (second["derivationModifier"]["CodeMeaning"], second["units"]["CodeValue"]) == ("Mean", "[hnsf'U]")
        assert float(second["value"]) == pytest.approx(attenuation.value, rel=1e-5)


def test_the_report_says_that_it_is_for_research_only_and_repeats_the_notes(tmp_path: Path) -> None:
    example = small_ct_example()
    noted = replace(example.findings, notes=("3 slices are missing.",))
    _, sr = encode(analysis_of(noted, example.image, example.headers), tmp_path)
    text = dsrdump_text(sr.path)
    assert "Research use only" in text
    assert "3 slices are missing." in text
    assert "Wetread" in text


def test_segment_and_measurement_group_share_their_tracking_uid(tmp_path: Path) -> None:
    seg, sr = written(small_ct_example(), tmp_path)
    of_segments = [item.TrackingUID for item in pydicom.dcmread(seg.path).SegmentSequence]
    of_groups = [group["TrackingUniqueIdentifier"] for group in tid1500(sr.path, tmp_path)["Measurements"]]
    assert of_groups == [uid for uid in of_segments for _ in ("segment", "outline")]


def test_encoding_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for example in (small_ct_example(), Example(*small_radiograph(), pneumonia_findings())):
        first = [entry.path.read_bytes() for entry in written(example, tmp_path / "first")]
        second = [entry.path.read_bytes() for entry in written(example, tmp_path / "second")]
        assert first == second
    assert not list(tmp_path.rglob("*.part"))


def test_times_are_those_of_the_analysis_in_the_time_zone_of_the_source(tmp_path: Path) -> None:
    example = small_ct_example()
    example.headers[0].TimezoneOffsetFromUTC = "+0530"
    moment = datetime(2026, 3, 4, 20, 0, tzinfo=timezone(timedelta(hours=1)))
    for result in encode(
        analysis_of(replace(example.findings, analysed_at=moment), example.image, example.headers), tmp_path
    ):
        dataset = pydicom.dcmread(result.path)
        assert (dataset.ContentDate, dataset.ContentTime) == ("20260305", "003000")
        assert dataset.TimezoneOffsetFromUTC == "+0530"


def test_where_nothing_was_found_there_is_no_seg_and_the_report_says_so(tmp_path: Path) -> None:
    volume, headers = small_ct()
    [sr] = encode(analysis_of(lung_findings(np.zeros(volume.array.shape, np.uint8), volume), volume, headers), tmp_path)
    assert dciodvfy_errors(sr.path) == []
    assert "found nothing to segment" in dsrdump_text(sr.path)
    assert dsrdump_text(sr.path).count('(272519000,SCT,"Absent")') == 2


def test_an_absent_segment_leaves_no_gap_in_the_segment_numbers(tmp_path: Path) -> None:
    volume, headers = small_ct()
    labels = small_labels(volume.array.shape)
    labels[labels == LEFT_LUNG.number] = 0
    seg, sr = encode(analysis_of(lung_findings(labels, volume), volume, headers), tmp_path)
    assert dciodvfy_errors(seg.path) == dciodvfy_errors(sr.path) == []
    [entry] = segments(seg.path, tmp_path / "dcmqi")
    assert (entry.number, entry.label) == (1, "Right lung")
    assert np.array_equal(on_grid_of(volume, entry.image) > 0, labels == RIGHT_LUNG.number)
    right, _ = tid1500(sr.path, tmp_path)["Measurements"]
    assert right["ReferencedSegment"] == 1


def test_frames_without_a_voxel_are_left_out_and_the_others_refer_to_their_source(tmp_path: Path) -> None:
    example = small_ct_example()
    seg, _ = written(example, tmp_path)
    dataset = pydicom.dcmread(seg.path)
    references = [
        (
            frame.SegmentIdentificationSequence[0].ReferencedSegmentNumber,
            frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID,
        )
        for frame in dataset.PerFrameFunctionalGroupsSequence
    ]
    uids = [header.SOPInstanceUID for header in example.headers]
    assert sorted(references) == [(1, uid) for uid in uids[1:]] + [(2, uid) for uid in uids[2:]]
    assert dataset.FrameOfReferenceUID == example.headers[0].FrameOfReferenceUID


@pytest.mark.parametrize("name", RADIOGRAPHS)
def test_a_real_radiograph_gives_a_valid_seg_of_its_lung_fields(name: str, shared_data: Path, tmp_path: Path) -> None:
    image, headers = read_radiograph(shared_data / "dicom" / "cr" / name)
    labels = two_fields(image.array.shape)
    seg, sr = encode(analysis_of(lung_findings(labels, image), image, headers), tmp_path)
    assert dciodvfy_errors(seg.path) == dciodvfy_errors(sr.path) == []
    dataset = pydicom.dcmread(seg.path)
    shared = dataset.SharedFunctionalGroupsSequence[0]
    assert shared.PlaneOrientationSequence[0].ImageOrientationPatient == [1, 0, 0, 0, 1, 0]
    assert shared.PixelMeasuresSequence[0].PixelSpacing == pytest.approx(image.spacing or (1, 1))
    assert ("nominal" in dataset.ImageComments) == (image.spacing is None)
    frames = dataset.pixel_array
    assert np.array_equal(frames[0], labels == LEFT_LUNG.number)
    assert np.array_equal(frames[1], labels == RIGHT_LUNG.number)
    assert "Research use only" in dsrdump_text(sr.path)


def test_models_that_look_at_one_radiograph_share_its_frame_of_reference(tmp_path: Path) -> None:
    image, headers = small_radiograph()
    one = lung_findings(two_fields(image.array.shape), image)
    other = replace(one, model=replace(one.model, name="cxr-lung"))
    first, second = (
        pydicom.dcmread(encode(analysis_of(entry, image, headers), tmp_path)[0].path) for entry in (one, other)
    )
    assert first.FrameOfReferenceUID == second.FrameOfReferenceUID
    assert first.SOPInstanceUID != second.SOPInstanceUID


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_patient_names_survive_in_their_character_set(name: str, shared_data: Path, tmp_path: Path) -> None:
    source = pydicom.dcmread(shared_data / "dicom" / "awkward_charset" / f"{name}.dcm")
    image = Radiograph(np.zeros((source.Rows, source.Columns), np.float32), None, source.SOPInstanceUID)
    for result in encode(analysis_of(lung_findings(two_fields(image.array.shape), image), image, [source]), tmp_path):
        dataset = pydicom.dcmread(result.path)
        assert dataset.PatientName == source.PatientName
        assert not str(dataset.PatientName).isascii()
        assert dataset.SpecificCharacterSet == source.SpecificCharacterSet
        assert dciodvfy_errors(result.path) == []


def test_results_belong_to_the_same_patient_and_study_as_the_source(
    shared_data: Path, nlst_ct: Example, tmp_path: Path
) -> None:
    objects = written(nlst_ct, tmp_path)
    sources = sorted(next((shared_data / "dicom").glob("ct_nlst*/CT_*")).glob("*.dcm"))[:5]
    assert dcentvfy_errors(*sources, *(entry.path for entry in objects)) == []


def superseding(example: Example, folder: Path, *predecessors: Predecessor) -> tuple[ResultObject, ...]:
    return encode(analysis_of(example.findings, example.image, example.headers, predecessors=predecessors), folder)


def test_a_superseding_report_names_its_predecessor_and_every_checker_reads_it(
    nlst_ct: Example, shared_data: Path, tmp_path: Path
) -> None:
    objects = superseding(nlst_ct, tmp_path, EARLIER)
    seg, sr = objects
    for entry in objects:
        assert dciodvfy_errors(entry.path) == []
    sources = sorted(next((shared_data / "dicom").glob("ct_nlst*/CT_*")).glob("*.dcm"))[:5]
    assert dcentvfy_errors(*sources, seg.path, sr.path) == []
    text = dsrdump_text(sr.path)
    assert "Supersedes an earlier report of this series" in text
    assert "Research use only" in text
    assert len(tid1500(sr.path, tmp_path)["Measurements"]) == 4
    assert sr.predecessors == (EARLIER.sop_instance_uid,)
    [study] = pydicom.dcmread(sr.path).PredecessorDocumentsSequence
    assert study.StudyInstanceUID == nlst_ct.headers[0].StudyInstanceUID
    [series] = study.ReferencedSeriesSequence
    [document] = series.ReferencedSOPSequence
    assert (series.SeriesInstanceUID, document.ReferencedSOPInstanceUID) == ("2.25.7", "2.25.8")
    comments = pydicom.dcmread(seg.path).ImageComments
    assert "Supersedes an earlier segmentation of this series" in comments


def test_a_version_is_told_at_the_beginning_of_its_description(tmp_path: Path) -> None:
    example = small_ct_example()
    for predecessors, beginning in (
        ((), "RESEARCH ct-lung"),
        ((EARLIER,), "RESEARCH v2 ct-lung"),
        ((replace(EARLIER, version=2), replace(EARLIER, sop_instance_uid="2.25.9", version=4)), "RESEARCH v5 ct-lung"),
    ):
        for entry in superseding(example, tmp_path / str(len(predecessors)), *predecessors):
            what = {"SEG": "segmentation", "SR": "report"}[entry.kind]
            assert pydicom.dcmread(entry.path).SeriesDescription == f"{beginning} 0.1.0 {what}"
    long = replace(example.findings, model=replace(example.findings.model, name="x" * 60))
    assert (
        len(series_description(analysis_of(long, example.image, example.headers, predecessors=(EARLIER,)), "SR")) == 64
    )


def test_results_of_corrected_images_have_other_uids(tmp_path: Path) -> None:
    example = small_ct_example()
    before = written(example, tmp_path)
    after = encode(analysis_of(example.findings, example.image, example.headers, revision="abc"), tmp_path)
    assert not {entry.sop_instance_uid for entry in before} & {entry.sop_instance_uid for entry in after}
    assert not {entry.series_uid for entry in before} & {entry.series_uid for entry in after}
