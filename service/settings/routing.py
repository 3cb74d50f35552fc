"""``[routing.MODEL]``: which images a model runs on."""

from engines.packages.selection import RadiographSelection, VolumeSelection
from service.settings.section import AETitle


class RoutingSettings(VolumeSelection, RadiographSelection):
    """``[routing.MODEL]``: narrows which images a model runs on. The selection keys of its package can be given again
    (`engines.packages.selection`); both must agree, so nothing that the package excludes comes back.
    """

    enabled: bool = True
    """false: the model runs on nothing by itself; another one that crops to its segments still uses it."""
    senders: tuple[AETitle, ...] = ()
    """Calling AE titles; empty for all."""
