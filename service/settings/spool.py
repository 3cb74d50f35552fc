"""``[spool]``: the folder where all lies."""

import re
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import Field, field_validator

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
    url: str = ""
    """Of an object store, where nodes share no folder: ``s3://BUCKET/PREFIX``, with the same ``ledger.url`` for all; or
    ``file:///PATH``. `path` is each node's own then, and an instance is acknowledged when it is in the store. Who we
    are there is for the store's own ways to say (environment, profile, role of the machine), never for this file."""
    endpoint: str = ""
    """Of an S3 store that is not Amazon's: ``https://HOST:PORT``. Empty: what the environment or profile says."""
    cache_mb: Annotated[int, Field(ge=0)] = 20_000
    """With `url`: what copies of that which lies in the store, and what is made of them, may take in `path`."""

    @field_validator("url", "endpoint")
    @classmethod
    def _names_no_secret(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.username or parts.password:
            raise ValueError(
                "a key has no place in it; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role"
            )
        if url and not re.fullmatch(r"[a-z0-9+]+://.*", url):
            raise ValueError("it is no URL; for example s3://bucket/wetread")
        return url
