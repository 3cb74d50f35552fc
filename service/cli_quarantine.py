"""``wetread quarantine``: what cannot be used, why, and what an operator can do about it."""

import json
from typing import Annotated

import typer

from service.cli_options import DEFAULT_CONFIG, AsJson, Config, console, existing_ledger
from service.errors import ConfigurationError
from service.operate import quarantine
from service.operate.quarantine_view import SHORT, entry_object, group_object, list_view, show_view
from service.quarantine import QuarantineEntry
from service.settings import load
from service.shared_spool import open_spool
from service.spool import Spool

app = typer.Typer(help="Look at what cannot be used; put it back, or remove it.", no_args_is_help=True)

Ids = Annotated[list[str] | None, typer.Argument(help="IDs of entries; the beginning of each is enough.")]
Series = Annotated[str, typer.Option(help="All entries of this series (its key, or the beginning).")]


def _spool(config: Config) -> Spool:
    existing_ledger(config).close()  # a spool that no node has used is more likely a wrong configuration
    return open_spool(load(config))


def _chosen(spool: Spool, ids: list[str] | None, series: str) -> list[QuarantineEntry]:
    if bool(ids) == bool(series):
        raise ConfigurationError("name entries by their IDs, or all of one series by --series KEY")
    if ids:
        return quarantine.find(spool.quarantined(), ids)
    chosen = [entry for group in quarantine.groups(spool, series) for entry in group.entries]
    if len({entry.series for entry in chosen}) != 1:
        many = "several series begin" if chosen else "no series in quarantine begins"
        raise ConfigurationError(f"--series {series!r}: {many} so; `wetread quarantine list` shows all")
    return chosen


@app.command("list")
def list_entries(config: Config = DEFAULT_CONFIG, series: Series = "", as_json: AsJson = False) -> None:
    """List what is in quarantine, by series and reason."""
    found = quarantine.groups(_spool(config), series)
    if as_json:
        print(json.dumps([group_object(group) for group in found]))
    else:
        for line in list_view(found, complete=bool(series)):
            console.print(line)


@app.command("show")
def show_entry(
    id: Annotated[str, typer.Argument(help="An entry's ID, or the beginning of one.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show one entry: why it is there, where its file is, its UIDs, and what to do."""
    spool = _spool(config)
    (entry,) = quarantine.find(spool.quarantined(), [id])
    if as_json:
        print(json.dumps(entry_object(spool, entry)))
    else:
        for line in show_view(spool, entry):
            console.print(line)


@app.command("release")
def release_entries(
    ids: Ids = None,
    config: Config = DEFAULT_CONFIG,
    series: Series = "",
    sender: Annotated[str, typer.Option(help="Whose results they will be, for series that are new here.")] = "",
) -> None:
    """Put instances back into their series and run that again; a running node begins at once."""
    spool, ledger = _spool(config), existing_ledger(config)
    done = quarantine.release(spool, ledger, _chosen(spool, ids, series), sender)
    for each in done:
        if each.refusal:
            console.print(f"[red]✗[/] {each.entry.id[:SHORT]} stays: ", end="")
            console.print(each.refusal, markup=False, highlight=False, soft_wrap=True)
        else:
            what = "is being received and runs when complete" if each.receiving else "runs again"
            console.print(
                f"[green]✓[/] {each.entry.id[:SHORT]} is back: series {each.series} has {each.instances} instances "
                f"and {what}",
                soft_wrap=True,
            )
    raise typer.Exit(1 if any(each.refusal for each in done) else 0)


@app.command("discard")
def discard_entries(
    ids: Ids = None,
    config: Config = DEFAULT_CONFIG,
    series: Series = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
) -> None:
    """Remove entries for good. Their senders were told that these images are safe here."""
    spool = _spool(config)
    chosen = _chosen(spool, ids, series)
    if not yes:
        typer.confirm(f"Remove {len(chosen)} of the quarantine for good?", abort=True)
    for entry in chosen:
        spool.discard(entry)
    console.print(f"{len(chosen)} removed")
