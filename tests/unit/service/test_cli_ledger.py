import json
import sqlite3
from pathlib import Path

import pytest
from typer.testing import CliRunner

from service.cli import app
from service.errors import ConfigurationError, LedgerUnavailable
from service.ledger.ledger import ledger_path, open_ledger
from service.ledger.records import ASSEMBLE, INFER, NextJob, SeriesRecord
from service.ledger.schema import REVISION
from service.spool import Spool

KEY = "00aa00aa00aa00aa"


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def config(tmp_path: Path) -> str:
    spool = tmp_path / "spool"
    spool.mkdir()
    ledger = open_ledger(spool)
    ledger.open_series(SeriesRecord(KEY, "1.2", "1.2.3", "CT", "PACS"), 3)
    ledger.complete_series(KEY, 3, "", [NextJob(ASSEMBLE)])
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    ledger.finish(job, [NextJob(INFER, "volume", "ct-lung")])
    ledger.close()
    (tmp_path / "wetread.toml").write_text(f'[spool]\npath = "{spool.as_posix()}"\n')
    return str(tmp_path / "wetread.toml")


def test_the_ledger_is_looked_over_copied_and_migrated(config: str, tmp_path: Path) -> None:
    assert json.loads(run("ledger", "check", "-c", config, "--json")) == {"ok": True, "revision": REVISION, "wrong": []}
    assert REVISION in run("ledger", "migrate", "-c", config)
    copy = tmp_path / "copy.sqlite"
    assert "copy.sqlite" in run("ledger", "backup", str(copy), "-c", config)
    assert sqlite3.connect(copy).execute("SELECT count(*) FROM jobs").fetchone() == (3,)


def test_a_series_whose_images_are_gone_is_not_run_again(config: str) -> None:
    with pytest.raises(ConfigurationError, match="no longer in the spool"):
        run("jobs", "rerun", "00aa", "--from", "infer", "-c", config)


def test_a_series_runs_again_from_a_stage_on(config: str, tmp_path: Path) -> None:
    instance = Spool(tmp_path / "spool").instance_path(KEY, "11bb11bb11bb11bb")
    instance.parent.mkdir(parents=True)
    instance.write_bytes(b"x")
    assert "1 job is ready again at infer" in run("jobs", "rerun", "00aa", "--from", "infer", "-c", config)
    assert "1 job is" in run("jobs", "rerun", "00aa", "--from", "infer", "--model", "another", "-c", config)
    with pytest.raises(ConfigurationError, match="no work at deliver"):
        run("jobs", "rerun", "00aa", "--from", "deliver", "-c", config)
    with pytest.raises(ConfigurationError, match="no such stage; there are assemble"):
        run("jobs", "rerun", "00aa", "--from", "receive", "-c", config)
    with pytest.raises(ConfigurationError, match="no series in the ledger begins"):
        run("jobs", "rerun", "ff", "--from", "infer", "-c", config)


def test_a_series_is_given_another_priority(config: str) -> None:
    assert "1 job that had not ended" in run("jobs", "prioritise", "00aa", "-c", config)
    (job,) = [job for job in json.loads(run("jobs", "list", "-c", config, "--json")) if job["state"] == "ready"]
    assert job["priority"] == 0
    with pytest.raises(ConfigurationError, match="stat, routine"):
        run("jobs", "prioritise", "00aa", "soon", "-c", config)


def test_a_damaged_ledger_is_told_of(config: str, tmp_path: Path) -> None:
    path = ledger_path(tmp_path / "spool")
    path.write_bytes(path.read_bytes()[:5000] + bytes(5000))
    result = CliRunner().invoke(app, ["ledger", "check", "-c", config])
    assert result.exit_code == 1 or isinstance(result.exception, LedgerUnavailable)


def test_a_database_that_is_none_or_cannot_be_reached_is_told_of_without_its_password(tmp_path: Path) -> None:
    config = tmp_path / "wetread.toml"
    for url, error, said in (
        ("postgresql://wetread:secret@127.0.0.1:1/x", LedgerUnavailable, "ledger.url: the ledger cannot be opened"),
        ("mysql://wetread:secret@db/x", ConfigurationError, "ledger.url is for mysql"),
        ("nonsense", ConfigurationError, "ledger.url is no URL"),
    ):
        config.write_text(f'[ledger]\nurl = "{url}"\n')
        with pytest.raises(error, match=said) as caught:
            run("ledger", "check", "-c", str(config))
        assert "secret" not in str(caught.value)


def test_all_dead_jobs_or_those_of_a_stage_are_ready_again(config: str, tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "spool")
    job = ledger.claim([INFER])
    assert job is not None
    ledger.bury(job, "no such model")
    assert "0 jobs are ready" in run("jobs", "retry", "--dead", "--stage", "deliver", "-c", config)
    assert "1 job is ready" in run("jobs", "retry", "--dead", "-c", config)
    again = ledger.claim([INFER])
    assert again is not None
    assert (again.id, again.attempts) == (job.id, 1)
    for wrong in ([], ["7", "--dead"], ["7", "--stage", "infer"], ["--dead", "--stage", "nothing"]):
        with pytest.raises(ConfigurationError, match="name a job's number, or --dead"):
            run("jobs", "retry", *wrong, "-c", config)
    ledger.close()
