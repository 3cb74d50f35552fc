"""``[stow]``: a second way in."""

from typing import Annotated

from pydantic import Field, SecretStr

from service.settings.section import AETitle, Port, Section


class StowSettings(Section):
    """``[stow]``: a second way in, STOW-RS (PS3.18 10.5)."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8081
    tls: bool = False
    """HTTPS, with certificate, authorities and rules of ``[tls]``; else a proxy in front of it should do that."""
    tokens: dict[AETitle, SecretStr] = Field(default_factory=dict)
    """Bearer tokens by sender, whose archive gets the results. A sender may show one of its certificates instead."""
    largest_mb: Annotated[int, Field(ge=1)] = 4096
    """What a single instance may have."""
    maximum_connections: Annotated[int, Field(ge=1)] = 16
    """Each may hold 16 MiB in memory."""
    idle_seconds: Annotated[float, Field(gt=0)] = 60.0
    """After so long without a byte a request is given up ..."""
    longest_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """... and after so long in any case; what of it was whole is kept."""
