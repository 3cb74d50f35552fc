"""What the status of a C-STORE says of an object (PS3.4 table B.2-1, PS3.7 Annex C)."""

from enum import Enum

SOP_CLASS_NOT_SUPPORTED = 0x0122

_DUPLICATE = 0x0111
_RESOURCES = 0x0213
_WARNINGS = (0x0001, 0x0107, 0x0116)


class Verdict(Enum):
    """What became of an object."""

    TAKEN = "taken"
    WARNED = "taken, with a warning"
    UNSUPPORTED = "not taken: neither this SOP class nor what it is encoded in would ever be"
    LATER = "not taken for now"
    REFUSED = "not taken for good"


def verdict(status: int) -> Verdict:
    """What a status says.

    One of an object that the archive has already (0x0111) has been taken, and our answer to it was lost: its UID tells
    that it is the same.
    """
    if status == 0:
        return Verdict.TAKEN
    if status & 0xF000 == 0xB000 or status in _WARNINGS or status == _DUPLICATE:
        return Verdict.WARNED
    if status == SOP_CLASS_NOT_SUPPORTED:
        return Verdict.UNSUPPORTED
    if status & 0xFF00 == 0xA700 or status == _RESOURCES:
        return Verdict.LATER
    return Verdict.REFUSED
