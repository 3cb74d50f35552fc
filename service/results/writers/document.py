"""Findings become a PDF report within a DICOM object (Encapsulated PDF, PS3.3 A.45.1, C.24)."""

from collections.abc import Sequence
from pathlib import Path

from highdicom.sr import CodedConcept
from PIL import Image as Pillow
from pydicom import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import EncapsulatedPDFStorage

from engines.types import Radiograph
from service.results.analysis import Analysis
from service.results.files import keep
from service.results.pictures.choice import chosen_slices
from service.results.pictures.overlay import overview
from service.results.pictures.pdf import report_pdf
from service.results.pictures.window import display_window
from service.results.remarks import input_statistics, remarks
from service.results.stamp import RESEARCH, new_object, stamp
from service.results.writers.capture import burned_in, captured_planes, radiograph_capture
from service.results.writers.heat_map import has_activation, heat_maps
from service.types import ResultObject

OVERVIEW_PIXELS = 1200
DETAILS = 4
"""Slices beside the overview, at most: the segments of fewest slices first."""
MIME_TYPE = "application/pdf"


def write_document(analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> list[ResultObject]:
    """The report with pictures (`service.results.kinds.Writer`)."""
    return [keep("PDF", document(analysis), folder)]


def document(analysis: Analysis) -> Dataset:
    """Encode the report; the header alone says whose it is, the pages do not."""
    pages = rendered(analysis)
    dataset = new_object(analysis, "PDF", EncapsulatedPDFStorage, "DOC")
    dataset.ConversionType = "WSD"
    dataset.AcquisitionDateTime = ""
    # here it must be stated, and an X-ray whose header says nothing may have come with a name on it
    dataset.BurnedInAnnotation = burned_in(analysis, analysis.headers) or "YES"
    dataset.SourceInstanceSequence = [_reference(header) for header in analysis.source.headers]
    dataset.DocumentTitle = f"{RESEARCH}: {analysis.findings.model.name} {analysis.findings.model.version}"[:1024]
    dataset.ConceptNameCodeSequence = [CodedConcept.from_code(codes.DCM.ImagingMeasurementReport)]
    dataset.VerificationFlag = "UNVERIFIED"
    dataset.MIMETypeOfEncapsulatedDocument = MIME_TYPE
    dataset.EncapsulatedDocumentLength = len(pages)
    dataset.EncapsulatedDocument = pages + b"\0" * (len(pages) % 2)
    stamp(dataset, analysis)
    return dataset


def rendered(analysis: Analysis) -> bytes:
    """The pages: values and remarks, then the image with what was found in it, then heat maps or single slices."""
    findings, image = analysis.findings, analysis.image
    window = display_window(image)
    if isinstance(image, Radiograph):
        pictures = [(radiograph_capture(analysis).page, "The X-ray as it is stored.")]
        details = [capture.page for capture in heat_maps(analysis)] if has_activation(analysis) else []
    else:
        caption = f"From the head down, seen from below, and from the front; {window.name}."
        pictures = [(overview(image, findings, OVERVIEW_PIXELS), caption)]
        details = _details(analysis)
    return report_pdf(findings, (*remarks(analysis), *input_statistics(findings)), pictures, details)


def _details(analysis: Analysis) -> list[Pillow.Image]:
    if not analysis.label_maps and not analysis.detected:
        return []
    assert not isinstance(analysis.image, Radiograph)
    chosen = chosen_slices(analysis.image, analysis.findings.label_maps, DETAILS, analysis.detected)
    return [capture.page for capture in captured_planes(analysis, chosen)]


def _reference(header: Dataset) -> Dataset:
    reference = Dataset()
    reference.ReferencedSOPClassUID = header.SOPClassUID
    reference.ReferencedSOPInstanceUID = header.SOPInstanceUID
    return reference
