"""Which threads do which work: an archive that does not answer holds up no other one's."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom.uid import Comprehensive3DSRStorage

from service.deliver.capabilities import Capabilities
from service.deliver.sender import Senders
from service.lanes import make_workers
from service.ledger.ledger import Ledger
from service.ledger.records import COMMIT, COMMITTED, ENCODE, RUNNING, SENT, NextJob, ResultRecord, SeriesRecord
from service.operate.metrics import Metrics
from service.pipeline import Pipeline
from service.roles import Role
from service.settings import parse
from service.spool import Spool
from service.types import ResultObject
from tests.committing_archive import CommittingArchive
from tests.raw_archive import Line, RawArchive
from tests.waiting import eventually


def takes_a_request_and_says_nothing(line: Line) -> None:
    line.accept()
    line.request()
    line.wait()


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger:
        yield ledger


def sent(ledger: Ledger, folder: Path, sender: str, archive: str) -> None:
    """A result of a series that this archive was sent, and that it is to be asked for."""
    record = SeriesRecord(f"00{sender}", "1.2.5", f"1.2.6.{sender[-1]}", "CT", sender)
    ledger.open_series(record, 1)
    ledger.complete_series(record.key, 1, "", [NextJob(ENCODE, "volume", "m")])
    job = ledger.claim([ENCODE])
    assert job is not None
    made = ResultObject("SR", str(Comprehensive3DSRStorage), f"1.2.7.{sender[-1]}", folder / "sr.dcm", "1.2.8")
    known = ResultRecord(record.key, "volume", "m", made, SENT, archive)
    ledger.finish(job, [NextJob(COMMIT, "volume", "m")], results=[known])


def test_an_archive_that_does_not_answer_a_request_holds_up_no_other_ones_commitment(
    tmp_path: Path, ledger: Ledger
) -> None:
    nothing = cast(Any, None)
    with RawArchive(takes_a_request_and_says_nothing) as silent, CommittingArchive() as pacs:
        archives = {
            to.name: {"ae_title": to.ae_title, "host": to.host, "port": to.port, "commitment": "require"}
            for to in (silent.destination, pacs.destination)
        }
        senders = {"CT1": {"archive": silent.destination.name}, "CT2": {"archive": pacs.destination.name}}
        settings = parse({"archives": archives, "senders": senders, "spool": {"path": str(tmp_path)}}, "test")
        capabilities = Capabilities("WETREAD", tmp_path)
        senders_of = Senders(settings, capabilities)
        pipeline = Pipeline(settings, Spool(tmp_path), ledger, nothing, nothing, capabilities, senders_of)
        workers = list(make_workers(settings, Role.DELIVER, pipeline, ledger, Metrics.on_new_registry()))
        sent(ledger, tmp_path, "CT1", silent.destination.name)
        for worker in workers:
            worker.start()
        eventually(lambda: silent.lines and silent.lines[0].proposed, "the silent one is asked")
        pacs.held["1.2.7.2"] = nothing
        sent(ledger, tmp_path, "CT2", pacs.destination.name)
        eventually(lambda: [one.status for one in ledger.results()] == [SENT, COMMITTED], "the other one commits", 20)
        assert next(job.state for job in ledger.list_jobs() if job.stage == COMMIT) == RUNNING
        for worker in workers:
            worker.stop()
        for line in silent.lines:
            line.connection.close()
        for worker in workers:
            worker.join(10)
        senders_of.close()
