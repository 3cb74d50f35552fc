import io
from pathlib import Path

import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from service.errors import Quarantined
from service.header import HeaderFacts, read_facts
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
    assert read_facts(Received.of(sound())) == HeaderFacts(CTImageStorage, "1.2.3.4", "1.2", "1.2.3", "CT")


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


def test_the_headers_of_all_real_files_agree_with_pydicom(shared_data: Path) -> None:
    files = [*(shared_data / "dicom" / "cr").iterdir(), *(shared_data / "dicom").glob("ct_*/*.dcm")]
    assert len(files) > 100
    for file in files:
        if file.read_bytes()[128:132] != b"DICM":
            continue
        header = pydicom.dcmread(file, stop_before_pixels=True)
        try:
            facts = read_facts(Received.of(file.read_bytes()))
        except Quarantined:
            uids = (header.get(name) for name in ("SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"))
            assert not all(uids), file.name
        else:
            assert (facts.sop_instance_uid, facts.modality) == (header.SOPInstanceUID, header.Modality)
