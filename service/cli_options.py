"""What the parts of the ``wetread`` command share: options, and the terminal that they write to."""

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from service.errors import ConfigurationError
from service.ledger.ledger import Ledger, ledger_path, open_ledger
from service.settings import load

Config = Annotated[
    Path, typer.Option("--config", "-c", envvar="WETREAD_CONFIG", help="The configuration, see `wetread init`.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]
DEFAULT_CONFIG = Path("wetread.toml")

console = Console()


def existing_ledger(config: Path) -> Ledger:
    """The ledger of a node's spool.

    Raises
    ------
    ConfigurationError
        The configuration is wrong, or no node has worked with it yet.
    LedgerUnavailable
        Its database cannot be reached.
    """
    settings = load(config)
    spool = settings.spool.path
    if not settings.ledger.url.get_secret_value() and not ledger_path(spool).exists():
        raise ConfigurationError(f"{ledger_path(spool)}: no ledger yet; `wetread serve --config {config}` makes one")
    return open_ledger(spool, settings.ledger, settings.urgent_senders)
