"""Which version of an instance counts, where another content came under a SOP Instance UID that was known.

::

    INSTANCE.dcm         the first version
    INSTANCE+1.dcm       what replaced it, INSTANCE+2.dcm what replaced that
    INSTANCE.replaced    the fingerprint of each content that was replaced, one a line

The number of lines is the number of the version that counts. So a file never changes under its name, whoever holds a
list of files holds a list of contents, and one write (of ``INSTANCE.replaced``) makes the next version count: before
it the old one does, after it the new one, whenever the machine stops. What differs in its encoding only is no other
content (`service.fingerprint`): an archive may pass on what it got from a scanner with other lengths and padding.
"""

import hashlib
import os
from collections.abc import Callable, Iterable
from enum import Enum
from pathlib import Path

from service.durable import replace_file, sync_folder
from service.fingerprint import fingerprint

REPLACED = ".replaced"
CORRECTED_REASON = (
    "replaced by a corrected instance with the same SOP Instance UID, which is used instead; "
    "release this one to use it again"
)
"""Why the earlier version is in quarantine, and what to do."""


class Stored(Enum):
    """What became of an instance that was to be stored."""

    NEW = "new"
    DUPLICATE = "duplicate"
    """The same content is there already, or was there before it was corrected."""
    CORRECTED = "corrected"
    """Another content was there under the same UID; this one counts now, and that is in quarantine."""


def replaced(folder: Path, instance: str) -> list[str]:
    """The fingerprints of the contents of an instance that no longer count, oldest first."""
    try:
        return (folder / f"{instance}{REPLACED}").read_text().split()
    except FileNotFoundError:
        return []


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


def place(folder: Path, instance: str, part: Path, keep: Callable[[bytes], None], again: bool) -> Stored:
    """Give a file that is written and synced its place among the versions of its instance.

    Only one at a time may do so for an instance. The folder's entries are not synced where nothing is replaced.

    Parameters
    ----------
    part
        The file; it stays where it is.
    keep
        Keeps the content that is about to be replaced.
    again
        Let a content count that was replaced before.
    """
    before = replaced(folder, instance)
    target = _version(folder, instance, len(before))
    new = part.read_bytes()
    came_before = bool(before) and fingerprint(new) in before  # it costs a parse, so only where it may matter
    if not target.exists():
        if came_before:  # the one that replaced it was forgotten; this one must not bear its number
            _replace(folder, instance, part, fingerprint(new))
        else:
            os.link(part, target)
        return Stored.NEW
    old = target.read_bytes()
    if old == new or (came_before and not again) or fingerprint(old) == fingerprint(new):
        return Stored.DUPLICATE
    keep(old)
    _replace(folder, instance, part, fingerprint(old))
    return Stored.CORRECTED


def _replace(folder: Path, instance: str, part: Path, old: str) -> None:
    before = replaced(folder, instance)
    target = _version(folder, instance, len(before) + 1)
    target.unlink(missing_ok=True)  # left by a stop before it counted
    os.link(part, target)
    sync_folder(folder)
    lines = "".join(f"{each}\n" for each in (*before, old))
    replace_file(folder / f"{instance}{REPLACED}", lambda file: file.write(lines.encode()))
    _version(folder, instance, len(before)).unlink(missing_ok=True)


def forget_versions(folder: Path) -> None:
    """Remove the instances of a folder, but not the record of what was replaced: versions are never counted anew."""
    for path in folder.glob("*.dcm"):
        path.unlink()
    if not any(folder.iterdir()):
        folder.rmdir()


def _version(folder: Path, instance: str, number: int) -> Path:
    return folder / (f"{instance}+{number}.dcm" if number else f"{instance}.dcm")


def instance_of(path: Path) -> str:
    """The instance that a file is a version of."""
    return path.stem.partition("+")[0]
