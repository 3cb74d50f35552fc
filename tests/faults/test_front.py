"""The parts that the campaign does harm with do that harm and no other."""

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage

from service.deliver.commitment import ask
from service.deliver.scu import Sendable, echo, send, sendable
from service.errors import ArchiveUnavailable
from service.ledger.records import SENT, ResultRecord
from service.types import Destination, ResultObject
from tests.committing_archive import CommittingArchive
from tests.ct_slice import ct_slice
from tests.faults.campaign.front import C_STORE_RQ, N_ACTION_RQ, Front
from tests.faults.campaign.holding import held
from tests.faults.campaign.jumping_clock import JumpingClock
from tests.waiting import eventually


@pytest.fixture
def archive() -> Iterator[CommittingArchive]:
    with CommittingArchive(reports="never") as archive:
        yield archive


@pytest.fixture
def front(archive: CommittingArchive) -> Iterator[Front]:
    with Front(archive.destination.port) as front:
        yield front


@pytest.fixture
def to(archive: CommittingArchive, front: Front) -> Destination:
    return replace(archive.destination, port=front.port)


@pytest.fixture
def slices(tmp_path: Path) -> list[Sendable]:
    return [sendable(ct_slice(tmp_path / f"{number}.dcm", z=number, number=number)) for number in range(1, 4)]


def uids(slices: list[Sendable]) -> list[str]:
    return [file.sop_instance_uid for file in slices]


def test_a_front_that_does_nothing_passes_all_on(
    archive: CommittingArchive, to: Destination, slices: list[Sendable]
) -> None:
    assert [answer.refusal for answer in send(to, "WETREAD", slices)] == ["", "", ""]
    assert archive.stored == uids(slices)
    echo(to, "WETREAD")


def test_what_it_refuses_in_the_negotiation_the_archive_never_sees(
    archive: CommittingArchive, front: Front, to: Destination, slices: list[Sendable]
) -> None:
    front.refused = frozenset({str(CTImageStorage)})
    answers = list(send(to, "WETREAD", slices))
    assert all(answer.unsupported and "not accepted" in answer.refusal for answer in answers)
    assert archive.stored == []


@pytest.mark.parametrize(("status", "for_now"), [(0xA700, True), (0x0122, False)])
def test_what_it_answers_itself_the_archive_never_sees(
    status: int, for_now: bool, archive: CommittingArchive, front: Front, to: Destination, slices: list[Sendable]
) -> None:
    front.decide = lambda talk, message: status if message.field == C_STORE_RQ else None
    if for_now:
        with pytest.raises(ArchiveUnavailable, match="0xA700"):
            list(send(to, "WETREAD", slices))
    else:
        assert all(answer.unsupported and "0x0122" in answer.refusal for answer in send(to, "WETREAD", slices))
    assert archive.stored == []
    front.decide = lambda talk, message: None
    assert [answer.refusal for answer in send(to, "WETREAD", slices)] == ["", "", ""]


def test_an_abort_amid_an_object_leaves_the_archive_without_it(
    archive: CommittingArchive, front: Front, to: Destination, slices: list[Sendable]
) -> None:
    front.cut_at = lambda message: 100 if message.instance == slices[1].sop_instance_uid else None
    with pytest.raises(ArchiveUnavailable, match=r"abort|hung up|lost|ended"):
        list(send(to, "WETREAD", slices))
    assert archive.stored == uids(slices[:1])


def test_an_abort_before_the_answer_leaves_the_archive_with_it(
    archive: CommittingArchive, front: Front, to: Destination, slices: list[Sendable]
) -> None:
    front.before_answer = lambda message: message.instance != slices[1].sop_instance_uid
    with pytest.raises(ArchiveUnavailable):
        list(send(to, "WETREAD", slices))
    assert archive.stored == uids(slices[:2])


def test_a_request_for_commitment_is_taken_and_never_reaches_the_archive(
    archive: CommittingArchive, front: Front, to: Destination, tmp_path: Path
) -> None:
    whole: list[bytes] = []
    front.decide = lambda talk, message: 0x0000 if message.field == N_ACTION_RQ else None
    front.whole = lambda talk, message: whole.append(message.data_set)
    sent = ResultObject("SC", str(CTImageStorage), "1.2.3", tmp_path / "none", "1.2")
    ask(to, "WETREAD", "1.2.4", [ResultRecord("", "", "", sent, SENT, "pacs")], lambda _: True, lambda: True, 0.0)
    assert archive.asked == []
    assert b"1.2.4" in whole[0]
    assert b"1.2.3" in whole[0]


def test_what_is_held_arrives_when_it_goes_on_and_what_is_shut_refuses(
    archive: CommittingArchive, front: Front, to: Destination, slices: list[Sendable]
) -> None:
    front.hold()
    sending = threading.Thread(target=lambda: list(send(to, "WETREAD", slices)))
    sending.start()
    eventually(lambda: front.lines, "it has connected")
    time.sleep(0.2)
    assert archive.stored == []
    front.go_on()
    sending.join(30)
    assert archive.stored == uids(slices)
    front.shut()
    with pytest.raises(ArchiveUnavailable, match="refuses the connection"):
        echo(to, "WETREAD")
    front.open()
    echo(to, "WETREAD")


LOOKS = """
import sqlite3, sys, time
for _ in sys.stdin:
    began = time.monotonic()
    time.sleep(0.01)
    [days] = sqlite3.connect(":memory:").execute("SELECT julianday('now')").fetchone()
    print(time.time(), (days - 2440587.5) * 86400, time.monotonic() - began, flush=True)
"""


def test_a_clock_jumps_for_python_and_sqlite_and_no_wait_gets_longer(tmp_path: Path) -> None:
    clock = JumpingClock(tmp_path)
    with subprocess.Popen(
        [sys.executable, "-c", LOOKS],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env=dict(clock.environment),
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for jump in (0, 43_200, -86_400):
            clock.jump(jump)
            process.stdin.write("look\n")
            process.stdin.flush()
            wall, sqlite, waited = map(float, process.stdout.readline().split())
            assert wall - time.time() == pytest.approx(clock.seconds, abs=5)
            assert sqlite - time.time() == pytest.approx(clock.seconds, abs=5)
            assert 0.01 <= waited < 5
        holds = held(process.pid, 1)
        assert (holds.threads, holds.sockets) == (1, 0)
        process.stdin.close()
