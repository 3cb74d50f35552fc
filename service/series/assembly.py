"""From the files of a series to the images that models run on.

Each stack of a CT series becomes a `Volume`, each X-ray image a `Radiograph`. What cannot be used is left out with a
reason, while the rest goes on.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset

from engines.types import Image, Volume
from service.series.facts import ImageFacts, read_image_facts
from service.series.geometry import plane_name
from service.series.reader import LeftOut, Reading, SeriesReader, XRay
from service.series.slab import Slot, lie_in_a_row
from service.series.slices import Slice
from service.series.stacks import Remainder, Stack, stacks_of
from service.spool import key_of


@dataclass(frozen=True, eq=False)
class Item:
    """One thing that models can run on.

    Attributes
    ----------
    key
        Its name within the series.
    files
        The file of each slice, in slice order, or the one file of a radiograph.
    facts
        Header facts that routing and readers need: modality, body part, view, number of slices.
    notes
        Statements of input quality for the reader of the results.
    version
        Another one as soon as any of this, or the content of a file, is another one.
    """

    key: str
    image: Image
    files: tuple[Path, ...]
    facts: ImageFacts
    notes: tuple[str, ...]
    version: str = ""

    def headers(self, most: int | None = None) -> list[Dataset]:
        """Read the data sets of the files without their pixels: one for each slice, or one for all frames.

        Parameters
        ----------
        most
            The first so many; None: all.
        """
        return [pydicom.dcmread(file, stop_before_pixels=True) for file in [*dict.fromkeys(self.files)][:most]]


@dataclass(frozen=True, eq=False)
class Assembly:
    """All that could be made of a series.

    Attributes
    ----------
    left_out
        Files that are in no item.
    refused
        Why slices that belong together make no volume: they are sound each, but not together.
    """

    items: tuple[Item, ...]
    left_out: tuple[LeftOut, ...]
    refused: tuple[str, ...] = ()


def assemble(files: Sequence[Path], threads: int = 2) -> Assembly:
    """Make images of the files of one series, in memory."""
    with ThreadPoolExecutor(threads) as pool:
        return assemble_from(SeriesReader(None, pool), files)


def assemble_from(reader: SeriesReader, files: Sequence[Path]) -> Assembly:
    """Make images of the files of one series, of which the reader may have read some, or all, already.

    The arrays of volumes are mapped from the reader's slabs. The reader is closed; its slabs are gone where this fails.
    """
    try:
        return _assembled(reader, files)
    except BaseException:
        reader.discard()
        raise
    finally:
        reader.close()


def _assembled(reader: SeriesReader, files: Sequence[Path]) -> Assembly:
    reading = reader.read(files)
    stacks, remainders = stacks_of(reading.slices)
    items = [_radiograph(one, reading) for one in reading.radiographs]
    for number, stack in enumerate(stacks, start=1):
        key = "volume"
        if len(stacks) > 1:
            key = f"volume-{number}"
            stack = replace(stack, notes=(_which(number, len(stacks), stack), *stack.notes))
        items.append(_volume(key, stack, reader, reading))
    return Assembly(
        tuple(items),
        (*reading.left_out, *_left_out(remainders, [one for stack in stacks for one in stack.slices])),
        tuple(f"{len(each.slices)} slices: {each.reason}" for each in remainders if each.faulty),
    )


def _left_out(remainders: Sequence[Remainder], used: Sequence[Slice]) -> list[LeftOut]:
    """The files of slices that are in no stack; a multi-frame image is left out only where none of its frames is."""
    in_use = {one.file for one in used}
    entries = [LeftOut(one.file, each.reason, faulty=False) for each in remainders for one in each.slices]
    return [entry for entry in dict.fromkeys(entries) if entry.file not in in_use]


def _radiograph(read: XRay, reading: Reading) -> Item:
    facts = _facts([read.file])
    version = key_of(reading.stamps[read.file], repr(facts), *read.notes)
    return Item(key_of(read.image.source), read.image, (read.file,), facts, read.notes, version)


def _volume(key: str, stack: Stack, reader: SeriesReader, reading: Reading) -> Item:
    slices: tuple[Slice, ...] = stack.slices
    grid = stack.grid
    volume = Volume(
        array=_array([one.slot for one in slices], reader),
        affine=grid.affine,
        sources=tuple(one.uid for one in slices),
        at=grid.at,
        frames=None if slices[0].frame is None else tuple(one.frame or 0 for one in slices),
    )
    facts = replace(
        _facts([one.file for one in slices]),
        slices=len(slices),
        plane=plane_name(slices[0].plane),
        largest_gap_mm=grid.largest_mm,
        missing_slices=grid.missing,
        tilt_degrees=grid.tilt_degrees,
    )
    notes = [*stack.notes, *(note for one in slices for note in one.header.storage.notes), *_geometry_notes(stack)]
    if unusable := len({one.file for one in reading.left_out if one.faulty}):
        # at the end of a series a missing slice leaves no gap, so the reader has to be told
        images = "image" if unusable == 1 else "images"
        notes.append(f"{unusable} {images} of the series could not be used; the volume may be incomplete.")
    files = tuple(one.file for one in slices)
    version = key_of(key, *(reading.stamps[file] for file in files), repr(facts), *notes)
    return Item(key, volume, files, facts, tuple(dict.fromkeys(notes)), version)


def _which(number: int, count: int, stack: Stack) -> str:
    """Tells the reader which of the stacks of a series it is about."""
    name = "InstanceNumber" if stack.slices[0].frame is None else "frames"
    numbers = [one.header.number() if one.frame is None else one.frame for one in stack.slices]
    known = [each for each in numbers if each is not None]
    span = f", {name} {min(known)} to {max(known)}" if known else ""
    what = f"{len(stack.slices)} {plane_name(stack.slices[0].plane)} slices{span}"
    return f"This is stack {number} of {count} in the series: {what}."


def _facts(files: Sequence[Path]) -> ImageFacts:
    """What the first header says that can be read all through: slices need less of theirs."""
    for file in files:
        try:
            return read_image_facts(pydicom.dcmread(file, stop_before_pixels=True))
        except (OSError, MemoryError):  # of this machine, not of the file
            raise
        except Exception:  # what assembly needs of it was read; the next one may be sound
            continue
    return read_image_facts(Dataset())


def _geometry_notes(stack: Stack) -> list[str]:
    grid = stack.grid
    if grid.missing:
        slices = "1 slice is" if grid.missing == 1 else f"{grid.missing} slices are"
        return [
            f"{slices} missing between the first and the last one; the widest distance is {grid.largest_mm:.1f} mm "
            f"where {grid.typical_mm:.1f} mm is usual."
        ]
    if grid.at is not None:
        return [f"The slices are not evenly spaced, up to {grid.largest_mm:.1f} mm apart."]
    return []


def _array(slots: Sequence[Slot], reader: SeriesReader) -> NDArray[Any]:
    """``[slice, row, column]``, mapped from the slab that holds the slices in order, or from a copy that does."""
    first = slots[0]
    if lie_in_a_row(slots):
        return first.slab.map(first.index, len(slots))
    kinds = {slot.slab.dtype for slot in slots}
    copy = reader.new_slab(first.slab.shape, kinds.pop() if len(kinds) == 1 else np.dtype(np.float32))
    copy.fill(slots)
    return copy.map(0, len(slots))
