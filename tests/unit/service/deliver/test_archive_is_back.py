"""What an archive did not take while it was away it gets as soon as it takes anything again."""

import time
from contextlib import closing
from pathlib import Path
from typing import Any, cast

import pytest

import service.deliver.sender
from service.deliver.capabilities import Capabilities
from service.deliver.scu import sendable
from service.deliver.sender import Sender, Senders
from service.errors import ArchiveUnavailable
from service.lanes import make_workers
from service.ledger.ledger import Ledger
from service.ledger.records import DELIVER, DONE, ENCODE, ENCODED, READY, NextJob, ResultRecord, SeriesRecord
from service.operate.metrics import Metrics
from service.pipeline import Pipeline
from service.roles import Role
from service.settings import ArchiveSettings, parse
from service.spool import Spool
from service.types import ResultObject
from tests.committing_archive import CommittingArchive
from tests.ct_slice import ct_slice
from tests.raw_archive import Line, RawArchive
from tests.relay import Relay
from tests.waiting import eventually


def encoded(ledger: Ledger, folder: Path, number: int) -> None:
    """A result that is to be delivered."""
    record = SeriesRecord(f"00a{number}", "1.2.5", f"1.2.6.{number}", "CT", "CT1")
    ledger.open_series(record, 1)
    ledger.complete_series(record.key, 1, "", [NextJob(ENCODE, "volume", "m")])
    job = ledger.claim([ENCODE])
    assert job is not None
    file = sendable(ct_slice(folder / f"{number}.dcm", z=number, number=number))
    made = ResultObject("SC", file.sop_class_uid, file.sop_instance_uid, file.path, "1.2.8")
    ledger.finish(
        job, [NextJob(DELIVER, "volume", "m")], results=[ResultRecord(record.key, "volume", "m", made, ENCODED, "")]
    )


def test_what_waits_for_its_turn_is_sent_as_soon_as_another_result_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.deliver.sender, "AWAY_SECONDS", 0.5)
    nothing = cast(Any, None)
    with (
        CommittingArchive() as archive,
        Relay(archive.destination.port) as between,
        closing(Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")) as ledger,
    ):
        content = {
            "archives": {"pacs": {"ae_title": "PACS", "host": "127.0.0.1", "port": between.port, "commitment": "no"}},
            "senders": {"CT1": {"archive": "pacs"}},
            "spool": {"path": str(tmp_path)},
            "retry": {"first_seconds": 600.0},
        }
        settings = parse(content, "test")
        capabilities = Capabilities("WETREAD", tmp_path)
        senders = Senders(settings, capabilities)
        pipeline = Pipeline(settings, Spool(tmp_path), ledger, nothing, nothing, capabilities, senders)
        workers = list(make_workers(settings, Role.DELIVER, pipeline, ledger, Metrics.on_new_registry()))
        between.shut()
        for number in (1, 2, 3):
            encoded(ledger, tmp_path, number)
        for worker in workers:
            worker.start()

        def tried(state: str) -> int:
            jobs = [job for job in ledger.list_jobs(state) if job.stage == DELIVER]
            return sum(job.attempts > 0 for job in jobs)

        eventually(lambda: tried(READY) == 3, "all have been tried")
        time.sleep(0.5)
        between.open()
        encoded(ledger, tmp_path, 4)
        eventually(lambda: tried(DONE) == 4, "all are sent, not after ten minutes", 30)
        assert len(archive.stored) == len(set(archive.stored)) == 4
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.join(10)
        senders.close()


def test_an_archive_that_takes_some_objects_and_others_not_has_not_been_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = [sendable(ct_slice(tmp_path / f"{number}.dcm", z=number, number=number)) for number in (1, 2)]

    def has_no_room_for_the_second(line: Line) -> None:
        line.accept()
        while True:
            request = line.request()
            line.respond(request, 0xA700 if request.instance == files[1].sop_instance_uid else 0)

    with RawArchive(has_no_room_for_the_second) as archive:
        to = archive.destination
        settings = ArchiveSettings(ae_title=to.ae_title, host=to.host, port=to.port)
        sender = Sender(to, "WETREAD", settings, Capabilities("WETREAD", tmp_path))
        for _ in range(3):
            with pytest.raises(ArchiveUnavailable):
                list(sender.send(files[1:]))
            assert [answer.refusal for answer in sender.send(files[:1])] == [""]
            assert not sender.came_back()
        with pytest.raises(ArchiveUnavailable):
            list(sender.send(files[1:]))
        monkeypatch.setattr(service.deliver.sender, "AWAY_SECONDS", 0.0)
        list(sender.send(files[:1]))
        assert sender.came_back()
        assert not sender.came_back()
        sender.close()
