"""Is this configuration right: what `wetread check` looks at."""

import json
import socket
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydicom.uid import generate_uid

from engines.serving.engine_set import open_engines
from engines.serving.opening import settled
from service.archive.client import ArchiveClient
from service.deliver.capabilities import Capabilities, accepted
from service.deliver.commitment import require_commitment
from service.deliver.scu import echo
from service.deliver.stow import StowRs
from service.errors import ConfigurationError, WetreadError
from service.operate.certificates import looked_at
from service.operate.fetch_way import sender_of, way_of
from service.results.storage import all_storages, fallback
from service.room import RESUME
from service.served import engine_spec, served_packages
from service.settings import ArchiveSettings, Settings, load
from service.shared_spool import open_spool
from service.types import Destination
from service.wire import Patience


@dataclass(frozen=True)
class Line:
    """One thing that was looked at, and how it is."""

    ok: bool
    what: str
    finding: str


def inspect(config: Path) -> Iterator[Line]:
    """Look at everything that `wetread serve` will need; each wrong line names the key, the value and the fix."""
    try:
        settings = load(config)
    except ConfigurationError as error:
        for message in str(error).splitlines():
            yield Line(False, "configuration", message)
        return
    yield Line(True, "configuration", f"{config} is valid")
    yield from _senders(settings)
    yield from (Line(ok, "tls", finding) for ok, finding in looked_at(settings))
    yield _spool(settings)
    if version := _running(settings):
        yield Line(True, "node", f"a wetread node ({version}) runs with these ports")
    else:
        if not settings.tls.only:
            yield _port("node.port", settings.node.host, settings.node.port)
        if settings.tls.on:
            yield _port("tls.port", settings.node.host, settings.tls.port)
        if settings.stow.enabled:
            yield _port("stow.port", settings.stow.host, settings.stow.port)
        yield _port("http.port", settings.http.host, settings.http.port)
    for name, archive in settings.archives.items():
        yield from _refused(settings, name)
        if archive.send == "stow-rs":
            yield _web(settings.destination(name))
        try:
            echo(settings.destination(name), settings.node.ae_title)
        except WetreadError as error:
            yield Line(False, f"archive {name}", f"archives.{name}: {error}")
        else:
            yield Line(True, f"archive {name}", f"{archive.ae_title} at {archive.host}:{archive.port} answers C-ECHO")
            if archive.send == "c-store":
                yield _takes(settings.destination(name), archive, settings.node.ae_title)
            if archive.commitment in ("auto", "require"):
                yield _commits(settings.destination(name), archive, settings.node.ae_title)
            if archive.count != "no":
                yield _asked(settings.destination(name), archive, settings.node.ae_title)
    yield from _fetches(settings)
    yield from _models(settings)


def _senders(settings: Settings) -> Iterator[Line]:
    if settings.senders:
        routes = ", ".join(f"{title} → {sender.archive}" for title, sender in settings.senders.items())
        yield Line(True, "senders", routes)
    elif settings.node.accept_unknown_senders:
        yield Line(False, "senders", "none: results have nowhere to go; add [senders.AETITLE] with an archive")
    else:
        yield Line(False, "senders", "none: every association will be rejected; add [senders.AETITLE] with an archive")
    if settings.node.accept_unknown_senders:
        yield Line(True, "senders", "node.accept_unknown_senders = true: anybody who reaches the port may send")
    if settings.node.host in ("127.0.0.1", "localhost", "::1"):
        yield Line(True, "node.host", f"{settings.node.host}: only this machine can send; '0.0.0.0' opens it to others")


def _takes(to: Destination, archive: ArchiveSettings, ae_title: str) -> Line:
    """Whether an archive takes the results as its profile has them."""
    name, what = to.name, f"archive {to.name} results"
    try:
        takes = accepted(to, ae_title, all_storages())
    except WetreadError as error:
        return Line(False, what, f"archives.{name}: {error}")
    profile, replaced = fallback(archive.results, takes.__contains__)
    if not profile.objects:
        return Line(False, what, f"takes none of {', '.join(archive.results.objects)}; nothing can be delivered there")
    kinds = ", ".join(profile.objects)
    if replaced:
        # it goes on with what the archive takes, so that is wrong only where somebody has asked for the other
        fix = f"correct [archives.{name}.results], or let {archive.ae_title} accept these SOP classes"
        return Line("results" not in archive.model_fields_set, what, f"gets {kinds}: {'; '.join(replaced)}; {fix}")
    return Line(True, what, f"takes {kinds}")


def _refused(settings: Settings, name: str) -> Iterator[Line]:
    """What an archive has refused when it was sent it; where there is a spool that says so."""
    learnt = Capabilities(settings.node.ae_title, settings.spool.path).refusals(settings.destination(name))
    if learnt:
        what = f"has refused within the last day, and gets in other forms: {', '.join(learnt)}"
        yield Line(True, f"archive {name} results", what)


def _web(to: Destination) -> Line:
    """Whether the DICOMweb services that results go to let this node in."""
    assert to.web is not None
    try:
        StowRs(to.name, to.web, to.tls, Patience()).require_open()
    except WetreadError as error:
        return Line(False, f"archive {to.name} results", str(error))
    return Line(True, f"archive {to.name} results", f"go by STOW-RS to {to.web.url}, which lets this node in")


def _commits(to: Destination, archive: ArchiveSettings, ae_title: str) -> Line:
    """Whether an archive takes requests for storage commitment; that its reports arrive only a real one shows."""
    what = f"archive {to.name} commitment"
    try:
        require_commitment(to, ae_title)
    except WetreadError as error:
        if archive.commitment == "require":
            fix = f'archives.{to.name}.commitment = "auto" asks whether it lists what it was sent'
            return Line(False, what, f"{error}; {fix}")
        return Line(True, what, f"none ({error}); it is asked whether it lists what it was sent")
    return Line(True, what, f"takes requests; its reports come to {ae_title}, whose host and port it must know")


def _asked(to: Destination, archive: ArchiveSettings, ae_title: str) -> Line:
    """Whether an archive answers what the node asks about a series, with one that nobody has."""
    name, what = to.name, f"archive {to.name} count"
    try:
        ArchiveClient(to, archive, ae_title).instances(generate_uid(), generate_uid())
    except WetreadError as error:
        # a series can be found complete without it, so that is wrong only where somebody has set it
        chosen = bool({"count", "fetch"} & archive.model_fields_set)
        fix = f'without it series wait longer; archives.{name}.count = "no" where that is how it should be'
        return Line(not chosen, what, f"cannot be asked: {error}; {fix}")
    ways = {"no": "missing images are not fetched", "c-move": f"missing images come by c-move, to {ae_title}"}
    fetch = ways.get(archive.fetch, f"missing images come by {archive.fetch}")
    return Line(True, what, f"can be asked what a series has ({archive.count}); {fetch}")


def _fetches(settings: Settings) -> Iterator[Line]:
    """Whether the rules by which studies are fetched name what is there."""
    for name, rule in settings.fetch.items():
        try:
            by = way_of(settings, rule.archive, rule.by or "")
            whose = sender_of(settings, rule.archive, by, rule.sender or "")
        except ConfigurationError as error:
            yield Line(False, f"fetch {name}", f"fetch.{name}: {error}")
            continue
        what = "studies that it lists" if rule.studies == "found" else "earlier studies of what was received"
        when = f"every {rule.every_minutes:g} minutes" + "".join(f", {window}" for window in rule.windows)
        yield Line(True, f"fetch {name}", f"{what}, from {rule.archive} by {by}, {when}; results as for {whose}")


def _spool(settings: Settings) -> Line:
    try:
        free = open_spool(settings).free_bytes()
    except WetreadError as error:
        return Line(False, "spool", str(error))
    enough = free > RESUME * (settings.spool.reserve_mb << 20)
    fix = "" if enough else "; nothing would be taken: make room, or lower spool.reserve_mb"
    store = f"; {settings.spool.url} takes and gives" if settings.spool.url else ""
    return Line(enough, "spool", f"spool.path = {settings.spool.path}: {free / 1e9:.1f} GB free{fix}{store}")


def _running(settings: Settings) -> str | None:
    """The version of the node that serves ``/health`` where this one would, if there is one."""
    try:
        with urllib.request.urlopen(f"http://{settings.http.host}:{settings.http.port}/health", timeout=2) as answer:
            return str(json.load(answer)["version"])
    except (OSError, ValueError, KeyError):
        return None


def _port(key: str, host: str, port: int) -> Line:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            fix = "end what listens there (a running node?), or choose another port"
            return Line(False, key, f"{key} = {port} on {host}: {error.strerror}; {fix}")
    return Line(True, key, f"{host}:{port} is free")


def _models(settings: Settings) -> Iterator[Line]:
    try:
        packages = served_packages(settings)
    except WetreadError as error:
        yield Line(False, "models", str(error))
        return
    for name, narrowing in settings.routing.items():
        keys = ", ".join(sorted(narrowing.model_fields_set)) or "nothing"
        yield Line(True, f"routing {name}", f"narrowed by {keys}" if narrowing.enabled else "off")
    spec = engine_spec(settings)
    asked_for = settled(spec.settings, spec.fallback)
    for name, package in packages.items():
        # one that is cropped to another needs that one beside it
        wanted = {name: package} | {other: packages[other] for other in (package.input.crop_to,) if other}
        try:
            with open_engines(wanted, asked_for) as engines:
                served = engines.models[name]
                engine = served.engine.identity
                found = f"verified on {engine.runtime}, {engine.precision}, {engine.device}"
                yield Line(True, f"model {name}", "; not on ".join([found, *served.refusals]))
        except WetreadError as error:
            yield Line(False, f"model {name}", str(error))
