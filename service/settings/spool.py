"""``[spool]``: the folder where all lies."""

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from service.settings.section import Section


class SpoolSettings(Section):
    """``[spool]``: where instances, intermediate files, results and the ledger lie."""

    path: Path = Path("/var/lib/wetread")
    keep_hours: Annotated[float, Field(ge=0)] = 24.0
    """How long the files of a series stay after all of its work has ended."""
    duplicates: Literal["keep-first", "keep-last", "reject"] = "keep-first"
    """What is done with another content under a SOP Instance UID that is there. keep-first: it is kept in quarantine,
    where an operator decides. keep-last: it counts, its series runs again, and the first one is kept in quarantine.
    reject: it is not taken, and its sender is told (0xC111)."""
    sync: Literal["each", "group", "off"] = "each"
    """What is done before an instance is acknowledged. each: its data is brought to disk. group: everything that was
    written to the file system, once for all that wait. off: nothing, and a power cut takes what was acknowledged."""
    ready_mb: Annotated[int, Field(ge=0)] = 256
    """What files may take that are kept ready to be written over, which makes instances durable sooner. 0: none."""
    reserve_mb: Annotated[int, Field(ge=0)] = 1024
    """What stays free on the file system for the ledger, intermediate files and results: below it, senders are told to
    try again later (0xA700), until a quarter more is free. 0: everything is used."""
