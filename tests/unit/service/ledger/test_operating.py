import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from service.errors import ConfigurationError
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, DELIVER, ENCODE, INFER, Job, NextJob, ResultRecord, SeriesRecord
from service.types import ResultObject

SERIES = SeriesRecord("00aa", "1.2", "1.2.3", "CT", "PACS")


@pytest.fixture
def ledger(ledger_url: str) -> Iterator[Ledger]:
    ledger = Ledger(ledger_url)
    yield ledger
    ledger.close()


def claimed(ledger: Ledger, stage: str) -> Job:
    job = ledger.claim([stage])
    assert job is not None
    return job


def delivered(ledger: Ledger, key: str = SERIES.key, items: tuple[str, ...] = ("volume",)) -> None:
    ledger.open_series(SeriesRecord(key, "1.2", f"1.2.{key}", "CT", "PACS"), 3)
    ledger.complete_series(key, 3, "", [NextJob(ASSEMBLE)])
    ledger.finish(claimed(ledger, ASSEMBLE), [NextJob(INFER, item, "m") for item in items])
    for item in items:
        ledger.finish(claimed(ledger, INFER), [NextJob(ENCODE, item, "m")])
        result = ResultObject("SR", "1.1", f"2.25.{int(key, 16)}{len(item)}", Path("x.dcm"))
        record = ResultRecord(key, item, "m", result, "encoded", "")
        ledger.finish(claimed(ledger, ENCODE), [NextJob(DELIVER, item, "m")], results=[record])
        job = claimed(ledger, DELIVER)
        ledger.begin_sending(job, "orthanc")
        ledger.finish(job, [], results=[ResultRecord(key, item, "m", result, "sent", "orthanc")])


def test_a_series_runs_again_from_a_stage_on(ledger: Ledger) -> None:
    delivered(ledger, items=("one", "two"))
    assert ledger.rerun(SERIES.key, INFER) == 2
    assert ledger.counts()[INFER, "ready"] == 2
    again = claimed(ledger, INFER)
    assert (again.item, again.attempts) == ("one", 1)
    ledger.finish(again, [NextJob(ENCODE, "one", "m")])
    assert ledger.counts()[ENCODE, "ready"] == 1
    assert ledger.rerun(SERIES.key, ASSEMBLE) == 1
    assert ledger.rerun("00bb", ASSEMBLE) == 0


def test_a_model_that_has_not_run_on_a_series_runs_on_each_of_its_items(ledger: Ledger) -> None:
    delivered(ledger, items=("one", "two"))
    assert ledger.rerun(SERIES.key, INFER, "new") == 2
    assert [(job.item, job.model) for job in ledger.list_jobs("ready")] == [("one", "new"), ("two", "new")]
    assert ledger.rerun(SERIES.key, INFER, "m") == 2
    assert ledger.rerun(SERIES.key, ENCODE, "another") == 0


def test_what_an_archive_has_is_sent_again_and_counts_as_seen(ledger: Ledger) -> None:
    delivered(ledger)
    assert ledger.rerun(SERIES.key, DELIVER) == 1
    assert [record.status for record in ledger.results()] == ["sending"]
    assert len(ledger.begin_sending(claimed(ledger, DELIVER), "orthanc")) == 1


def test_a_running_stage_that_is_run_again_does_not_count(ledger: Ledger) -> None:
    delivered(ledger)
    ledger.rerun(SERIES.key, INFER)
    first = claimed(ledger, INFER)
    ledger.rerun(SERIES.key, INFER)
    with pytest.raises(Exception, match="taken over"):
        ledger.finish(first, [])


def test_history_is_forgotten_in_time_and_the_series_known_for_longer(ledger: Ledger) -> None:
    delivered(ledger, "00aa")
    delivered(ledger, "00bb")
    ledger.rerun("00bb", INFER)
    soon = time.time() + 60
    ledger.forget(history_before=0.0, series_before=soon)
    assert len(ledger.list_jobs(series_key="00aa")) == 5
    ledger.forget(history_before=soon, series_before=0.0)
    assert ledger.list_jobs(series_key="00aa") == []
    assert len(ledger.list_jobs(series_key="00bb")) == 5, "its work has not ended"
    assert len(ledger.results("00aa")) == 1
    known = ledger.series("00aa")
    assert known is not None
    assert not ledger.open_series(known, 3), "nothing runs when it comes again"
    assert ledger.ended_before(soon) == []
    ledger.forget(history_before=soon, series_before=soon)
    assert ledger.series("00aa") is None
    assert ledger.results("00aa") == []
    assert ledger.open_series(known, 3)


def test_more_is_forgotten_than_goes_into_one_transaction(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.ledger.operating._BATCH", 2)
    for number in range(5):
        delivered(ledger, f"00a{number}")
    ledger.forget(time.time() + 60, 0.0)
    assert ledger.list_jobs() == []
    assert len(ledger.results()) == 5


def test_a_ledger_is_found_sound(ledger: Ledger) -> None:
    delivered(ledger)
    assert ledger.check() == []


def test_a_damaged_file_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(f"sqlite:///{path}")
    for number in range(50):
        delivered(ledger, f"{number:04x}")
    ledger.close()
    content = bytearray(path.read_bytes())
    content[8192:8292] = bytes(100)
    path.write_bytes(content)
    damaged = Ledger(f"sqlite:///{path}")
    assert damaged.check() != []
    damaged.close()


def test_a_backup_is_a_whole_ledger_made_while_another_is_at_work(tmp_path: Path) -> None:
    ledger = Ledger(f"sqlite:///{tmp_path / 'ledger.sqlite'}")
    delivered(ledger)
    ledger.rerun(SERIES.key, INFER)
    job = claimed(ledger, INFER)
    copy = tmp_path / "copy.sqlite"
    ledger.backup(copy)
    ledger.finish(job, [])
    ledger.close()
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith("copy")] == ["copy.sqlite"]
    restored = Ledger(f"sqlite:///{copy}")
    assert restored.counts()[INFER, "running"] == 1
    with pytest.raises(ConfigurationError, match="left alone"):
        restored.backup(copy)
    restored.close()
