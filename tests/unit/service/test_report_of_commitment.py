"""Storage commitment as the standard has it: reports, right and wrong."""

import contextlib
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom import Dataset

from service.commitment import LONGEST, MOST, Report, read_report, read_report_file, request
from service.wire.dimse import file_meta

META = file_meta("1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1", "1.2.840.10008.1.2")


def information(committed: int = 0, failed: tuple[int, ...] = (), transaction: str = "2.25.7") -> Dataset:
    told = Dataset()
    told.TransactionUID = transaction
    told.ReferencedSOPSequence = request(
        "2.25.7", [("1.2", f"1.3.{n}") for n in range(committed)]
    ).ReferencedSOPSequence
    told.FailedSOPSequence = request("2.25.7", [("1.2", f"1.4.{n}") for n in range(len(failed))]).ReferencedSOPSequence
    for item, reason in zip(told.FailedSOPSequence, failed, strict=True):
        item.FailureReason = reason
    return told


def file(told: Dataset) -> bytes:
    stream = io.BytesIO()
    told.save_as(stream, implicit_vr=True, little_endian=True)
    return b"\0" * 128 + b"DICM" + META + stream.getvalue()


def test_a_report_says_what_is_kept_and_why_the_rest_is_not() -> None:
    report = read_report_file(file(information(2, (0x0112, 0x0213))))
    assert report == Report("2.25.7", ("1.3.0", "1.3.1"), (("1.4.0", 0x0112), ("1.4.1", 0x0213)))
    assert report.refused == ("1.4.0",)  # for the other there was no room just then
    assert report.reasons == "no such object instance (0x0112); resource limitation (0x0213)"


def test_what_is_in_both_lists_is_not_kept() -> None:
    told = information(1, (0x0110,))
    told.FailedSOPSequence[0].ReferencedSOPInstanceUID = "1.3.0"
    assert read_report(told) == Report("2.25.7", (), (("1.3.0", 0x0110),))


@pytest.mark.parametrize(
    "told",
    [Dataset(), information(), information(1, transaction=""), information(MOST + 1)],
    ids=["nothing", "no instance", "no transaction", "too many"],
)
def test_what_is_no_report_is_refused(told: Dataset) -> None:
    with pytest.raises(ValueError, match="event information"):
        read_report(told)


def test_a_report_without_end_is_not_read() -> None:
    with pytest.raises(ValueError, match="more than"):
        read_report_file(file(information(1)) + bytes(LONGEST))


@given(st.integers(0, 300), st.binary(max_size=40))
def test_whatever_comes_is_a_report_or_none(at: int, damage: bytes) -> None:
    content = file(information(2, (0x0112,)))
    damaged = content[: 132 + len(META) + at] + damage + content[132 + len(META) + at + len(damage) :]
    with contextlib.suppress(ValueError):
        assert read_report_file(damaged).transaction_uid
