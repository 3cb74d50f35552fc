"""Gaps are seen, and what is no gap is not taken for one."""

import random
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.header import HeaderFacts, read_facts
from service.received import Received
from service.series.continuity import Continuity, Verdict

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)
CT = "1.2.840.10008.5.1.4.1.1.2"
WHOLE = Verdict(whole=True)


def slice_at(z: float, number: int | None = None, orientation: tuple[float, ...] = AXIAL) -> HeaderFacts:
    position = (0.0, 0.0, z) if orientation is AXIAL else (0.0, z, 0.0)
    return HeaderFacts(CT, f"1.{z}.{number}", "1.2", "1.2.3", "CT", number, position=position, orientation=orientation)


def verdict(slices: Sequence[HeaderFacts]) -> Verdict:
    """What is said of slices in any order."""
    continuity = Continuity()
    for facts in random.Random(1).sample(slices, len(slices)):
        continuity.add(facts)
        _ = continuity.verdict
    return continuity.verdict


def regular(count: int, spacing: float = 2.5, start: float = 0.0, first: int = 1) -> list[HeaderFacts]:
    return [slice_at(start + index * spacing, first + index) for index in range(count)]


def test_regular_slices_are_whole() -> None:
    assert verdict(regular(40)) == WHOLE
    assert verdict(regular(3, 0.1)) == WHOLE
    assert verdict([slice_at(round(index * 0.625, 1), index) for index in range(200)]) == WHOLE


def test_two_slices_say_nothing() -> None:
    assert verdict(regular(2)) == Verdict()
    assert verdict([]) == Verdict()


@pytest.mark.parametrize("missing", [1, 2, 3, 10])
def test_missing_slices_leave_a_gap(missing: int) -> None:
    slices = regular(40)
    del slices[17 : 17 + missing]
    assert verdict(slices).gap == "1 gap in the slice positions"
    del slices[5]
    assert verdict(slices).gap == "2 gaps in the slice positions"


def test_blocks_of_different_spacing_are_no_gap_and_a_gap_in_one_is_seen() -> None:
    thin = regular(20, 1.25)
    thick = regular(10, 5.0, start=19 * 1.25 + 3.0, first=21)
    assert verdict(thin + thick) == WHOLE
    assert verdict(thin + thick[:4] + thick[5:]).gap
    assert verdict(thin[:9] + thin[10:] + thick).gap


def test_several_phases_at_the_same_positions_are_whole_when_each_position_has_as_many() -> None:
    phases = regular(20) + regular(20, first=101)
    assert verdict(phases) == Verdict()  # the numbers jump: neither for nor against
    phases = regular(20) + regular(20, first=21)
    assert verdict(phases) == WHOLE
    assert not verdict(phases[:30]).whole
    assert not verdict(phases[:30]).gap
    assert verdict(phases[:30] + phases[31:]).gap


def test_a_localiser_does_not_disturb() -> None:
    assert verdict([slice_at(0.0, 1, CORONAL), *regular(30, first=2)]) == WHOLE


def test_numbers_count_where_positions_say_nothing() -> None:
    def numbered(*numbers: int) -> list[HeaderFacts]:
        return [HeaderFacts(CT, f"1.{number}", "1.2", "1.2.3", "CT", number) for number in numbers]

    assert verdict(numbered(1, 2, 3, 4)) == Verdict()
    assert verdict(numbered(1, 2, 4, 5)).gap == "InstanceNumber jumps after 2"
    assert verdict(numbered(10, 20, 30)) == Verdict()


def test_positions_that_are_no_numbers_say_nothing() -> None:
    assert verdict([slice_at(float("nan"), number) for number in range(5)]) == Verdict()


@pytest.mark.parametrize(
    ("folder", "expected"),
    [
        ("ct_nlst101287_*", WHOLE),
        ("ct_cip64_79slices", WHOLE),
        ("ct_ge_tilt_variable_spacing", WHOLE),
    ],
)
def test_real_series_are_whole_and_each_missing_slice_inside_is_seen(
    shared_data: Path, folder: str, expected: Verdict
) -> None:
    [path] = (shared_data / "dicom").glob(folder)
    files = sorted(file for file in path.rglob("*") if file.is_file() and file.suffix == ".dcm")
    facts = [read_facts(Received.of(file.read_bytes())) for file in files]
    series = [one for one in facts if one.series_uid == facts[0].series_uid and one.position]
    assert verdict(series) == expected
    series.sort(key=lambda one: one.position[2] if one.position else 0.0)
    seen = sum(verdict(series[:index] + series[index + 1 :]) != expected for index in range(1, len(series) - 1))
    assert seen == len(series) - 2
