"""The stage `commit`: what of that which was sent does the archive have? It asks, waits, looks, and has sent again.

::

    auto      storage commitment; where the archive has none, or never answers, verification; where it has neither, sent
    require   storage commitment, or a dead letter
    verify    verification (C-FIND or QIDO-RS), or a dead letter
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from service.archive.client import ArchiveClient
from service.commitment import Report
from service.deliver.commitment import Reports, ask, transaction_uid
from service.errors import ArchiveUnavailable, Postponed, Rejected
from service.ledger.ledger import Ledger
from service.ledger.records import COMMITTED, DELIVER, DONE, IN_ARCHIVE, SENDING, SENT, VERIFIED, Job, ResultRecord
from service.settings import ArchiveSettings, Settings

log = structlog.get_logger()

RESENT = 3
"""So often an object is sent again that the archive does not keep; then its job is a dead letter."""
ASKED = 3
"""So many requests for commitment may stay without an answer until *auto* verifies instead."""
LOOKS = 5
"""So often the archive is looked through for an object before it counts as lost: some list it only after a while."""
AT_ONCE_SECONDS, LONG_SECONDS = 2.0, 10.0
"""How long a request stays for its answer: where nothing is known of the archive, and where it reports over the
association that has asked."""


@dataclass(frozen=True)
class Confirmed:
    """What is known now, in words; ``again``: some of it has to be sent again."""

    note: str
    again: bool = False


class Confirmation:
    """Finds out what archives have of what they were sent.

    Everything that is known is in the ledger. Only how archives report is remembered here: requests that stay hold up
    those behind them.
    """

    def __init__(self, settings: Settings, ledger: Ledger) -> None:
        self._settings = settings
        self._ledger = ledger
        self._calling = settings.node.ae_title
        self._reports = Reports(ledger, self._calling)
        self._slow: set[str] = set()
        self._stays_for: set[str] = set()  # archives that report over the association that has asked
        self._try_again_at: dict[str, float] = {}

    def confirm(self, job: Job) -> Confirmed:
        """Find out what the archive has of the results of a job's item and model.

        Raises
        ------
        Postponed
            It was asked, and has not answered yet.
        ArchiveUnavailable
            It cannot be asked now.
        Rejected
            It cannot be asked at all although that is required, or it does not keep what it is sent.
        """
        records = self._records(job)
        if lost := self._lost(job, records):
            return self._send_again(lost)
        waiting = [record for record in records if record.status == SENT]
        name = waiting[0].archive if waiting else ""
        archive = self._settings.archives.get(name)
        if archive is None:
            return Confirmed(_told(records))
        if archive.commitment == "no":
            return Confirmed(_told(records))
        if archive.commitment == "verify":
            return self._verify(job, name, archive)
        if archive.send == "stow-rs" and archive.commitment == "auto":
            return self._as_well_as_can_be(job, name, archive, "what is sent by STOW-RS is not committed to")
        try:
            self._ask(job, name, archive, waiting)
        except Rejected as error:
            if archive.commitment == "require":
                fix = f'archives.{name}.commitment = "auto" verifies instead'
                raise Rejected(f"{error}; {fix}, then `wetread jobs retry {job.id}`") from None
            return self._as_well_as_can_be(job, name, archive, str(error))
        return self._judge(job, name, archive)

    def await_turn(self, job: Job) -> None:
        """Before something is sent once more that an archive did not keep, it is given time, each time more.

        Raises
        ------
        Postponed
            It is not time yet.
        """
        refused = max((one.refused for one in self._records(job) if one.status == SENDING), default=0)
        if refused:
            retry = self._settings.retry
            due = job.created_at + min(retry.first_seconds * 4 ** (refused - 1), retry.longest_seconds)
            if time.time() < due:
                raise Postponed("the archive did not keep it; it is sent again", due)

    # ---- storage commitment ----------------------------------------------------------------------------------------

    def _ask(self, job: Job, name: str, archive: ArchiveSettings, waiting: Sequence[ResultRecord]) -> None:
        came: list[Report] = []

        def answered() -> bool:
            return not any(record.status == SENT for record in self._records(job))

        def take(report: Report) -> bool:
            came.append(report)
            return self._reports.reported(report, archive.ae_title)

        ask(
            self._settings.destination(name),
            self._calling,
            transaction_uid(self._calling, job, job.token),
            waiting,
            take,
            answered,
            self._seconds_to_stay(job, name, archive.commitment_seconds),
        )
        (self._stays_for.add if came else self._stays_for.discard)(name)

    def _seconds_to_stay(self, job: Job, name: str, seconds: float) -> float:
        """How long a request stays for its answer. Now and then one that is repeated stays long, for archives that
        report late and over no other association; if all did, an archive that never reports would hold the thread."""
        if name in self._stays_for:
            return LONG_SECONDS
        if time.time() - job.created_at < seconds / 2:
            return 0.0 if name in self._slow else AT_ONCE_SECONDS
        if time.monotonic() < self._try_again_at.get(name, 0.0):
            return 0.0
        self._try_again_at[name] = time.monotonic() + seconds
        return LONG_SECONDS

    def _judge(self, job: Job, name: str, archive: ArchiveSettings) -> Confirmed:
        """What the archive has said to the request by now."""
        seconds, since = archive.commitment_seconds, time.time() - job.created_at
        records = self._records(job)
        if lost := self._lost(job, records):
            return self._send_again(lost)
        if not any(record.status == SENT for record in records):
            self._slow.discard(name)
            return Confirmed(_told(records))
        self._slow.add(name)
        if archive.commitment == "auto" and since > ASKED * seconds:
            return self._as_well_as_can_be(job, name, archive, f"{name} does not report on storage commitment")
        if since > self._settings.retry.give_up_hours * 3600:
            raise Rejected(
                f"{name} has not reported on storage commitment in {since / 3600:.0f} h; it must know {self._calling} "
                f"with this node's host and port, then `wetread jobs retry {job.id}`"
            )
        raise Postponed(f"waits for {name} to report on storage commitment", time.time() + seconds)

    # ---- verification ----------------------------------------------------------------------------------------------

    def _as_well_as_can_be(self, job: Job, name: str, archive: ArchiveSettings, why: str) -> Confirmed:
        """Verify; where that cannot be either, leave it at what is known."""
        try:
            confirmed = self._verify(job, name, archive)
        except Rejected as error:
            log.info("commitment.neither", archive=name, reason=f"{why}; {error}")
            return Confirmed(f"{_told(self._records(job))}; {why}; {error}")
        return Confirmed(f"{confirmed.note}; {why}", confirmed.again)

    def _verify(self, job: Job, name: str, archive: ArchiveSettings) -> Confirmed:
        if archive.send == "stow-rs":
            archive = archive.model_copy(update={"count": "qido"})
        client = ArchiveClient(self._settings.destination(name), archive, self._calling)
        waiting = [record for record in self._records(job) if record.status == SENT]
        listed: set[str] = set()
        for series_uid in dict.fromkeys(record.result.series_uid for record in waiting):
            listed.update(client.instances(job.series.study_uid, series_uid))
        there = [record for record in waiting if record.result.sop_instance_uid in listed]
        missing = [record for record in waiting if record.result.sop_instance_uid not in listed]
        self._ledger.verified(there)
        if not missing:
            return Confirmed(_told(self._records(job)))
        words = f"{name} has taken {len(missing)} of {len(waiting)} objects and does not list them"
        if job.attempts < LOOKS:
            raise ArchiveUnavailable(f"{words} yet")
        log.warning("commitment.not_listed", archive=name, objects=len(missing))
        self._ledger.refused(missing)
        return self._send_again(self._lost(job, self._records(job)))

    # ---- what is known ---------------------------------------------------------------------------------------------

    def _records(self, job: Job) -> list[ResultRecord]:
        """The results of a job's item and model that are not superseded, in the archive that has the last of them."""
        mine = (job.item, job.model)
        found = [
            one
            for one in self._ledger.results(job.series.key)
            if (one.item, one.model) == mine and one.status in (SENDING, *IN_ARCHIVE)
        ]
        return [one for one in found if one.archive == found[-1].archive]

    def _lost(self, job: Job, records: Sequence[ResultRecord]) -> list[ResultRecord]:
        """Those that the archive does not keep. They are as if their sending had been interrupted; what a delivery has
        in hand is its own."""
        lost = [record for record in records if record.status == SENDING]
        if lost:
            mine = (job.item, job.model, DELIVER)
            jobs = self._ledger.list_jobs(series_key=job.series.key)
            if any((one.item, one.model, one.stage) == mine and one.state != DONE for one in jobs):
                return []
        return lost

    def _send_again(self, lost: Sequence[ResultRecord]) -> Confirmed:
        name, count = lost[0].archive, len(lost)
        if max(record.refused for record in lost) > RESENT:
            self._ledger.forgive(lost)
            raise Rejected(
                f"{name} takes {count} objects and does not keep them, {RESENT + 1} times over; "
                "its log may say why; a retry sends them again"
            )
        return Confirmed(f"{name} does not keep {count} objects; they are sent again", again=True)


def _told(records: Sequence[ResultRecord]) -> str:
    """How many objects are committed, verified, only sent."""
    if not records:
        return "nothing to ask for: a later version takes its place"
    counts = {status: sum(record.status == status for record in records) for status in (COMMITTED, VERIFIED, SENT)}
    words = {COMMITTED: "committed by", VERIFIED: "listed by", SENT: "sent to"}
    archive = records[0].archive
    return ", ".join(f"{count} objects {words[status]} {archive}" for status, count in counts.items() if count)
