"""What `wetread jobs show` says of results and what became of them."""

from pathlib import Path

from rich.console import Console

from service.ledger.records import ENCODED, SENT, SUPERSEDED, ResultRecord
from service.operate.jobs_view import result_as_json, series_view
from service.types import ResultObject


def record(uid: str, status: str, archive: str, *predecessors: str) -> ResultRecord:
    result = ResultObject("SR", "1.1", uid, Path("x.dcm"), f"{uid}.9", predecessors)
    return ResultRecord("00aa", "volume", "ct-lung", result, status, archive)


def test_a_superseded_result_tells_whether_it_was_sent_and_its_successor_names_it() -> None:
    records = [
        record("1.1", SUPERSEDED, "pacs"),
        record("1.2", SUPERSEDED, ""),
        record("1.3", SENT, "pacs", "1.1"),
        record("1.4", ENCODED, ""),
    ]
    console = Console(width=100)
    with console.capture() as shown:
        console.print(*series_view([], records, []))
    text = " ".join(shown.get().split())
    assert "SR 1.1 ct-lung, superseded (was sent to pacs), x.dcm" in text
    assert "SR 1.2 ct-lung, superseded (was never sent), x.dcm" in text
    assert "SR 1.3 ct-lung, sent to pacs, x.dcm supersedes 1.1" in text
    assert "SR 1.4 ct-lung, encoded, x.dcm" in text
    told = [result_as_json(one) for one in records]
    assert [(one["status"], one["supersedes"]) for one in told[1:3]] == [(SUPERSEDED, []), (SENT, ["1.1"])]


def test_many_instances_of_a_series_are_counted() -> None:
    fates = [(SENT, "pacs")] * 20 + [(ENCODED, "")] * 4
    objects = [ResultObject("SC", "1.7", f"1.5.{number}", Path("out/x"), "1.5") for number in range(24)]
    captures = [
        ResultRecord("00aa", "volume", "ct-lung", result, *fate) for result, fate in zip(objects, fates, strict=True)
    ]
    console = Console(width=100)
    with console.capture() as shown:
        for line in series_view([], captures, []):
            console.print(line)
    assert shown.get().splitlines() == [
        "SC          24 instances of 1.5",
        "            20: ct-lung, sent to pacs, in out",
        "            4: ct-lung, encoded, in out",
    ]
