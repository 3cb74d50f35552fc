"""What `wetread jobs show` says of why a series started."""

import json
from pathlib import Path

from rich.console import Console

from service.ledger.ledger import open_ledger
from service.ledger.records import ASSEMBLE, NextJob, SeriesRecord
from service.operate.jobs_view import decision_as_json, series_view
from service.series.evidence import Decision, Evidence


def test_each_decision_is_shown_with_what_spoke_for_it_and_against(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path)
    series = SeriesRecord("00aa", "1.2", "1.2.3", "CT", "PACS")
    first = Decision(True, True, (Evidence("quiet", 200.0, "quiet 120.0 s"),), ("the archive has 5",))
    second = Decision(
        True, False, (Evidence("released", 50.0, "released"), Evidence("archive", 150.0, "as the archive"))
    )
    for instances, decision in ((4, first), (5, second)):
        ledger.open_series(series, instances)
        ledger.complete_series("00aa", instances, "", [NextJob(ASSEMBLE)], decision)
    decisions = ledger.decisions("00")
    console = Console(width=100)
    with console.capture() as shown:
        console.print(*series_view(ledger.list_jobs(), [], decisions))
    text = " ".join(shown.get().split())
    assert "partial with 4 instances" in text
    assert "quiet 120.0 s +200 the archive has 5 against" in text
    assert "complete with 5 instances" in text
    assert "released +50 as the archive +150" in text
    told = json.loads(json.dumps([decision_as_json(decision) for decision in decisions]))
    assert [(one["instances"], one["partial"], one["points"]) for one in told] == [(4, True, 200.0), (5, False, 200.0)]
    assert told[0]["against"] == ["the archive has 5"]
    assert told[1]["evidence"][0] == {"name": "released", "points": 50.0, "text": "released"}
    ledger.close()
