"""The whole tree of settings, and what its tables say together."""

import socket
from pathlib import Path
from typing import Self

from pydantic import model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from service.results.profile import ResultProfile
from service.settings.archives import ArchiveSettings
from service.settings.engines import EngineSettings
from service.settings.fetch import FetchSettings
from service.settings.http import HttpSettings
from service.settings.ledger import LedgerSettings
from service.settings.log import LogSettings
from service.settings.node import NodeSettings
from service.settings.retry import RetrySettings
from service.settings.routing import RoutingSettings
from service.settings.section import AETitle
from service.settings.senders import SenderSettings
from service.settings.series import SeriesSettings
from service.settings.spool import SpoolSettings
from service.settings.stow import StowSettings
from service.settings.tls import TlsSettings
from service.types import ClientTls, Destination

_SHORTEST_TOKEN = 16


class Settings(BaseSettings):
    """The whole tree. ``load`` reads it from a file."""

    model_config = SettingsConfigDict(
        extra="forbid",
        frozen=True,
        env_prefix="WETREAD_",
        env_nested_delimiter="__",
        nested_model_default_partial_update=True,
    )

    node: NodeSettings = NodeSettings()
    tls: TlsSettings = TlsSettings()
    senders: dict[AETitle, SenderSettings] = {}
    archives: dict[str, ArchiveSettings] = {}
    fetch: dict[str, FetchSettings] = {}
    spool: SpoolSettings = SpoolSettings()
    ledger: LedgerSettings = LedgerSettings()
    series: SeriesSettings = SeriesSettings()
    engines: EngineSettings = EngineSettings()
    routing: dict[str, RoutingSettings] = {}
    retry: RetrySettings = RetrySettings()
    http: HttpSettings = HttpSettings()
    stow: StowSettings = StowSettings()
    log: LogSettings = LogSettings()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment variables win over the file, which is passed as init arguments."""
        return env_settings, init_settings

    @model_validator(mode="after")
    def _archives_are_known(self) -> Self:
        for title, sender in self.senders.items():
            if sender.archive not in self.archives:
                known = ", ".join(sorted(self.archives)) or "none"
                raise ValueError(
                    f"senders.{title}.archive = {sender.archive!r}: no such archive (known: {known}); "
                    f"add a table [archives.{sender.archive}] or name a known one"
                )
        return self

    @model_validator(mode="after")
    def _certificates_can_be_shown(self) -> Self:
        for title, sender in self.senders.items():
            if sender.certificates and (not self.tls.on or self.tls.clients == "none"):
                raise ValueError(
                    f"senders.{title}.certificates: no sender can show one; set tls.certificate, tls.key and "
                    "tls.authorities, or remove it"
                )
        return self

    @model_validator(mode="after")
    def _stow_knows_its_senders(self) -> Self:
        stow = self.stow
        for title, token in stow.tokens.items():
            if title not in self.senders and not self.node.accept_unknown_senders:
                raise ValueError(f"stow.tokens.{title}: no such sender; add a table [senders.{title}]")
            if len(token.get_secret_value()) < _SHORTEST_TOKEN:
                raise ValueError(
                    f"stow.tokens.{title}: shorter than {_SHORTEST_TOKEN} characters; `openssl rand -hex 32` makes one"
                )
        if len({token.get_secret_value() for token in stow.tokens.values()}) < len(stow.tokens):
            raise ValueError("stow.tokens: two senders have the same one; it says who sends, so give each its own")
        if stow.tls and not self.tls.on:
            raise ValueError("stow.tls needs [tls] certificate and key; name them, or leave HTTPS to a proxy")
        return self

    @model_validator(mode="after")
    def _store_has_a_shared_list(self) -> Self:
        if self.spool.url and not self.shared:
            raise ValueError(
                f"spool.url = {self.spool.url!r}: what lies there is listed in the ledger, which others have to reach; "
                "set ledger.url to a PostgreSQL database"
            )
        return self

    @property
    def shared(self) -> str:
        """The name of this node where several share ledger and spool; empty for the only one."""
        if not self.ledger.url.get_secret_value().startswith("postgresql"):
            return ""
        return self.ledger.node or socket.gethostname()

    @property
    def home(self) -> Path:
        """What of the spool is this node's alone: all of it, or a folder of its name."""
        return self.spool.path / "nodes" / self.shared if self.shared else self.spool.path

    def profile_for(self, sender: str) -> ResultProfile:
        """What the archive of ``sender`` gets; the default where none is configured."""
        return self.archives[self.senders[sender].archive].results if sender in self.senders else ResultProfile()

    def senders_of(self, archive: str) -> tuple[str, ...]:
        """Calling AE titles whose results go to an archive."""
        return tuple(title for title, sender in self.senders.items() if sender.archive == archive)

    @property
    def urgent_senders(self) -> tuple[str, ...]:
        """Calling AE titles whose series come first."""
        return tuple(title for title, sender in self.senders.items() if sender.priority == "stat")

    @property
    def expects_urgent(self) -> bool:
        """Whether some work is known to come before other work, so that a thread is kept free for it."""
        return bool(self.urgent_senders) or any(each.stat for each in self.routing.values())

    def destination_for(self, sender: str) -> Destination | None:
        """The archive that gets the results of ``sender`` (a calling AE title), or None where none is configured."""
        if sender not in self.senders:
            return None
        return self.destination(self.senders[sender].archive)

    def destination(self, archive: str) -> Destination:
        """Where an archive is, by its name here."""
        found = self.archives[archive]
        tls = None
        if found.tls is not None:
            tls = ClientTls(
                found.tls.authorities,
                found.tls.certificate or self.tls.certificate,
                found.tls.key or self.tls.key,
                found.tls.name,
            )
        web = found.web if found.send == "stow-rs" else None
        return Destination(archive, found.ae_title, found.host, found.port, tls, web)
