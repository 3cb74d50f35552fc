"""Is this the report on what was found?"""

from collections.abc import Iterable, Sequence

from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.mismatch import only, require
from service.results.stamp import RESEARCH
from service.results.writers.document import MIME_TYPE, rendered
from service.types import ResultObject


def check_document(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare a decoded PDF report with findings and source (`service.results.kinds.Check`).

    The pages are rendered again: the same findings give the same bytes.
    """
    dataset = only(datasets, "PDF")
    expected = {
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
    known = [(header.SOPClassUID, header.SOPInstanceUID) for header in analysis.source.headers]
    _require(referenced == known, "it refers to other source images")
    length, stored = int(dataset.EncapsulatedDocumentLength), bytes(dataset.EncapsulatedDocument)
    _require(len(stored) == length + length % 2, "its length is not the stated one")
    pages = stored[:length]
    _require(pages.startswith(b"%PDF-") and pages.rstrip().endswith(b"%%EOF"), "it is no whole PDF")
    _require(pages == rendered(analysis), "its pages are not what was found")


def _require(holds: bool, difference: str) -> None:
    require(holds, "PDF", difference)
