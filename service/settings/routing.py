"""``[routing.MODEL]``: which images a model runs on."""

from typing import Annotated

from pydantic import Field

from engines.packages.selection import RadiographSelection, VolumeSelection
from service.settings.section import AETitle

Probability = Annotated[float, Field(ge=0, le=1)]


class RoutingSettings(VolumeSelection, RadiographSelection):
    """``[routing.MODEL]``: narrows which images a model runs on. The selection keys of its package can be given again
    (`engines.packages.selection`); both must agree, so nothing that the package excludes comes back.
    """

    enabled: bool = True
    """false: the model runs on nothing by itself; another one that crops to its segments still uses it."""
    senders: tuple[AETitle, ...] = ()
    """Calling AE titles; empty for all."""
    stat: dict[str, Probability] = Field(default_factory=dict)
    """Triage: classes, or things to detect, by name, and the least probability or score with which finding one has the
    work on its study come before all other from then on."""
