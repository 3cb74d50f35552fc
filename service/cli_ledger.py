"""``wetread ledger``: the record of every series and stage itself; and ``wetread jobs rerun`` and ``prioritise``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from service.cli_options import DEFAULT_CONFIG, AsJson, Config, console, existing_ledger
from service.errors import ConfigurationError
from service.ledger.ledger import Ledger
from service.ledger.records import ROUTINE, STAGES, STAT
from service.ledger.schema import REVISION
from service.settings import load
from service.shared_spool import open_spool

app = typer.Typer(help="Look after the ledger: its version, whether it is sound, a copy of it.", no_args_is_help=True)

STEPS = tuple(stage for stage in STAGES if stage != "receive")
PRIORITIES = {"stat": STAT, "routine": ROUTINE}


@app.command()
def migrate(config: Config = DEFAULT_CONFIG) -> None:
    """Bring the ledger to this version, as `wetread serve` does when it starts. Stop the nodes before."""
    existing_ledger(config).close()
    console.print(f"the ledger is of revision {REVISION}")


@app.command()
def check(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Look the whole ledger over, while nodes work."""
    ledger = existing_ledger(config)
    wrong = ledger.check()
    ledger.close()
    if as_json:
        print(json.dumps({"ok": not wrong, "revision": REVISION, "wrong": wrong}))
    elif not wrong:
        console.print(f"[green]✓[/] the ledger is sound, of revision {REVISION}")
    for line in [] if as_json else wrong:
        console.print("✗", line, style="red", markup=False, highlight=False, soft_wrap=True)
    if wrong and not as_json:
        console.print("Stop the node and restore a backup; `wetread ledger backup FILE` makes them.")
    raise typer.Exit(1 if wrong else 0)


@app.command()
def backup(
    file: Annotated[Path, typer.Argument(help="The new file.", dir_okay=False)], config: Config = DEFAULT_CONFIG
) -> None:
    """Copy the ledger to a new file, while the node works. To restore it, put it in the ledger's place."""
    ledger = existing_ledger(config)
    ledger.backup(file)
    ledger.close()
    console.print(f"Wrote {file}", soft_wrap=True)


def rerun(
    series: Annotated[str, typer.Argument(help="A series' key, or the beginning of one.")],
    stage: Annotated[str, typer.Option("--from", help=f"From this stage on: {', '.join(STEPS)}.")],
    model: Annotated[str, typer.Option(help="Only this model's work; with infer also one that has not run.")] = "",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Run the work on a series again, from a stage on, by the models that are served now."""
    if stage not in STEPS:
        raise ConfigurationError(f"--from {stage!r}: no such stage; there are {', '.join(STEPS)}")
    ledger = existing_ledger(config)
    key = _one_series(ledger, series)
    if stage in ("assemble", "infer", "encode") and not open_spool(load(config)).instances(key):
        raise ConfigurationError(f"series {key}: its images are no longer in the spool; have them sent again")
    made = ledger.rerun(key, stage, model)
    ledger.close()
    if not made:
        whose = f"work of {model}" if model else "work"
        raise ConfigurationError(f"series {key}: there is no {whose} at {stage}; `wetread jobs show {key}` tells all")
    console.print(f"{made} {'job is' if made == 1 else 'jobs are'} ready again at {stage}")


def prioritise(
    series: Annotated[str, typer.Argument(help="A series' key, or the beginning of one.")],
    priority: Annotated[str, typer.Argument(help="stat or routine")] = "stat",
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Have the work on a series come before all others, or in turn again."""
    if priority not in PRIORITIES:
        raise ConfigurationError(f"{priority!r}: no such priority; there are {', '.join(PRIORITIES)}")
    ledger = existing_ledger(config)
    changed = ledger.prioritise(_one_series(ledger, series), PRIORITIES[priority])
    ledger.close()
    console.print(f"{changed} {'job' if changed == 1 else 'jobs'} that had not ended, and what follows: {priority}")


def _one_series(ledger: Ledger, beginning: str) -> str:
    keys = {job.series.key for job in ledger.list_jobs(series_key=beginning)} if beginning else set()
    if len(keys) != 1:
        many = "several series begin" if keys else "no series in the ledger begins"
        raise ConfigurationError(f"{beginning!r}: {many} so; `wetread jobs list` shows all")
    return keys.pop()
