"""One run: a site, a fault, an audit, a line."""

import shutil
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any

from tests.faults.campaign.audit import Audited, Finding, Witnesses, audit
from tests.faults.campaign.fault import Fault
from tests.faults.campaign.scans import SERIES, slices
from tests.faults.campaign.world import Parts, World

Reference = Mapping[str, Mapping[str, str]]
"""By Series Instance UID of the images: the objects that come of them (`Audited.objects`)."""


@dataclass
class Run:
    """What came of a run."""

    seed: int
    fault: str
    database: str
    seconds: float = 0.0
    audited: Audited = field(default_factory=Audited)
    notes: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def ok(self) -> bool:
        """Whether nothing was found."""
        return not self.error and not self.audited.findings

    def as_json(self) -> dict[str, Any]:
        """The line of a run."""
        line = {"seed": self.seed, "fault": self.fault, "database": self.database, "ok": self.ok}
        line |= {"seconds": round(self.seconds, 1), **self.audited.as_json(), "notes": self.notes}
        return line | ({"error": self.error} if self.error else {})


def run(fault: Fault, seed: int, folder: Path, parts: Parts, reference: Reference) -> Run:
    """Do harm to a site, and look. The folder stays where something was found."""
    shutil.rmtree(folder, ignore_errors=True)
    random = Random(f"{fault.name} {seed}")
    world = World(folder, parts, random)
    fault.arrange(world, random)
    done = Run(seed, fault.name, world.database)
    began = time.monotonic()
    try:
        with world:
            world.send()
            try:
                fault.strike(world, random)
            finally:
                fault.relent(world)
            done.audited = look(world, reference)
    except Exception as error:  # a campaign goes on, and tells
        done.error = "".join(traceback.format_exception(error)[-3:])[-2000:]
    done.seconds = time.monotonic() - began
    done.notes = world.notes
    if done.ok:
        shutil.rmtree(folder, ignore_errors=True)
    return done


def look(world: World, reference: Reference | None) -> Audited:
    """Wait until all has ended, send a study once more, stop the nodes, and audit the site."""
    settled = world.settle()
    if world.again and settled:
        world.send_again(next(iter(world.series.values()))[0])
    world.tell()
    codes = world.stop()
    ledger = world.ledger_url or str(world.spool / "ledger.sqlite")
    sent = sorted(world.folder.glob("sent-*.jsonl"))
    found = audit(Witnesses(sent, world.spool, ledger, str(world.orthanc.rest.base_url)), reference)
    if not settled:
        found.findings.append(Finding("held", "not all work has ended in time"))
    found.findings += [Finding("unsound", f"a node ended with {code}") for code in codes if code]
    found.findings += [
        Finding("lost", f"{sender.name} got {sender.acknowledged} of {sender.wanted} acknowledged")
        for sender in world.senders
        if sender.acknowledged < sender.wanted
    ]
    found.findings += [Finding("unsound", f"the node tells of a bug: {text}") for text in world.bugs()]
    return found


def references(fault: Fault, folder: Path, parts: Parts) -> Reference:
    """What comes of all series without harm: nothing but what the fault arranges."""
    random = Random(0)
    world = World(folder, parts, random)
    world.series = {"CT1": list(range(0, SERIES, 2)), "CT2": list(range(1, SERIES, 2))}
    world.again = False
    fault.arrange(world, random)
    with world:
        world.send()
        found = look(world, None)
    if found.findings:
        raise AssertionError(f"a run without faults: {found.findings}")
    series = {row["key"]: row["series_uid"] for row in world.last_rows["series"]}
    numbers = {number for each in world.series.values() for number in each}
    reference: dict[str, dict[str, str]] = {slices(number)[0].series_uid: {} for number in numbers}
    for row in world.last_rows["results"]:
        if row["status"] == "superseded":  # before it was sent
            continue
        reference[series[row["series"]]][row["sop_instance_uid"]] = found.objects[row["sop_instance_uid"]]
    if not all(reference.values()):
        raise AssertionError("a run without faults has a series without results")
    shutil.rmtree(folder, ignore_errors=True)
    return reference
