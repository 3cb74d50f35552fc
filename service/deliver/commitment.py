"""The Storage Commitment SCU (PS3.4 J): asks an archive to take responsibility, and takes what it reports.

The transaction UID follows from the job, so that a report is known for ours whenever it comes, over whichever
association, to whichever node: there is nothing to remember, and nothing to lose when a node ends.
"""

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import structlog
from pynetdicom import evt
from pynetdicom.association import Association
from pynetdicom.presentation import build_context
from sqlalchemy.exc import DBAPIError

from service.commitment import (
    REQUEST,
    STORAGE_COMMITMENT,
    STORAGE_COMMITMENT_INSTANCE,
    Report,
    read_report,
    request,
)
from service.errors import ArchiveUnavailable, Rejected
from service.ledger.ledger import Ledger
from service.ledger.records import Job, ResultRecord
from service.results.uids import derived_uid
from service.types import Destination
from service.wire import association

log = structlog.get_logger()

LOOK_SECONDS = 0.1
"""How often a wait looks whether the answer has come another way."""
LAST_ANSWER_SECONDS = 10.0
"""How long a report that has come may take to be written down, before the association ends."""

_SUCCESS, _PROCESSING_FAILURE, _INVALID_ARGUMENT, _RESOURCE_LIMITATION = 0x0000, 0x0110, 0x0115, 0x0213
_TRANSIENT = (_PROCESSING_FAILURE, _RESOURCE_LIMITATION)  # statuses of N-ACTION (PS3.7 10.1.4.1.10) that may pass

Take = Callable[[Report], bool]
"""Takes a report; tells whether anybody had asked for it."""


def transaction_uid(calling_ae_title: str, job: Job, token: int) -> str:
    """The UID of the transaction that a job opens while it has this token, which it has only once."""
    return derived_uid("storage commitment", calling_ae_title, job.series.key, job.item, job.model, str(token))


class Reports:
    """What archives report to this node, whichever way it comes, kept in the ledger.

    Raises
    ------
    sqlalchemy.exc.DBAPIError
        From each method: the ledger cannot be read or written now.
    """

    def __init__(self, ledger: Ledger, calling_ae_title: str) -> None:
        self._ledger = ledger
        self._calling_ae_title = calling_ae_title

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether it is an instance that was made here."""
        return self._ledger.is_result(sop_instance_uid)

    def reported(self, report: Report, archive: str) -> bool:
        """Keep a report; ``archive`` is the AE title of its sender. Return whether anybody had asked for it."""
        asked = self._ledger.reported(report, lambda job, token: transaction_uid(self._calling_ae_title, job, token))
        fields = {"archive": archive, "committed": len(report.committed), "failed": len(report.failed)}
        if not asked:
            fix = "it answers another node of the same AE title, or one long ago; what waits here is asked for again"
            log.warning("commitment.unknown", **fields, reason="no job has opened this transaction", fix=fix)
        elif report.failed:
            log.warning("commitment.failed", **fields, reason=report.reasons)
        else:
            log.info("commitment.reported", **fields)
        return asked


def require_commitment(archive: Destination, calling_ae_title: str) -> None:
    """Find out whether an archive takes requests for storage commitment. Raises as `ask` where it does not."""
    with association(archive, calling_ae_title, [build_context(STORAGE_COMMITMENT)]):
        pass


def ask(
    archive: Destination,
    calling_ae_title: str,
    transaction: str,
    records: Sequence[ResultRecord],
    take: Take,
    answered: Callable[[], bool],
    wait_seconds: float,
) -> None:
    """Ask for storage commitment (N-ACTION), and stay a while in case the report comes over the same association.

    Parameters
    ----------
    records
        Which instances; all of them were sent to this archive.
    take
        Takes reports that come meanwhile, to whatever transaction.
    answered
        Whether all is known, the report having come another way.
    wait_seconds
        How long to stay.

    Raises
    ------
    ArchiveUnavailable
        It cannot be reached, or cannot take requests now.
    Rejected
        It knows no storage commitment, or refuses the request.
    """
    asked = request(transaction, [(one.result.sop_class_uid, one.result.sop_instance_uid) for one in records])
    handlers = [(evt.EVT_N_EVENT_REPORT, _answer, [take])]
    with association(archive, calling_ae_title, [build_context(STORAGE_COMMITMENT)], handlers=handlers) as opened:
        answering = _Answering(opened)
        try:
            answer, _ = opened.send_n_action(asked, REQUEST, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE)
        except (ValueError, RuntimeError) as error:
            raise ArchiveUnavailable(f"{archive.name}: the association ended while asking for commitment") from error
        if "Status" not in answer:
            raise ArchiveUnavailable(f"{archive.name}: no answer to N-ACTION; the association ended")
        _require_taken(int(answer.Status), archive)
        end = time.monotonic() + wait_seconds
        while opened.is_established and not answered() and time.monotonic() < end:
            answering.wait(LOOK_SECONDS)
        answering.end()


def _require_taken(status: int, archive: Destination) -> None:
    if status in _TRANSIENT:
        raise ArchiveUnavailable(f"{archive.name} takes no request for storage commitment now (0x{status:04X})")
    if status != _SUCCESS and status >> 12 != 0xB:
        raise Rejected(f"{archive.name} refuses the request for storage commitment (0x{status:04X})")


def _answer(event: evt.Event, take: Take) -> tuple[int, None]:
    """Handle ``EVT_N_EVENT_REPORT``: take a report that comes over our own association; give the response's status."""
    try:
        report = read_report(event.event_information)
    except Exception as error:  # of pynetdicom's decoder, too
        log.warning("commitment.not_understood", archive=event.assoc.acceptor.ae_title, reason=type(error).__name__)
        return _PROCESSING_FAILURE, None
    try:
        return (_SUCCESS if take(report) else _INVALID_ARGUMENT), None
    except DBAPIError as error:
        log.warning("commitment.not_kept", archive=event.assoc.acceptor.ae_title, reason=str(error.orig))
        return _RESOURCE_LIMITATION, None


class _Answering:
    """The reports that come over an association of ours, each in a thread of pynetdicom's.

    Before the response to one is on its way, the association must not be released: in pynetdicom 3.0.4 that ends the
    thread that speaks to the peer, in the middle of the release.
    """

    def __init__(self, opened: Association) -> None:
        self._changed = threading.Condition()
        self._busy, self._over = 0, False
        self._serve = opened._serve_request
        opened._serve_request = self._one  # type: ignore[method-assign]

    def wait(self, seconds: float) -> None:
        """Until one was answered, or for so long."""
        with self._changed:
            self._changed.wait(seconds)

    def end(self) -> None:
        """Answer none that comes from now on, and wait for those that are being answered."""
        with self._changed:
            self._over = True
            self._changed.wait_for(lambda: not self._busy, LAST_ANSWER_SECONDS)

    def _one(self, msg: Any, context_id: int) -> None:
        with self._changed:
            if self._over:
                return
            self._busy += 1
        try:
            self._serve(msg, context_id)
        finally:
            with self._changed:
                self._busy -= 1
                self._changed.notify_all()
