import io
import warnings
from dataclasses import replace
from functools import cache
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom import uid
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from service.errors import Quarantined
from service.header import HeaderFacts, facts_of, parsed_facts, read_facts, walked_facts
from service.received import Received


def sound() -> bytes:
    data_set = Dataset()
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    data_set.file_meta.MediaStorageSOPClassUID = data_set.SOPClassUID = CTImageStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID = "1.2.3.4"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.Modality = "1.2", "1.2.3", "CT"
    buffer = io.BytesIO()
    data_set.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_facts_of_a_sound_header_are_read() -> None:
    assert read_facts(Received.of(sound())) == HeaderFacts(
        CTImageStorage, "1.2.3.4", "1.2", "1.2.3", "CT", transfer_syntax_uid=uid.ExplicitVRLittleEndian
    )


@given(position=st.integers(132, len(sound()) - 1), junk=st.binary(min_size=1, max_size=16), cut=st.booleans())
@settings(max_examples=300, deadline=None)
def test_damaged_bytes_give_facts_or_quarantine_and_nothing_else(position: int, junk: bytes, cut: bool) -> None:
    whole = sound()
    content = whole[:position] + junk + (b"" if cut else whole[position + len(junk) :])
    try:
        facts = read_facts(Received.of(content))
    except Quarantined:
        return
    assert facts.sop_instance_uid
    assert facts.series_uid


@given(content=st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_any_bytes_are_quarantined(content: bytes) -> None:
    with pytest.raises(Quarantined):
        read_facts(Received.of(content))


def parsed(received: Received) -> HeaderFacts | None:
    """As pydicom reads them; None where it cannot."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return parsed_facts(received)
        except Quarantined:
            return None


def agrees(received: Received) -> bool:
    """Whether the walk leaves it to pydicom, or reads the same. What pydicom cannot read says nothing."""
    theirs = parsed(received)
    return theirs is None or walked_facts(received) in (None, theirs)


def test_of_every_real_file_the_walk_reads_what_pydicom_reads(shared_data: Path, tmp_path: Path) -> None:
    files = [file for file in sorted((shared_data / "dicom").rglob("*")) if file.is_file()]
    walked = 0
    for file in files:
        received = Received.of(file.read_bytes())
        facts = walked_facts(received)
        walked += facts is not None
        if facts is not None:
            assert facts == parsed(received), file.name
            if facts.study_uid and facts.series_uid and facts.sop_instance_uid:
                assert facts_of(file) == facts, file.name
        large = Received(received.head[:100_000], received.length, file)
        assert walked_facts(large) in (None, facts), file.name
        assert parsed(large) == parsed(received), file.name
    assert walked >= 0.85 * len(files), f"{walked} of {len(files)}"


# ---- made by hand ----------------------------------------------------------------------------------------------------

ENCODINGS = [
    uid.ImplicitVRLittleEndian, uid.ExplicitVRLittleEndian, uid.ExplicitVRBigEndian,
    uid.DeflatedExplicitVRLittleEndian, uid.JPEGLosslessSV1,
]  # fmt: skip


def image() -> Dataset:
    """A CT slice with all that is read of it, and sequences before, between and after."""
    item = Dataset()
    item.SeriesInstanceUID, item.InstanceNumber = "9.9", 99  # not those of the image
    data_set = Dataset()
    data_set.SOPClassUID, data_set.SOPInstanceUID = uid.CTImageStorage, "1.2.3.4"
    data_set.StudyInstanceUID, data_set.SeriesInstanceUID, data_set.Modality = "1.2", "1.2.3", "CT"
    data_set.PatientName, data_set.SpecificCharacterSet = "Nobody", "ISO_IR 100"
    data_set.InstanceNumber, data_set.AcquisitionNumber, data_set.ImagesInAcquisition = "7", "1", "300"
    data_set.ImagePositionPatient = ["-177.5", "1e1", "+0.25"]
    data_set.ImageOrientationPatient = ["1", "0", "0", "0", "1", "0"]
    data_set.NumberOfFrames = "2"
    data_set.ReferencedStudySequence = [item]
    data_set.RequestAttributesSequence = [item, Dataset()]
    data_set.Rows = data_set.Columns = 4
    return data_set


def encoded(data_set: Dataset, syntax: str = uid.ExplicitVRLittleEndian) -> Received:
    data_set.file_meta = FileMetaDataset()
    data_set.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    data_set.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    data_set.file_meta.TransferSyntaxUID = uid.UID(syntax)
    buffer = io.BytesIO()
    little = syntax != uid.ExplicitVRBigEndian
    implicit = syntax == uid.ImplicitVRLittleEndian
    pydicom.dcmwrite(buffer, data_set, enforce_file_format=True, implicit_vr=implicit, little_endian=little)
    return Received.of(buffer.getvalue())


FACTS = HeaderFacts(
    uid.CTImageStorage, "1.2.3.4", "1.2", "1.2.3", "CT", 7, 1, 300,
    (-177.5, 10.0, 0.25), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), 2, uid.ExplicitVRLittleEndian,
)  # fmt: skip


@pytest.mark.parametrize("pixels", [True, False])
@pytest.mark.parametrize("syntax", ENCODINGS, ids=lambda syntax: syntax.name)
def test_the_facts_are_the_same_however_they_are_encoded(syntax: uid.UID, pixels: bool) -> None:
    data_set = image()
    if pixels:
        data_set.PixelData = encapsulate([bytes(16)]) if syntax.is_encapsulated else bytes(64)
        data_set["PixelData"].VR = "OB" if syntax.is_encapsulated else "OW"
        data_set["PixelData"].is_undefined_length = syntax.is_encapsulated
    received = encoded(data_set, syntax)
    assert read_facts(received) == parsed(received) == replace(FACTS, transfer_syntax_uid=syntax)
    usual = syntax not in (uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
    assert (walked_facts(received) is not None) == usual


def test_a_deflated_header_is_read_from_its_beginning(tmp_path: Path) -> None:
    data_set = image()
    data_set.PixelData = bytes(20 << 20)
    data_set["PixelData"].VR = "OW"
    received = encoded(data_set, uid.DeflatedExplicitVRLittleEndian)
    assert received.length < 100_000
    facts = replace(FACTS, transfer_syntax_uid=uid.DeflatedExplicitVRLittleEndian)
    assert read_facts(received) == facts
    (tmp_path / "large").write_bytes(received.head)
    assert read_facts(Received(received.head[:1000], received.length, tmp_path / "large")) == facts
    with pytest.raises(Quarantined, match="cannot be read"):
        read_facts(Received.of(bytes(received.head[:-10])))


def test_functional_groups_and_reports_are_walked_over(shared_data: Path) -> None:
    for folder in ("seg_sr_highdicom", "seg_dcmqi", "sr_dcmqi_tid1500", "ct_enhanced_multiframe_2fr"):
        for file in sorted((shared_data / "dicom" / folder).rglob("*.dcm")):
            received = Received.of(file.read_bytes())
            assert walked_facts(received) == parsed(received) is not None, file.name


def test_a_header_that_does_not_end_in_memory_is_read_from_the_file(tmp_path: Path) -> None:
    whole = encoded(image()).head
    (tmp_path / "large").write_bytes(whole)
    for size in (10, 132, 300, len(whole) - 1, len(whole)):
        assert read_facts(Received(whole[:size], len(whole), tmp_path / "large")) == FACTS


def test_reading_the_facts_leaves_the_buffer_free_to_grow() -> None:
    buffer = bytearray(encoded(image()).head)
    with memoryview(buffer) as view:
        facts = read_facts(Received(view, len(view)))
    buffer.extend(b"more")  # no view of it is left
    assert facts == FACTS


VALUES = {
    "SOPInstanceUID": ["1.2.3\\4", " 1.2", "1.2 ", "a", "", "1.2\0\0\0", "1..2", "1.2\n"],
    "SOPClassUID": ["", "1.2.3", "ct"],
    "Modality": ["", "ct", " CT", "CT ", "MR\\CT", "M\xc4", "CT_2", "\0\0", "A B"],
    "InstanceNumber": ["", " 7", "7 ", "+7", "-7", "7.0", "seven", "1\\2", "1_0", "99999999999999", "1e2", "0x1", "\0"],
    "NumberOfFrames": ["", "0", "-1", "2\\3", "1.5"],
    "ImagePositionPatient": [
        "", "1", "1\\2", "1\\2\\3", "1\\2\\3\\4", "1\\\\3", "nan\\1\\2", "inf\\1\\2", "1e400\\1\\2", " 1 \\ 2 \\ 3 ",
        "1_0\\2\\3", "1,5\\2\\3", ".5\\5.\\-.5", "-0\\+0\\0", "1e5\\1E-5\\1e+5", "0.1234567890123456789\\1\\2",
    ],
    "ImageOrientationPatient": ["1\\0\\0\\0\\1\\0", "1\\0\\0\\0\\1", "1\\0\\0\\0\\1\\0\\0", "0"],
}  # fmt: skip


@pytest.mark.parametrize("implicit", [True, False])
@pytest.mark.parametrize(("keyword", "value"), [(key, value) for key, values in VALUES.items() for value in values])
def test_odd_values_are_read_as_pydicom_reads_them(keyword: str, value: str, implicit: bool) -> None:
    data_set = image()
    content = value.encode("latin-1")
    content += b" " * (len(content) % 2)
    element = data_set[keyword]
    data_set[keyword] = RawDataElement(element.tag, element.VR, len(content), content, 0, implicit, True)
    received = encoded(data_set, uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian)
    assert agrees(received)


@cache
def whole(implicit: bool, pixels: bool) -> bytes:
    data_set = image()
    if pixels:
        data_set.PixelData = bytes(64)
        data_set["PixelData"].VR = "OW"
    return bytes(encoded(data_set, uid.ImplicitVRLittleEndian if implicit else uid.ExplicitVRLittleEndian).head)


@settings(max_examples=800, deadline=None)
@given(implicit=st.booleans(), pixels=st.booleans(), data=st.data())
def test_of_broken_headers_the_walk_reads_nothing_that_pydicom_does_not_read(
    implicit: bool, pixels: bool, data: st.DataObject
) -> None:
    content = bytearray(whole(implicit, pixels))
    for place in data.draw(st.lists(st.integers(128, len(content) - 1), max_size=3)):
        content[place] = data.draw(st.integers(0, 255) | st.sampled_from([0, 1, 2, 8, 0x20, 0x5C, 0xFF]))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    assert agrees(Received(memoryview(content), len(content)))
