from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.tag import Tag

from engines.types import Radiograph, Volume
from service.errors import Quarantined
from service.results.encode import encode
from service.results.source import read_source
from tests.unit.service.results.examples import (
    analysis_of,
    lung_findings,
    read_radiograph,
    small_ct,
    small_ct_example,
    small_labels,
    small_radiograph,
    two_fields,
)
from tests.validators import dciodvfy_errors


def spoil(header: Dataset, keyword: str, stored: bytes) -> None:
    """Give a header an element as it would be read from a file that says nonsense."""
    tag = Tag(keyword)
    vr = pydicom.datadict.dictionary_VR(tag)
    header._dict[tag] = RawDataElement(tag, vr, len(stored), stored, 0, False, True)


@pytest.mark.parametrize(
    ("keyword", "stored"),
    [
        ("PatientBirthDate", b"31/12/1969"),
        ("PatientSex", b"female"),
        ("StudyTime", b"noon"),
        ("StudyDate", b"2026-01-01"),
        ("PatientAge", b"very old"),
        ("PatientWeight", b"80,5 kg "),
        ("PatientSize", b"tall"),
        ("ReferringPhysicianName", b"a=b=c=d=e "),
        ("DeidentificationMethodCodeSequence", b"rubbish!"),
    ],
)
def test_a_dirty_attribute_is_left_out_and_named_and_the_rest_is_copied(
    keyword: str, stored: bytes, tmp_path: Path
) -> None:
    example = small_ct_example()
    spoil(example.headers[0], keyword, stored)
    seg, sr = encode(analysis_of(example.findings, example.image, example.headers), tmp_path)
    for result in (seg, sr):
        dataset = pydicom.dcmread(result.path)
        assert not dataset.get(keyword)
        assert dataset.PatientID == "P1"
        assert dciodvfy_errors(result.path) == []
    remarks = [item.TextValue for item in pydicom.dcmread(sr.path).ContentSequence[-1].ContentSequence]
    assert any(keyword in remark for remark in remarks)
    assert all(stored.decode().strip() not in remark for remark in remarks)


def test_a_clean_header_is_copied_whole() -> None:
    volume, headers = small_ct()
    headers[0].PatientWeight = None
    source = read_source(headers, volume)
    assert source.dropped == ()
    for keyword in ("PatientID", "PatientName", "PatientBirthDate", "PatientSex", "StudyDate", "AccessionNumber"):
        assert source.attributes[keyword].value == headers[0][keyword].value


def test_what_an_archive_files_by_is_copied_even_where_it_is_too_long(tmp_path: Path) -> None:
    example = small_ct_example()
    spoil(example.headers[0], "AccessionNumber", b"A12345678901234567890")
    for result in encode(analysis_of(example.findings, example.image, example.headers), tmp_path):
        assert pydicom.dcmread(result.path).AccessionNumber == "A12345678901234567890"


def test_attributes_that_the_source_lacks_are_empty_in_the_result(tmp_path: Path) -> None:
    example = small_ct_example()
    for keyword in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyTime", "StudyID"):
        del example.headers[0][keyword]
    for result in encode(analysis_of(example.findings, example.image, example.headers), tmp_path):
        dataset = pydicom.dcmread(result.path)
        assert not dataset.PatientName
        assert not dataset.PatientBirthDate
        assert dciodvfy_errors(result.path) == []


def test_uids_against_the_rules_are_copied_as_they_are(shared_data: Path, tmp_path: Path) -> None:
    image, headers = read_radiograph(shared_data / "dicom" / "cr" / "fo_CR-ModalitySequenceLUT.dcm")
    assert headers[0].SOPInstanceUID == "999.999.01.23.45.6789"
    seg, _ = encode(analysis_of(lung_findings(two_fields(image.array.shape), image), image, headers), tmp_path)
    assert pydicom.dcmread(seg.path).SourceImageSequence[0].ReferencedSOPInstanceUID == "999.999.01.23.45.6789"


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID"])
@pytest.mark.parametrize("empty", [True, False])
def test_a_source_without_a_uid_to_refer_to_is_quarantined_by_its_name(keyword: str, empty: bool) -> None:
    image, [header] = small_radiograph()
    if empty:
        header[keyword].value = ""
    else:
        del header[keyword]
    image = Radiograph(image.array, image.spacing, str(header.get("SOPInstanceUID") or ""))
    with pytest.raises(Quarantined, match=keyword):
        read_source([header], image)


@pytest.mark.parametrize("keyword", ["StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"])
def test_slices_of_different_series_are_quarantined(keyword: str) -> None:
    volume, headers = small_ct()
    headers[2][keyword].value = "1.9.9"
    with pytest.raises(Quarantined, match=keyword):
        read_source(headers, volume)


def test_headers_in_another_order_than_the_slices_are_quarantined() -> None:
    volume, headers = small_ct()
    with pytest.raises(Quarantined, match="order"):
        read_source(headers[::-1], volume)


def test_a_missing_header_is_quarantined() -> None:
    volume, headers = small_ct()
    with pytest.raises(Quarantined, match="4 source headers for 5"):
        read_source(headers[:-1], volume)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_a_volume_that_was_flipped_on_the_way_is_quarantined(axis: int) -> None:
    volume, headers = small_ct()
    affine = volume.affine.copy()
    affine[:3, 3] += affine[:3, axis] * (volume.array.shape[axis] - 1)
    affine[:3, axis] *= -1
    with pytest.raises(Quarantined, match=r"away from its source image|do not run along"):
        read_source(headers, Volume(volume.array, affine, volume.sources))


@pytest.mark.parametrize("keyword", ["ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"])
def test_a_slice_without_geometry_is_quarantined_by_its_name(keyword: str) -> None:
    volume, headers = small_ct()
    del headers[3][keyword]
    with pytest.raises(Quarantined, match=keyword):
        read_source(headers, volume)


@pytest.mark.parametrize(
    ("keyword", "value"), [("PixelSpacing", [0.9, 0.7]), ("ImageOrientationPatient", [1, 0, 0, 0, 0, 1])]
)
def test_slices_of_different_geometry_are_quarantined(keyword: str, value: list[float]) -> None:
    volume, headers = small_ct()
    headers[3][keyword].value = value
    with pytest.raises(Quarantined, match=keyword):
        read_source(headers, volume)


def test_a_ct_without_frame_of_reference_gets_a_derived_one(tmp_path: Path) -> None:
    example = small_ct_example()
    for header in example.headers:
        del header.FrameOfReferenceUID
    seg, _ = encode(analysis_of(example.findings, example.image, example.headers), tmp_path)
    assert pydicom.dcmread(seg.path).FrameOfReferenceUID.startswith("2.25.")
    assert dciodvfy_errors(seg.path) == []


@pytest.mark.parametrize("upside_down", [False, True])
def test_an_enhanced_ct_is_referred_to_by_its_frames(upside_down: bool, shared_data: Path, tmp_path: Path) -> None:
    folder = shared_data / "dicom" / "ct_enhanced_multiframe_2fr"
    header = pydicom.dcmread(folder / "CT0012.explicit_little_endian.dcm", stop_before_pixels=True)
    frames = header.PerFrameFunctionalGroupsSequence
    shared = header.SharedFunctionalGroupsSequence[0]
    order = [1, 0] if upside_down else [0, 1]
    first, second = (np.array(frames[index].PlanePositionSequence[0].ImagePositionPatient, float) for index in order)
    orientation = np.array(
        (shared.get("PlaneOrientationSequence") or frames[0].PlaneOrientationSequence)[0].ImageOrientationPatient, float
    )
    spacing = (shared.get("PixelMeasuresSequence") or frames[0].PixelMeasuresSequence)[0].PixelSpacing
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 3] = second - first, first
    affine[:3, 1], affine[:3, 2] = orientation[3:] * spacing[0], orientation[:3] * spacing[1]
    shape = (2, header.Rows, header.Columns)
    frames_of_slices = tuple(index + 1 for index in order)
    volume = Volume(np.zeros(shape, np.int16), affine, (header.SOPInstanceUID,) * 2, frames=frames_of_slices)
    # in blocks: the outline of noise is long
    labels = np.kron(small_labels((3, shape[1] // 32, shape[2] // 32))[1:], np.ones((1, 32, 32), np.uint8))
    seg, sr = encode(analysis_of(lung_findings(labels, volume), volume, [header]), tmp_path)
    dataset = pydicom.dcmread(seg.path)
    for number, group in enumerate(dataset.PerFrameFunctionalGroupsSequence):
        frame = group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedFrameNumber
        segment = group.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        expected = labels[order.index(frame - 1)] == segment
        assert np.array_equal(dataset.pixel_array[number], expected)
    assert dciodvfy_errors(seg.path) == dciodvfy_errors(sr.path) == []
