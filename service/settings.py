"""One typed tree of settings, read from ``wetread.toml``.

Every value can be overridden by an environment variable, ``WETREAD_NODE__PORT=11113`` for ``[node] port``.
"""

import socket
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self, cast

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    IPvAnyNetwork,
    SecretStr,
    StringConstraints,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from engines.packages.selection import RadiographSelection, VolumeSelection
from service.errors import ConfigurationError
from service.results.profile import ResultProfile
from service.types import ClientTls, Destination, Web

AETitle = Annotated[
    str, StringConstraints(strip_whitespace=True, min_length=1, max_length=16, pattern=r"^[ -\[\]-~]+$")
]
"""Application entity title: 1 to 16 characters of the default repertoire, no backslash (PS3.5 6.2, VR AE)."""

Port = Annotated[int, Field(ge=0, le=65535)]

DaySpan = Annotated[
    str, StringConstraints(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]-(([01][0-9]|2[0-3]):[0-5][0-9]|24:00)$")
]
"""A span of the day, ``HH:MM-HH:MM``; it may go over midnight."""

CertificateName = Annotated[
    str,
    StringConstraints(
        strip_whitespace=True,
        pattern=r"^(sha256:([0-9A-Fa-f]{2}:?){32}|(CN|O|OU|C|ST|L|DNS|IP|URI)=.+)$",
    ),
]
"""Which certificate: ``sha256:`` and its fingerprint, or names that it must bear: ``CN=ct1, O=Clinic``, ``DNS=ct1``."""


_SHORTEST_TOKEN = 16


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class NodeSettings(_Section):
    """``[node]``: who this node is, where it listens, whom it talks to."""

    ae_title: AETitle = "WETREAD"
    host: str = "127.0.0.1"
    port: Port = 11112
    accept_unknown_senders: bool = False
    accept_carried_along: bool = True
    """Store SR, SEG, secondary captures and the like that travel with a study; they are never processed."""
    accept_private: bool = False
    """Store instances of private SOP classes, and those in private transfer syntaxes; they are never processed."""
    maximum_pdu: Annotated[int, Field(ge=4096, le=1 << 20)] = 131072
    maximum_associations: Annotated[int, Field(ge=1)] = 50
    maximum_associations_per_sender: Annotated[int, Field(ge=1)] = 25
    """For each calling AE title, so that one sender that never ends its associations leaves room for the others."""
    receivers: Annotated[int, Field(ge=1, le=64)] = 1
    """Processes that receive. 1: the node itself; more: that many beside it, for many senders at once on many cores."""
    user_identity: Literal["ignore", "refuse", "require"] = "ignore"
    """What to do with the user that a sender may name (PS3.7 D.3.3.7). require: only with a name and passcode of
    ``users``."""
    users: dict[str, Annotated[SecretStr, Field(min_length=1)]] = {}
    """Passcodes by user name."""
    idle_seconds: Annotated[float, Field(gt=0)] = 60.0
    """For a peer to go on, within an association: with its next message, or with the one it is at, to which 1 s more is
    allowed for each KiB that has come of it."""
    artim_seconds: Annotated[float, Field(gt=0)] = 30.0
    """For a peer that has connected to ask for an association (PS3.8 9.1.5)."""
    association_seconds: Annotated[float, Field(gt=0)] = 14400.0
    """For an association as a whole."""

    @model_validator(mode="after")
    def _somebody_is_known(self) -> Self:
        if self.user_identity == "require" and not self.users:
            raise ValueError('node.user_identity = "require", and no user is known; add [node.users] with passcodes')
        return self


class SenderSettings(_Section):
    """``[senders.AETITLE]``: a known calling AE title and the archive that its results go to."""

    archive: str
    priority: Literal["routine", "stat"] = "routine"
    """stat: its series come before those of all others, at each stage and on the GPU."""
    addresses: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks that it sends from; empty for any."""
    certificates: tuple[CertificateName, ...] = ()
    """TLS client certificates that it sends with, any of these; empty for none or any that ``[tls]`` lets in."""


class TlsSettings(_Section):
    """``[tls]``: the second DICOM listener, for TLS (PS3.15 B.12). It is there where ``certificate`` is set."""

    port: Port = 2762
    certificate: Path | None = None
    """PEM file of the node's certificate, followed by those that lead to the authority. Read again when it changes."""
    key: Path | None = None
    """PEM file of its private key, not encrypted."""
    authorities: Path | None = None
    """PEM file of the authorities that sign the senders' certificates."""
    revoked: Path | None = None
    """PEM file of the lists in which each of these authorities says which certificates count no more (CRLs)."""
    clients: Literal["require", "optional", "none"] = "require"
    """Whether a sender must show a certificate; one that is shown must be right in any case but none."""
    only: bool = False
    """Do not listen without TLS."""
    handshake_seconds: Annotated[float, Field(gt=0, le=60)] = 10.0

    @property
    def on(self) -> bool:
        """Whether to listen with TLS."""
        return self.certificate is not None

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.certificate is None and (self.key or self.authorities or self.revoked or self.only):
            raise ValueError("tls.certificate is missing; name the PEM file of the node's certificate")
        if self.certificate is not None and self.key is None:
            raise ValueError("tls.key is missing; name the PEM file of the certificate's private key")
        if self.certificate is not None and self.clients != "none" and self.authorities is None:
            raise ValueError(
                "tls.authorities is missing; name the PEM file of the authorities that sign the senders' certificates, "
                'or set tls.clients = "none" where senders have no certificates'
            )
        return self


class ArchiveTlsSettings(_Section):
    """``[archives.NAME.tls]``: this archive is spoken to by TLS (PS3.15 B.12) on its port."""

    authorities: Path
    """PEM file of the authorities that sign the archive's certificate. Files are read for each association."""
    certificate: Path | None = None
    """PEM file of the certificate that it is shown; default: that of ``[tls]``, or none."""
    key: Path | None = None
    """PEM file of its private key, not encrypted."""
    name: str = ""
    """Which the archive's certificate must be for: a DNS name or an address; default: its host."""

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key go together; name both, or none for those of [tls]")
        return self


class ArchiveSettings(_Section):
    """``[archives.NAME]``: an archive that takes results by C-STORE, and can be asked about the series it sends."""

    ae_title: AETitle
    host: str
    port: Annotated[int, Field(ge=1, le=65535)]
    count: Literal["no", "c-find", "qido"] = "c-find"
    """How it is asked how many instances of a series it has. One that refuses is asked no more until a restart."""
    send: Literal["c-store", "stow-rs"] = "c-store"
    """How results are sent there."""
    fetch: Literal["no", "c-get", "c-move", "wado-rs"] = "no"
    """How instances are fetched that it has and that did not come. For c-move it must know this node's AE title."""
    dicomweb: Annotated[str, StringConstraints(pattern=r"^(https?://\S+)?$"), Field(validate_default=True)] = ""
    """Base URL of its DICOMweb services, for qido, wado-rs and stow-rs."""
    dicomweb_token: SecretStr = SecretStr("")
    """Bearer token that its DICOMweb services are shown."""
    dicomweb_user: str = ""
    """User name that they are shown instead, with ``dicomweb_password`` (basic authentication)."""
    dicomweb_password: SecretStr = SecretStr("")
    parallel: Annotated[int, Field(ge=1, le=16)] = 1
    """How many deliveries are at work at a time, each over an association of its own."""
    objects_per_second: Annotated[float, Field(ge=0)] = 0.0
    """It is sent no more than that; 0 for no limit."""
    megabytes_per_second: Annotated[float, Field(ge=0)] = 0.0
    windows: tuple[DaySpan, ...] = ()
    """When it is sent to, in local time: "19:00-06:00"; empty for always. What is begun is brought to its end."""
    answer_seconds: Annotated[float, Field(gt=0)] = 60.0
    """For it to answer each object."""
    commitment: Literal["auto", "require", "verify", "no"] = "auto"
    """How it is made sure that it has what it was sent. auto: by storage commitment; where it has none, or never
    reports, it is asked whether it lists the objects (as ``count`` says); where it does neither, they stay at sent.
    require: by storage commitment, or it is a dead letter. verify: only whether it lists them. no: not at all."""
    commitment_seconds: Annotated[float, Field(gt=0)] = 600.0
    """After so long without a report storage commitment is asked for again."""
    tls: ArchiveTlsSettings | None = None
    results: ResultProfile = ResultProfile()

    @field_validator("fetch")
    @classmethod
    def _fetch_follows_count(cls, value: str, info: ValidationInfo) -> str:
        if value != "no" and info.data.get("count") == "no":
            raise ValueError('only the count tells that something is missing; set count to "c-find" or "qido"')
        return value

    @field_validator("dicomweb")
    @classmethod
    def _dicomweb_where_needed(cls, value: str, info: ValidationInfo) -> str:
        for key, way in (("count", "qido"), ("fetch", "wado-rs"), ("send", "stow-rs")):
            if not value and info.data.get(key) == way:
                raise ValueError(f'{key} = "{way}" needs it; for example "http://pacs:8042/dicom-web"')
        return value.rstrip("/")

    @model_validator(mode="after")
    def _one_way_to_show_who_asks(self) -> Self:
        if self.dicomweb_user and self.dicomweb_token.get_secret_value():
            raise ValueError("dicomweb_token and dicomweb_user exclude each other; name one of them")
        if bool(self.dicomweb_user) != bool(self.dicomweb_password.get_secret_value()):
            raise ValueError("dicomweb_user and dicomweb_password go together; name both")
        return self

    @property
    def web(self) -> Web:
        """How its DICOMweb services are spoken to."""
        password = self.dicomweb_password.get_secret_value()
        return Web(self.dicomweb, self.dicomweb_token.get_secret_value(), self.dicomweb_user, password)


class SeriesSettings(_Section):
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


class EngineSettings(_Section):
    """``[engines]``: which models run, and on what."""

    runtime: Literal["auto", "openvino", "tensorrt", "rtx"] = "auto"
    """auto: what is installed and suits the GPU, where there is an NVIDIA driver; otherwise OpenVINO on the CPU."""
    precision: Literal["auto", "fp32", "fp16", "bf16", "int8"] = "auto"
    """auto: the fastest that a model has limits for: FP16 on a GPU; on a CPU INT8 or bf16 where it was shown to do."""
    models: tuple[str, ...] = ()
    """Names of the models to serve; empty for all that are found."""
    folders: tuple[Path, ...] = ()
    """Folders with further model packages, beside the shipped ones."""
    compiled: Path | None = None
    """Folder of the engines that ``wetread engines build`` wrote; default: ``engines`` in the spool."""
    threads: Annotated[int, Field(ge=0)] = 0
    """CPU threads for inference; 0 for all."""
    hint: Literal["latency", "throughput"] = "latency"
    """What OpenVINO arranges its threads for: all for one inference at a time, or some for each input of a batch."""
    devices: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1)] = (0,)
    """Numbers of the GPUs; each has a process of its own with all models."""
    batch: Annotated[int, Field(ge=1, le=256)] = 1
    """How many X-rays or patches run at once; more than 1 is for GPUs, and for CPUs with the hint throughput."""
    batch_seconds: Annotated[float, Field(ge=0, le=1)] = 0.005
    """How long one of them may wait for others."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    """How many images are worked on at a time: one is prepared while the network is at another."""
    memory_mb: Annotated[int, Field(ge=0)] = 0
    """What the engines of a device may take; the least recently used one makes room. 0: no limit, on a GPU what is
    free."""
    hang_seconds: Annotated[float, Field(gt=0)] = 300.0
    """After so long a single inference counts as hung: its process is ended, and the job is tried again."""
    verify_hours: Annotated[float, Field(gt=0)] = 24.0
    """How often every engine is compared with its golden outputs again."""
    build: bool = True
    """Build engines that are missing in the background, where there is a GPU; the CPU serves meanwhile."""


class RoutingSettings(VolumeSelection, RadiographSelection):
    """``[routing.MODEL]``: narrows which images a model runs on. The selection keys of its package can be given again
    (`engines.packages.selection`); both must agree, so nothing that the package excludes comes back.
    """

    enabled: bool = True
    """false: the model runs on nothing by itself; another one that crops to its segments still uses it."""
    senders: tuple[AETitle, ...] = ()
    """Calling AE titles; empty for all."""


class RetrySettings(_Section):
    """``[retry]``: what happens when an archive is away. The n-th retry waits ``first_seconds * 2**n``, at most
    ``longest_seconds``; after ``give_up_hours`` the work becomes a dead letter.
    """

    first_seconds: Annotated[float, Field(gt=0)] = 5.0
    longest_seconds: Annotated[float, Field(gt=0)] = 900.0
    give_up_hours: Annotated[float, Field(gt=0)] = 72.0


class HttpSettings(_Section):
    """``[http]``: where ``/health`` and ``/metrics`` are served."""

    host: str = "127.0.0.1"
    port: Port = 8080


class StowSettings(_Section):
    """``[stow]``: a second way in, STOW-RS (PS3.18 10.5)."""

    enabled: bool = False
    host: str = "127.0.0.1"
    port: Port = 8081
    tls: bool = False
    """HTTPS, with certificate, authorities and rules of ``[tls]``; else a proxy in front of it should do that."""
    tokens: dict[AETitle, SecretStr] = {}
    """Bearer tokens by sender, whose archive gets the results. A sender may show one of its certificates instead."""
    largest_mb: Annotated[int, Field(ge=1)] = 4096
    """What a single instance may have."""
    maximum_connections: Annotated[int, Field(ge=1)] = 16
    """Each may hold 16 MiB in memory."""
    idle_seconds: Annotated[float, Field(gt=0)] = 60.0
    """After so long without a byte a request is given up ..."""
    longest_seconds: Annotated[float, Field(gt=0)] = 3600.0
    """... and after so long in any case; what of it was whole is kept."""


class LogSettings(_Section):
    """``[log]``: ``json`` lines for a collector, ``console`` for a person."""

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class SpoolSettings(_Section):
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


class LedgerSettings(_Section):
    """``[ledger]``: where the record of every series and stage is kept."""

    url: SecretStr = SecretStr("")
    """Of its database; empty for a file in the spool (SQLite, one machine). ``postgresql://USER@HOST/NAME`` for several
    nodes; its password belongs into ``WETREAD_LEDGER__URL`` or a PGPASSFILE."""
    node: Annotated[str, StringConstraints(pattern=r"^([A-Za-z0-9][A-Za-z0-9._-]{0,63})?$")] = ""
    """This node's name among those that share the ledger, no two the same; a node that starts again under its name has
    its work back at once, without one after ``lease_seconds``."""
    lease_seconds: Annotated[float, Field(ge=60)] = 120.0
    """After so long without a sign of life a node's work is given to others."""
    history_days: Annotated[float, Field(gt=0)] = 90.0
    """How long is kept what was done on a series, after all of its work has ended. Its results are known for longer."""
    known_days: Annotated[float, Field(ge=0)] = 0.0
    """How long a series is known at all: one that comes again after that is analysed again, and its results bear the
    new date under the same UIDs. 0: for ever."""


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

    @property
    def urgent_senders(self) -> tuple[str, ...]:
        """Calling AE titles whose series come first."""
        return tuple(title for title, sender in self.senders.items() if sender.priority == "stat")

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
                found.tls.name or found.host,
            )
        web = found.web if found.send == "stow-rs" else None
        return Destination(archive, found.ae_title, found.host, found.port, tls, web)


def load(path: Path) -> Settings:
    """Read the settings of one file.

    Raises
    ------
    ConfigurationError
        The file cannot be read, is not TOML, or has a wrong key or value; one line for each, with the fix.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; `wetread init {path}` writes one") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    return parse(content, str(path))


def parse(content: dict[str, Any], origin: str) -> Settings:
    """Settings from a parsed document; ``origin`` names it in errors. Raises `ConfigurationError`."""
    try:
        return Settings(**content)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_lines(error, origin))) from None


def _lines(error: ValidationError, origin: str) -> Iterator[str]:
    for entry in error.errors(include_url=False):
        key = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(entry["loc"]))
            yield f"{origin}: {key} = {entry['input']!r}: no such key; remove it or use one of: {known}"
        elif entry["loc"][:2] in _PASSCODES or entry["loc"][-1:] in _ARCHIVE_PASSCODES:  # which are not shown
            yield f"{origin}: {key}: {entry['msg']}"
        elif entry["loc"] and (entry["type"] != "value_error" or not isinstance(entry["input"], dict)):
            yield f"{origin}: {key} = {entry['input']!r}: {entry['msg']}"
        else:  # of a table as a whole, which may hold passcodes
            words = entry["msg"].removeprefix("Value error, ")
            yield f"{origin}: {words}" if words.startswith(key) else f"{origin}: {key}: {words}"


_PASSCODES = (("node", "users"), ("stow", "tokens"), ("ledger", "url"))
_ARCHIVE_PASSCODES = (("dicomweb_token",), ("dicomweb_password",))


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where ``location`` (its last part unknown) points."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of a sender or archive: the table's entries all have one type
            continue
        annotation: Any = field.annotation
        model = cast(type[BaseModel], annotation.__args__[1] if hasattr(annotation, "__args__") else annotation)
    return sorted(model.model_fields)


TEMPLATE = """\
# Wetread: configuration. For research use only.
# Every key that is commented out shows its default. `wetread check` says what is right and what is wrong.

[node]
ae_title = "WETREAD"
# The address to listen on. Only this machine can reach 127.0.0.1; "0.0.0.0" listens on all interfaces.
# DICOM without TLS is readable on the wire: open it in a protected network only.
host = "127.0.0.1"
port = 11112
# accept_unknown_senders = false  # true: any calling AE title may send (its results have nowhere to go)
# accept_carried_along = true     # store SR, SEG, SC ... that travel with a study; they are never processed
# accept_private = false          # store private SOP classes and transfer syntaxes too; they are never processed
# maximum_pdu = 131072
# maximum_associations = 50
# maximum_associations_per_sender = 25
# receivers = 1                   # more: processes beside the node's that receive, for many senders on many cores
# idle_seconds = 60.0            # for a sender to go on; a message may take 1 s more for each KiB of it
# artim_seconds = 30.0            # from the connection to the request for an association
# association_seconds = 14400.0   # an association as a whole
# user_identity = "ignore"        # users that senders name: "refuse" them, or "require" one of [node.users]
#[node.users]
#ct1 = "a passcode"               # better with TLS: without, passcodes are readable on the wire

# A second listener with DICOM TLS (1.2 and 1.3), once there is a certificate; docs/security.md tells more.
[tls]
# certificate (a path)            # PEM file of this node's certificate; read again when it changes, as the others are
# key (a path)                    # PEM file of its private key, not encrypted
# authorities (a path)            # PEM file of the authorities that sign the senders' certificates
# revoked (a path)                # PEM file of their lists of revoked certificates (CRLs), one of each authority
# port = 2762
# clients = "require"             # senders show a certificate; "optional", or "none"
# only = false                    # true: do not listen without TLS
# handshake_seconds = 10.0

# Who may send, by calling AE title, and which archive gets the results.
[senders.ORTHANC]
archive = "orthanc"
# priority = "routine"            # "stat": comes before all others (an emergency department's scanner)
# addresses = []                  # only from these addresses and networks: ["10.1.0.0/16", "192.168.7.5"]
# certificates = []               # only with one of these by TLS: ["CN=ct1, O=Clinic", "sha256:9f86d0..."]

[archives.orthanc]
ae_title = "ORTHANC"
host = "127.0.0.1"
port = 4242
# count = "c-find"                # ask how many images a series has; "qido", or "no"
# fetch = "no"                    # fetch those that did not come: "c-get", "c-move" (it must know WETREAD), "wado-rs"
# send = "c-store"                # how results go there; "stow-rs"
# parallel = 1                    # deliveries at a time
# objects_per_second = 0.0        # no faster than that; 0: no limit
# megabytes_per_second = 0.0
# windows = []                    # only at these times of the day: ["19:00-06:00"]
# answer_seconds = 60.0           # for it to answer each object
# dicomweb = ""                   # for "qido", "wado-rs", "stow-rs": "http://127.0.0.1:8042/dicom-web"
# dicomweb_token = ""             # bearer token for these; or
# dicomweb_user = ""              # a user, with
# dicomweb_password = ""
# commitment = "auto"             # ask for storage commitment, or whether it lists what it was sent; "require" the
                                  # former (it must know WETREAD with host and port), "verify" the latter, or "no"
# commitment_seconds = 600.0      # after so long without its report, ask again

# A table [archives.orthanc.tls] has it spoken to by TLS. It needs authorities, a PEM file of who signs its certificate;
# certificate and key are what it is shown (those of [tls] by default), name is what its certificate is for (its host).

[archives.orthanc.results]
# What this archive gets. It is asked what it takes, and what it refuses is replaced or left out, with a note.
# objects = ["SEG", "SC", "SR"]   # also "PDF", "RTSTRUCT", "GSPS", "KO", "HEATMAP", "HEATMAP-SEG" (docs/results.md)
# segmentation = "binary"         # "labelmap", "labelmap-rle", "labelmap-jpeg-ls", "labelmap-jpeg-2000", "fractional"
# report = "comprehensive-3d"     # "comprehensive", "enhanced": older viewers know only these
# captures = 24                   # at most so many slices as secondary captures, beside the summary page
# uid_root = "2.25"               # a registered root of your own, for all UIDs of results

[spool]
# Received images, intermediate files, results and the ledger. Needs room for a day of images.
path = "{spool}"
# keep_hours = 24.0               # how long files stay after all work on a series has ended
# duplicates = "keep-first"       # other content under a known SOP Instance UID: an operator decides; "keep-last": it
                                  # counts, and its series runs again; "reject": it is not taken
# sync = "each"                   # "group": one sync for all that wait; "off": a power cut takes what was acknowledged
# ready_mb = 256                  # files that are ready to be written over: instances are durable sooner; 0: none
# reserve_mb = 1024               # stays free for the ledger and results; below it, senders have to try again later

# The record of every series and stage: a file in the spool, or a PostgreSQL server that several nodes share.
[ledger]
# url = ""                        # "postgresql://wetread@db/wetread"; with a password: in WETREAD_LEDGER__URL
# node = ""                       # this node's name among several; with one it has its work back at once at a restart
# lease_seconds = 120.0           # after so long without a sign of life a node's work is given to others
# history_days = 90.0             # how long is kept what was done on a series
# known_days = 0.0                # how long a series is known, so that nothing runs when it comes again; 0: for ever

[series]
# A series starts when there is evidence enough that it is whole; `wetread jobs show KEY` tells which there was.
# quiet_seconds = 2.0             # silence that is enough by itself; it grows with the pauses that a sender makes ...
# quiet_ceiling_seconds = 60.0    # ... up to this, and is this where slices seem to be missing
# limit_seconds = 120.0           # after such a silence it runs as it is, even where the archive has more
# silent_seconds = 300.0          # the same while an association that carried it stays open

[engines]
# runtime = "auto"                # "openvino" on the CPU, "tensorrt" or "rtx" (TensorRT for RTX) on an NVIDIA GPU
# precision = "auto"              # "fp32", "fp16" (GPU), "bf16", "int8": auto is the fastest that suits each model
# models = []                     # names of the models to serve; empty: all
# folders = []                    # folders with model packages of your own
# compiled (a path)               # folder of engines built elsewhere, and of caches; else "engines" in the spool
# threads = 0                     # CPU threads for inference; 0: all
# hint = "latency"                # all threads for one inference; "throughput": some for each input of a batch
# devices = [0]                   # numbers of the GPUs; each gets a process with all models
# batch = 1                       # X-rays or patches that run at once, for a GPU or hint = "throughput" ...
# batch_seconds = 0.005           # ... and how long one may wait for others
# parallel = 2                    # images that are worked on at a time
# memory_mb = 0                   # what the engines of one device may take; 0: no limit, on a GPU what is free
# hang_seconds = 300.0            # after so long a single inference is ended, and its job tried again
# verify_hours = 24.0             # how often engines are compared with their golden outputs again
# build = true                    # on a GPU: build missing engines in the background while the CPU serves

# Each model says which images it is meant for; here that can be narrowed, one table for each model, for example:
#[routing.ct-lung]
#senders = ["CT1"]                # only from these calling AE titles
#kernel = ["FC5*", "!*H"]         # only these; letter case does not matter, a leading ! excludes
#enabled = false                  # not at all
# docs/operating.md has all keys; `wetread route PATH` shows what would run on the images of a folder, and why not.

[retry]
# first_seconds = 5.0             # doubles with each attempt ...
# longest_seconds = 900.0         # ... up to this
# give_up_hours = 72.0

[http]
# host = "127.0.0.1"              # /health and /metrics
# port = 8080

# STOW-RS, a second way in: POST to http://HOST:PORT/studies
[stow]
# enabled = false
# host = "127.0.0.1"
# port = 8081
# tls = false                     # HTTPS, with what [tls] names; or leave it to a proxy
# largest_mb = 4096               # a single instance
# maximum_connections = 16
# idle_seconds = 60.0             # without a byte; and a whole request may take ...
# longest_seconds = 3600.0
#[stow.tokens]
#ORTHANC = "..."                  # bearer token of a sender; `openssl rand -hex 32` makes one

[log]
# format = "json"                 # or "console"
# level = "info"
"""
"""What ``wetread init`` writes."""
