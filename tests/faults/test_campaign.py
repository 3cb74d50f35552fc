"""A few runs of the fault campaign, and that its audit sees what is wrong; ``make soak`` runs hundreds.

docs/reliability.md tells what came of those.
"""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from pathlib import Path
from random import Random

import pydicom
import pytest
from pydicom.uid import generate_uid

from tests.faults.campaign.audit import Audited, Witnesses, audit
from tests.faults.campaign.fault import Harm
from tests.faults.campaign.many import parts_in, reference_for, run_all
from tests.faults.campaign.run import Reference
from tests.faults.campaign.world import World
from tests.orthanc import Orthanc
from tests.postgres import why_not

SEEDS = {
    "kill-receive": 0,
    "kill-assemble": 1,
    "kill-encode": 3,
    "kill-deliver": 4,
    "kill-start": 6,
    "kill-syscall": 10,
    "disk-full": 12,
    "clock": 13,
    "archive-aborts": 17,
    "sqlite-locked": 23,
}
ON_POSTGRESQL = {"two-nodes-kill": 7, "postgres-restart": 25}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("campaign")


@pytest.mark.timeout(600)
def test_nothing_is_lost_doubled_or_changed_whatever_happens(folder: Path) -> None:
    plan = {**SEEDS, **({} if why_not() else ON_POSTGRESQL)}
    lines = run_all([(seed, name) for name, seed in plan.items()], folder, jobs=3)
    assert [line for line in lines if not line["ok"]] == []
    assert {line["acknowledged"] for line in lines} == {64}
    assert {line["results"] for line in lines} == {8}
    kills = {line["fault"]: line["notes"].get("kills", 0) for line in lines}
    assert all(kills[name] for name in ("kill-receive", "kill-assemble", "kill-encode", "kill-deliver", "kill-start"))


# ---- the audit -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Site:
    """What is left of a run without faults, its Orthanc running."""

    orthanc: Orthanc
    witnesses: Witnesses
    reference: Reference

    def audit(self) -> Audited:
        return audit(self.witnesses, self.reference)

    def kinds(self) -> set[str]:
        """The kinds of what is found."""
        return {finding.kind for finding in self.audit().findings}

    def ledger(self, statement: str) -> None:
        """Change the ledger."""
        with closing(sqlite3.connect(self.witnesses.ledger)) as connection, connection:
            assert connection.execute(statement).rowcount == 1

    def image(self) -> Path:
        """One of the images in the spool."""
        return min((self.witnesses.spool / "series").glob("*/*.dcm"))

    def result(self) -> tuple[str, bytes]:
        """Orthanc's name of a SEG, and the file."""
        [name, *_] = self.orthanc.post("/tools/find", {"Level": "Instance", "Query": {"Modality": "SEG"}})
        return name, self.orthanc.rest.get(f"/instances/{name}/file").raise_for_status().content

    def store(self, content: bytes) -> None:
        """Put a file into the archive."""
        self.orthanc.rest.post("/instances", content=content).raise_for_status()


@pytest.fixture(scope="module")
def whole(folder: Path) -> Iterator[Site]:
    with parts_in(folder) as parts:
        reference = reference_for(Harm(), folder, parts)
        with World(folder / "whole", parts, Random(5)) as world:
            world.send()
            assert world.settle()
            assert world.stop() == [0]
            sent = sorted(world.folder.glob("sent-*.jsonl"))
            ledger = str(world.spool / "ledger.sqlite")
            witnesses = Witnesses(sent, world.spool, ledger, str(world.orthanc.rest.base_url))
            yield Site(world.orthanc, witnesses, reference)


@pytest.fixture
def site(whole: Site, tmp_path: Path) -> Iterator[Site]:
    """A copy, to be damaged; what is done to its archive is undone."""
    spool = tmp_path / "spool"
    shutil.copytree(whole.witnesses.spool, spool)
    held = [whole.orthanc.rest.get(f"/instances/{one}/file").content for one in whole.orthanc.get("/instances")]
    copied = replace(whole.witnesses, spool=spool, ledger=str(spool / "ledger.sqlite"))
    yield Site(whole.orthanc, copied, whole.reference)
    for name in whole.orthanc.get("/instances"):
        whole.orthanc.rest.delete(f"/instances/{name}").raise_for_status()
    for content in held:
        whole.orthanc.rest.post("/instances", content=content).raise_for_status()


def test_the_audit_finds_nothing_where_nothing_is_wrong(site: Site) -> None:
    found = site.audit()
    assert found.findings == []
    assert (found.acknowledged, found.results, found.statuses) == (64, 8, {"committed": 8})


def test_the_audit_sees_an_image_that_is_gone(site: Site) -> None:
    site.image().unlink()
    assert site.kinds() == {"lost"}


def test_the_audit_sees_one_byte_of_an_image(site: Site) -> None:
    content = bytearray(site.image().read_bytes())
    content[-1] ^= 1
    site.image().write_bytes(content)
    assert site.kinds() == {"differing"}


def test_the_audit_sees_an_image_that_lies_there_twice(site: Site) -> None:
    shutil.copy(site.image(), site.image().with_name("again.dcm"))
    assert site.kinds() == {"doubled"}


def test_the_audit_sees_a_result_that_the_archive_does_not_have(site: Site) -> None:
    name, _ = site.result()
    site.orthanc.rest.delete(f"/instances/{name}").raise_for_status()
    assert site.kinds() == {"lost"}


def changed(content: bytes, change: Callable[[pydicom.Dataset], None]) -> bytes:
    """A file with a change in its data set."""
    data_set = pydicom.dcmread(BytesIO(content))
    change(data_set)
    data_set.file_meta.MediaStorageSOPInstanceUID = data_set.SOPInstanceUID
    written = BytesIO()
    data_set.save_as(written)
    return written.getvalue()


def test_the_audit_sees_one_pixel_of_a_result(site: Site) -> None:
    def turn(data_set: pydicom.Dataset) -> None:
        data_set.PixelData = bytes([data_set.PixelData[0] ^ 1]) + data_set.PixelData[1:]

    site.store(changed(site.result()[1], turn))
    assert site.kinds() == {"differing"}


def test_the_audit_sees_a_value_deep_in_a_result(site: Site) -> None:
    def rename(data_set: pydicom.Dataset) -> None:
        data_set.SegmentSequence[0].SegmentLabel = "Something else"

    site.store(changed(site.result()[1], rename))
    assert site.kinds() == {"differing"}


def test_the_audit_sees_a_result_under_another_uid(site: Site) -> None:
    site.store(changed(site.result()[1], lambda data_set: setattr(data_set, "SOPInstanceUID", generate_uid())))
    assert site.kinds() == {"doubled"}


def test_the_audit_sees_a_moment_that_is_not_the_analysiss(site: Site) -> None:
    site.store(changed(site.result()[1], lambda data_set: setattr(data_set, "ContentTime", "010203")))
    assert site.kinds() == {"differing"}


@pytest.mark.parametrize("state", ["ready", "running", "dead", "cancelled"])
def test_the_audit_sees_work_that_has_not_ended_well(site: Site, state: str) -> None:
    site.ledger(f"UPDATE jobs SET state = '{state}' WHERE id = (SELECT max(id) FROM jobs)")
    assert site.kinds() == {"held"}


def test_the_audit_sees_a_result_that_was_never_sent_by_the_ledger(site: Site) -> None:
    site.ledger("UPDATE results SET status = 'encoded' WHERE id = (SELECT max(id) FROM results)")
    assert site.kinds() == {"held"}


def test_the_audit_sees_a_result_that_the_ledger_does_not_know(site: Site) -> None:
    site.ledger("DELETE FROM results WHERE id = (SELECT max(id) FROM results)")
    assert site.kinds() == {"doubled"}
