"""Storage commitment as the standard has it (PS3.4 J): what is asked of an archive, and what it reports.

::

    N-ACTION        we, SCU   ─►  archive   which instances, under a transaction UID
    N-EVENT-REPORT  archive, SCP  ─►  us    which of them it keeps, and why not the others; over the same
                                            association, or over one that the archive asks for
"""

import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import pydicom
from pydicom import Dataset
from pydicom.uid import UID

STORAGE_COMMITMENT = UID("1.2.840.10008.1.20.1")
"""Storage Commitment Push Model SOP Class (PS3.4 J.3.5)."""
STORAGE_COMMITMENT_INSTANCE = UID("1.2.840.10008.1.20.1.1")
"""Its one, well-known instance."""
REQUEST = 1
"""Action Type ID of Request Storage Commitment (PS3.4 table J.3-1)."""

RESOURCE_LIMITATION, DUPLICATE_TRANSACTION = 0x0213, 0x0131
REASONS = {
    0x0110: "processing failure",
    0x0112: "no such object instance",
    RESOURCE_LIMITATION: "resource limitation",
    0x0122: "referenced SOP class not supported",
    0x0119: "class / instance conflict",
    DUPLICATE_TRANSACTION: "duplicate transaction UID",
}
"""Failure Reason (0008,1197), PS3.3 C.14.1.1."""
LONGEST = 1 << 22
"""Bytes of a report; one on a thousand instances has some 150,000."""
MOST = 10_000
"""Instances in a report."""


@dataclass(frozen=True)
class Report:
    """What an archive says to a request (PS3.4 table J.3-2).

    Attributes
    ----------
    transaction_uid
        Of the request.
    committed
        SOP Instance UIDs for which it has taken responsibility.
    failed
        The others, each with its failure reason (`REASONS`; 0 where it gives none).
    """

    transaction_uid: str
    committed: tuple[str, ...]
    failed: tuple[tuple[str, int], ...] = ()

    @property
    def refused(self) -> tuple[str, ...]:
        """Those of the failed that it does not keep as things are: to ask again would not help, to send again may."""
        passing = (RESOURCE_LIMITATION, DUPLICATE_TRANSACTION)
        return tuple(uid for uid, reason in self.failed if reason not in passing)

    @property
    def reasons(self) -> str:
        """Why it does not keep them, in words."""
        codes = dict.fromkeys(reason for _, reason in self.failed)
        return "; ".join(f"{REASONS.get(code, 'failure')} (0x{code:04X})" for code in codes)


def request(transaction_uid: str, references: Iterable[tuple[str, str]]) -> Dataset:
    """The action information of a request: SOP class and SOP instance UID of each instance (PS3.4 table J.3-1)."""
    asked = Dataset()
    asked.TransactionUID = transaction_uid
    asked.ReferencedSOPSequence = [_reference(*each) for each in references]
    return asked


def _reference(sop_class: str, sop_instance: str) -> Dataset:
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, sop_instance
    return item


def read_report(information: Dataset) -> Report:
    """Read the event information of an N-EVENT-REPORT. Raises `ValueError` where it is none."""
    try:
        transaction = str(information.get("TransactionUID") or "")
        failed = tuple(
            (str(item.ReferencedSOPInstanceUID), int(item.get("FailureReason") or 0))
            for item in _items(information, "FailedSOPSequence")
        )
        but = {uid for uid, _ in failed}
        kept = (str(item.ReferencedSOPInstanceUID) for item in _items(information, "ReferencedSOPSequence"))
        committed = tuple(uid for uid in kept if uid not in but)
    except Exception as error:  # a parser can fail in many ways on what a peer sends; the answer is always the same
        raise ValueError(f"the event information cannot be read ({type(error).__name__})") from error
    if not transaction or not 0 < len(committed) + len(failed) <= MOST:
        raise ValueError(f"the event information names no transaction, no instance, or more than {MOST}")
    return Report(transaction, committed, failed)


def read_report_file(content: bytes | memoryview) -> Report:
    """The same of a whole DICOM file that holds the event information. Raises `ValueError` where it is none."""
    if len(content) > LONGEST:
        raise ValueError(f"the event information has more than {LONGEST} bytes")
    try:
        information = pydicom.dcmread(io.BytesIO(content))
    except Exception as error:  # as above
        raise ValueError(f"the event information cannot be read ({type(error).__name__})") from error
    return read_report(information)


def _items(information: Dataset, keyword: str) -> Sequence[Dataset]:
    return information.get(keyword) or ()
