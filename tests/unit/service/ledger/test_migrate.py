import sqlite3
from pathlib import Path
from typing import Any

import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import create_engine, inspect, text

from service.errors import ConfigurationError
from service.ledger.database import open_database
from service.ledger.ledger import Ledger
from service.ledger.migrate import MIGRATIONS, _run_steps
from service.ledger.records import ASSEMBLE, ROUTINE
from service.ledger.schema import REVISION, metadata

OLD = sorted(Path(__file__).with_name("ledgers").glob("*.sql"))


def restored(dump: Path, folder: Path) -> str:
    path = folder / "ledger.sqlite"
    connection = sqlite3.connect(path)
    connection.executescript(dump.read_text())
    connection.close()
    return f"sqlite:///{path}"


def tables_of(url: str) -> dict[str, Any]:
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    found = inspect(engine)
    described = {}
    for table in sorted(found.get_table_names()):
        described[table] = (
            {column["name"]: (column["nullable"], column["default"]) for column in found.get_columns(table)},
            found.get_pk_constraint(table)["constrained_columns"],
            sorted((key["constrained_columns"], key["referred_table"]) for key in found.get_foreign_keys(table)),
            sorted(key["column_names"] for key in found.get_unique_constraints(table)),
            sorted((index["name"], index["column_names"]) for index in found.get_indexes(table)),
        )
    engine.dispose()
    return described


def test_the_steps_from_nothing_lead_to_the_tables_as_they_are(ledger_url: str, tmp_path: Path) -> None:
    database = open_database(ledger_url)
    with database.migrating() as connection:
        _run_steps(connection, stamp=False)
    by_steps = tables_of(ledger_url)
    with database.migrating() as connection:
        metadata.drop_all(connection)
        connection.execute(text("DROP TABLE alembic_version"))
    database.close()
    Ledger(ledger_url).close()
    assert tables_of(ledger_url) == by_steps


def test_the_newest_step_is_what_the_tables_say_they_are() -> None:
    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    assert ScriptDirectory.from_config(config).get_current_head() == REVISION


@pytest.mark.parametrize("dump", OLD, ids=[path.stem for path in OLD])
def test_a_ledger_of_an_earlier_version_goes_on_where_it_was(dump: Path, tmp_path: Path) -> None:
    url = restored(dump, tmp_path)
    ledger = Ledger(url)
    assert [(job.stage, job.state) for job in ledger.list_jobs(series_key="a1")] == [
        (stage, "done") for stage in ("receive", "assemble", "infer", "encode", "deliver")
    ]
    assert [(record.result.kind, record.status, record.archive) for record in ledger.results("a1")] == [
        ("SEG", "sent", "orthanc"),
        ("SR", "sent", "orthanc"),
    ]
    assert [record.key for record in ledger.receiving()] == ["d1b2c3d4e5f60718"]
    assert ledger.reclaim() == 1
    job = ledger.claim([ASSEMBLE])
    assert job is not None
    assert (job.series.key, job.priority) == ("c1b2c3d4e5f60718", ROUTINE)
    assert [dead.note for dead in ledger.list_jobs("dead")] == ["two slices at one position"]
    assert ledger.check() == []
    ledger.close()
    fresh = tmp_path / "fresh.sqlite"
    Ledger(f"sqlite:///{fresh}").close()
    assert tables_of(url) == tables_of(f"sqlite:///{fresh}")
    again = Ledger(url)
    assert len(again.list_jobs()) == 10
    again.close()


def test_a_step_that_fails_leaves_the_ledger_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = restored(OLD[0], tmp_path)
    before = tables_of(url)

    def run_and_fail(connection: Any, stamp: bool) -> None:
        _run_steps(connection, stamp)
        raise OSError("no space left")

    monkeypatch.setattr("service.ledger.migrate._run_steps", run_and_fail)
    with pytest.raises(OSError, match="no space"):
        Ledger(url)
    assert tables_of(url) == before


def test_a_ledger_of_a_later_version_is_refused(ledger_url: str) -> None:
    Ledger(ledger_url).close()
    database = open_database(ledger_url)
    with database.writing() as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    database.close()
    with pytest.raises(ConfigurationError, match="later version"):
        Ledger(ledger_url)
