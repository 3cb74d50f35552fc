"""``[log]``: what is told, and how."""

from typing import Literal

from service.settings.section import Section


class LogSettings(Section):
    """``[log]``: ``json`` lines for a collector, ``console`` for a person."""

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"
