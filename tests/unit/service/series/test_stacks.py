import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.types import Volume
from service.series.assembly import Assembly, Item, assemble, assemble_from
from service.series.reader import SeriesReader
from tests.ct_slice import VALUES, ct_slice
from tests.synthetic_ct import Scan, write_enhanced

CORONAL = (1.0, 0.0, 0.0, 0.0, 0.0, -1.0)


def stack(
    folder: Path, name: str, places: Sequence[float], first: int | None = 1, level: int = 0, **attributes: object
) -> list[Path]:
    """One file for each place, numbered from the first number on; all pixels of a stack tell its level."""
    return [
        ct_slice(
            folder / f"{name}{index:02}.dcm", VALUES * 0 + level, z, None if first is None else first + index,
            **attributes,
        )
        for index, z in enumerate(places)
    ]  # fmt: skip


def steps(count: int, spacing: float = 2.0, start: float = 0.0) -> list[float]:
    return [start + spacing * index for index in range(count)]


def levels(item: Item) -> list[int]:
    """Of each slice of a volume."""
    assert isinstance(item.image, Volume)
    return [int(value) for value in item.image.array[:, 0, 0]]


def of_one_level(assembly: Assembly) -> dict[str, tuple[int, int]]:
    """By item: level and number of slices; fails where slices of different stacks were mixed."""
    found = {}
    for item in assembly.items:
        [level] = set(levels(item))
        found[item.key] = (level, item.facts.slices)
    return found


# ---- localisers and other orientations -------------------------------------------------------------------------------


def test_a_tagged_localiser_is_no_part_of_the_volume(tmp_path: Path) -> None:
    files = stack(tmp_path, "a", steps(6), first=2)
    scout = ct_slice(tmp_path / "scout.dcm", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    assembly = assemble([scout, *files])
    assert of_one_level(assembly) == {"volume": (0, 6)}
    assert [(one.file, one.faulty) for one in assembly.left_out] == [(scout, False)]
    assert assembly.refused == ()


def test_a_localiser_that_is_not_tagged_is_told_by_its_orientation(tmp_path: Path) -> None:
    files = stack(tmp_path, "a", steps(6), first=3)
    front = ct_slice(tmp_path / "front.dcm", number=1, ImageOrientationPatient=CORONAL)
    side = ct_slice(tmp_path / "side.dcm", number=2, ImageOrientationPatient=(0.0, 1.0, 0.0, 0.0, 0.0, -1.0))
    assembly = assemble([front, *files, side])
    assert of_one_level(assembly) == {"volume": (0, 6)}
    assert {one.file for one in assembly.left_out} == {front, side}
    assert {one.reason for one in assembly.left_out} == {
        "a single image of its size and orientation: no volume (a localiser, most likely)"
    }
    assert not any(one.faulty for one in assembly.left_out)


def test_two_orientations_are_two_volumes_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    axial = stack(tmp_path, "a", steps(8), first=101, level=1)
    coronal = stack(tmp_path, "c", steps(5, 3.0), first=1, level=2, ImageOrientationPatient=CORONAL)
    assembly = assemble([*axial, *coronal])
    assert of_one_level(assembly) == {"volume-1": (2, 5), "volume-2": (1, 8)}
    assert [item.facts.plane for item in assembly.items] == ["coronal", "axial"]
    assert assembly.left_out == ()


@pytest.mark.parametrize(
    "attributes",
    [
        {"PixelSpacing": (0.5, 0.5)},
        {"FrameOfReferenceUID": "1.2.3.99"},
        {"ImageOrientationPatient": (-1.0, 0.0, 0.0, 0.0, -1.0, 0.0)},
    ],
)
def test_another_grid_is_another_volume(attributes: dict[str, object], tmp_path: Path) -> None:
    one = stack(tmp_path, "a", steps(5), first=1, level=1)
    two = stack(tmp_path, "b", steps(5, start=100.0), first=11, level=2, **attributes)
    assert of_one_level(assemble([*two, *one])) == {"volume-1": (1, 5), "volume-2": (2, 5)}


def test_another_size_is_another_volume(tmp_path: Path) -> None:
    one = stack(tmp_path, "a", steps(5), first=1)
    two = [ct_slice(tmp_path / f"b{z}.dcm", VALUES.T.copy(), 100.0 + z, 10 + z) for z in range(4)]
    shapes = [item.image.array.shape for item in assemble([*two, *one]).items]
    assert shapes == [(5, 4, 6), (4, 6, 4)]


def test_adjacent_blocks_of_other_spacing_are_one_volume(tmp_path: Path) -> None:
    places = [*steps(8, 2.5), *steps(8, 5.0, start=20.0), *steps(6, 1.25, start=60.0)]
    thin = stack(tmp_path, "a", places, SliceThickness="2.5")
    [item] = assemble(thin).items
    assert item.facts.slices == 22
    assert item.facts.missing_slices == 0
    blocks = [
        *stack(tmp_path, "b", places[:8], 1, SliceThickness="2.5"),
        *stack(tmp_path, "c", places[8:16], 9, SliceThickness="5"),
        *stack(tmp_path, "d", places[16:], 17, SliceThickness="1.25"),
    ]
    [item] = assemble(blocks).items
    assert item.facts.slices == 22
    assert item.notes == ("The slices are not evenly spaced, up to 5.0 mm apart.",)


# ---- several at one position -----------------------------------------------------------------------------------------

MARKS: list[tuple[str, object, object, str]] = [
    ("AcquisitionNumber", 1, 2, "acquisition number; this is the one with 1."),
    ("TemporalPositionIdentifier", 1, 2, "temporal position; this is the one with 1."),
    ("TriggerTime", "0", "450.5", "trigger time; this is the one with 0."),
    ("KVP", None, "140", "energy; this is the one with none."),
    ("ImageType", ["ORIGINAL", "PRIMARY"], ["DERIVED", "PRIMARY"], "image type; this is the one with ORIGINAL"),
    ("ConvolutionKernel", "B30f", "B70f", "kernel; this is the one with B30f."),
    ("SliceThickness", "1", "5", "slice thickness; this is the one with 1."),
]


@pytest.mark.parametrize("interleaved", [False, True])
@pytest.mark.parametrize(("keyword", "one", "two", "words"), MARKS, ids=[mark[0] for mark in MARKS])
def test_two_stacks_at_the_same_positions_are_told_apart_by_what_differs(
    keyword: str, one: object, two: object, words: str, interleaved: bool, tmp_path: Path
) -> None:
    first = stack(tmp_path, "a", steps(7), 1, 1, **{keyword: one})
    second = stack(tmp_path, "b", steps(7), 1 if interleaved else 8, 2, **{keyword: two})
    assembly = assemble([*second, *first])
    assert of_one_level(assembly) == {"volume-1": (1, 7), "volume-2": (2, 7)}
    which, why = assembly.items[0].notes
    assert which == "This is stack 1 of 2 in the series: 7 axial slices, InstanceNumber 1 to 7."
    assert why.startswith(f"The series holds 2 stacks that differ in {words}")
    assert assembly.left_out == ()


def test_one_of_three_phases_lacks_a_slice_and_no_other_takes_its_place(tmp_path: Path) -> None:
    files = [
        file
        for phase in (1, 2, 3)
        for file in stack(tmp_path, f"p{phase}", steps(8), 10 * phase, phase, TriggerTime=str(100 * phase))
    ]
    files.remove(tmp_path / "p204.dcm")
    assembly = assemble(files)
    assert of_one_level(assembly) == {"volume-1": (1, 8), "volume-2": (2, 7), "volume-3": (3, 8)}
    assert [item.facts.missing_slices for item in assembly.items] == [0, 1, 0]
    assert assembly.left_out == ()


def test_energies_in_phases_are_told_apart_by_both(tmp_path: Path) -> None:
    files = [
        file
        for level, (phase, energy) in enumerate([(1, "80"), (1, "140"), (2, "80"), (2, "140")])
        for file in stack(
            tmp_path, f"s{level}", steps(6), 10 * level, level, TemporalPositionIdentifier=phase, KVP=energy
        )
    ]
    found = of_one_level(assemble(files))
    assert found == {f"volume-{level + 1}": (level, 6) for level in range(4)}


def test_what_nothing_tells_apart_is_told_apart_by_the_order_of_the_numbers(tmp_path: Path) -> None:
    first = stack(tmp_path, "z", steps(6), 1, 1)
    second = stack(tmp_path, "a", steps(6), 7, 2)
    assembly = assemble([*second, *first])
    assert of_one_level(assembly) == {"volume-1": (1, 6), "volume-2": (2, 6)}
    assert assembly.items[0].notes[1:] == (
        "The series holds 2 stacks at the same positions that nothing but their order tells apart.",
    )


def test_what_has_the_same_numbers_is_told_apart_by_when_it_was_made(tmp_path: Path) -> None:
    names = ["a", "b"]
    made = {"a": "120000", "b": "120500"}
    files = []
    for index, z in enumerate(steps(6)):  # names, and so the order of files, say nothing
        for name in names if index % 2 else names[::-1]:
            level = names.index(name)
            files.append(
                ct_slice(
                    tmp_path / f"{index}{'xy'[(index + level) % 2]}.dcm", VALUES * 0 + level, z, index + 1,
                    InstanceCreationDate="20260101", InstanceCreationTime=made[name],
                )
            )  # fmt: skip
    assert of_one_level(assemble(files)) == {"volume-1": (0, 6), "volume-2": (1, 6)}


def test_a_few_slices_that_were_sent_again_take_the_place_of_the_older_ones(tmp_path: Path) -> None:
    when = {"InstanceCreationDate": "20260101", "InstanceCreationTime": "120000"}
    files = stack(tmp_path, "a", steps(8), 1, 1, **when)
    again = stack(tmp_path, "b", steps(2, start=6.0), 4, 2, **{**when, "InstanceCreationTime": "130000"})
    [item] = (assembly := assemble([*again, *files])).items
    assert levels(item) == [1, 1, 1, 2, 2, 1, 1, 1]
    assert item.notes == ("At 2 positions the series holds several images; the last was taken.",)
    assert {(one.file, one.faulty) for one in assembly.left_out} == {(files[3], False), (files[4], False)}


def test_a_position_with_three_images_is_one_position(tmp_path: Path) -> None:
    files = stack(tmp_path, "a", steps(8), 1, 1)
    again = [ct_slice(tmp_path / f"again{n}.dcm", VALUES * 0 + n, 6.0, n) for n in (20, 30)]
    [item] = (assembly := assemble([*again, *files])).items
    assert levels(item) == [1, 1, 1, 30, 1, 1, 1, 1]
    assert item.notes == ("At 1 positions the series holds several images; the last was taken.",)
    assert {one.file for one in assembly.left_out} == {files[3], again[0]}


def test_reconstructions_with_other_positions_that_are_mixed_are_two_volumes(tmp_path: Path) -> None:
    fine = stack(tmp_path, "a", steps(30, 1.0), 1, 1, SliceThickness="1", ConvolutionKernel="B60f")
    coarse = stack(tmp_path, "b", steps(8, 3.0, start=0.4), 101, 2, SliceThickness="3", ConvolutionKernel="B60f")
    assembly = assemble([*coarse, *fine])
    assert of_one_level(assembly) == {"volume-1": (1, 30), "volume-2": (2, 8)}


# ---- no volume -------------------------------------------------------------------------------------------------------


def test_images_at_one_position_are_no_volume(tmp_path: Path) -> None:
    files = [ct_slice(tmp_path / f"{n}.dcm", number=n, TriggerTime=str(n)) for n in range(12)]
    assembly = assemble(files)
    assert assembly.items == ()
    assert {one.reason for one in assembly.left_out} == {
        "12 images at one position: no volume (a monitoring series or time points, most likely)"
    }
    assert not any(one.faulty for one in assembly.left_out)
    assert assembly.refused == ()


def test_a_volume_with_a_monitoring_series_beside_it_stays_whole(tmp_path: Path) -> None:
    files = stack(tmp_path, "a", steps(20), 1, 1, AcquisitionNumber=2)
    monitor = [ct_slice(tmp_path / f"m{n}.dcm", VALUES * 0, 10.0, 100 + n, AcquisitionNumber=1) for n in range(12)]
    assembly = assemble([*monitor, *files])
    assert of_one_level(assembly) == {"volume": (1, 20)}
    assert {one.file for one in assembly.left_out} == set(monitor)


def test_a_single_slice_is_no_volume_and_nothing_is_wrong_with_it(tmp_path: Path) -> None:
    assembly = assemble([ct_slice(tmp_path / "one.dcm")])
    assert assembly.items == ()
    assert [one.faulty for one in assembly.left_out] == [False]


def test_slices_beside_the_line_of_the_others_are_refused_together_with_the_reason(tmp_path: Path) -> None:
    files = stack(tmp_path, "a", steps(6))
    moved = ct_slice(files[3], VALUES, 6.0, 4, ImagePositionPatient=(5.0, 0.0, 6.0))
    assembly = assemble(files)
    assert assembly.items == ()
    assert assembly.refused == (
        "6 slices: slice 4 lies 5.0 mm beside the line of the others: their field of view was moved; send a "
        "reconstruction with one field of view",
    )
    assert moved in {one.file for one in assembly.left_out}


def test_one_slice_with_an_impossible_position_spoils_no_other(tmp_path: Path) -> None:
    files = stack(tmp_path, "a", steps(6))
    far = ct_slice(tmp_path / "far.dcm", number=7, ImagePositionPatient=b"0\\0\\1e308")
    assembly = assemble([*files, far])
    assert of_one_level(assembly) == {"volume": (0, 6)}
    assert [(one.file, one.faulty) for one in assembly.left_out] == [(far, True)]


def test_nothing_makes_nothing() -> None:
    assembly = assemble([])
    assert (assembly.items, assembly.left_out, assembly.refused) == ((), (), ())


def test_frames_of_two_multi_frame_images_do_not_mix(tmp_path: Path) -> None:
    scans = [Scan(places=(0.0, 2.0, 4.0)), Scan(places=(6.0, 8.0, 10.0))]
    files = [write_enhanced([scan], tmp_path / f"{index}.dcm") for index, scan in enumerate(scans)]
    assert [item.facts.slices for item in assemble(files).items] == [3, 3]


# ---- the order of arrival --------------------------------------------------------------------------------------------


@cache
def mixed(numbered: bool) -> list[Path]:
    """Two orientations, two energies, a slice sent again, a localiser, and a monitoring series."""
    folder = Path(tempfile.mkdtemp())

    def first(number: int) -> int | None:
        return number if numbered else None

    return [
        *stack(folder, "a", steps(5), first(10), 1, KVP="80"),
        *stack(folder, "b", steps(5), first(10), 2, KVP="140"),
        *stack(folder, "c", steps(4), first(30), 3, ImageOrientationPatient=CORONAL),
        *stack(folder, "d", [2.0], first(40), 4, ImageOrientationPatient=CORONAL),
        *stack(folder, "e", steps(6), first(5), 5, PixelSpacing=(0.5, 0.5)),
        *stack(folder, "f", steps(6), first(5), 6, PixelSpacing=(0.5, 0.5)),
        *stack(folder, "g", [0.0, 0.0, 0.0], first(50), 7, PixelSpacing=(3.0, 3.0)),
        *stack(folder, "h", [0.0], first(60), 8, PixelSpacing=(4.0, 4.0)),
    ]


def summary(assembly: Assembly) -> object:
    return (
        [(item.key, item.version, item.notes, item.files, levels(item)) for item in assembly.items],
        sorted((one.file, one.reason, one.faulty) for one in assembly.left_out),
        assembly.refused,
    )


@settings(max_examples=25, deadline=None)
@given(numbered=st.booleans(), seed=st.integers(0, 2**32 - 1), threads=st.sampled_from([1, 3]))
def test_what_a_series_makes_does_not_depend_on_the_order_of_arrival(numbered: bool, seed: int, threads: int) -> None:
    files = mixed(numbered)
    order = np.random.default_rng(seed).permutation(len(files))
    with ThreadPoolExecutor(threads) as pool:
        reader = SeriesReader(None, pool)
        for index in order:
            reader.add([files[index]])
        shuffled = assemble_from(reader, [files[index] for index in order[::-1]])
    assert len(shuffled.items) == 5
    assert summary(shuffled) == summary(assemble(files))
