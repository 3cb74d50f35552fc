"""What ``wetread demo`` tells in the end: a table for people, one line of JSON for programs."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from service.ledger.records import COMMIT, INFER, STAGES, Job, ResultRecord
from service.quarantine import QuarantineEntry

SHOWN = tuple(stage for stage in STAGES if stage != COMMIT)
"""Stages that a demo has: its archive commits to nothing."""


@dataclass(frozen=True)
class Arrived:
    """One result as it was found in the archive: ``problem`` is empty where all is well."""

    record: ResultRecord
    job: Job
    path: Path
    problem: str


@dataclass(frozen=True)
class Shown:
    """All that a demo has come to."""

    jobs: Sequence[Job]
    arrived: Sequence[Arrived]
    quarantined: Sequence[QuarantineEntry]
    pictures: Sequence[Path]
    skipped: Sequence[tuple[Path, str]]
    folder: Path
    ok: bool


def show(console: Console, shown: Shown) -> None:
    """Print it for a person."""
    jobs, arrived, folder, ok = shown.jobs, shown.arrived, shown.folder, shown.ok
    table = Table("#", "series", "model", "in archive", *SHOWN, box=None, padding=(0, 1, 0, 0))
    studies = {uid: str(number) for number, uid in enumerate(dict.fromkeys(job.series.study_uid for job in jobs), 1)}
    for job in jobs:
        if job.stage != INFER:
            continue
        seconds = {
            other.stage: other.seconds
            for other in jobs
            if other.series == job.series and (other.item, other.model) in (("", ""), (job.item, job.model))
        }
        mine = [
            one
            for one in arrived
            if (one.record.series, one.record.item, one.record.model) == (job.series.key, job.item, job.model)
        ]
        counted = Counter((one.record.result.kind, one.problem) for one in mine)
        good = [f"{kind}×{count}" if count > 1 else kind for (kind, problem), count in counted.items() if not problem]
        wrong = [f"{kind} ✗ {problem}" for kind, problem in counted if problem]
        found = " ".join([*good, "✓", *wrong] if good else wrong)
        cells = ["–" if seconds.get(stage) is None else f"{seconds[stage]:.1f} s" for stage in SHOWN]
        series = f"{job.series.modality} {job.series.key[:6]}"
        table.add_row(studies[job.series.study_uid], series, job.model, found or job.note, *cells)
    console.print(table)
    for job in jobs:
        if job.stage == "assemble" and job.note:
            console.print(f"series {job.series.key[:6]} ({job.series.modality}): {job.note}", soft_wrap=True)
    for file, reason in shown.skipped:
        console.print(f"not sent: {file.name}: {reason}", soft_wrap=True)
    for entry in shown.quarantined:
        console.print(f"[yellow]quarantined[/] series {entry.series[:6]}: {entry.reason}", soft_wrap=True)
    if ok:
        console.print("[green]Every expected result arrived and passed the self-check.[/]")
    elif not arrived:
        console.print("[red]No result came back: no model could run on any series of this study.[/]")
    else:
        console.print("[red]Not every expected result arrived.[/]")
    console.print(
        f"archive   {folder / 'archive'}\nspool     {folder / 'spool'}\nlogs      {folder / 'node.log'}", soft_wrap=True
    )
    for picture in shown.pictures:
        console.print(f"picture   {picture}", soft_wrap=True)
    console.print(
        "\nTo point a real PACS at a node: `wetread init`, name your archive in wetread.toml, `wetread check`, "
        "`wetread serve`;\nthen let the PACS forward to the AE title, host and port of its table \\[node]. "
        "README.md shows it for Orthanc.",
    )


def summary(shown: Shown) -> dict[str, Any]:
    """Give the same for programs."""
    return {
        "ok": shown.ok,
        "studies": list(dict.fromkeys(job.series.study_uid for job in shown.jobs)),
        "results": [
            {
                "series": one.job.series.series_uid,
                "model": one.record.model,
                "sop_class": one.record.result.sop_class_uid,
                "sop_instance_uid": one.record.result.sop_instance_uid,
                "status": one.record.status if not one.problem else one.problem,
                "path": str(one.path),
            }
            for one in shown.arrived
        ],
        "quarantined": [vars(entry) for entry in shown.quarantined],
        "seconds": {
            stage: round(sum(job.seconds or 0.0 for job in shown.jobs if job.stage == stage), 3) for stage in SHOWN
        },
    }
