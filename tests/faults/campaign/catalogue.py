"""All faults by name."""

from tests.faults.campaign import processes
from tests.faults.campaign.fault import Fault

FAULTS: dict[str, type[Fault]] = {
    fault.name: fault
    for fault in (
        processes.KilledInReceive,
        processes.KilledInAssemble,
        processes.KilledInInfer,
        processes.KilledInEncode,
        processes.KilledInDeliver,
        processes.KilledInCommit,
        processes.KilledAtStart,
        processes.OneOfTwoKilled,
        processes.StoppedPastLease,
    )
}
"""A run with seed N has the fault number N modulo their number, in this order, unless one is asked for."""
