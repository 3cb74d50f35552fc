"""Which version of an instance counts, where another content came under a SOP Instance UID that was known.

::

    INSTANCE.dcm         the first version
    INSTANCE+1.dcm       what replaced it, INSTANCE+2.dcm what replaced that
    INSTANCE.replaced    the fingerprint of each content that was replaced, one a line

The number of lines is the number of the version that counts. So a file never changes under its name, whoever holds a
list of files holds a list of contents, and one write (of ``INSTANCE.replaced``) makes the next version count: before
it the old one does, after it the new one, whenever the machine stops. Which one is to count is a setting, and an
operator's decision; the others are in quarantine. What differs in its encoding only is no other content
(`service.fingerprint`): an archive may pass on what it got from a scanner with other lengths and padding.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path
from typing import Literal

from service.durable import replace_file, sync_folder
from service.fingerprint import fingerprint
from service.quarantine import Quarantine
from service.received import Received
from service.record import PREAMBLE

REPLACED = ".replaced"
CORRECTED_REASON = (
    "replaced by a corrected instance with the same SOP Instance UID, which is used instead; "
    "release this one to use it again"
)
"""Why the earlier version is in quarantine, and what to do."""
BESIDE_REASON = (
    "another instance came first under the same SOP Instance UID, and is used (spool.duplicates); "
    "release this one to use it instead"
)
"""Why a later version is in quarantine, and what to do."""
_CHUNK = 1 << 20

Duplicates = Literal["keep-first", "keep-last", "reject"]
"""What is done with another content under a SOP Instance UID that is there: the first one goes on to count and the
other is kept in quarantine; or the other way round; or it is not taken."""


class Stored(Enum):
    """What became of an instance that was to be stored."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """The same content is there already, or was there before it was corrected."""
    CORRECTED = "corrected"
    """Another content was there under the same UID; this one counts now, and that is in quarantine."""
    BESIDE = "beside"
    """Another content is there under the same UID, and goes on to count; this one is in quarantine."""
    REJECTED = "rejected"
    """Another content is there under the same UID; this one is not kept."""


def replaced(folder: Path, instance: str) -> list[str]:
    """The fingerprints of the contents of an instance that no longer count, oldest first."""
    path = f"{folder}/{instance}{REPLACED}"
    return Path(path).read_text().split() if _is_there(path) else []


def current(folder: Path, instance: str) -> Path:
    """Where the version of an instance that counts lies, or would lie."""
    return _version(folder, instance, len(replaced(folder, instance)))


def all_current(folder: Path) -> list[Path]:
    """The file of each instance in a folder, sorted by name."""
    corrected = {path.stem: current(folder, path.stem) for path in folder.glob(f"*{REPLACED}")}
    return [
        path
        for path in sorted(folder.glob("*.dcm"))
        if path == corrected.get(instance_of(path), _version(folder, instance_of(path), 0))
    ]


def corrections(folder: Path) -> int:
    """How often an instance in a folder was replaced; it only grows."""
    return sum(len(path.read_text().split()) for path in folder.glob(f"*{REPLACED}"))


def revision(files: Iterable[Path]) -> str:
    """A name for the corrections that a list of current files rests on; empty where there are none."""
    names = sorted({path.name for path in files if "+" in path.name})
    return hashlib.sha256("\0".join(names).encode()).hexdigest()[:16] if names else ""


def holds(folder: Path, instance: str, received: Received) -> bool:
    """Whether the first version counts and is this one, byte for byte: then there is nothing to write."""
    if not _is_there(f"{folder}/{_name(instance, 0)}"):  # new; or corrected, and then `place` says what it is
        return False
    try:
        return _equal(current(folder, instance), received)
    except FileNotFoundError:  # replaced just now
        return False


def place(
    folder: Path,
    instance: str,
    received: Received,
    move: Callable[[str], object],
    quarantine: Quarantine,
    duplicates: Duplicates = "keep-first",
    again: bool = False,
) -> Stored:
    """Give what was received its place among the versions of its instance. Only one at a time may do so for one.

    It has to be written and synced before, so that where it lies now it survives a stop.

    Parameters
    ----------
    received
        Read only where there was an earlier version, and not after ``move``.
    move
        Gives the written file a name, under which there may be one that never counted; it is not called for what does
        not come to count. The entries of the folder are not synced where nothing is replaced.
    quarantine
        Where a content goes that does not count, or not any more. What is in it already and counts is of no use (it is
        truncated, say), and gives way to another content whatever the setting is.
    duplicates
        What is done where another content is there.
    again
        An operator's word: this content is to count, whatever was before.
    """
    before = replaced(folder, instance)
    path = f"{folder}/{_name(instance, len(before))}"  # most find nothing there: a path costs as much as looking
    came_before = bool(before) and fingerprint(received.whole()) in before  # costs a parse: only where it may matter
    if not _is_there(path):
        if came_before:  # the one that replaced it was forgotten; this one must not bear its number
            _replace(folder, instance, move, fingerprint(received.whole()))
        else:
            move(path)
        return Stored.NEW
    target = Path(path)
    if _equal(target, received) or (came_before and not again):
        return Stored.DUPLICATE
    old = fingerprint(target)
    if old == fingerprint(received.whole()):
        return Stored.DUPLICATE
    series = folder.name
    if again or duplicates == "keep-last" or quarantine.holds(series, target):
        quarantine.add(series, target, CORRECTED_REASON)
        _replace(folder, instance, move, old)
        return Stored.CORRECTED
    if duplicates == "reject":
        return Stored.REJECTED
    quarantine.add(series, received, BESIDE_REASON)
    return Stored.BESIDE


def _replace(folder: Path, instance: str, move: Callable[[str], object], old: str) -> None:
    before = replaced(folder, instance)
    target = _version(folder, instance, len(before) + 1)
    target.unlink(missing_ok=True)  # left by a stop before it counted
    move(str(target))
    sync_folder(folder)
    lines = "".join(f"{each}\n" for each in (*before, old))
    replace_file(folder / f"{instance}{REPLACED}", lambda file: file.write(lines.encode()))
    _version(folder, instance, len(before)).unlink(missing_ok=True)


def _is_there(path: str) -> bool:
    """Asked several times for each instance, and nearly always not so: `pathlib` would take several times as long."""
    try:
        os.stat(path)  # noqa: PTH116
    except FileNotFoundError:
        return False
    return True


def _equal(path: Path, received: Received) -> bool:
    """Whether a file has the same bytes, but for the preamble."""
    with path.open("rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size != received.length:
            return False
        content, position = received.whole(), file.seek(PREAMBLE)
        while chunk := file.read(_CHUNK):
            if chunk != content[position : position + len(chunk)].tobytes():  # views are compared one by one
                return False
            position += len(chunk)
    return True


def forget_versions(folder: Path, remove: Callable[[Path], object], before: float) -> None:
    """Remove the instances of a folder that were written before a moment (seconds since the epoch).

    The record of what was replaced stays: versions are never counted anew.
    """
    for path in folder.glob("*.dcm"):
        if path.stat().st_mtime < before:
            remove(path)
    if not any(folder.iterdir()):
        folder.rmdir()


def _version(folder: Path, instance: str, number: int) -> Path:
    return folder / _name(instance, number)


def _name(instance: str, number: int) -> str:
    return f"{instance}+{number}.dcm" if number else f"{instance}.dcm"


def instance_of(path: Path) -> str:
    """The instance that a file is a version of."""
    return path.stem.partition("+")[0]
