"""The operator's page, as HTML: how the node is, what waits for a person, what each archive has and takes.

Nothing of a patient is on it: series are named by their keys, and reasons are those of the log.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from html import escape
from pathlib import Path

from service.deliver.capabilities import Capabilities
from service.ledger.ledger import Ledger
from service.ledger.records import (
    COMMITTED,
    DEAD,
    READY,
    RUNNING,
    SENDING,
    SENT,
    STAGES,
    STAT,
    STATES,
    VERIFIED,
    Job,
)
from service.operate.http import Health
from service.settings import Settings

STYLE = Path(__file__).with_name("page.css").read_bytes  # read when it is asked for
SHOWN = 200
"""So many jobs of one kind are shown, the last ones; `wetread jobs list` shows all."""
REFRESH_SECONDS = 15
COUNTS_SECONDS = 60.0
"""So long the counts of results are shown as they were: a ledger of years takes a moment to count them."""
STATUSES = (SENDING, SENT, VERIFIED, COMMITTED)


class Page:
    """Shows what is known now.

    Parameters
    ----------
    health
        How the node is.
    settings
        Of the node: they name its archives. What those have refused, any node may have learnt.
    """

    def __init__(self, health: Callable[[], Health], ledger: Ledger, settings: Settings) -> None:
        self._health = health
        self._ledger = ledger
        self._settings = settings
        self._counted_at = 0.0
        self._results: Mapping[tuple[str, str], int] = {}

    def html(self) -> str:
        """The page. Raises `sqlalchemy.exc.DBAPIError` while the ledger is away."""
        health, counts = self._health(), self._ledger.counts()
        dead = self._ledger.last_noted(DEAD, SHOWN)
        waiting = self._ledger.last_noted(READY, SHOWN)
        more = sum(count for (_, state), count in counts.items() if state == DEAD) - len(dead)
        return _DOCUMENT.format(
            refresh=REFRESH_SECONDS,
            head=_head(health),
            sections="".join(
                (
                    _section("Waits for you", _dead(dead, more)),
                    _section("Tried again later", _waiting(waiting)),
                    _section("Archives", self._archive_table()),
                    _section("Work", _work(counts)),
                    _section("Models", _models(health)),
                )
            ),
        )

    def _archive_table(self) -> str:
        if time.monotonic() > self._counted_at + COUNTS_SECONDS or not self._counted_at:
            self._results, self._counted_at = self._ledger.result_counts(), time.monotonic()
        settings, rows = self._settings, []
        known = Capabilities(settings.node.ae_title, settings.spool.path)
        for name, archive in settings.archives.items():
            counts = [_number(self._results.get((name, status), 0)) for status in STATUSES]
            learnt = "; ".join(known.refusals(settings.destination(name)))
            refused = f'<span class="wait">{escape(learnt)}</span>' if learnt else '<span class="dim">nothing</span>'
            where = f"{archive.ae_title} at {archive.host}:{archive.port}"
            cells = [_cell(text, "short") for text in (name, where, archive.commitment)]
            rows.append([*cells, *counts, f'<td class="reason">{refused}</td>'])
        heads = ["archive", "where", "commitment", *STATUSES, "refused within the last day, gets other forms"]
        none = "No archive is configured: results have nowhere to go."
        return _table(heads, rows, none, numbers=range(3, 3 + len(STATUSES)))


def _head(health: Health) -> str:
    well = '<span class="good">● well</span>' if health.ok else '<span class="bad">● not well</span>'
    parts = [well, f"version {escape(health.version)}", f"role {escape(str(health.role))}"]
    parts.append(f"{health.spool_free_bytes / 1e9:.0f} GB free in the spool")
    if not health.spool_writable:
        parts.append('<span class="bad">the spool cannot be written</span>')
    if health.role.receives and not health.receiver_listening:
        parts.append('<span class="bad">nobody listens for images</span>')
    if health.receivers_lost:
        parts.append(f'<span class="wait">{health.receivers_lost} receivers start again</span>')
    return "".join(f"<span>{part}</span>" for part in parts)


def _dead(jobs: list[Job], more: int) -> str:
    heads = ["job", "stage", "model", "series", "from", "since", "what happened, and what to do", ""]
    rows = [[*_who(job), _when(job.ended_at), _cell(job.note, "reason"), _acts(job)] for job in jobs]
    again = '<form method="post" action="/jobs/dead/retry"><button>Try all again</button></form>'
    others = f"<p>and {more} more: <code>wetread jobs list --state dead</code></p>" if more else ""
    return (
        _table(heads, rows, "Nothing: no job is a dead letter.", numbers=(0,))
        + others
        + (f'<p class="all">{again}</p>' if len(jobs) > 1 else "")
    )


def _waiting(jobs: list[Job]) -> str:
    heads = ["job", "stage", "model", "series", "from", "next try", "why"]
    jobs.sort(key=lambda job: job.run_at)
    rows = [[*_who(job), _when(job.run_at), _cell(job.note, "reason")] for job in jobs]
    return _table(heads, rows, "Nothing has failed and waits.", numbers=(0,))


def _work(counts: Mapping[tuple[str, str], int]) -> str:
    rows = [
        [_cell(stage, "short"), *(_number(counts.get((stage, state), 0), _STYLES.get(state, "")) for state in STATES)]
        for stage in STAGES
    ]
    return _table(["stage", *STATES], rows, "", numbers=range(1, 1 + len(STATES)), style="narrow")


def _models(health: Health) -> str:
    rows = []
    for engine in health.engines:
        verified = '<span class="good">verified</span>' if engine.verified else '<span class="bad">not verified</span>'
        said = "; ".join(filter(None, (engine.problem, *engine.refusals)))
        served = f"{engine.runtime}, {engine.precision}, {engine.device}"
        rows.append(
            [_cell(engine.model, "short"), _cell(served, "short"), f"<td>{verified}</td>", _cell(said, "reason")]
        )
    return _table(["model", "served by", "", "what was not taken, and why"], rows, "This node runs no models.")


# ---- pieces --------------------------------------------------------------------------------------------------------

_STYLES = {RUNNING: "wait", DEAD: "bad"}


def _who(job: Job) -> list[str]:
    urgent = ' <span class="wait">stat</span>' if job.priority <= STAT else ""
    series = f'<td class="short"><code>{escape(job.series.key[:8])}</code> {escape(job.series.modality)}{urgent}</td>'
    return [_number(job.id), _cell(job.stage, "short"), _cell(job.model, "short"), series, _cell(job.series.sender)]


def _acts(job: Job) -> str:
    buttons = (("retry", "Try again", ""), ("cancel", "Give up", ' class="no"'))
    forms = (
        f'<form method="post" action="/jobs/{job.id}/{verb}"><button{style}>{words}</button></form>'
        for verb, words, style in buttons
    )
    return f'<td class="acts">{" ".join(forms)}</td>'


def _cell(text: str, style: str = "") -> str:
    return f'<td class="{style}">{escape(text)}</td>'


def _number(number: int, style: str = "") -> str:
    return f'<td class="number {style if number else "zero"}">{number}</td>'


def _when(seconds: float | None) -> str:
    told = "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
    return _cell(told, "short")


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>"


def _table(
    heads: Iterable[str], rows: list[list[str]], none: str, numbers: Iterable[int] = (), style: str = "wide"
) -> str:
    if not rows:
        return f'<p class="none">{none}</p>'
    right = set(numbers)
    head = "".join(
        f'<th class="number">{name}</th>' if place in right else f"<th>{name}</th>" for place, name in enumerate(heads)
    )
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    return f'<table class="{style}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'


_DOCUMENT = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="refresh" content="{refresh}">
<title>Wetread</title>
<link rel="stylesheet" href="/page.css">
</head>
<body>
<header><h1>Wetread</h1>{head}<span class="use">research use only</span></header>
<main>{sections}</main>
</body>
</html>
"""
