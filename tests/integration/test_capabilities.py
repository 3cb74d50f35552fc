"""An archive is asked what it takes, and gets what it can file."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from pydicom import uid
from pynetdicom import AE

from service.deliver.capabilities import FILE, Capabilities, accepted
from service.errors import ArchiveUnavailable
from service.results.profile import ResultProfile
from service.results.storage import LABEL_MAP, SEGMENTATIONS, all_storages
from service.settings import Settings, parse
from service.types import Destination
from service.wire import VERIFICATION
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import free_ports


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), node_port=free_ports(1)[0]) as running:
        yield running


def configured(to: Destination, **results: object) -> Settings:
    archive = {"ae_title": to.ae_title, "host": to.host, "port": to.port, "results": results}
    return parse({"archives": {"pacs": archive}, "senders": {"CT1": {"archive": "pacs"}}}, "test")


def fitted(settings: Settings, folder: Path) -> tuple[ResultProfile, tuple[str, ...]]:
    """What the archive gets of what its settings ask for."""
    destination = settings.destination_for("CT1")
    assert destination is not None
    return Capabilities("WETREAD", folder).fit(settings.profile_for("CT1"), destination)


@contextmanager
def an_old_archive() -> Iterator[Destination]:
    """One that knows secondary captures and nothing else of what we make."""
    entity = AE("OLD")
    entity.add_supported_context(VERIFICATION)
    entity.add_supported_context(uid.SecondaryCaptureImageStorage)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    try:
        yield Destination("pacs", "OLD", "127.0.0.1", server.server_address[1])
    finally:
        server.shutdown()


def test_a_real_orthanc_takes_every_kind_but_label_maps(orthanc: Orthanc) -> None:
    takes = accepted(orthanc.destination, "WETREAD", all_storages())
    assert set(all_storages()) - takes == {each for each in SEGMENTATIONS.values() if each[0] == LABEL_MAP}


def test_a_label_map_becomes_binary_for_a_real_orthanc(orthanc: Orthanc, tmp_path: Path) -> None:
    settings = configured(orthanc.destination, segmentation="labelmap-jpeg-ls")
    profile, notes = fitted(settings, tmp_path)
    assert profile == settings.profile_for("CT1").model_copy(update={"segmentation": "binary"})
    assert "does not take it as labelmap-jpeg-ls" in notes[0]


def test_an_archive_that_knows_captures_only_gets_captures_also_while_it_is_away_after_a_restart(
    tmp_path: Path,
) -> None:
    with an_old_archive() as archive:
        settings = configured(archive)
        profile, notes = fitted(settings, tmp_path)
    assert profile.objects == ("SC",)
    assert "SEG" in notes[0]
    assert fitted(settings, tmp_path) == (profile, notes)


def test_an_archive_that_was_never_reached_is_taken_to_take_everything(tmp_path: Path) -> None:
    nowhere = Destination("pacs", "PACS", "127.0.0.1", free_ports(1)[0])
    settings = configured(nowhere, segmentation="labelmap")
    with pytest.raises(ArchiveUnavailable):
        accepted(nowhere, "WETREAD", all_storages())
    assert fitted(settings, tmp_path) == (settings.profile_for("CT1"), ())
    assert not (tmp_path / FILE).exists()


def test_answers_that_were_damaged_on_disk_are_asked_for_again(orthanc: Orthanc, tmp_path: Path) -> None:
    (tmp_path / FILE).write_text('{"x": [')
    profile, _ = fitted(configured(orthanc.destination, segmentation="labelmap"), tmp_path)
    assert profile.segmentation == "binary"
