"""One archive's sender: kept associations, seats, and what is learnt when something is sent."""

import threading
import time
from pathlib import Path

import pytest
from pydicom.uid import CTImageStorage, SegmentationStorage
from structlog.testing import capture_logs

from service.deliver.capabilities import Capabilities
from service.deliver.scu import Sendable, sendable
from service.deliver.sender import Sender
from service.errors import ArchiveUnavailable, Postponed
from service.results.profile import ResultProfile
from service.settings import ArchiveSettings
from service.types import Destination
from tests.ct_slice import ct_slice
from tests.raw_archive import Line, RawArchive, takes_all
from tests.waiting import eventually


@pytest.fixture
def slices(tmp_path: Path) -> list[Sendable]:
    return [sendable(ct_slice(tmp_path / f"{number}.dcm", z=number, number=number)) for number in range(1, 4)]


def sender_to(archive: Destination, folder: Path, **settings: object) -> Sender:
    where = {"ae_title": archive.ae_title, "host": archive.host, "port": archive.port}
    known = Capabilities("WETREAD", folder)
    return Sender(archive, "WETREAD", ArchiveSettings.model_validate({**where, **settings}), known)


def test_deliveries_share_an_association_while_there_is_work(tmp_path: Path, slices: list[Sendable]) -> None:
    with RawArchive() as archive:
        sender = sender_to(archive.destination, tmp_path)
        for file in slices:
            assert [answer.refusal for answer in sender.send([file])] == [""]
        assert len(archive.lines) == 1
        sender.close()
        eventually(lambda: archive.lines[0].end == "released", "it is released")


def test_an_association_that_nobody_uses_is_released(
    tmp_path: Path, slices: list[Sendable], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.deliver.cstore.KeptAssociations.__init__.__defaults__", (0.2,))
    with RawArchive() as archive:
        sender = sender_to(archive.destination, tmp_path)
        list(sender.send(slices[:1]))
        eventually(lambda: archive.lines[0].end == "released", "it is released")
        list(sender.send(slices[:1]))
        assert len(archive.lines) == 2


def _closes_after_one(line: Line) -> None:
    line.accept()
    line.respond(line.request())


def _aborts_at_the_second(line: Line) -> None:
    line.accept()
    line.respond(line.request())
    line.request()


@pytest.mark.parametrize("script", [_closes_after_one, _aborts_at_the_second])
def test_an_association_that_has_ended_while_it_was_kept_costs_no_attempt(
    script: object, tmp_path: Path, slices: list[Sendable]
) -> None:
    with RawArchive(script, takes_all) as archive:  # type: ignore[arg-type]
        sender = sender_to(archive.destination, tmp_path)
        assert [answer.refusal for answer in sender.send(slices[:1])] == [""]
        assert [answer.refusal for answer in sender.send(slices)] == [""] * 3
        assert len(archive.lines) == 2


def test_an_association_that_breaks_amid_a_delivery_is_an_attempt(tmp_path: Path, slices: list[Sendable]) -> None:
    with RawArchive(_closes_after_one, takes_all) as archive:
        sender = sender_to(archive.destination, tmp_path)
        with pytest.raises(ArchiveUnavailable):
            list(sender.send(slices))


def test_no_more_deliveries_are_at_work_than_the_settings_say(tmp_path: Path, slices: list[Sendable]) -> None:
    at_work, most, lock = [0], [0], threading.Lock()

    def archive(line: Line) -> None:
        line.accept()
        while True:
            request = line.request()
            with lock:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            time.sleep(0.02)
            with lock:
                at_work[0] -= 1
            line.respond(request)

    with RawArchive(archive) as running:
        sender = sender_to(running.destination, tmp_path, parallel=2)
        threads = [threading.Thread(target=lambda: list(sender.send(slices))) for _ in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        sender.close()
        assert most == [2]
        assert len(running.lines) == 2


def test_outside_of_its_windows_an_archive_is_not_sent_to(tmp_path: Path) -> None:
    local = time.localtime()
    begin, end = (local.tm_hour + 2) % 24, (local.tm_hour + 3) % 24
    nowhere = Destination("pacs", "PACS", "127.0.0.1", 1)
    sender = sender_to(nowhere, tmp_path, windows=[f"{begin:02}:00-{end:02}:00"])
    with pytest.raises(Postponed, match=rf"pacs is sent to from .* {begin:02}:00 on") as postponed:
        sender.require_open(time.time())
    assert 0 < postponed.value.until - time.time() < 2 * 3600 + 60
    sender_to(nowhere, tmp_path).require_open(time.time())


def test_of_files_that_belong_together_none_is_sent_where_one_is_not_taken(
    tmp_path: Path, slices: list[Sendable]
) -> None:
    def archive(line: Line) -> None:
        line.accept(refuse=[CTImageStorage])
        line.request()
        raise AssertionError("something was sent")

    other = Sendable(slices[0].path, SegmentationStorage, *("1.2.3", slices[0].transfer_syntax_uid, 300))
    with RawArchive(archive) as running:
        sender = sender_to(running.destination, tmp_path)
        answers = list(sender.send([other, *slices]))
        sender.close()
    assert [answer.file for answer in answers] == slices
    assert all(answer.unsupported for answer in answers)


def test_what_an_archive_refuses_when_it_is_sent_it_gets_in_another_form_also_after_a_restart(
    tmp_path: Path, slices: list[Sendable]
) -> None:
    """It accepts label maps in the negotiation, and then says that it does not support them (0x0122)."""

    def archive(line: Line) -> None:
        line.accept()
        while True:
            request = line.request()
            line.respond(request, 0x0122 if request.sop_class.endswith(".66.7") else 0)

    profile = ResultProfile(segmentation="labelmap", objects=("SEG", "SR"))
    label_map = Sendable(slices[0].path, "1.2.840.10008.5.1.4.1.1.66.7", "1.2.3", slices[0].transfer_syntax_uid, 300)
    with RawArchive(archive) as running, capture_logs() as events:
        to, known = running.destination, Capabilities("WETREAD", tmp_path)
        assert known.fit(profile, to) == (profile, ())
        sender = Sender(to, "WETREAD", ArchiveSettings(ae_title="ARCHIVE", host="h", port=1), known)
        (answer,) = sender.send([label_map, *slices])  # those that follow may refer to it
        sender.close()
        assert answer.unsupported
        again = Capabilities("WETREAD", tmp_path)
        for one in (known, again):
            fitted, notes = one.fit(profile, to)
            assert fitted.segmentation == "binary"
            assert notes == ("SEG as binary, because the archive does not take it as labelmap",)
        assert again.refusals(to) == ("1.2.840.10008.5.1.4.1.1.66.7 in Explicit VR Little Endian",)
    (told,) = [event for event in events if event["event"] == "archive.refuses"]
    assert "archives.archive.results" in told["fix"]


def test_what_is_negotiated_for_a_delivery_is_not_asked_for_again(tmp_path: Path, slices: list[Sendable]) -> None:
    with RawArchive(lambda line: _refusing_label_maps(line)) as running:
        to, known = running.destination, Capabilities("WETREAD", tmp_path)
        sender = Sender(to, "WETREAD", ArchiveSettings(ae_title="ARCHIVE", host="h", port=1), known)
        list(sender.send(slices))
        assert known.fit(ResultProfile(segmentation="labelmap"), to)[0].segmentation == "binary"
        assert len(running.lines) == 1
        sender.close()


def _refusing_label_maps(line: Line) -> None:
    line.accept(refuse=["1.2.840.10008.5.1.4.1.1.66.7"])
    while True:
        line.respond(line.request())


def test_a_warning_is_told_and_the_object_counts_as_taken(tmp_path: Path, slices: list[Sendable]) -> None:
    def archive(line: Line) -> None:
        line.accept()
        while True:
            line.respond(line.request(), 0xB000)

    with RawArchive(archive) as running, capture_logs() as events:
        sender = sender_to(running.destination, tmp_path)
        assert [answer.refusal for answer in sender.send(slices[:1])] == [""]
        sender.close()
    (told,) = [event for event in events if event["event"] == "result.warned_of"]
    assert (told["kind"], told["reason"]) == ("CT Image Storage", "status 0xB000")
