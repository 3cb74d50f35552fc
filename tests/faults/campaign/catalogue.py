"""All faults by name."""

from tests.faults.campaign import archives, databases, machines, processes, reports
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
        processes.StoodStill,
        processes.KilledAtSystemCall,
        processes.EngineKilled,
        processes.EncoderKilled,
        machines.DiskFull,
        machines.ClockJumps,
        archives.Away,
        archives.AwayForHours,
        archives.Silent,
        archives.Slow,
        archives.Aborts,
        archives.NoRoom,
        archives.RefusesSeg,
        archives.RefusesSegWhenSent,
        archives.NeverCommits,
        reports.Reports,
        databases.SqliteLocked,
        databases.SqliteFull,
        databases.Restarted,
        databases.Gone,
        databases.ConnectionsKilled,
        databases.CutOff,
    )
}
"""A run with seed N has the fault number N modulo their number, in this order, unless one is asked for."""

LONG: dict[str, type[Fault]] = {fault.name: fault for fault in (archives.AwayForHoursWithFiveHundred,)}
"""Faults that take many minutes, and are run only where they are asked for by name."""
ALL = FAULTS | LONG
