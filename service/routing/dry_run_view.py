"""How ``wetread route`` shows what would happen: for a person and for programs."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from service.routing.dry_run import Counted, DryRun, PlannedItem, PlannedSeries

WORD_WIDTH = 14
"""So that the long texts of different images and reasons mostly begin in one column."""


def view(found: DryRun) -> Iterator[RenderableType]:
    """Series by series: what it is, what would run, and why the rest would not."""
    for series in found.series:
        yield Text.assemble(
            (series.key, "bold"), f"  {series.modality or '?'}, {_counted(series.instances, 'instance')}"
        )
        yield from _series(series, found)
        yield ""
    if found.apart:
        yield Text("not part of a series", style="bold")
        yield _lines(_reasons(found.apart, "would be refused"))
        yield ""
    if found.others:
        yield Text(f"{_counted(found.others, 'file')} not DICOM, skipped", style="dim")
    sender = f" of {found.sender}" if found.sender else ""
    yield Text(f"results{sender} → {found.destination}", style="" if found.has_destination else "yellow")
    yield _summary(found)


def as_object(found: DryRun) -> dict[str, Any]:
    """All of it, for programs."""
    return asdict(found)


Row = tuple[str, str, str, str]
"""Mark, its style, a short word, and a long text that may be folded."""


def _series(series: PlannedSeries, found: DryRun) -> Iterator[RenderableType]:
    if series.problem:
        yield _lines([("✗", "red", "no image", f"it would wait for an operator: {series.problem}")])
    alike: dict[tuple[object, ...], list[PlannedItem]] = {}
    for item in series.items:
        same = (item.description, item.notes, item.models, *item.refusals.items())
        alike.setdefault(same, []).append(item)
    for first, *others in alike.values():
        times = f"{1 + len(others)} × " if others else ""
        yield Padding.indent(Text(times + first.description, style="cyan"), 2)
        yield _lines(list(_item(first, found)))
    yield _lines(_reasons(series.left_out, "left out"))


def _item(item: PlannedItem, found: DryRun) -> Iterator[Row]:
    for model in item.models:
        yield "✓", "green", model, f"runs, results → {found.destination}" if found.has_destination else "runs"
    for refusal in dict.fromkeys(item.refusals.values()):
        models = ", ".join(model for model, other in item.refusals.items() if other == refusal)
        yield "!" if refusal.faulty else "·", "yellow" if refusal.faulty else "dim", models, refusal.reason
    if item.faulty:
        yield "✗", "red", "nothing runs", "although it should: the series would wait for an operator"
    for note in item.notes:
        yield "i", "cyan", "note", note


def _reasons(reasons: Sequence[Counted], otherwise: str) -> list[Row]:
    return [
        ("!", "yellow", f"{each.instances} would be quarantined", each.reason)
        if each.faulty
        else ("·", "dim", f"{each.instances} {otherwise}", each.reason)
        for each in reasons
    ]


def _lines(rows: Sequence[Row]) -> RenderableType:
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True, min_width=WORD_WIDTH)
    table.add_column(overflow="fold")
    for mark, style, word, text in rows:
        table.add_row(Text(mark, style), Text(word, style), Text(text, style if style == "dim" else ""))
    return Padding.indent(table, 2)


def _summary(found: DryRun) -> Text:
    runs = Counter(model for series in found.series for item in series.items for model in item.models)
    if not runs:
        return Text("no model would run", style="bold yellow")
    counts = ", ".join(f"{model} on {_counted(count, 'image')}" for model, count in sorted(runs.items()))
    return Text(f"{_counted(len(found.series), 'series', 'series')}: {counts}", style="bold")


def _counted(count: int, one: str, many: str = "") -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"
