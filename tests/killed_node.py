"""A node that is killed again and again while it is sent to, and a look at what it has kept then.

The look is without the node's own code: whatever that believes, this is what lies on the disk.
"""

import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from service.types import Destination
from tests.copies import data_set_of
from tests.running_node import SENDER, RunningNode, Section, free_ports
from tests.sent_images import Sender, SentImage
from tests.waiting import eventually

FRAGMENTS = (100_000, 4_000, 500)
"""Bytes of each fragment, a sender each: in large pieces, and in small ones."""
EARLY = 0.25
"""How likely it is that the next kill comes while the node starts."""
UNDER_LOAD_SECONDS = 1.0


@dataclass(frozen=True)
class Survived:
    """What became of a node and of what it was sent.

    Attributes
    ----------
    under_load, at_start
        How often it was killed, after it had acknowledged something, and before it listened.
    acknowledged, kept
        Images; those that were kept and not acknowledged are whole, too.
    written_over
        How many of those kept lie in a file that was there before.
    """

    under_load: int
    at_start: int
    acknowledged: int
    kept: int
    written_over: int


def node_to_kill(folder: Path, engines: Section, receivers: int = 1) -> RunningNode:
    """A node that receives, in so many processes, and does nothing else, as no series is ever over."""
    return RunningNode(
        folder,
        Destination("nowhere", "NOWHERE", "127.0.0.1", free_ports(1)[0]),
        sections={
            "node": {"receivers": receivers},
            "engines": engines,
            "archives.nowhere": {"count": "no"},
            "series": {"quiet_seconds": 3600.0, "quiet_ceiling_seconds": 3600.0, "limit_seconds": 7200.0},
            "spool": {"ready_mb": 64},
        },
    )


def kill_often(
    node: RunningNode, kills: int, seed: int, watch: Callable[[str, int, int], None] = lambda *_: None
) -> Survived:
    """Kill a node so often under load, at moments that follow from a seed, and between at its start; then look.

    Raises
    ------
    AssertionError
        Something that was acknowledged is not there as it was sent, or something else is.
    """
    moments = random.Random(seed)
    at_start, started_seconds = 0, 5.0
    with sending(node, seed) as senders:
        for kill in range(kills):
            watch("killed", kill, kills)
            while moments.random() < EARLY:
                launch(node)
                time.sleep(moments.uniform(0, started_seconds))
                node.kill()
                at_start += 1
            before, began = [sender.acknowledged for sender in senders], time.monotonic()
            launch(node)
            eventually(lambda before=before: all_get_on(node, senders, before), "all senders get on")  # type: ignore[misc]
            started_seconds = time.monotonic() - began
            time.sleep(moments.uniform(0, UNDER_LOAD_SECONDS))
            node.kill()
    node.start()  # puts in order what the last life has left
    assert node.terminate() == 0
    kept = looked_at(node.spool, senders)
    written_over = sum(preamble != bytes(128) for preamble in map(preamble_of, kept))
    series = {row["series_uid"] for row in node.rows("SELECT series_uid FROM series")}
    for sender in senders:
        assert {sender.image(index).series_uid for index in range(sender.acknowledged)} <= series
    acknowledged = sum(sender.acknowledged for sender in senders)
    return Survived(kills, at_start, acknowledged, len(kept), written_over)


def launch(node: RunningNode) -> None:
    """Start it, with files that are ready to be written over: it would make them only after a while without load."""
    (node.spool / "ready").mkdir(parents=True, exist_ok=True)
    for folder in (node.spool / "ready", *node.spool.glob("receivers/*/ready")):
        for number in range(100 - len(list(folder.iterdir()))):
            name = f"{time.monotonic_ns()}-{number}"
            (folder / name).write_bytes(bytes((4096, 12_288, 36_864, 135_168, 528_384)[number % 5]))
    node.launch()


@contextmanager
def sending(node: RunningNode, seed: int) -> Iterator[list[Sender]]:
    """Senders that send all the time."""
    port = node.destination.port
    senders = [Sender(port, SENDER, seed, number, size) for number, size in enumerate(FRAGMENTS, 1)]
    for sender in senders:
        sender.start()
    try:
        yield senders
    finally:
        for sender in senders:
            sender.end()


def all_get_on(node: RunningNode, senders: list[Sender], before: list[int]) -> bool:
    """Whether each sender has more acknowledged than before."""
    assert node.alive, "the node ended:\n" + "\n".join(map(str, node.events[-5:]))
    for sender in senders:
        assert not sender.refusal, f"0x{sender.refusal:04X}"
    return all(sender.acknowledged > count for sender, count in zip(senders, before, strict=True))


def looked_at(spool: Path, senders: list[Sender]) -> list[Path]:
    """The files that lie there: all that was acknowledged, each whole and once, and no other but what was sent."""
    files = list(spool.glob("series/*/*"))
    kept = Counter(map(image_in, files))
    acknowledged = {sender.image(index) for sender in senders for index in range(sender.acknowledged)}
    sent = {sender.image(index) for sender in senders for index in range(sender.sent)}
    assert not acknowledged - kept.keys(), "acknowledged, and not there"
    assert not kept.keys() - sent, "there, and never sent"
    assert set(kept.values()) == {1}, "there twice"
    for folder in ("incoming", "quarantine"):
        assert not list((spool / folder).iterdir())
    return files


def image_in(path: Path) -> SentImage:
    """Which image a file holds. Raises `AssertionError` where it does not hold all of it, or more."""
    read = pydicom.dcmread(path)
    meta, image = read.file_meta, SentImage.of(read.SOPInstanceUID)
    assert (meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID) == (CTImageStorage, image.uid)
    assert meta.TransferSyntaxUID == ExplicitVRLittleEndian
    assert len(read.PixelData) == 2 * read.Rows * read.Columns
    assert data_set_of(path) == image.data_set, f"{path} is not what was sent"
    return image


def preamble_of(path: Path) -> bytes:
    """Where the node says that it wrote over a file (docs/receive.md)."""
    with path.open("rb") as file:
        return file.read(128)
