"""``[series]``: when a series is whole."""

from typing import Annotated

from pydantic import Field

from service.settings.section import Section


class SeriesSettings(Section):
    """``[series]``: when a series is whole."""

    quiet_seconds: Annotated[float, Field(ge=0)] = 2.0
    """The least silence that is evidence enough by itself once no association that carried the series is open; with
    other evidence less is enough. It grows with the sender's own pauses."""
    quiet_ceiling_seconds: Annotated[float, Field(gt=0)] = 60.0
    """The longest silence that it may grow to, because of the sender's pauses or of what speaks against."""
    limit_seconds: Annotated[float, Field(gt=0)] = 120.0
    """After so long a silence the series runs, as partial where something speaks against (the archive has more)."""
    silent_seconds: Annotated[float, Field(gt=0)] = 300.0
    """The same while an association that carried the series stays open."""
