"""What DCMTK and pynetdicom send is kept bit for bit, in every transfer syntax that there are files of."""

import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pydicom
import pytest
from pydicom import uid
from pydicom.errors import InvalidDicomError
from pynetdicom import AE, _config

from service.receive.contexts import CARRIED_ALONG, PROCESSED
from service.results.storage import LABEL_MAP
from tests.receiving import Listening, listening
from tests.running_node import free_ports
from tests.validators import require_tool
from tests.waiting import eventually

LARGEST = 3 << 20
OFFERS = {
    uid.ImplicitVRLittleEndian: "-xi",
    uid.ExplicitVRLittleEndian: "-xe",
    uid.ExplicitVRBigEndian: "-xb",
    uid.DeflatedExplicitVRLittleEndian: "-xd",
    uid.JPEGLosslessSV1: "-xs",
    uid.JPEGBaseline8Bit: "-xy",
    uid.JPEGExtended12Bit: "-xx",
    uid.JPEG2000Lossless: "-xv",
    uid.JPEG2000: "-xw",
    uid.JPEGLSLossless: "-xt",
    uid.JPEGLSNearLossless: "-xu",
    uid.RLELossless: "-xr",
}
"""How storescu is asked to offer a transfer syntax. DCMTK takes no JPEG Lossless with other selection values than 1."""


@dataclass(frozen=True)
class Example:
    path: Path
    sop_class: str
    instance: str
    syntax: str

    @property
    def data_set(self) -> bytes:
        return data_set_of(self.path.read_bytes())


def data_set_of(content: bytes) -> bytes:
    """The bytes after the file meta information."""
    return content[144 + int.from_bytes(content[140:144], "little") :]


@pytest.fixture(scope="module")
def examples(shared_data: Path) -> dict[str, list[Example]]:
    """By transfer syntax: two files of each SOP class that the node takes, each instance once."""
    found: dict[str, list[Example]] = {}
    for path in sorted((shared_data / "dicom").rglob("*")):
        if not path.is_file() or path.stat().st_size > LARGEST:
            continue
        try:
            header = pydicom.dcmread(path, specific_tags=["SOPClassUID", "SOPInstanceUID"], stop_before_pixels=True)
            meta = header.file_meta
            named = str(meta.MediaStorageSOPClassUID), str(meta.MediaStorageSOPInstanceUID)
            if (str(header.SOPClassUID), str(header.SOPInstanceUID)) != named or named[0] not in {
                *PROCESSED,
                *CARRIED_ALONG,
            }:
                continue
            example = Example(path, *named, str(meta.TransferSyntaxUID))
        except (InvalidDicomError, AttributeError):
            continue
        same = found.setdefault(example.syntax, [])
        if [each.sop_class for each in same].count(example.sop_class) < 2 and example.instance not in {
            each.instance for each in same
        }:
            same.append(example)
    assert len(found) >= 12
    return found


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Listening]:
    with listening(tmp_path) as running:
        yield running


def test_what_pynetdicom_sends_is_what_is_in_its_file(node: Listening, examples: dict[str, list[Example]]) -> None:
    chunked, _config.STORE_SEND_CHUNKED_DATASET = _config.STORE_SEND_CHUNKED_DATASET, True  # as it is in the file
    try:
        for syntax, files in examples.items():
            ae = AE("PYNETDICOM")
            for sop_class in {example.sop_class for example in files}:
                ae.add_requested_context(sop_class, syntax)
            association = ae.associate("127.0.0.1", node.port, ae_title="NODE")
            assert association.is_established
            for example in files:
                assert association.send_c_store(example.path).Status == 0
                assert node.kept.data_set(example.instance) == example.data_set, example.path.name
            association.release()
    finally:
        _config.STORE_SEND_CHUNKED_DATASET = chunked


@pytest.fixture
def storescp(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """DCMTK's own receiver, which writes what it gets as it gets it."""
    [port] = free_ports(1)
    folder = tmp_path / "reference"
    folder.mkdir()
    tool = dcmtk("storescp")
    process = subprocess.Popen([tool, "+xa", "--bit-preserving", "-uf", "-od", folder, str(port)])
    try:
        yield port, folder
    finally:
        process.terminate()
        process.wait()


def dcmtk(name: str) -> Path:
    """pynetdicom installs commands of the same names."""
    return Path(require_tool("dcmdump")).with_name(name)


@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_what_dcmtk_sends_is_what_its_own_receiver_gets(
    sender: str, node: Listening, examples: dict[str, list[Example]], storescp: tuple[int, Path], tmp_path: Path
) -> None:
    port, folder = storescp
    echo = [str(dcmtk("echoscu")), "127.0.0.1", str(port)]
    eventually(lambda: subprocess.run(echo, capture_output=True).returncode == 0, "storescp answers")
    for syntax, files in examples.items():
        if syntax not in OFFERS:
            continue
        options = ["-R", OFFERS[uid.UID(syntax)]] if sender == "storescu" else ["--decompress-never"]
        by_class = {example.sop_class: example for example in files if example.sop_class != LABEL_MAP}
        for number, example in enumerate(by_class.values()):  # label maps are younger than DCMTK 3.6.7
            file = tmp_path / f"{number}.dcm"
            shutil.copy(example.path, file)
            for each in (port, node.port):
                line = [str(dcmtk(sender)), *options, "-aec", "NODE", "127.0.0.1", str(each), str(file)]
                ran = subprocess.run(line, capture_output=True, text=True, check=False)
                assert ran.returncode == 0, f"{example.path.name}: {ran.stdout}{ran.stderr}"
            [reference] = folder.iterdir()
            assert node.kept.data_set(example.instance) == data_set_of(reference.read_bytes()), example.path.name
            reference.unlink()


@pytest.mark.parametrize("sender", ["storescu", "dcmsend"])
def test_a_series_comes_in_one_association_and_is_released(sender: str, node: Listening, phantom_ct: Path) -> None:
    options = ["+sd", "-R", "-pdu", "131072"] if sender == "storescu" else ["+sd"]
    line = [str(dcmtk(sender)), *options, "-aec", "NODE", "127.0.0.1", str(node.port), str(phantom_ct)]
    subprocess.run(line, check=True, capture_output=True)
    files = [path.read_bytes() for path in phantom_ct.iterdir()]
    assert sorted(data_set_of(file) for file in files) == sorted(map(node.kept.data_set, node.kept.files))
    eventually(lambda: node.kept.ends == ["released"], "it is released")
    assert len(node.kept.associations) == 1
