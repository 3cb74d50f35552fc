"""What is accepted for storing has a header that is read; what cannot be decoded is told of when its turn comes."""

from io import BytesIO
from pathlib import Path

import pydicom
import pytest
from pydicom import uid
from pydicom.filewriter import write_file_meta_info

from service.header import read_facts
from service.receive.contexts import DECODABLE, STORABLE
from service.received import Received
from service.series.assembly import assemble
from tests.ct_slice import ct_slice

OTHERWISE = (uid.ImplicitVRLittleEndian, uid.ExplicitVRBigEndian, uid.DeflatedExplicitVRLittleEndian)
"""Whose data sets are not encoded as Explicit VR Little Endian; they have tests of their own."""


def labelled(file: Path, syntax: str) -> Path:
    """The file with another transfer syntax in its file meta information, and the same data set."""
    content = file.read_bytes()
    meta = pydicom.dcmread(file, stop_before_pixels=True).file_meta
    meta.TransferSyntaxUID = uid.UID(syntax)
    other = BytesIO()
    other.write(content[:132])
    write_file_meta_info(other, meta)
    file.write_bytes(other.getvalue() + content[144 + int.from_bytes(content[140:144], "little") :])
    return file


@pytest.mark.parametrize("syntax", [one for one in STORABLE if one not in OTHERWISE] + [uid.UID("1.2.840.113619.5.2")])
def test_what_is_stored_is_filed_by_its_header(syntax: uid.UID, tmp_path: Path) -> None:
    file = labelled(ct_slice(tmp_path / "1.dcm"), syntax)
    facts = read_facts(Received.of(file.read_bytes()))
    assert facts.sop_instance_uid == pydicom.dcmread(file, stop_before_pixels=True).SOPInstanceUID


@pytest.mark.parametrize("syntax", [uid.MPEG4HP41, STORABLE[-2], uid.UID("1.2.840.113619.5.2")])
def test_what_cannot_be_decoded_is_left_out_with_the_reason(syntax: uid.UID, tmp_path: Path) -> None:
    assert syntax not in DECODABLE
    assembly = assemble([labelled(ct_slice(tmp_path / f"{z}.dcm", z=z, number=z), syntax) for z in range(1, 4)])
    assert assembly.items == ()
    assert {left.reason for left in assembly.left_out} == {
        f"the transfer syntax {syntax.name} is not read; send the image in another one"
    }
