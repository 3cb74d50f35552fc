"""What is asked of a sender's archive, against Orthanc and DCMTK."""

import itertools
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path
from typing import Any

import pydicom
import pytest
from pydicom.uid import generate_uid
from pynetdicom import AE, evt
from structlog.testing import capture_logs

import service.archive.dicomweb
import service.archive.dimse
import service.archive.identifiers
from service.archive.client import ArchiveClient
from service.deliver.scu import echo, send, sendable
from service.errors import ArchiveUnavailable, Rejected
from service.receive.contexts import DECODABLE, PROCESSED
from service.received import Received
from service.settings import ArchiveSettings
from service.spool import Spool
from service.types import Destination
from service.versions import Stored
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import free_ports
from tests.validators import require_tool
from tests.waiting import eventually

QUERIES = ["c-find", "qido"]
WAYS = ["c-get", "c-move", "wado-rs"]
COMPRESSED = ("wg04_RG3_JLSL.dcm", "wg04_RG3_RLE.dcm", "wg04_RG1_J2KI.dcm")


@dataclass
class Listener:
    """The node's place: it keeps what a C-MOVE brings."""

    port: int = 0
    files: list[bytes] = field(default_factory=list)

    def store(self, event: evt.Event) -> int:
        self.files.append(event.encoded_dataset())
        return 0x0000


@pytest.fixture(scope="module")
def listener() -> Iterator[Listener]:
    received = Listener()
    entity = AE("WETREAD")
    for sop_class in PROCESSED:
        entity.add_supported_context(sop_class, list(DECODABLE))
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, received.store)])
    received.port = server.server_address[1]
    yield received
    server.shutdown()


@pytest.fixture(scope="module")
def orthanc(tmp_path_factory: pytest.TempPathFactory, listener: Listener, phantom_ct: Path) -> Iterator[Orthanc]:
    folder = tmp_path_factory.mktemp("orthanc")
    # stable after the test: it shall forward nothing by itself
    with running_orthanc(folder, listener.port, stable_seconds=3600, dicomweb=True) as running:
        running.upload(*phantom_ct.iterdir())
        yield running


@dataclass(frozen=True)
class Series:
    """A series on disk: its UIDs, and its files by SOP Instance UID."""

    study: str
    uid: str
    files: dict[str, Path]


def series_of(files: list[Path]) -> Series:
    headers = {file: pydicom.dcmread(file, stop_before_pixels=True) for file in files}
    first = headers[files[0]]
    by_uid = {str(header.SOPInstanceUID): file for file, header in headers.items()}
    return Series(str(first.StudyInstanceUID), str(first.SeriesInstanceUID), by_uid)


@pytest.fixture(scope="module")
def ct(phantom_ct: Path) -> Series:
    return series_of(sorted(phantom_ct.iterdir()))


def client(to: Destination, calling: str = "WETREAD", **keys: Any) -> ArchiveClient:
    return ArchiveClient(to, ArchiveSettings(ae_title=to.ae_title, host=to.host, port=to.port, **keys), calling)


def asking(orthanc: Orthanc, **keys: Any) -> ArchiveClient:
    return client(orthanc.destination, dicomweb=orthanc.dicomweb, **keys)


def data_set(file: bytes) -> tuple[str, bytes]:
    """Transfer syntax and encoded data set of a DICOM file."""
    stream = BytesIO(file)
    meta = pydicom.filereader.read_partial(stream, lambda tag, vr, length: True).file_meta
    return str(meta.TransferSyntaxUID), file[144 + meta.FileMetaInformationGroupLength :]


def without_padding(image: pydicom.Dataset) -> pydicom.Dataset:
    if "DataSetTrailingPadding" in image:
        del image.DataSetTrailingPadding
    return image


def by_uid(files: list[bytes]) -> dict[str, tuple[str, bytes]]:
    return {str(pydicom.dcmread(BytesIO(file)).SOPInstanceUID): data_set(file) for file in files}


# ---- count and list -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", QUERIES)
def test_an_archive_tells_how_many_instances_a_series_has_and_which(orthanc: Orthanc, ct: Series, way: str) -> None:
    archive = asking(orthanc, count=way)
    assert archive.count(ct.study, ct.uid) == len(ct.files)
    listed = archive.instances(ct.study, ct.uid)
    assert sorted(listed) == sorted(ct.files)


@pytest.mark.parametrize("way", QUERIES)
def test_a_list_longer_than_a_page_is_whole(
    orthanc: Orthanc, ct: Series, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.archive.dicomweb, "PAGE", 7)
    assert sorted(asking(orthanc, count=way).instances(ct.study, ct.uid)) == sorted(ct.files)


@pytest.mark.parametrize("way", QUERIES)
def test_a_series_that_the_archive_does_not_know_has_no_count(orthanc: Orthanc, ct: Series, way: str) -> None:
    archive = asking(orthanc, count=way)
    for study, series in ((ct.study, generate_uid()), (generate_uid(), ct.uid), (generate_uid(), generate_uid())):
        assert archive.count(study, series) is None
        assert archive.instances(study, series) == ()


def test_several_threads_may_ask_at_once(orthanc: Orthanc, ct: Series) -> None:
    archives = [asking(orthanc, count=way) for way in QUERIES]
    counts: list[int | None] = []
    threads = [
        threading.Thread(target=lambda archive=archive: counts.append(archive.count(ct.study, ct.uid)))
        for archive in archives * 4
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts == [len(ct.files)] * len(threads)


# ---- fetch ----------------------------------------------------------------------------------------------------------


def fetched(archive: ArchiveClient, listener: Listener, series: Series, uids: list[str]) -> tuple[int, list[bytes]]:
    listener.files.clear()
    kept: list[bytes] = []
    sent = archive.fetch(series.study, series.uid, uids, kept.append)
    assert not (kept and listener.files)
    return sent, kept or list(listener.files)


@pytest.mark.parametrize("way", WAYS)
def test_chosen_instances_are_fetched_bit_for_bit(orthanc: Orthanc, listener: Listener, ct: Series, way: str) -> None:
    uids = list(ct.files)[3:6]
    sent, files = fetched(asking(orthanc, fetch=way), listener, ct, uids)
    assert sent == len(files) == 3
    assert by_uid(files) == {uid: data_set(ct.files[uid].read_bytes()) for uid in uids}


@pytest.mark.parametrize("way", WAYS)
def test_more_instances_than_one_request_names_are_fetched(
    orthanc: Orthanc, listener: Listener, ct: Series, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.archive.identifiers, "CHUNK", 4)
    uids = list(ct.files)[:11]
    sent, files = fetched(asking(orthanc, fetch=way), listener, ct, uids)
    assert sent == 11
    assert sorted(by_uid(files)) == sorted(uids)


@pytest.mark.parametrize("way", WAYS)
def test_instances_come_in_the_transfer_syntax_in_which_the_archive_holds_them(
    orthanc: Orthanc, listener: Listener, shared_data: Path, way: str
) -> None:
    for name in COMPRESSED:
        file = shared_data / "dicom" / "cr" / name
        orthanc.upload(file)
        image = series_of([file])
        sent, files = fetched(asking(orthanc, fetch=way), listener, image, list(image.files))
        assert sent == len(files) == 1
        if way == "wado-rs":
            assert data_set(files[0]) == data_set(file.read_bytes())
        # over DIMSE this archive encodes the lengths of sequences anew, and leaves out what trails behind the pixels
        assert data_set(files[0])[0] == data_set(file.read_bytes())[0]
        assert without_padding(pydicom.dcmread(BytesIO(files[0]))) == without_padding(pydicom.dcmread(file))


@pytest.mark.parametrize("way", WAYS)
def test_what_an_archive_wraps_anew_is_a_duplicate_of_what_came_from_elsewhere(
    orthanc: Orthanc, listener: Listener, shared_data: Path, tmp_path: Path, way: str
) -> None:
    spool = Spool(tmp_path)
    differ = 0
    for file in sorted((shared_data / "dicom" / "cr").glob("*.dcm")):
        if pydicom.dcmread(file, stop_before_pixels=True).SOPClassUID not in PROCESSED:  # these are not fetched
            continue
        image = series_of([file])
        orthanc.upload(file)
        _, [copy] = fetched(asking(orthanc, fetch=way), listener, image, list(image.files))
        differ += data_set(copy) != data_set(file.read_bytes())
        assert spool.store(file.name, "scanner first", Received.of(file.read_bytes())) is Stored.NEW
        assert spool.store(file.name, "scanner first", Received.of(copy)) is Stored.DUPLICATE, file.name
        assert spool.store(file.name, "archive first", Received.of(copy)) is Stored.NEW
        assert spool.store(file.name, "archive first", Received.of(file.read_bytes())) is Stored.DUPLICATE, file.name
    assert differ or way == "wado-rs"
    assert not list(spool.quarantined())


@pytest.mark.parametrize("way", ["c-move", "wado-rs"])  # Orthanc refuses a whole C-GET that names one
def test_an_instance_that_the_archive_does_not_have_is_left_out(
    orthanc: Orthanc, listener: Listener, ct: Series, way: str
) -> None:
    known = next(iter(ct.files))
    sent, files = fetched(asking(orthanc, fetch=way), listener, ct, [generate_uid(), known])
    assert sent == len(files) == 1
    assert list(by_uid(files)) == [known]


@pytest.mark.parametrize("way", ["c-get", "wado-rs"])
def test_what_cannot_be_kept_ends_the_fetch_with_its_own_error(orthanc: Orthanc, ct: Series, way: str) -> None:
    kept: list[bytes] = []

    def keep(file: bytes) -> None:
        kept.append(file)
        if len(kept) == 2:
            raise OSError("no room")

    before = threading.active_count()
    with pytest.raises(OSError, match="no room"):
        asking(orthanc, fetch=way).fetch(ct.study, ct.uid, list(ct.files), keep)
    assert len(kept) == 2
    eventually(lambda: threading.active_count() <= before, "the threads of the association have ended", seconds=10)


@pytest.mark.parametrize("way", WAYS)
def test_a_fetch_that_takes_too_long_is_given_up(
    orthanc: Orthanc, ct: Series, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service.archive.dimse, "FETCH_SECONDS", 0.0)
    monkeypatch.setattr(service.archive.dicomweb, "FETCH_SECONDS", 0.0)
    kept: list[bytes] = []
    with pytest.raises(ArchiveUnavailable, match=r"in time|too long"):
        asking(orthanc, fetch=way).fetch(ct.study, ct.uid, list(ct.files), kept.append)
    assert not kept


def test_an_archive_that_does_not_know_where_to_send_refuses_a_move(orthanc: Orthanc, ct: Series) -> None:
    stranger = client(orthanc.destination, "STRANGER", fetch="c-move")
    with pytest.raises((Rejected, ArchiveUnavailable), match=r"orthanc.*(C-MOVE|takes none of)"):
        stranger.fetch(ct.study, ct.uid, list(ct.files)[:1], lambda file: None)


# ---- archives that do not answer, or refuse -------------------------------------------------------------------------


@pytest.mark.parametrize(("count", "fetch"), [("c-find", "c-get"), ("c-find", "c-move"), ("qido", "wado-rs")])
def test_an_archive_that_is_down_is_unavailable(ct: Series, count: str, fetch: str) -> None:
    [port] = free_ports(1)
    web = f"http://127.0.0.1:{port}/dicom-web"
    away = client(Destination("away", "AWAY", "127.0.0.1", port), count=count, fetch=fetch, dicomweb=web)
    calls = [
        lambda: away.count(ct.study, ct.uid),
        lambda: away.instances(ct.study, ct.uid),
        lambda: away.fetch(ct.study, ct.uid, list(ct.files), lambda file: None),
    ]
    for call in calls:
        with pytest.raises(ArchiveUnavailable, match=r"away.*not there or refuses the connection"):
            call()


@pytest.mark.parametrize("way", QUERIES)
def test_an_archive_that_says_nothing_is_unavailable(ct: Series, way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service.archive.dicomweb, "QUERY_SECONDS", 0.5)
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        web = f"http://127.0.0.1:{port}/dicom-web"
        archive = client(Destination("mute", "MUTE", "127.0.0.1", port), count=way, dicomweb=web)
        with pytest.raises(ArchiveUnavailable, match="mute"):
            archive.count(ct.study, ct.uid)


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[Destination]:
    """DCMTK's Storage SCP, which takes images and cannot be asked anything."""
    tool = Path(require_tool("dcmdump")).with_name("storescp")
    [port] = free_ports(1)
    process = subprocess.Popen([tool, "--ignore", "-aet", "STORE", "-od", tmp_path, str(port)])
    destination = Destination("store", "STORE", "127.0.0.1", port)
    eventually(lambda: answers(destination), "storescp answers")
    yield destination
    process.terminate()
    process.wait()


def answers(destination: Destination) -> bool:
    try:
        echo(destination, "TEST")
    except ArchiveUnavailable:
        return False
    return True


def test_an_archive_that_refuses_to_be_asked_is_asked_no_more_and_that_is_told_once(
    storescp: Destination, ct: Series
) -> None:
    archive = client(storescp, fetch="c-get")
    with capture_logs() as logs:
        assert [archive.count(ct.study, ct.uid) for _ in range(3)] == [None] * 3
    [told] = logs
    assert (told["event"], told["archive"]) == ("archive.asked_no_more", "store")
    assert "takes none of: Study Root Query/Retrieve Information Model - FIND" in told["reason"]
    assert "archives.store.count" in told["fix"]
    with pytest.raises(Rejected, match="takes none of"):
        archive.instances(ct.study, ct.uid)


def test_an_archive_that_takes_no_c_get_refuses_it_for_good(storescp: Destination, ct: Series) -> None:
    for way in ("c-get", "c-move"):
        with pytest.raises(Rejected, match=r"store.*takes none of|store does not take C-GET"):
            client(storescp, fetch=way).fetch(ct.study, ct.uid, list(ct.files)[:1], lambda file: None)


def test_a_wrong_url_is_a_refusal_that_names_the_key(orthanc: Orthanc, ct: Series) -> None:
    wrong = client(orthanc.destination, count="qido", fetch="wado-rs", dicomweb=orthanc.dicomweb + "/nowhere")
    with pytest.raises(Rejected, match=r"404; archives\.orthanc\.dicomweb must be"):
        wrong.instances(ct.study, ct.uid)


# ---- an archive that does not count ---------------------------------------------------------------------------------


@pytest.fixture
def dcmqrscp(tmp_path: Path) -> Iterator[Destination]:
    """DCMTK's small archive, which does not give NumberOfSeriesRelatedInstances."""
    tool = Path(require_tool("dcmdump")).with_name("dcmqrscp")
    (tmp_path / "db").mkdir()
    [port] = free_ports(1)
    configuration = tmp_path / "dcmqrscp.cfg"
    configuration.write_text(
        f"NetworkTCPPort = {port}\nMaxPDUSize = 131072\nMaxAssociations = 16\n"
        "HostTable BEGIN\nHostTable END\nVendorTable BEGIN\nVendorTable END\n"
        f"AETable BEGIN\nSMALL {tmp_path / 'db'} RW (100, 1024mb) ANY\nAETable END\n"
    )
    process = subprocess.Popen([tool, "-c", configuration], env={**os.environ, "TCP_NODELAY": "1"})
    destination = Destination("small", "SMALL", "127.0.0.1", port)
    eventually(lambda: answers(destination), "dcmqrscp answers")
    yield destination
    process.terminate()
    process.wait()


def test_the_images_are_counted_where_an_archive_gives_no_number(dcmqrscp: Destination, ct: Series) -> None:
    some = dict(itertools.islice(ct.files.items(), 9))
    assert not any(answer.refusal for answer in send(dcmqrscp, "TEST", [sendable(file) for file in some.values()]))
    archive = client(dcmqrscp, fetch="c-get")
    assert archive.count(ct.study, ct.uid) == 9
    assert archive.count(ct.study, generate_uid()) is None
    kept: list[bytes] = []
    assert archive.fetch(ct.study, ct.uid, list(some)[:2], kept.append) == 2
    assert by_uid(kept) == {uid: data_set(some[uid].read_bytes()) for uid in list(some)[:2]}
