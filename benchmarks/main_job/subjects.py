"""A node and its archive, a real Orthanc, as processes: with the node's own rules, and behind an idle timer."""

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.main_job.stages import Job, Taken, taken
from service.deliver.scu import send, sendable
from service.settings import SeriesSettings, SpoolSettings
from service.types import Destination
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import RunningNode, Section, free_ports

NODE, TIMER = "wetread", "idle timer of 60 s"
TIMER_SECONDS = 60.0
ARCHIVE, SCANNER = "ORTHANC", "SCANNER"
LOOK_SECONDS = 0.1
LONGEST_SECONDS = 300.0

_RELEASED_AND_NO_GAP = 0.7
"""Of the evidence that a series needs; silence gives the rest (`service.series.evidence`)."""


def sections(name: str, engines: Path) -> dict[str, Section]:
    """Settings that differ from those of the tests' nodes: all but the timer are what `wetread init` writes."""
    usual = SeriesSettings()
    series: Section = {
        "quiet_seconds": usual.quiet_seconds,
        "quiet_ceiling_seconds": usual.quiet_ceiling_seconds,
        "limit_seconds": usual.limit_seconds,
    }
    archive: Section = {"commitment": "require"}
    if name == TIMER:  # the node has none; so long a silence it needs with these
        unit = TIMER_SECONDS / (1 - _RELEASED_AND_NO_GAP)
        series = {"quiet_seconds": unit, "quiet_ceiling_seconds": unit, "limit_seconds": 2 * unit}
        archive = {**archive, "count": "no"}
    return {
        "series": series,
        "archives.orthanc": archive,
        "archives.orthanc.results": {"objects": ["SEG", "SC", "SR"]},
        "spool": {"ready_mb": SpoolSettings().ready_mb},
        "engines": {"models": [], "threads": 0, "compiled": str(engines)},
        "retry": {"first_seconds": 5.0, "longest_seconds": 900.0},
    }


@dataclass
class Subject:
    """A node that works, its archive, and what was sent last."""

    name: str
    node: RunningNode
    orthanc: Orthanc
    series_uid: str = ""
    answered_at: float = 0.0

    def begin(self, series_uid: str, files: Sequence[Path]) -> None:
        """Have the archive store a series, and then have the node sent it, as an archive forwards one.

        What is measured begins with the node's last response.
        """
        self.series_uid = series_uid
        objects = [sendable(path) for path in files]
        for answer in send(self.orthanc.destination, SCANNER, objects):
            assert not answer.refusal, answer.refusal
        for answer in send(self.node.destination, ARCHIVE, objects):
            self.answered_at = time.time()
            assert not answer.refusal, answer.refusal

    def end(self) -> Taken:
        """Wait until the archive has committed to all results; give what each stage took.

        Raises
        ------
        RuntimeError
            A job is dead, or a result is not in the archive, or it takes too long.
        """
        while time.time() - self.answered_at < LONGEST_SECONDS:
            jobs = [Job.of(row) for row in self.node.jobs(self.series_uid)]
            if dead := [job for job in jobs if job.state == "dead"]:
                raise RuntimeError(f"{self.name}: {dead[0].stage} of {dead[0].model} is dead: {dead[0].note}")
            if len(jobs) > 1 and all(job.state == "done" for job in jobs):
                return self._committed(jobs)
            time.sleep(LOOK_SECONDS)
        raise RuntimeError(f"{self.name}: it takes longer than {LONGEST_SECONDS:.0f} s")

    def _committed(self, jobs: Sequence[Job]) -> Taken:
        results = self.node.results(self.series_uid)
        there = {uid for modality in ("SEG", "OT", "SR") for uid in self.orthanc.sop_instances(modality)}
        missing = {row["sop_instance_uid"] for row in results} - there
        if missing or {row["status"] for row in results} != {"committed"}:
            raise RuntimeError(f"{self.name}: of {len(results)} results {len(missing)} are not in the archive")
        return taken(self.name, self.answered_at, jobs, len(results))


@contextmanager
def subject(name: str, folder: Path, engines: Path) -> Iterator[Subject]:
    """Start a node and an Orthanc that knows it, with nothing in either."""
    folder.mkdir()
    where = Destination("orthanc", ARCHIVE, "127.0.0.1", free_ports(1)[0])
    node = RunningNode(folder, where, models=(), senders=[ARCHIVE], sections=sections(name, engines))
    forwards_nothing: Section = {"LuaScripts": []}
    with (
        running_orthanc(
            folder / "orthanc", node.destination.port, dicom_port=where.port, also=forwards_nothing
        ) as orthanc,
        node,
    ):
        yield Subject(name, node, orthanc)
