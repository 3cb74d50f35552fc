"""Is this the report on what was found?"""

from collections.abc import Sequence

from pydicom import Dataset
from pydicom.uid import EncapsulatedPDFStorage

from service.results.analysis import Analysis
from service.results.checks.mismatch import require
from service.results.stamp import RESEARCH
from service.results.writers.document import MIME_TYPE, rendered
from service.types import ResultObject


def check_document(datasets: Sequence[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare a decoded PDF report with findings and source (`service.results.kinds.Check`).

    The pages are rendered again: the same findings give the same bytes.
    """
    _require(len(datasets) == 1, "there is not one document")
    [dataset] = datasets
    source, uids = analysis.source, analysis.uids
    expected = {
        "SOPClassUID": EncapsulatedPDFStorage,
        "SOPInstanceUID": uids.instance("PDF"),
        "SeriesInstanceUID": uids.series("PDF"),
        "Modality": "DOC",
        "InstanceNumber": 1,
        "ConversionType": "WSD",
        "MIMETypeOfEncapsulatedDocument": MIME_TYPE,
        "VerificationFlag": "UNVERIFIED",
    }
    for keyword, value in expected.items():
        _require(dataset.get(keyword) == value, f"{keyword} is not the expected one")
    _require(str(dataset.DocumentTitle).startswith(RESEARCH), "its title does not say that it is for research")
    referenced = [
        (item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID) for item in dataset.SourceInstanceSequence
    ]
    known = [(header.SOPClassUID, header.SOPInstanceUID) for header in source.headers]
    _require(referenced == known, "it refers to other source images")
    length, stored = int(dataset.EncapsulatedDocumentLength), bytes(dataset.EncapsulatedDocument)
    _require(len(stored) == length + length % 2, "its length is not the stated one")
    pages = stored[:length]
    _require(pages.startswith(b"%PDF-") and pages.rstrip().endswith(b"%%EOF"), "it is no whole PDF")
    _require(pages == rendered(analysis), "its pages are not what was found")


def _require(holds: bool, difference: str) -> None:
    require(holds, "PDF", difference)
