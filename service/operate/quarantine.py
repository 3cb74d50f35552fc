"""What lies in quarantine, and what an operator can do about it."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from service.errors import ConfigurationError, Quarantined
from service.fingerprint import fingerprint
from service.header import HeaderFacts, facts_of
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, NextJob, SeriesRecord
from service.quarantine import QuarantineEntry
from service.received import Received
from service.series.evidence import Decision, Evidence
from service.spool import Spool, key_of


@dataclass(frozen=True)
class Group:
    """Entries of one series that share a reason, oldest first."""

    series: str
    reason: str
    entries: tuple[QuarantineEntry, ...]
    size: int


@dataclass(frozen=True)
class Released:
    """What became of an entry that was to be released: ``refusal`` is empty where it is back in its series."""

    entry: QuarantineEntry
    refusal: str = ""
    series: str = ""
    instances: int = 0
    """How many instances the series has now."""
    receiving: bool = False
    """The series is just being received, and runs when it is complete."""


def groups(spool: Spool, series: str = "") -> list[Group]:
    """All that lies in quarantine, by series and reason; ``series`` is a key, or the beginning of one."""
    found: dict[tuple[str, str], list[QuarantineEntry]] = {}
    for entry in spool.quarantined():
        if entry.series.startswith(series):
            found.setdefault((entry.series, entry.reason), []).append(entry)
    return [
        Group(key, reason, tuple(sorted(entries, key=lambda one: one.since)), sum(size(spool, one) for one in entries))
        for (key, reason), entries in found.items()
    ]


def size(spool: Spool, entry: QuarantineEntry) -> int:
    """Bytes of an entry's file; 0 where somebody has removed it."""
    return spool.quarantined_size(entry)


def file_of(spool: Spool, entry: QuarantineEntry) -> Path:
    """The file of an entry, as it was received."""
    return spool.quarantined_file(entry)


def find(entries: Iterable[QuarantineEntry], beginnings: Sequence[str]) -> list[QuarantineEntry]:
    """The entries whose IDs begin so.

    Raises
    ------
    ConfigurationError
        No ID, or more than one, begins so.
    """
    known = list(entries)
    found = []
    for beginning in beginnings:
        fitting = [entry for entry in known if beginning and entry.id.startswith(beginning)]
        if not fitting:
            raise ConfigurationError(f"{beginning!r}: no such entry; `wetread quarantine list` shows all")
        if len(fitting) > 1:
            choice = ", ".join(sorted(entry.id for entry in fitting))
            raise ConfigurationError(f"{beginning!r} is the beginning of several: {choice}; name more of it")
        found += fitting
    return list(dict.fromkeys(found))


def header(spool: Spool, entry: QuarantineEntry) -> HeaderFacts | str:
    """What the header tells, or why it does not tell what is needed to file the instance."""
    try:
        return facts_of(file_of(spool, entry))
    except FileNotFoundError:
        return "its file is gone; discard the entry"
    except Quarantined as error:
        return str(error)


def to_do(spool: Spool, entry: QuarantineEntry) -> list[str]:
    """What an operator can do, in words."""
    _, _, advice = entry.reason.partition("; ")
    steps = [advice or "send the instance again from its source"]
    facts = header(spool, entry)
    command = f"`wetread quarantine release {entry.id}`"
    if isinstance(facts, str):
        steps.append(f"it cannot be released: {facts}")
    else:
        series = key_of(facts.study_uid, facts.series_uid)
        spool.fetch(series)
        in_use = spool.instance_path(series, key_of(facts.sop_instance_uid))
        if not in_use.exists():
            steps.append(f"{command} puts it back into its series and runs that again")
        elif fingerprint(in_use) == fingerprint(file_of(spool, entry)):
            steps.append(f"{command} tries its series again, once the cause is gone")
        else:
            steps.append(f"{command} uses it instead of the content that is in use, and runs its series again")
    return [*steps, f"`wetread quarantine discard {entry.id}` removes it for good"]


def release(spool: Spool, ledger: Ledger, entries: Sequence[QuarantineEntry], sender: str = "") -> list[Released]:
    """Put instances back into their series and run each of these again; a running node begins within a second.

    What is released is no longer in quarantine; an entry that is refused stays there.

    Parameters
    ----------
    sender
        The calling AE title of series that the ledger does not know: it says where results go.
    """
    done: list[Released] = []
    again: dict[str, tuple[SeriesRecord, list[QuarantineEntry]]] = {}
    for entry in entries:
        try:
            record = _put_back(spool, ledger, entry, sender)
        except Quarantined as error:
            done.append(Released(entry, refusal=str(error)))
        else:
            again.setdefault(record.key, (record, []))[1].append(entry)
    for record, members in again.values():
        count = len(spool.instances(record.key))
        receiving = record in ledger.receiving()
        if not receiving:
            _run_again(ledger, record, count, spool.corrections(record.key), len(members))
        for entry in members:
            spool.discard(entry)
            done.append(Released(entry, series=record.key, instances=count, receiving=receiving))
    return done


def _put_back(spool: Spool, ledger: Ledger, entry: QuarantineEntry, sender: str) -> SeriesRecord:
    facts = header(spool, entry)
    if isinstance(facts, str):
        raise Quarantined(facts)
    key = key_of(facts.study_uid, facts.series_uid)
    record = ledger.series(key)
    if record is None:
        if not sender:
            raise Quarantined("the ledger does not know its series; name with --sender whose results they will be")
        record = SeriesRecord(key, facts.study_uid, facts.series_uid, facts.modality, sender)
    content = file_of(spool, entry).read_bytes()
    spool.store(key, key_of(facts.sop_instance_uid), Received.of(content), again=True)
    return record


def _run_again(ledger: Ledger, record: SeriesRecord, instances: int, corrected: int, released: int) -> None:
    """An operator's word is evidence enough that the series is to run as it is."""
    last = next(reversed(ledger.decisions(record.key)), None)
    decision = Decision(
        complete=True,
        partial=last is not None and last.partial,
        evidence=(Evidence("operator", 100.0, f"{released} released from quarantine"),),
        against=() if last is None else last.against,
    )
    ledger.open_series(record, instances, corrected)
    note = f"{instances} instances: {decision}"
    ledger.complete_series(record.key, instances, note, [NextJob(ASSEMBLE)], decision, corrected)
