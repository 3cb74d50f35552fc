"""Which earlier results a new one takes the place of, as the ledger knows them.

Whatever the ledger says of the new result itself counts first, so that encoding it again names the same predecessors
whether or not it was written down that it was encoded.
"""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from service.errors import TransientError
from service.ledger.ledger import Ledger
from service.ledger.records import (
    DELIVER,
    ENCODED,
    IN_ARCHIVE,
    READY,
    RUNNING,
    SENDING,
    SUPERSEDED,
    Job,
    ResultRecord,
)
from service.results.predecessors import Predecessor


@dataclass(frozen=True)
class Earlier:
    """What a new result takes the place of.

    Attributes
    ----------
    predecessors
        Reports that were sent and that the new one names. What was never sent nobody has seen, so nobody is told of it.
    outdated
        All results that are superseded with it, as they were.
    """

    predecessors: tuple[Predecessor, ...]
    outdated: tuple[ResultRecord, ...]

    @property
    def superseded(self) -> tuple[ResultRecord, ...]:
        """The outdated results, as they are to be written down."""
        return tuple(replace(record, status=SUPERSEDED) for record in self.outdated)


def take_over(ledger: Ledger, job: Job, own: Collection[str], gone: Callable[[str], bool]) -> Earlier:
    """Find what the result of a job supersedes; from now on nothing of that begins to be sent.

    Parameters
    ----------
    own, gone
        As for `earlier_results`.

    Raises
    ------
    TransientError
        Some of it is being sent just now, and it will soon be known whether it has arrived.
    """
    series = job.series.key

    def look() -> Earlier:
        return earlier_results(ledger.results(series), job.item, job.model, own, gone)

    ledger.withdraw(look().outdated)
    earlier = look()
    under_way = {
        (other.item, other.model)
        for other in ledger.list_jobs(series_key=series)
        if other.stage == DELIVER and other.state in (READY, RUNNING)
    }
    if any(one.status == SENDING and (one.item, one.model) in under_way for one in earlier.outdated):
        raise TransientError("an earlier result is being sent; this one waits to know whether that has arrived")
    return earlier


def earlier_results(
    results: Sequence[ResultRecord], item: str, model: str, own: Collection[str], gone: Callable[[str], bool]
) -> Earlier:
    """Find what the result of a model about an item takes the place of.

    Parameters
    ----------
    results
        All results of the series.
    own
        Series Instance UIDs of the new result, whose objects may be in the ledger already.
    gone
        Whether an item is no more because its slices are in others now, of which this is one.
    """
    known = {record.result.sop_instance_uid: record for record in results}
    others = [record for record in known.values() if record.model == model and record.result.series_uid not in own]
    own_reports = [one for one in known.values() if one.result.series_uid in own and one.result.kind == "SR"]
    if own_reports:
        reports = [known[uid] for report in own_reports for uid in report.result.predecessors if uid in known]
    else:
        reports = [
            record
            for record in others
            if record.result.kind == "SR"
            and _was_sent(record)
            and (record.item == item or gone(record.item))
            and _is_free(record, item, results)
        ]
    outdated = [
        record
        for record in others
        if (record.item == item or gone(record.item)) and record.status in (ENCODED, SENDING, *IN_ARCHIVE)
    ]
    return Earlier(tuple(_predecessor(record, known) for record in reports), tuple(outdated))


def _is_free(report: ResultRecord, item: str, results: Sequence[ResultRecord]) -> bool:
    """Whether no report that was sent names this one, or only current ones on other parts of an item that is gone."""
    uid = report.result.sop_instance_uid
    heirs = [other for other in results if uid in other.result.predecessors and not _is_withdrawn(other)]
    return all(heir.item not in (item, report.item) and heir.status != SUPERSEDED for heir in heirs)


def _was_sent(record: ResultRecord) -> bool:
    return record.status in (SENDING, *IN_ARCHIVE) or (record.status == SUPERSEDED and bool(record.archive))


def _is_withdrawn(record: ResultRecord) -> bool:
    return record.status == SUPERSEDED and not record.archive


def _predecessor(record: ResultRecord, known: dict[str, ResultRecord]) -> Predecessor:
    result = record.result
    return Predecessor(result.series_uid, result.sop_class_uid, result.sop_instance_uid, _version(record, known))


def _version(record: ResultRecord, known: dict[str, ResultRecord]) -> int:
    earlier = [known[uid] for uid in record.result.predecessors if uid in known]
    return 1 + max((_version(one, known) for one in earlier), default=0)
