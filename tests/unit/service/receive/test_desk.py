"""What receivers ask the node, over real lines."""

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection, Pipe

import pytest
from sqlalchemy.exc import OperationalError

from service.commitment import Report
from service.errors import OutOfResources
from service.header import HeaderFacts
from service.receive.desk import AtDesk, Desk
from service.receive.policy import Refused, Seat, Seats
from tests.waiting import eventually

FACTS = HeaderFacts("1.2.3", "1.2.4", "1.2.5", "1.2.6", "CT", position=(0.0, 0.0, 1.0))
REPORT = Report("2.25.1", ("1.2.3.4",), (("1.2.3.5", 0x0112),))


@dataclass
class Reception:
    """A desk, and what is told there."""

    arrived_facts: list[HeaderFacts] = field(default_factory=list)
    associations: list[int] = field(default_factory=list)
    ended: list[tuple[str, int]] = field(default_factory=list)
    outcomes: Counter[str] = field(default_factory=Counter)
    error: Exception | None = None
    reports: list[tuple[Report, str]] = field(default_factory=list)
    lines: list[Connection] = field(default_factory=list)
    attendants: list[threading.Thread] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.desk = Desk(Seats(2, 1), self, lambda outcome: self.outcomes.update([outcome]))

    def call(self) -> Connection:
        ours, theirs = Pipe()
        self.lines.append(ours)
        attendant = threading.Thread(target=self.desk.attend, args=(theirs,))
        attendant.start()
        self.attendants.append(attendant)
        return ours

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        return True

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        if self.error is not None:
            raise self.error
        self.arrived_facts.append(facts)
        self.associations.append(association)

    def is_result(self, sop_instance_uid: str) -> bool:
        if self.error is not None:
            raise self.error
        return sop_instance_uid == "1.2.3.4"

    def reported(self, report: Report, archive: str) -> bool:
        self.reports.append((report, archive))
        return report == REPORT

    def released(self, association: int) -> None:
        self.ended.append(("released", association))

    def aborted(self, association: int) -> None:
        self.ended.append(("aborted", association))


@pytest.fixture
def reception() -> Iterator[Reception]:
    reception = Reception()
    yield reception
    for line in reception.lines:
        line.close()
    for attendant in reception.attendants:
        attendant.join(10)
        assert not attendant.is_alive()


def test_an_association_is_in_the_node_what_it_is_in_the_receiver(reception: Reception) -> None:
    at_desk = AtDesk(reception.call)
    seat = at_desk.take("ONE")
    assert isinstance(seat, Seat)
    with seat:
        at_desk.arrived(7, FACTS, "ONE")
        at_desk.count("new")
        at_desk.arrived(7, FACTS, "ONE")
        at_desk.count("duplicate")
        refused = AtDesk(reception.call).take("ONE")
        assert isinstance(refused, Refused)
        assert refused.reason.startswith("this sender has 1")
    at_desk.released(7)
    assert reception.arrived_facts == [FACTS, FACTS]
    assert reception.outcomes == {"new": 1, "duplicate": 1}
    [number] = set(reception.associations)
    assert ("released", number) in reception.ended
    assert isinstance(AtDesk(reception.call).take("ONE"), Seat)


def test_what_the_node_knows_of_results_is_asked_of_it(reception: Reception) -> None:
    at_desk = AtDesk(reception.call)
    at_desk.take("ONE")
    assert at_desk.is_result("1.2.3.4")
    assert not at_desk.is_result("1.2.3.5")
    assert at_desk.reported(REPORT, "PACS")
    assert not at_desk.reported(Report("2.25.2", ("1.2",)), "PACS")
    assert reception.reports[0] == (REPORT, "PACS")
    reception.error = OperationalError("SELECT", (), Exception("disk I/O error"))
    with pytest.raises(OutOfResources):
        at_desk.is_result("1.2.3.4")


def test_associations_of_different_receivers_have_different_numbers(reception: Reception) -> None:
    for sender in ("ONE", "TWO"):
        at_desk = AtDesk(reception.call)
        at_desk.take(sender)
        at_desk.arrived(7, FACTS, sender)
    assert len(set(reception.associations)) == 2


def test_a_line_that_breaks_is_an_association_that_was_aborted(reception: Reception) -> None:
    at_desk = AtDesk(reception.call)
    at_desk.take("ONE")
    at_desk.arrived(7, FACTS, "ONE")
    [line] = reception.lines
    line.close()
    eventually(lambda: reception.ended == [("aborted", reception.associations[0])], "the node hears of it")
    assert isinstance(AtDesk(reception.call).take("ONE"), Seat)


def test_a_full_disk_of_the_ledger_is_told_to_the_receiver_in_words_without_values(reception: Reception) -> None:
    at_desk = AtDesk(reception.call)
    at_desk.take("ONE")
    for error in (OutOfResources("no room"), DATABASE):
        reception.error = error
        with pytest.raises(OutOfResources, match=r"^no room$"):
            at_desk.arrived(7, FACTS, "ONE")
    reception.error = ValueError("PATIENT^NAME")
    with pytest.raises(RuntimeError, match=r"^ValueError in test_desk\.py:\d+$"):
        at_desk.arrived(7, FACTS, "ONE")
    reception.error = None
    at_desk.arrived(7, FACTS, "ONE")  # the line is as good as before


def _as_raised() -> OperationalError:
    error = OperationalError("INSERT ...", {"series_uid": "1.2.6"}, Exception("no room"))
    error.__cause__ = Exception("no room")
    return error


DATABASE = _as_raised()
