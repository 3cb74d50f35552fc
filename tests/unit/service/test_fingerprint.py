"""The same instance in other wrappings, made by DCMTK from real files and by hand from small data sets."""

import copy
import hashlib
import io
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import DataElement, Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, ImplicitVRLittleEndian, generate_uid

from service.fingerprint import fingerprint
from service.received import Received
from service.spool import Spool
from service.versions import Stored
from tests.validators import require_tool

REWRAPPED = [("+e",), ("-e",), ("+g",), ("-g",), ("+p", "512", "64"), ("-p",)]
"""Options of dcmconv: lengths of sequences, group lengths, trailing padding."""


@pytest.mark.parametrize(
    "folder", ["cr", "ct_ge_tilt_variable_spacing", "ct_enhanced_multiframe_2fr", "sr_dcmqi_tid1500"]
)
def test_real_files_that_dcmtk_wraps_anew_are_the_same_instances(
    folder: str, shared_data: Path, tmp_path: Path
) -> None:
    dcmconv = require_tool("dcmconv")
    differed = compared = 0
    for file in sorted((shared_data / "dicom" / folder).iterdir())[:12]:
        plain = tmp_path / "plain.dcm"  # what DCMTK reads of it: its own repairs do not count
        if subprocess.run([dcmconv, file, plain], capture_output=True).returncode:
            continue
        spool = Spool(tmp_path / "spool")
        assert spool.store(file.name, "one", Received.of(plain.read_bytes())) is Stored.NEW
        for options in REWRAPPED:
            subprocess.run([dcmconv, *options, plain, tmp_path / "other.dcm"], check=True, capture_output=True)
            other = (tmp_path / "other.dcm").read_bytes()
            differed += other != plain.read_bytes()
            compared += 1
            assert spool.store(file.name, "one", Received.of(other)) is Stored.DUPLICATE, (file.name, options)
        assert spool.corrections(file.name) == 0
        assert not list(spool.quarantined())
    assert compared >= 6
    assert differed >= compared / 3, "the wrappings do differ"


def test_a_real_file_in_another_transfer_syntax_is_another_content(shared_data: Path, tmp_path: Path) -> None:
    file = shared_data / "dicom" / "ct_ge_tilt_variable_spacing" / "01.dcm"
    subprocess.run([require_tool("dcmconv"), "+ti", file, tmp_path / "implicit.dcm"], check=True, capture_output=True)
    assert fingerprint(file.read_bytes()) != fingerprint((tmp_path / "implicit.dcm").read_bytes())


def test_one_pixel_makes_another_content(phantom_ct: Path) -> None:
    content = bytearray(min(phantom_ct.iterdir()).read_bytes())
    before = fingerprint(bytes(content))
    content[-1] ^= 1
    assert fingerprint(bytes(content)) != before


@pytest.mark.parametrize("content", [b"", b"no DICOM"])
def test_what_cannot_be_read_is_known_by_its_bytes(content: bytes) -> None:
    assert fingerprint(content) == hashlib.sha256(content).hexdigest()


def test_the_preamble_of_what_cannot_be_read_is_no_part_of_it() -> None:
    broken = b"DICM" + b"\xff" * 40
    assert (
        fingerprint(bytes(128) + broken) == fingerprint(b"\1" * 128 + broken) != fingerprint(bytes(128) + broken[:-1])
    )


def test_a_file_has_the_fingerprint_of_its_content(phantom_ct: Path, tmp_path: Path) -> None:
    file, broken = min(phantom_ct.iterdir()), tmp_path / "broken"
    broken.write_bytes(b"no DICOM")
    for each in (file, broken):
        assert fingerprint(each) == fingerprint(each.read_bytes()) == fingerprint(memoryview(each.read_bytes()))


def test_what_lies_behind_the_end_that_a_parser_sees_counts(phantom_ct: Path) -> None:
    content = min(phantom_ct.iterdir()).read_bytes()
    end = b"\xfe\xff\x0d\xe0\0\0\0\0"  # an item's end that ends nothing
    assert fingerprint(content + end + b"\1" * 16) != fingerprint(content + end + b"\2" * 16)


# ---- small data sets ------------------------------------------------------------------------------------------------

TEXT = st.text("ABC 1_", max_size=6)
ELEMENTS = {
    (0x00080060, "CS"): TEXT,
    (0x00080080, "LO"): TEXT,
    (0x00180050, "DS"): st.sampled_from(["", "1", "1.0", "1.00", "2.5"]),
    (0x00200013, "IS"): st.sampled_from(["", "1", "12", "123"]),
    (0x00280010, "US"): st.integers(0, 65535),
    (0x00280103, "US"): st.integers(0, 1),
    (0x00091001, "UN"): st.binary(min_size=2, max_size=2) | st.binary(min_size=4, max_size=4),
}
SEQUENCES = [0x00081140, 0x00082112, 0x00400275]


def data_sets(depth: int = 2) -> st.SearchStrategy[Dataset]:
    simple = st.fixed_dictionaries({}, optional=ELEMENTS)
    if not depth:
        return simple.map(lambda values: made(values, {}))
    nested = st.dictionaries(st.sampled_from(SEQUENCES), st.lists(data_sets(depth - 1), max_size=2), max_size=2)
    return st.builds(made, simple, nested)


def made(values: dict[tuple[int, str], object], sequences: dict[int, list[Dataset]]) -> Dataset:
    data_set = Dataset()
    for (tag, vr), value in values.items():
        data_set.add_new(tag, vr, value)
    for tag, items in sequences.items():
        data_set.add_new(tag, "SQ", Sequence(items))
    return data_set


def written(data_set: Dataset, syntax: str) -> bytes:
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = syntax
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = "1.2.3", generate_uid()  # each time another
    file = io.BytesIO()
    pydicom.FileDataset(file, data_set, preamble=b"\0" * 128, file_meta=meta).save_as(file, enforce_file_format=True)
    return file.getvalue()


def all_of(data_set: Dataset) -> Iterator[tuple[Dataset, DataElement]]:
    for element in data_set:
        yield data_set, element
        for item in element.value if element.VR == "SQ" else ():
            yield from all_of(item)


SYNTAXES = st.sampled_from([ExplicitVRLittleEndian, ImplicitVRLittleEndian])


@given(data_sets(), SYNTAXES, st.randoms(use_true_random=False))
def test_lengths_group_lengths_and_padding_do_not_count(data_set: Dataset, syntax: str, random: object) -> None:
    other = copy.deepcopy(data_set)
    for holder, element in list(all_of(other)):
        if element.VR == "SQ":
            element.value.is_undefined_length = element.is_undefined_length = random.random() < 0.5  # type: ignore[attr-defined]
            for item in element.value:
                item.is_undefined_length_sequence_item = random.random() < 0.5  # type: ignore[attr-defined]
        elif element.VR == "LO" and isinstance(element.value, str):
            holder[element.tag].value = element.value + "  "
        if random.random() < 0.5:  # type: ignore[attr-defined]
            holder.add_new((element.tag.group, 0), "UL", 1234)
    other.add_new(0xFFFCFFFC, "OB", b"\0" * 8)
    one, two = written(data_set, syntax), written(other, syntax)
    assert one != two
    assert fingerprint(one) != hashlib.sha256(one).hexdigest(), "it could be read"
    assert fingerprint(one) == fingerprint(two)


@given(data_sets(), SYNTAXES, st.data())
def test_every_other_difference_counts(data_set: Dataset, syntax: str, data: st.DataObject) -> None:
    other = copy.deepcopy(data_set)
    places = [(holder, element) for holder, element in all_of(other)]
    change = data.draw(st.sampled_from(["add", "remove", "alter"] if places else ["add"]))
    if change == "add":
        other.add_new(0x00204000, "LT", "")
    else:
        holder, element = data.draw(st.sampled_from(places))
        if change == "remove":
            del holder[element.tag]
        elif element.VR == "SQ":
            element.value.append(Dataset())
        else:
            held = {"US": lambda: (element.value + 1) % 65536, "UN": lambda: element.value + b"\1\2"}
            holder[element.tag] = DataElement(element.tag, element.VR, held.get(element.VR, lambda: "7")())
    assert fingerprint(written(data_set, syntax)) != fingerprint(written(other, syntax))
