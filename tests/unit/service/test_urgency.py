from pathlib import Path

import pytest

from service.ledger.records import SeriesRecord
from service.received import Received
from service.settings import parse
from service.spool import Spool, key_of
from service.urgency import Urgency
from tests.ct_slice import ct_slice

KEY = key_of("1.2", "1.2.3")
ARCHIVE = {"archives": {"a": {"ae_title": "A", "host": "h", "port": 104}}}


def is_urgent(folder: Path, sender: str = "CT1", priority: str | None = None, **elements: object) -> bool:
    spool = Spool(folder / "spool")
    image = ct_slice(folder / "image.dcm", **elements)
    spool.store(KEY, key_of("1.2.3.1"), Received.of(image.read_bytes()))
    keys = {"archive": "a"} | ({"priority": priority} if priority else {})
    settings = parse({**ARCHIVE, "senders": {"CT1": keys}}, "test")
    return Urgency(settings, spool)(SeriesRecord(KEY, "1.2", "1.2.3", "CT", sender))


@pytest.mark.parametrize(
    ("elements", "expected"),
    [
        ({"RequestedProcedurePriority": "STAT"}, True),
        ({"RequestedProcedurePriority": "high "}, True),
        ({"StudyPriorityID": "HIGH"}, True),
        ({"RequestedProcedurePriority": "ROUTINE"}, False),
        ({"StudyPriorityID": "LOW"}, False),
        ({}, False),
    ],
)
def test_images_say_that_they_are_urgent(elements: dict[str, str], expected: bool, tmp_path: Path) -> None:
    assert is_urgent(tmp_path, **elements) == expected


def test_a_sender_that_is_routine_is_not_listened_to_and_one_that_nobody_knows_is(tmp_path: Path) -> None:
    assert not is_urgent(tmp_path, priority="routine", RequestedProcedurePriority="STAT")
    assert is_urgent(tmp_path, sender="ANYBODY", RequestedProcedurePriority="STAT")


def test_what_is_not_there_or_cannot_be_read_says_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    urgency = Urgency(parse(ARCHIVE, "test"), spool)
    record = SeriesRecord(KEY, "1.2", "1.2.3", "CT", "CT1")
    assert not urgency(record)
    spool.store(KEY, key_of("1.2.3.1"), Received.of(b"no DICOM at all"))
    assert not urgency(record)
