"""What is in the ledger, for an operator and for programs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from datetime import datetime
from itertools import groupby
from typing import Any

from rich.console import RenderableType
from rich.markup import escape
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.ledger.records import COMMITTED, READY, SUPERSEDED, VERIFIED, DecisionRecord, Job, ResultRecord

FEW = 3
"""So many results of one series are shown one by one."""
BY = {VERIFIED: "in", COMMITTED: "by"}
STATE_STYLES = {"done": "green", "dead": "red", "running": "yellow", "cancelled": "dim"}


def jobs_view(jobs: Sequence[Job]) -> Iterator[RenderableType]:
    """The jobs, grouped by series."""
    for series in dict.fromkeys(job.series for job in jobs):
        mine = [job for job in jobs if job.series == series]
        yield f"[bold]{series.key}[/] {series.modality} from {escape(series.sender)}, {_moment(mine[0].created_at)}"
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        for _ in range(5):
            table.add_column(no_wrap=True)
        table.add_column(overflow="fold")
        several = len({job.item for job in mine if job.item}) > 1
        for job in mine:
            state = Text(job.state, style=STATE_STYLES.get(job.state, ""))
            spent = "" if job.seconds is None else f"{job.seconds:.1f} s"
            what = f"{job.model} {job.item}" if several and job.item else job.model
            table.add_row(str(job.id), job.stage, what, state, spent, Text(_note(job)))
        yield Padding(table, (0, 0, 0, 2))


def series_view(
    jobs: Sequence[Job], results: Sequence[ResultRecord], decisions: Sequence[DecisionRecord]
) -> Iterator[RenderableType]:
    """All that is known of one series, or of several whose keys begin alike."""
    yield from jobs_view(jobs)
    for series in dict.fromkeys(job.series for job in jobs):
        yield from _decisions_view([decision for decision in decisions if decision.series == series.key])
        yield f"study   {series.study_uid}\nseries  {series.series_uid}"
    for (kind, _), several in groupby(results, lambda record: (record.result.kind, record.result.series_uid)):
        yield from _results_view(kind, list(several))


def _results_view(kind: str, records: Sequence[ResultRecord]) -> Iterator[RenderableType]:
    """The results of one kind in one series: each, or how many there are where there are many."""
    fates = Counter(f"{record.model}, {_fate(record)}" for record in records)
    if len(records) > FEW:
        yield f"{kind:11} {len(records)} instances of {records[0].result.series_uid}"
        for fate, count in fates.items():
            yield f"            {count}: {fate}, in {records[0].result.path.parent}"
        return
    for record in records:
        result = record.result
        yield f"{kind:11} {result.sop_instance_uid}\n            {record.model}, {_fate(record)}, {result.path}"
        for earlier in result.predecessors:
            yield f"            supersedes {earlier}"


def _fate(record: ResultRecord) -> str:
    """How far a result got, in words."""
    if record.status == SUPERSEDED:
        sent = f"was sent to {record.archive}" if record.archive else "was never sent"
        return f"{record.status} ({sent})"
    if not record.archive:
        return record.status
    again = f", refused {record.refused} times" if record.refused else ""
    return f"{record.status} {BY.get(record.status, 'to')} {record.archive}{again}"


def _decisions_view(decisions: Sequence[DecisionRecord]) -> Iterator[RenderableType]:
    """Each time the series was found complete, and what that rested on."""
    for decision in decisions:
        how = "[yellow]partial[/]" if decision.partial else "complete"
        yield f"{how} with {decision.instances} instances, {_moment(decision.decided_at)}"
        table = Table(box=None, show_header=False, padding=(0, 1, 0, 0))
        table.add_column()
        table.add_column(justify="right")
        for one in decision.evidence:
            table.add_row(Text(one.text), f"+{one.points:.0f}")
        for text in decision.against:
            table.add_row(Text(text, style="yellow"), "[yellow]against[/]")
        yield Padding(table, (0, 0, 0, 2))


def _note(job: Job) -> str:
    if job.state == READY and job.attempts:
        return f"try {job.attempts + 1} at {_moment(job.run_at)}: {job.note}"
    return job.note


def _moment(seconds: float) -> str:
    """Local time, for an operator."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def as_json(job: Job) -> dict[str, Any]:
    """A job, for programs."""
    return {**vars(job), "series": job.series.key, "modality": job.series.modality, "sender": job.series.sender}


def decision_as_json(decision: DecisionRecord) -> dict[str, Any]:
    """A decision that a series is complete, for programs."""
    return {**vars(decision), "evidence": [vars(one) for one in decision.evidence]}


def result_as_json(record: ResultRecord) -> dict[str, Any]:
    """A result, for programs."""
    return {
        "series": record.series,
        "item": record.item,
        "model": record.model,
        "kind": record.result.kind,
        "sop_class": record.result.sop_class_uid,
        "sop_instance_uid": record.result.sop_instance_uid,
        "status": record.status,
        "archive": record.archive,
        "refused": record.refused,
        "path": str(record.result.path),
        "supersedes": list(record.result.predecessors),
    }
