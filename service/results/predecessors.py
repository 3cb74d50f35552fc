"""What a new report takes the place of: the earlier reports of the same series and model (PS3.3 C.17.2)."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Predecessor:
    """An earlier report (SR) that was sent: its UIDs, and which version it was, counted from 1."""

    series_uid: str
    sop_class_uid: str
    sop_instance_uid: str
    version: int = 1


def version_of(predecessors: Sequence[Predecessor]) -> int:
    """Which version a result is that takes the place of these: 1 where there are none."""
    return 1 + max((earlier.version for earlier in predecessors), default=0)


def supersedes(what: str, predecessors: Sequence[Predecessor]) -> tuple[str, ...]:
    """Statement for the reader of a result (``what`` it is: report, segmentation); empty where it is the first."""
    if not predecessors:
        return ()
    earlier = f"an earlier {what}" if len(predecessors) == 1 else f"{len(predecessors)} earlier {what}s"
    return (f"Supersedes {earlier} of this series, made before further or corrected images came.",)
