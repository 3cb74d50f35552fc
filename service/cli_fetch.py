"""``wetread fetch``: a study from an archive, as if its sender had sent it."""

import json
from dataclasses import asdict
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.cli_options import DEFAULT_CONFIG, AsJson, Config, console, existing_ledger
from service.logs import configure
from service.operate.fetch import INCOMPLETE, MODALITIES, Fetched
from service.operate.fetch_way import WAYS, study_fetch
from service.operate.progress import progress
from service.settings import LogSettings, load
from service.shared_spool import open_spool


def fetch(
    study_uid: Annotated[str, typer.Argument(help="Study Instance UID.")],
    archive: Annotated[str, typer.Option("--from", help="The archive, by its name in the configuration.")],
    config: Config = DEFAULT_CONFIG,
    sender: Annotated[
        str, typer.Option(help="Whose archive gets the results; default: the archive's own sender.")
    ] = "",
    by: Annotated[str, typer.Option(help=f"{', '.join(WAYS)}; default: archives.NAME.fetch, else c-get.")] = "",
    modality: Annotated[list[str] | None, typer.Option(help=f"Of the series; default: {' '.join(MODALITIES)}.")] = None,
    priors: Annotated[int, typer.Option(min=0, help="So many earlier studies of the patient, too.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Fetch a study from an archive and let it run. What is here already is not fetched, and runs nothing new."""
    configure(LogSettings(format="console", level="error"))
    settings = load(config)
    ledger = existing_ledger(config)
    spool = open_spool(settings)
    _, study = study_fetch(settings, spool, ledger, archive, by, sender, modality or MODALITIES)
    with progress(quiet=as_json) as watch:
        studies = (study_uid, *(study.earlier(study_uid, priors) if priors else ()))
        done = [each for uid in studies for each in study.fetch(uid, watch)]
    if as_json:
        print(json.dumps([asdict(each) for each in done]))
    else:
        console.print(_table(done))
    raise typer.Exit(1 if any(each.state == INCOMPLETE for each in done) else 0)


def _table(done: list[Fetched]) -> Table:
    table = Table("series", "modality", "in the archive", "fetched", "", box=None, pad_edge=False)
    for each in done:
        words = f"{each.state}: {each.reason}; fetch it again" if each.reason else each.state
        table.add_row(each.series, escape(each.modality), str(each.listed), str(each.fetched), escape(words))
    return table
