from functools import partial
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import uid

from service.errors import Quarantined
from service.series.ct_header import CTHeader, PixelData, _parsed, read_header
from service.series.slices import SLICES
from service.walk import Extent
from tests.ct_slice import ct_slice

REAL_CT = ("ct_cip64_79slices", "ct_ge_tilt_variable_spacing", "ct_siemens_j2k_totalseg", "ct_enhanced_multiframe_2fr")


def header_of(file: Path) -> CTHeader:
    return both_ways(file)[0][0]


def both_ways(file: Path) -> tuple[tuple[CTHeader, PixelData], tuple[CTHeader, PixelData]]:
    fast, parsed = read_header(file, SLICES), _parsed(file, SLICES)
    assert not isinstance(fast, str)
    assert not isinstance(parsed, str)
    return fast, parsed


def assert_same(file: Path) -> None:
    """Walking over a header and parsing it say the same."""
    (fast, fast_pixels), (parsed, parsed_pixels) = both_ways(file)
    assert fast.storage == parsed.storage
    assert fast.marks(0) == parsed.marks(0)
    assert (fast.sop_instance_uid, fast.number()) == (parsed.sop_instance_uid, parsed.number())
    assert (fast.multi_frame, fast_pixels) == (parsed.multi_frame, parsed_pixels)
    assert fast.text(0, "FrameOfReferenceUID") == parsed.text(0, "FrameOfReferenceUID")
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        assert fast.numbers(0, keyword) == parsed.numbers(0, keyword)
    try:
        one, two = fast.plane(0), parsed.plane(0)
    except Quarantined as error:
        with pytest.raises(Quarantined, match=str(error)):
            parsed.plane(0)
        return
    np.testing.assert_array_equal(one.position, two.position)
    np.testing.assert_array_equal(one.axes.normal, two.axes.normal)
    assert one.axes.spacing == two.axes.spacing


def test_every_real_ct_header_says_the_same_walked_and_parsed(shared_data: Path) -> None:
    folder = shared_data / "dicom"
    files = [file for name in REAL_CT for file in sorted((folder / name).rglob("*.dcm"))]
    files += sorted(folder.glob("ct_nlst101287_toshiba_jpegls_plus_sybil_sr/CT*/*"))[::10]
    compared = 0
    for file in files:
        if pydicom.dcmread(file, specific_tags=["SOPClassUID"]).get("SOPClassUID") in SLICES:
            assert_same(file)
            compared += 1
    assert compared > 120


@pytest.mark.parametrize("syntax", [uid.ExplicitVRLittleEndian, uid.ImplicitVRLittleEndian])
def test_every_attribute_says_the_same_walked_and_parsed(syntax: uid.UID, tmp_path: Path) -> None:
    file = ct_slice(
        tmp_path / "one.dcm",
        np.zeros((3, 5), np.int16),
        number=7,
        AcquisitionNumber=3,
        TemporalPositionIdentifier=2,
        TriggerTime="12.5",
        KVP="80",
        ConvolutionKernel=["B", "30f"],
        SliceThickness="1.25",
        InstanceCreationDate="20260102",
        InstanceCreationTime="101112",
        PixelPaddingValue=-2000,
        PixelPaddingRangeLimit=-1990,
        LossyImageCompression="01",
        NumberOfFrames=1,
    )
    data_set = pydicom.dcmread(file)
    data_set.file_meta.TransferSyntaxUID = syntax
    data_set.save_as(file, implicit_vr=syntax.is_implicit_VR, little_endian=True, enforce_file_format=True)
    assert_same(file)
    marks = header_of(file).marks(0)
    assert (marks.acquisition, marks.temporal_position, marks.trigger_time, marks.energy) == ("3", "2", "12.5", "80")
    assert (marks.kernel, marks.thickness, marks.created) == ("B\\30f", "1.25", "20260102101112")
    padding = header_of(file).storage.padding
    assert padding is not None
    assert (padding.low, padding.high) == (-2000, -1990)
    assert len(header_of(file).storage.notes) == 1


def test_a_decimal_may_have_blanks_around_it(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", RescaleIntercept=b" -1024  ", PixelSpacing=b" 0.5 \\ 0.7 ")
    assert header_of(file).number_of(0, "RescaleIntercept") == -1024
    assert header_of(file).plane(0).axes.spacing == (0.5, 0.7)
    assert_same(file)


@pytest.mark.parametrize(
    ("keyword", "value", "reason"),
    [
        ("ImagePositionPatient", None, "ImagePositionPatient is missing or not a number: the slice has no place"),
        ("ImagePositionPatient", b"", "ImagePositionPatient is missing or not a number"),
        ("ImagePositionPatient", b"1\\2", "ImagePositionPatient is not three numbers"),
        ("ImagePositionPatient", b"1\\2\\nan", "ImagePositionPatient is not three numbers"),
        ("ImagePositionPatient", b"1\\2\\-inf", "ImagePositionPatient is not three numbers"),
        ("ImagePositionPatient", b"1\\2\\1e300", "ImagePositionPatient is not three numbers"),
        ("ImageOrientationPatient", None, "ImageOrientationPatient is missing or not a number"),
        ("ImageOrientationPatient", b"1\\0\\0\\0\\1", "ImageOrientationPatient is not 6 numbers"),
        ("ImageOrientationPatient", b"0\\0\\0\\0\\0\\0", "ImageOrientationPatient is not two perpendicular"),
        ("ImageOrientationPatient", b"1\\0\\0\\1\\0\\0", "ImageOrientationPatient is not two perpendicular"),
        ("PixelSpacing", None, "PixelSpacing is missing or not a number"),
        ("PixelSpacing", b"1,5\\1,5", "PixelSpacing is missing or not a number"),
        ("PixelSpacing", b"0.5", "PixelSpacing is not 2 numbers"),
        ("PixelSpacing", b"0\\1", "PixelSpacing .* is not usable"),
        ("PixelSpacing", b"-1\\1", "PixelSpacing .* is not usable"),
        ("RescaleSlope", None, "RescaleSlope is missing or not a number: the slice has no scale"),
        ("RescaleSlope", b"1.0\\", "RescaleSlope is missing or not a number"),
        ("RescaleSlope", b"1\\2", "RescaleSlope is not one number"),
        ("RescaleIntercept", b"?", "RescaleIntercept is missing or not a number"),
    ],
)
def test_what_a_slice_cannot_do_without_is_named(
    keyword: str, value: bytes | None, reason: str, tmp_path: Path
) -> None:
    file = ct_slice(tmp_path / "one.dcm", **{keyword: value})
    for header, _ in both_ways(file):
        ask = partial(header.number_of, 0, keyword) if "Rescale" in keyword else partial(header.plane, 0)
        with pytest.raises(Quarantined, match=reason):
            ask()


@pytest.mark.parametrize(
    ("attributes", "reason"),
    [
        ({"Rows": None}, "incomplete"),
        ({"BitsStored": None}, "incomplete"),
        ({"Rows": [4, 4]}, "incomplete"),
        ({"BitsAllocated": b""}, "incomplete|no such image"),
        ({"BitsStored": 17, "HighBit": 16}, "no such image; repair the header"),
        ({"NumberOfFrames": b"two"}, "incomplete"),
        ({"PhotometricInterpretation": "RGB"}, "a colour image"),
        ({"PixelData": None}, "no pixel data"),
    ],
)
def test_pixels_that_are_not_described_are_refused(attributes: dict[str, object], reason: str, tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", **attributes)
    for read in (read_header, _parsed):
        with pytest.raises(Quarantined, match=reason):
            read(file, SLICES)


def test_a_number_in_an_unusual_representation_is_read_as_it_is_meant(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    content = file.read_bytes()
    rows = b"\x28\0\x10\0US\2\0\4\0"
    assert content.count(rows) == 1
    file.write_bytes(content.replace(rows, b"\x28\0\x10\0IS\2\x004 "))
    assert header_of(file).storage.description.rows == 4


@pytest.mark.parametrize("number", [None, b"", b"one", b"1.5", b"\\1"])
def test_a_slice_may_have_no_number(number: bytes | None, tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", InstanceNumber=number)
    assert [header.number() for header, _ in both_ways(file)] == [None, None]


@pytest.mark.parametrize("keyword", ["SOPInstanceUID", "FrameOfReferenceUID", "ImageType"])
def test_an_attribute_that_is_not_there_is_empty_both_ways(keyword: str, tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm")
    data_set = pydicom.dcmread(file)
    for value in ("", None):
        setattr(data_set, keyword, value)
        data_set.save_as(file)
        assert_same(file)
    delattr(data_set, keyword)
    data_set.save_as(file)
    assert_same(file)


def test_another_sop_class_is_named(tmp_path: Path) -> None:
    for sop_class, name in (("1.2.840.10008.5.1.4.1.1.4", "MR Image Storage"), ("1.2.3", "1.2.3")):
        file = ct_slice(tmp_path / "one.dcm", SOPClassUID=sop_class)
        assert read_header(file, SLICES) == _parsed(file, SLICES) == name
    file = ct_slice(tmp_path / "one.dcm")
    data_set = pydicom.dcmread(file)
    del data_set.SOPClassUID
    data_set.save_as(file)
    assert read_header(file, SLICES) == _parsed(file, SLICES) == "no SOP class"


def test_a_header_longer_than_most_is_parsed(tmp_path: Path) -> None:
    file = ct_slice(tmp_path / "one.dcm", ImageComments="x" * 10000)
    data_set = pydicom.dcmread(file)
    data_set.private_block(0x0009, "WETREAD TEST", create=True).add_new(1, "OB", b"x" * 20000)
    data_set.save_as(file)
    assert_same(file)
    size = file.stat().st_size
    assert both_ways(file)[0][1] == Extent(size - 48, 48)
