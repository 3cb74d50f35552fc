"""Whatever a source is called, its results are filed under the same patient and study by a real archive."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pydicom.dataelem import RawDataElement
from pydicom.dataset import FileMetaDataset
from pydicom.tag import Tag
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from engines.types import Radiograph
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import KINDS
from service.results.profile import ResultProfile
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import free_ports
from tests.unit.service.results.examples import lung_findings, pneumonia_findings, two_fields

CHARACTER_SETS = (
    *("chrArab", "chrFren", "chrFrenMulti", "chrGerm", "chrGreek", "chrH31", "chrH32", "chrHbrw", "chrI2"),
    *("chrJapMulti", "chrJapMultiExplicitIR6", "chrKoreanMulti", "chrRuss", "chrX1", "chrX2"),
)


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), node_port=free_ports(1)[0]) as running:
        yield running


def raw(keyword: str, stored: bytes) -> Callable[[Dataset], None]:
    """Give a header an element as it would be read from a file that says anything."""

    def spoil(header: Dataset) -> None:
        tag = Tag(keyword)
        stored_even = stored + b" " * (len(stored) % 2)
        vr = pydicom.datadict.dictionary_VR(tag)
        header._dict[tag] = RawDataElement(tag, vr, len(stored_even), stored_even, 0, False, True)

    return spoil


def private(header: Dataset) -> None:
    block = header.private_block(0x0009, "SOMEBODY'S SCANNER", create=True)
    block.add_new(1, "SQ", [Dataset()])
    block.add_new(2, "UN", b"\xff\xfe\xfd\xfc")


def without(*keywords: str) -> Callable[[Dataset], None]:
    def drop(header: Dataset) -> None:
        for keyword in keywords:
            del header[keyword]

    return drop


IDENTITIES: dict[str, Callable[[Dataset], None]] = {
    "a plain one": lambda header: None,
    "an empty patient ID": raw("PatientID", b""),
    "no patient ID and no name": without("PatientID", "PatientName"),
    "a long patient ID": raw("PatientID", b"0123456789" * 20),
    "a long name": raw("PatientName", b"A" * 150 + b"^" + b"B" * 150),
    "a patient ID in blanks": raw("PatientID", b"   42 "),
    "a name with five groups": raw("PatientName", b"a=b=c=d=e "),
    "letters that no character set declares": raw("PatientName", b"M\xfcller^J\xf6rg"),
    "a patient ID with a backslash": raw("PatientID", b"A\\B "),
    "a long accession number": raw("AccessionNumber", b"A12345678901234567890"),
    "a long study ID": raw("StudyID", b"S12345678901234567890"),
    "an unknown character set": raw("SpecificCharacterSet", b"ISO_IR 999"),
    "a date in words": raw("StudyDate", b"yesterday"),
    "private attributes": private,
    "an anonymised one": raw("PatientIdentityRemoved", b"YES "),
}


def xray() -> Dataset:
    """A made-up CR that any archive files."""
    header = Dataset()
    header.SOPClassUID, header.SOPInstanceUID = ComputedRadiographyImageStorage, generate_uid()
    header.StudyInstanceUID, header.SeriesInstanceUID, header.Modality = generate_uid(), generate_uid(), "CR"
    header.PatientID, header.PatientName, header.AccessionNumber = "P1", "Doe^Jane", "A1"
    header.PatientBirthDate, header.PatientSex, header.StudyID = "19700101", "F", "S1"
    header.StudyDate, header.StudyTime, header.ReferringPhysicianName = "20260101", "1200", ""
    header.Rows, header.Columns, header.ImagerPixelSpacing = 40, 30, [0.2, 0.2]
    header.BitsAllocated, header.BitsStored, header.HighBit, header.PixelRepresentation = 8, 8, 7, 0
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.PixelData = bytes(40 * 30)
    return header


def filed_together(orthanc: Orthanc, source: Path, tmp_path: Path) -> None:
    """Every kind of result about an image lies in its study, under its patient."""
    header = pydicom.dcmread(source)
    shape = (int(header.Rows), int(header.Columns))
    image = Radiograph(np.random.default_rng(0).random(shape, np.float32), None, str(header.SOPInstanceUID))
    if "PixelData" in header:
        del header.PixelData
    classes = pneumonia_findings()
    classes = replace(classes, model=replace(classes.model, name="cxr-pneumonia", uid_root="3"))
    results = [
        entry.path
        for findings in (lung_findings(two_fields(shape), image), classes)
        for entry in encode(Analysis(findings, image, [header], ResultProfile(objects=tuple(KINDS))), tmp_path)
    ]
    orthanc.upload(source, *results)
    # an archive tells patients apart by their ID: another one would have made another study of the same UID
    study = orthanc.get(f"/studies/{orthanc.study(str(header.StudyInstanceUID))}")
    held = sum(len(orthanc.get(f"/series/{series}")["Instances"]) for series in study["Series"])
    assert held == 1 + len(results)


@pytest.mark.parametrize("name", CHARACTER_SETS)
def test_results_of_a_patient_in_any_script_are_filed_with_the_source(
    name: str, orthanc: Orthanc, shared_data: Path, tmp_path: Path
) -> None:
    source = pydicom.dcmread(shared_data / "dicom" / "awkward_charset" / f"{name}.dcm")
    # several of them are one study by their UIDs, of patients with different names
    source.StudyInstanceUID, source.SeriesInstanceUID = generate_uid(), generate_uid()
    source.SOPInstanceUID = source.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    copy = tmp_path / "source.dcm"
    source.save_as(copy)
    filed_together(orthanc, copy, tmp_path)


@pytest.mark.parametrize("identity", IDENTITIES)
def test_results_of_an_oddly_named_patient_are_filed_with_the_source(
    identity: str, orthanc: Orthanc, tmp_path: Path
) -> None:
    source = xray()
    IDENTITIES[identity](source)
    source.file_meta = FileMetaDataset()
    source.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    source.file_meta.MediaStorageSOPClassUID = source.SOPClassUID
    source.file_meta.MediaStorageSOPInstanceUID = source.SOPInstanceUID
    copy = tmp_path / "source.dcm"
    source.save_as(copy, enforce_file_format=True)
    filed_together(orthanc, copy, tmp_path)
