"""How ``wetread quarantine`` shows what lies there: for a person and for programs."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from pydicom.uid import UID
from rich.console import RenderableType
from rich.filesize import decimal
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.operate.quarantine import Group, file_of, header, size, to_do
from service.quarantine import QuarantineEntry
from service.spool import Spool

SHORT = 8
"""How much of an ID is shown; the beginning is enough for every command."""
SHOWN = 4
"""How many IDs of a group are shown, unless all are wanted."""


def list_view(groups: Sequence[Group], complete: bool) -> Iterator[RenderableType]:
    """Series by series: how many, how large, since when, why, and their IDs (a few of them unless ``complete``)."""
    if not groups:
        yield "Nothing is in quarantine."
        return
    for series in dict.fromkeys(group.series for group in groups):
        yield Text(series, style="bold")
        for group in groups:
            if group.series == series:
                yield Padding.indent(_group(group, complete), 2)
    total = sum(len(group.entries) for group in groups)
    yield ""
    yield Text(f"{total} in quarantine. `wetread quarantine show ID` says what to do.", style="dim")


def _group(group: Group, complete: bool) -> RenderableType:
    ids = [entry.id[:SHORT] for entry in group.entries]
    more = len(ids) - SHOWN
    if more > 0 and not complete:
        ids = [*ids[:SHOWN], f"and {more} more (--series {group.series[:SHORT]} shows all)"]
    lines = Table.grid(padding=(0, 2, 0, 0))
    lines.add_column(no_wrap=True)
    lines.add_column(overflow="fold")
    lines.add_row(Text(f"{len(group.entries)} ×", style="yellow"), Text(group.reason))
    lines.add_row("", Text(f"{decimal(group.size)}, here for {_age(group.entries[0].since)}", style="dim"))
    lines.add_row("", Text(" ".join(ids), style="cyan"))
    return lines


def show_view(spool: Spool, entry: QuarantineEntry) -> Iterator[RenderableType]:
    """One entry: why it is there, where its file is, who it is, and what to do."""
    facts = header(spool, entry)
    rows = [
        ("entry", entry.id),
        ("reason", entry.reason),
        ("since", f"{_moment(entry.since)} ({_age(entry.since)})"),
        ("file", f"{file_of(spool, entry)}, {decimal(size(spool, entry))}"),
        ("series", entry.series),
    ]
    if not isinstance(facts, str):
        rows += [
            ("kind", f"{UID(facts.sop_class_uid).name}, modality {facts.modality or 'empty'}"),
            ("study UID", facts.study_uid),
            ("series UID", facts.series_uid),
            ("instance UID", facts.sop_instance_uid),
        ]
    rows += [("what to do" if number == 0 else "or", step) for number, step in enumerate(to_do(spool, entry))]
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, text in rows:
        table.add_row(name, Text(text))
    yield table


def group_object(group: Group) -> dict[str, Any]:
    """A group, for programs."""
    return {
        "series": group.series,
        "reason": group.reason,
        "count": len(group.entries),
        "bytes": group.size,
        "since": group.entries[0].since,
        "ids": [entry.id for entry in group.entries],
    }


def entry_object(spool: Spool, entry: QuarantineEntry) -> dict[str, Any]:
    """An entry, for programs."""
    facts = header(spool, entry)
    return {
        "id": entry.id,
        **asdict(entry),
        "path": str(file_of(spool, entry)),
        "bytes": size(spool, entry),
        "header": None
        if isinstance(facts, str)
        else {
            "sop_class_uid": facts.sop_class_uid,
            "sop_instance_uid": facts.sop_instance_uid,
            "study_uid": facts.study_uid,
            "series_uid": facts.series_uid,
            "modality": facts.modality,
        },
        "to_do": to_do(spool, entry),
    }


def _age(moment: float) -> str:
    minutes = int(max(0.0, time.time() - moment) / 60)
    for unit, length in (("day", 1440), ("hour", 60), ("minute", 1)):
        if minutes >= length:
            count = minutes // length
            return f"{count} {unit}{'s' * (count > 1)}"
    return "less than a minute"


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
