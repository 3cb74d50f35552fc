"""A study from an archive, as if its sender had sent it: what an operator or a timer has fetched, and earlier studies.

What the archive holds of a series is listed, what is not here is fetched, and what is whole runs. So a fetch may be
repeated: it fetches what is missing, and a study that is here already runs nothing new. The ledger hears of a series
when all of it is here; what a fetch that was killed has left in the spool, the next one finds there. C-MOVE has the
archive send to the node itself, over associations like any other.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from service.archive.base import SeriesEntry
from service.archive.client import ArchiveClient
from service.errors import ArchiveUnavailable, ConfigurationError, Quarantined, Rejected
from service.header import read_facts
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, NextJob, SeriesRecord
from service.received import Received
from service.series.evidence import FETCHED, Decision, Evidence
from service.spool import Spool, key_of
from service.versions import instance_of

MODALITIES = ("CT", "CR", "DX")
"""What models may want; results of this node and others are of other modalities."""
CHUNK = 100
"""So many instances are fetched at a time, within the time limit of `service.archive.base.Archive.fetch`."""
ATTEMPTS = 3
RUNS, KNOWN, RECEIVING, SENT, INCOMPLETE = (
    "runs", "nothing new", "is being received, look again later", "sent to the node", "incomplete",
)  # fmt: skip
"""What has become of a series. SENT: by C-MOVE, and the node finds out when it is whole. INCOMPLETE: fetch again."""

Watch = Callable[[str, int, int], None]
"""Is told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True)
class Fetched:
    """What became of one series: how many instances the archive lists, how many were fetched now, and what follows."""

    study: str
    series: str
    modality: str
    listed: int
    fetched: int
    state: str
    reason: str = ""


class StudyFetch:
    """Fetches studies from one archive.

    Parameters
    ----------
    archive
        It fetches (`ArchiveClient.fetches`).
    by
        How: ``c-get``, ``c-move`` or ``wado-rs``.
    sender
        Who counts as the sender (`service.operate.fetch_way.sender_of`).
    modalities
        Of the series that are fetched.
    """

    def __init__(
        self,
        archive: ArchiveClient,
        by: str,
        spool: Spool,
        ledger: Ledger,
        sender: str,
        modalities: Sequence[str] = MODALITIES,
    ) -> None:
        self._archive = archive
        self._by = by
        self._spool = spool
        self._ledger = ledger
        self._sender = sender
        self._modalities = modalities

    def earlier(self, study_uid: str, count: int) -> tuple[str, ...]:
        """The patient's last studies before this one that have series of these modalities, newest first.

        Raises as `service.archive.base.Archive`.
        """
        studies = self._archive.studies(study_uid)
        this = next((study for study in studies if study.study_uid == study_uid), None)
        if this is None or not this.date:  # without a date of its own, none is known to be earlier
            return ()
        before = [
            study
            for study in studies
            if study.study_uid != study_uid
            and study.date
            and study.date <= this.date
            # an archive that does not tell the modalities is asked for the series
            and (not study.modalities or set(study.modalities) & set(self._modalities))
        ]
        newest = sorted(before, key=lambda study: study.date, reverse=True)[:count]
        return tuple(study.study_uid for study in newest)

    def is_here(self, study_uid: str) -> bool:
        """Whether all series of these modalities were complete here once, with as many instances as the archive has.

        Their files may be gone since. Raises as `service.archive.base.Archive`.
        """
        for entry in self._archive.series(study_uid):
            if entry.modality in self._modalities:
                known = self._ledger.instances_of(key_of(study_uid, entry.series_uid))
                listed = self._archive.count(study_uid, entry.series_uid)
                if not known or listed is None or listed > known:
                    return False
        return True

    def fetch(self, study_uid: str, watch: Watch) -> list[Fetched]:
        """Fetch what is not here of a study, series by series, and have each run that is whole.

        Raises
        ------
        ConfigurationError
            The archive does not know the study, or no series of these modalities in it.
        ArchiveUnavailable, Rejected
            The archive does not answer, or refuses. What has come stays here; fetch again.
        """
        listed = self._archive.series(study_uid)
        if not listed:
            raise ConfigurationError("the archive knows no such study; look at the UID, and at what this node may see")
        wanted = [entry for entry in listed if entry.modality in self._modalities]
        if not wanted:
            found = ", ".join(sorted({entry.modality or "none" for entry in listed}))
            raise ConfigurationError(f"the study has no series of {', '.join(self._modalities)}, only of {found}")
        return [self._series(study_uid, entry, watch) for entry in wanted]

    def _series(self, study_uid: str, entry: SeriesEntry, watch: Watch) -> Fetched:
        uids = self._archive.instances(study_uid, entry.series_uid)
        key = key_of(study_uid, entry.series_uid)
        record = self._ledger.series(key)
        before = self._missing(key, uids)
        missing = before
        what = f"{entry.modality} {key[:8]}"
        watch(what, len(uids) - len(missing), len(uids))
        if record is None:
            record = SeriesRecord(key, study_uid, entry.series_uid, entry.modality, self._sender)
        elif record in self._ledger.receiving() and self._by != "c-move":
            # whoever receives it knows only what has come to him, and would take what comes from here for missing
            return Fetched(study_uid, key, entry.modality, len(uids), 0, RECEIVING)
        reason = ""
        for attempt in range(1, ATTEMPTS + 1):
            if not missing:
                break
            try:
                self._bring(record, missing, lambda left: watch(what, len(uids) - left, len(uids)))
            except ArchiveUnavailable as error:
                reason = str(error)
                time.sleep(attempt if attempt < ATTEMPTS else 0)
            else:
                reason = ""
            if self._by == "c-move":
                break
            missing = self._missing(key, uids)
        if self._by == "c-move":
            state = INCOMPLETE if reason else SENT if before else KNOWN
            return Fetched(study_uid, key, entry.modality, len(uids), len(before), state, reason)
        fetched = len(before) - len(missing)
        if reason or not uids or len(missing) == len(uids):
            reason = reason or "the archive has sent nothing of it"
            return Fetched(study_uid, key, entry.modality, len(uids), fetched, INCOMPLETE, reason)
        return Fetched(study_uid, key, entry.modality, len(uids), fetched, self._run(record, len(uids), len(missing)))

    def _missing(self, key: str, uids: Sequence[str]) -> list[str]:
        here = {instance_of(path) for path in self._spool.instances(key)}
        return [uid for uid in uids if key_of(uid) not in here]

    def _bring(self, record: SeriesRecord, missing: Sequence[str], left: Callable[[int], None]) -> None:
        """Fetch instances, and keep them in the spool. Raises as `Archive.fetch`."""
        waiting = len(missing)

        def keep(content: bytes) -> None:
            nonlocal waiting
            self._keep(record, Received.of(content))
            waiting -= 1
            left(max(0, waiting))

        for start in range(0, len(missing), CHUNK):
            self._archive.fetch(record.study_uid, record.series_uid, missing[start : start + CHUNK], keep)
            if self._by == "c-move":
                left(max(0, len(missing) - start - CHUNK))

    def _keep(self, record: SeriesRecord, received: Received) -> None:
        try:
            facts = read_facts(received)
        except Quarantined as error:
            self._spool.quarantine(record.key, received, str(error))
            return
        if key_of(facts.study_uid, facts.series_uid) != record.key:
            raise Rejected("the archive sends instances of another series than it was asked for; look at its log")
        self._spool.store(record.key, key_of(facts.sop_instance_uid), received)

    def _run(self, record: SeriesRecord, listed: int, missing: int) -> str:
        """Have a series run with what is here, where that is news; return what has become of it."""
        count, corrected = len(self._spool.instances(record.key)), self._spool.corrections(record.key)
        if not self._ledger.open_series(record, count, corrected):
            return KNOWN
        decision = Decision(
            complete=True,
            partial=bool(missing),
            evidence=(Evidence(FETCHED, 100.0, f"fetched from the archive, which lists {listed}"),),
            against=(f"the archive did not send {missing}",) if missing else (),
        )
        note = f"{count} {'instance' if count == 1 else 'instances'}: {decision}"
        self._ledger.complete_series(record.key, count, note, [NextJob(ASSEMBLE)], decision, corrected)
        return RUNS
