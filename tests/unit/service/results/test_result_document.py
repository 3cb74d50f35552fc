from dataclasses import replace
from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom import Dataset
from pypdf import PdfReader

from engines.types import Code, LabelMap, Measurement, Segment
from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.results.writers.document import rendered, write_document
from service.series.assembly import assemble
from tests.unit.service.results.damage import damaged
from tests.unit.service.results.examples import (
    ANATOMY,
    LUNG,
    Example,
    analysis_of,
    findings,
    lung_findings,
    pneumonia_findings,
    small_ct,
    small_ct_example,
    small_radiograph,
    two_fields,
)
from tests.unit.service.results.test_result_heat_map import glowing
from tests.validators import dciodvfy_errors

ONLY_PDF = ResultProfile(objects=("PDF",))


def written(analysis: Analysis, folder: Path) -> Dataset:
    """The document, checked, as it was written; without an error that dciodvfy sees."""
    [entry] = encode(analysis, folder)
    assert dciodvfy_errors(entry.path) == []
    return pydicom.dcmread(entry.path)


def read(dataset: Dataset) -> PdfReader:
    return PdfReader(BytesIO(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength]), strict=True)


def words(reader: PdfReader) -> str:
    return " ".join(" ".join(page.extract_text().split()) for page in reader.pages)


def test_another_reader_finds_every_value_of_a_real_ct_and_nothing_of_the_patient(
    nlst_ct: Example, tmp_path: Path
) -> None:
    long_axis = Measurement(1, Code("103339001", "SCT", "Long Axis"), 12.34, Code("mm", "UCUM", "mm"))
    found = replace(
        nlst_ct.findings,
        measurements=(*nlst_ct.findings.measurements, long_axis),
        notes=("The series was compressed with loss.",),
    )
    dataset = written(analysis_of(found, nlst_ct.image, nlst_ct.headers, profile=ONLY_PDF), tmp_path)
    assert dataset.BurnedInAnnotation == "NO"
    assert len(dataset.SourceInstanceSequence) == 143
    reader = read(dataset)
    text = words(reader)
    for expected in (
        *("Left lung", "Right lung", "1,696 mL", "mean -927 HU", "1,924 mL", "mean -925 HU", "long axis 12.3 mm"),
        *("ct-lung 0.1.0", "compressed with loss", "SHA-256 abab", "openvino 2026.4.1", "lung window"),
    ):
        assert expected in text
    assert all("RESEARCH USE ONLY" in page.extract_text() for page in reader.pages)
    # the overview, and the slices where most is found
    assert [len(page.images) for page in reader.pages] == [1, 4]
    everything = text + str(reader.metadata) + str(reader.trailer)
    for keyword in ("PatientName", "PatientID", "StudyDate", "AccessionNumber", "StudyInstanceUID"):
        assert str(nlst_ct.headers[0][keyword].value) not in everything


def test_the_report_on_an_x_ray_has_classes_and_heat_maps(shared_data: Path, tmp_path: Path) -> None:
    [item] = assemble([shared_data / "dicom" / "cr" / "wg04_RG1_JLSN.dcm"]).items
    shape = item.image.array.shape
    found = glowing(shape, (0.5, 0.5), (0.3, 0.75), (0.5, 0.5))
    found = replace(found, label_map=lung_findings(two_fields(shape), item.image).label_map, notes=item.notes)
    reader = read(written(analysis_of(found, item.image, item.headers(), profile=ONLY_PDF), tmp_path))
    text = words(reader)
    for expected in ("Normal 6.2%", "Pneumonia 81.2%", "Viral pneumonia 12.5%", "Left lung", *item.notes):
        assert expected in text
    assert sum(len(page.images) for page in reader.pages) == 3


def test_nothing_found_is_said(tmp_path: Path) -> None:
    volume, headers = small_ct()
    empty = lung_findings(np.zeros(volume.array.shape, np.uint8), volume)
    text = words(read(written(analysis_of(empty, volume, headers, profile=ONLY_PDF), tmp_path)))
    assert "Nothing was found." in text
    assert "Not found: Left lung, Right lung." in text


def test_any_label_and_a_hundred_of_them_can_be_printed(tmp_path: Path) -> None:
    volume, headers = small_ct((3, 40, 40))
    for header in headers:
        header.SpecificCharacterSet = "ISO_IR 192"  # which has all letters; the fonts do not
    labels = np.zeros(volume.array.shape, np.uint8)
    labels[1] = np.kron(np.arange(1, 101).reshape(10, 10), np.ones((4, 4)))
    parts = tuple(Segment(n, f"<b>Part {n}</b> & 肺 é\x00", ANATOMY, LUNG, (n, n, 255)) for n in range(1, 101))
    found = findings(label_map=LabelMap(labels, parts), notes=("<para>", "a" * 500, "肺" * 300))
    reader = read(written(analysis_of(found, volume, headers, profile=ONLY_PDF), tmp_path))
    text = words(reader)
    assert all(f"<b>Part {number}</b> & ? é" in text for number in range(1, 101))
    assert "<para>" in text
    assert len(reader.pages) > 4


def test_the_same_analysis_gives_the_same_bytes(tmp_path: Path) -> None:
    example = small_ct_example()
    analysis = analysis_of(example.findings, example.image, example.headers, profile=ONLY_PDF)
    [one] = write_document(analysis, tmp_path, ())
    first = one.path.read_bytes()
    write_document(analysis, tmp_path, ())
    assert one.path.read_bytes() == first
    assert rendered(analysis) != rendered(replace(analysis, findings=replace(example.findings, notes=("Else.",))))


@pytest.mark.parametrize(("source", "expected"), [("NO", "NO"), ("YES", "YES"), (None, "YES")])
def test_an_x_ray_that_does_not_say_so_may_have_a_name_on_it(source: str | None, expected: str, tmp_path: Path) -> None:
    image, [header] = small_radiograph()
    if source:
        header.BurnedInAnnotation = source
    dataset = written(analysis_of(pneumonia_findings(), image, [header], profile=ONLY_PDF), tmp_path)
    assert dataset.BurnedInAnnotation == expected


@pytest.mark.parametrize(
    "damage",
    [
        lambda dataset: dataset.update({"EncapsulatedDocument": dataset.EncapsulatedDocument[:-20] + bytes(20)}),
        lambda dataset: dataset.update({"EncapsulatedDocument": dataset.EncapsulatedDocument[:-100]}),
        lambda dataset: dataset.update({"EncapsulatedDocumentLength": 100}),
        lambda dataset: dataset.update(
            {"EncapsulatedDocument": dataset.EncapsulatedDocument[:9000] + b"?" + dataset.EncapsulatedDocument[9001:]}
        ),
        lambda dataset: dataset.update({"EncapsulatedDocument": b"0" + dataset.EncapsulatedDocument[1:]}),
        lambda dataset: dataset.update({"MIMETypeOfEncapsulatedDocument": "text/xml"}),
        lambda dataset: dataset.update({"Modality": "OT"}),
        lambda dataset: dataset.update({"DocumentTitle": "Report"}),
        lambda dataset: dataset.update({"SeriesInstanceUID": "1.2.3"}),
        lambda dataset: dataset.SourceInstanceSequence.pop(),
    ],
)
def test_a_damaged_document_is_never_sent(damage, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    image, headers = small_radiograph()
    analysis = analysis_of(pneumonia_findings(), image, headers, profile=ONLY_PDF)
    [entry] = write_document(analysis, tmp_path, ())
    self_check([entry], analysis)
    damaged(entry.path, damage)
    with pytest.raises(Quarantined):
        self_check([entry], analysis)
