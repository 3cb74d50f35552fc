import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pydicom
import pytest
from rich.console import Console

from service.deliver.folder import send_folder
from service.deliver.scu import echo, send, sendable
from service.errors import ArchiveUnavailable
from service.types import Destination
from tests.ct_slice import ct_slice
from tests.validators import require_tool


@pytest.fixture
def storescp(tmp_path: Path, free_tcp_port: int) -> Iterator[tuple[Destination, Path]]:
    """DCMTK's Storage SCP, which keeps what it is sent bit for bit."""
    with running_storescp(tmp_path / "received", free_tcp_port) as running:
        yield running


@contextmanager
def running_storescp(folder: Path, port: int, *options: str) -> Iterator[tuple[Destination, Path]]:
    tool = Path(require_tool("dcmdump")).with_name("storescp")  # pynetdicom installs a command of the same name
    folder.mkdir()
    where = ["-aet", "ARCHIVE", "-od", str(folder), str(port)]
    command = [tool, "--accept-all", "--bit-preserving", *options, *where]
    process = subprocess.Popen(command, env={**os.environ, "TCP_NODELAY": "1"})
    destination = Destination("archive", "ARCHIVE", "127.0.0.1", port)
    for _ in range(100):
        try:
            echo(destination, "TEST")
            break
        except ArchiveUnavailable:
            time.sleep(0.1)
    try:
        yield destination, folder
    finally:
        process.terminate()
        process.wait()


def test_files_arrive_unchanged_in_their_own_transfer_syntax(
    storescp: tuple[Destination, Path], shared_data: Path
) -> None:
    destination, received = storescp
    files = [
        shared_data / "dicom" / "cr" / name for name in ("wg04_RG3_JLSL.dcm", "wg04_RG3_RLE.dcm", "wg04_RG1_J2KI.dcm")
    ]
    files += sorted((shared_data / "dicom" / "ct_cip64_79slices").iterdir())
    answers = list(send(destination, "TEST", [sendable(file) for file in files]))
    assert [(answer.file.path, answer.refusal) for answer in answers] == [(file, "") for file in files]
    arrived = {str(pydicom.dcmread(file).SOPInstanceUID): file for file in received.iterdir()}
    for file in files:
        source = pydicom.dcmread(file)
        kept = pydicom.dcmread(arrived[str(source.SOPInstanceUID)])
        assert kept.file_meta.TransferSyntaxUID == source.file_meta.TransferSyntaxUID
        assert kept.PixelData == source.PixelData


def test_a_peer_that_is_not_there_is_unavailable(free_tcp_port: int) -> None:
    with pytest.raises(ArchiveUnavailable, match="is not there or refuses the connection"):
        echo(Destination("archive", "ARCHIVE", "127.0.0.1", free_tcp_port), "TEST")


def test_a_folder_is_sent_and_what_is_no_dicom_is_told(
    storescp: tuple[Destination, Path], phantom_xray: Path, tmp_path: Path
) -> None:
    destination, received = storescp
    folder = tmp_path / "study"
    shutil.copytree(phantom_xray, folder)
    (folder / "notes.txt").write_text("no DICOM")
    report = send_folder(folder, destination, "TEST", Console(quiet=True))
    assert report.sent == len(list(received.iterdir())) == 1
    assert [(file.name, reason) for file, reason in report.skipped] == [
        ("notes.txt", "not a DICOM file with file meta information (PS3.10)")
    ]


def test_a_sop_class_that_the_peer_does_not_take_is_refused_while_the_others_are_taken(
    storescp: tuple[Destination, Path], phantom_xray: Path, tmp_path: Path
) -> None:
    destination, received = storescp
    (file,) = phantom_xray.iterdir()
    private = pydicom.dcmread(file)
    private.SOPClassUID = private.file_meta.MediaStorageSOPClassUID = "1.2.826.0.1.3680043.8.498.1"
    private.save_as(tmp_path / "private.dcm")
    files = [sendable(tmp_path / "private.dcm"), sendable(file)]
    refusals = [answer.refusal for answer in send(destination, "TEST", files)]
    assert refusals == ["1.2.826.0.1.3680043.8.498.1 is not accepted by ARCHIVE", ""]
    assert len(list(received.iterdir())) == 1
    assert [answer.unsupported for answer in send(destination, "TEST", files[:1])] == [True]


@pytest.mark.parametrize("option", ["--abort-during", "--abort-after"])
def test_a_peer_that_aborts_amid_an_object_is_unavailable(
    option: str, phantom_xray: Path, tmp_path: Path, free_tcp_port: int
) -> None:
    with running_storescp(tmp_path / "received", free_tcp_port, option) as (destination, _):
        answers = send(destination, "TEST", [sendable(file) for file in phantom_xray.iterdir()])
        with pytest.raises(ArchiveUnavailable, match="the association ended at a C-STORE"):
            list(answers)


@pytest.mark.parametrize("option", ["--sleep-during", "--sleep-after"])
def test_a_slow_peer_is_waited_for(option: str, tmp_path: Path, free_tcp_port: int) -> None:
    with running_storescp(tmp_path / "received", free_tcp_port, option, "1") as (destination, received):
        files = [sendable(ct_slice(tmp_path / "1.dcm"))]  # it sleeps at each PDU
        assert [answer.refusal for answer in send(destination, "TEST", files)] == [""]
        assert len(list(received.iterdir())) == 1
