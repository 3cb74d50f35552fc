"""One typed tree of settings, read from ``wetread.toml``.

Every value can be overridden by an environment variable, ``WETREAD_NODE__PORT=11113`` for ``[node] port``.

Each table is a module of its own.
"""

from service.settings.archives import ArchiveSettings
from service.settings.engines import EngineSettings
from service.settings.fetch import FetchSettings
from service.settings.http import HttpSettings
from service.settings.ledger import LedgerSettings
from service.settings.log import LogSettings
from service.settings.node import NodeSettings
from service.settings.reading import load, parse
from service.settings.retry import RetrySettings
from service.settings.routing import RoutingSettings
from service.settings.section import AETitle
from service.settings.senders import SenderSettings
from service.settings.series import SeriesSettings
from service.settings.spool import SpoolSettings
from service.settings.stow import StowSettings
from service.settings.template import TEMPLATE
from service.settings.tls import ArchiveTlsSettings, TlsSettings
from service.settings.tree import Settings

__all__ = [
    "TEMPLATE",
    "AETitle",
    "ArchiveSettings",
    "ArchiveTlsSettings",
    "EngineSettings",
    "FetchSettings",
    "HttpSettings",
    "LedgerSettings",
    "LogSettings",
    "NodeSettings",
    "RetrySettings",
    "RoutingSettings",
    "SenderSettings",
    "SeriesSettings",
    "Settings",
    "SpoolSettings",
    "StowSettings",
    "TlsSettings",
    "load",
    "parse",
]
