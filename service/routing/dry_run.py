"""``wetread route``: what would happen if the files of a folder were sent to the node. Nothing is stored or run."""

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from pydicom.filereader import read_file_meta_info
from pydicom.uid import UID

from engines.packages.package import ModelPackage
from engines.types import Image, Volume
from service.errors import Quarantined
from service.fingerprint import fingerprint
from service.header import HeaderFacts, facts_of
from service.receive.contexts import stores, stores_encoded
from service.routing.models import EVERYTHING, Refusal, route
from service.series.assembly import assemble
from service.series.facts import ImageFacts
from service.settings import NodeSettings, Settings
from service.spool import key_of
from service.versions import Duplicates

Watch = Callable[[str, int, int], object]
"""Is told what is being done, how much of it is done, and how much there is."""

SHOWN_TILT = 0.1
"""Gantry tilt in degrees from which on it is worth a word."""

_AGAIN: Mapping[Duplicates, str] = {
    "keep-first": "kept in quarantine: an earlier file of the same instance has another content",
    "keep-last": "replaced by a later file of the same instance",
    "reject": "rejected: an earlier file of the same instance has another content",
}


@dataclass(frozen=True)
class Counted:
    """So many instances share a reason; ``faulty`` where they would go to quarantine."""

    instances: int
    reason: str
    faulty: bool


@dataclass(frozen=True)
class PlannedItem:
    """One image: what it is, which models would run on it, and why the others would not."""

    key: str
    description: str
    notes: tuple[str, ...]
    models: tuple[str, ...]
    refusals: Mapping[str, Refusal]

    @property
    def faulty(self) -> bool:
        """Nothing runs, though a model is meant for such images: an operator would have to look."""
        return not self.models and any(refusal.faulty for refusal in self.refusals.values())


@dataclass(frozen=True)
class PlannedSeries:
    """One series; ``problem`` says why no image could be made of it, where that is so."""

    key: str
    series_uid: str
    modality: str
    instances: int
    items: tuple[PlannedItem, ...] = ()
    left_out: tuple[Counted, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class DryRun:
    """All that would happen.

    Attributes
    ----------
    sender
        The calling AE title that was assumed; empty for none.
    destination
        Where results would go, or why nowhere.
    has_destination
        Whether they would go somewhere.
    series
        In the order of their first files.
    apart
        What would not even become part of a series: refused when it is sent, or quarantined when it comes.
    others
        Number of files that are not DICOM.
    """

    sender: str
    destination: str
    has_destination: bool
    series: tuple[PlannedSeries, ...]
    apart: tuple[Counted, ...]
    others: int


@dataclass
class _Arrivals:
    """What came of one series: its files by SOP Instance UID, and their contents' fingerprints."""

    facts: HeaderFacts
    files: dict[str, Path] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    again: Counter[str] = field(default_factory=Counter)


def dry_run(
    path: Path, packages: Mapping[str, ModelPackage], settings: Settings | None, sender: str, watch: Watch
) -> DryRun:
    """Read a file, or all files of a folder and below, as if they had just been received.

    Parameters
    ----------
    packages
        The models that are served.
    settings
        The configuration, or None where there is none: results have nowhere to go then, and nothing is narrowed.
    sender
        The calling AE title; empty for the first one of the configuration.
    """
    if settings is not None and not sender:
        sender = next(iter(settings.senders), "")
    taken = Settings() if settings is None else settings
    series, apart, others = _receive(_files(path), taken, watch)
    total, done = sum(len(each.files) for each in series.values()), 0
    planned = []
    for key, arrivals in series.items():
        watch("assembling", done, total)
        planned.append(_plan(key, arrivals, packages, sender, settings))
        done += len(arrivals.files)
        watch("assembling", done, total)
    has_destination, destination = _destination(settings, sender)
    return DryRun(sender, destination, has_destination, tuple(planned), apart, others)


def _files(path: Path) -> list[Path]:
    return [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())


def _receive(
    files: Sequence[Path], settings: Settings, watch: Watch
) -> tuple[dict[str, _Arrivals], tuple[Counted, ...], int]:
    """What the node would do with the files: series, what is no part of one, and what is not DICOM."""
    series: dict[str, _Arrivals] = {}
    apart: Counter[tuple[str, bool]] = Counter()
    others = 0
    for number, file in enumerate(files):
        watch("reading headers", number, len(files))
        try:
            if not _is_dicom(file):
                others += 1
            elif refusal := _refusal(file, settings.node):
                apart[refusal, False] += 1
            else:
                _arrive(series, file, settings.spool.duplicates)
        except Quarantined as error:
            apart[str(error), True] += 1
        except OSError as error:
            apart[f"the file cannot be read ({error.strerror})", False] += 1
    watch("reading headers", len(files), len(files))
    return series, _counted(apart), others


def _is_dicom(file: Path) -> bool:
    """Whether it is a DICOM file (PS3.10 7.1), which `wetread send` would send."""
    with file.open("rb") as content:
        return content.read(132)[128:] == b"DICM"


def _refusal(file: Path, node: NodeSettings) -> str:
    """Why the node would not accept the presentation context; empty where it would, or the file does not say."""
    try:
        meta = read_file_meta_info(file)
        sop_class, syntax = UID(str(meta.MediaStorageSOPClassUID)), UID(str(meta.TransferSyntaxUID))
    except Exception:  # whatever is wrong with it, `facts_of` says
        return ""
    if not stores(sop_class, node):
        return f"{sop_class.name or 'no SOP class'}: the node does not accept this SOP class"
    if not stores_encoded(syntax, node):
        return f"{syntax.name}: the node does not accept this transfer syntax"
    return ""


def _arrive(series: dict[str, _Arrivals], file: Path, duplicates: Duplicates) -> None:
    """File it under its series. Raises `Quarantined`."""
    facts, digest = facts_of(file), fingerprint(file)
    arrivals = series.setdefault(key_of(facts.study_uid, facts.series_uid), _Arrivals(facts))
    uid = facts.sop_instance_uid
    if uid in arrivals.files:
        same = arrivals.digests[uid] == digest
        arrivals.again["the same instance again" if same else _AGAIN[duplicates]] += 1
        if same or duplicates != "keep-last":
            return
    arrivals.files[uid], arrivals.digests[uid] = file, digest


def _plan(
    key: str, arrivals: _Arrivals, packages: Mapping[str, ModelPackage], sender: str, settings: Settings | None
) -> PlannedSeries:
    narrowing = EVERYTHING if settings is None else settings.routing
    assembly = assemble(sorted(arrivals.files.values()))
    items = []
    for item in assembly.items:
        models, refusals = route(item.facts, packages, sender, narrowing)
        items.append(PlannedItem(item.key, _describe(item.image, item.facts), item.notes, tuple(models), refusals))
    left_out = Counter((each.reason, each.faulty) for each in assembly.left_out)
    left_out.update({(reason, False): count for reason, count in arrivals.again.items()})
    problem = "" if any(item.models for item in items) else "; ".join(assembly.refused)
    facts = arrivals.facts
    return PlannedSeries(
        key, facts.series_uid, facts.modality, len(arrivals.files), tuple(items), _counted(left_out), problem
    )


def _counted(reasons: Mapping[tuple[str, bool], int]) -> tuple[Counted, ...]:
    return tuple(Counted(count, reason, faulty) for (reason, faulty), count in reasons.items())


def _describe(image: Image, facts: ImageFacts) -> str:
    rows, columns = image.array.shape[-2:]
    if isinstance(image, Volume):
        spacing = " × ".join([_apart(image, facts), *(f"{step:.2f}" for step in image.spacing[1:])])
        tilt = f"tilted by {facts.tilt_degrees:.1f}°" if facts.tilt_degrees >= SHOWN_TILT else ""
        size = f"{len(image.sources)} slices of {rows} × {columns}"
        return ", ".join(_filled([size, facts.plane, f"{spacing} mm", tilt]))
    spacing = "spacing unknown" if image.spacing is None else f"{image.spacing[0]:.2f} × {image.spacing[1]:.2f} mm"
    return ", ".join(_filled([f"X-ray of {rows} × {columns}", facts.view, spacing]))


def _apart(volume: Volume, facts: ImageFacts) -> str:
    """How far neighbouring slices are apart along their normal, in mm: the least and the largest, where they differ."""
    steps = np.ones(1) if volume.at is None else np.diff(volume.at)
    apart = steps * volume.spacing[0] * math.cos(math.radians(facts.tilt_degrees))
    least, largest = f"{apart.min():.2f}", f"{apart.max():.2f}"
    return least if least == largest else f"{least} to {largest}"


def _filled(texts: Iterable[str]) -> Iterator[str]:
    return (text for text in texts if text)


def _destination(settings: Settings | None, sender: str) -> tuple[bool, str]:
    """Whether results would go somewhere, and where, or why not."""
    if settings is None:
        return False, "nowhere: no configuration; --config names one, `wetread init` writes one"
    if to := settings.destination_for(sender):
        return True, f"{to.name} ({to.ae_title} at {to.host}:{to.port})"
    if settings.node.accept_unknown_senders:
        return False, f"nowhere: {sender or 'an unknown sender'} has no archive; add a table [senders.AETITLE]"
    return False, f"nowhere: {sender or 'every sender'} would be rejected; add a table [senders.AETITLE]"
