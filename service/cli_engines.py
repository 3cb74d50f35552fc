"""``wetread engines reload``: the running node takes up new, changed and removed model packages."""

import json
from typing import Annotated

import typer
from rich.markup import escape
from rich.table import Table

from service.cli_options import DEFAULT_CONFIG, AsJson, Config, console
from service.control import ask
from service.settings import load


def reload_engines(
    config: Config = DEFAULT_CONFIG,
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the node.")] = 600.0,
    as_json: AsJson = False,
) -> None:
    """Let the running node read all model packages anew; what it serves goes on until the new ones are verified."""
    spool = load(config).home
    with console.status("The node verifies every model"):
        told = ask(spool, "reload", timeout)
    if as_json:
        print(json.dumps(told["models"]))
        return
    table = Table("model", "version", "runs on")
    for entry in told["models"]:
        runs_on = f"{entry['runtime']}, {entry['precision']}, {entry['device']}"
        table.add_row(entry["model"], escape(entry["version"]), escape(runs_on))
        for why in entry["refusals"]:
            table.add_row("", "", f"[yellow]not as asked for: {escape(why)}[/]")
    console.print(table)
