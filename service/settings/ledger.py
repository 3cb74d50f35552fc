"""``[ledger]``: the record of every series and stage."""

from typing import Annotated

from pydantic import Field, SecretStr, StringConstraints

from service.settings.section import Section


class LedgerSettings(Section):
    """``[ledger]``: where the record of every series and stage is kept."""

    url: SecretStr = SecretStr("")
    """Of its database; empty for a file in the spool (SQLite, one machine). ``postgresql://USER@HOST/NAME`` for several
    nodes; its password belongs into ``WETREAD_LEDGER__URL`` or a PGPASSFILE."""
    node: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")] = ""
    """This node's name among those that share the ledger, no two the same; a node that starts again under its name has
    its work back at once, without one after ``lease_seconds``."""
    lease_seconds: Annotated[float, Field(ge=2)] = 120.0
    """After so long without a sign of life a node's work is given to others."""
    history_days: Annotated[float, Field(gt=0)] = 90.0
    """How long is kept what was done on a series, after all of its work has ended. Its results are known for longer."""
    known_days: Annotated[float, Field(ge=0)] = 0.0
    """How long a series is known at all: one that comes again after that is analysed again, and its results bear the
    new date under the same UIDs. 0: for ever."""
