"""Every independent checker and reader as one thing: what it has against the objects of a case."""

import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import highdicom
import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray

from engines.types import Volume
from tests.conformance.cases import Encoded
from tests.validators import (
    dcentvfy_errors,
    dciodvfy_errors,
    require_tool,
    segments,
    tid1500,
)
from tests.validators.dcmjs import dcmjs_read
from tests.validators.iods import iod_errors
from tests.validators.pixelmed import PixelMed

SAME_PLACE_MM = 0.05
DOCUMENTS = ("SR", "KO")


@dataclass(frozen=True)
class Complaint:
    """What a checker says about objects of one kind."""

    kind: str
    text: str


@dataclass(frozen=True)
class Bench:
    """What checkers need beside the objects: a folder to write to, and the validator that runs for all of them."""

    folder: Path
    pixelmed: Callable[[], PixelMed]


Checker = Callable[[Encoded, Bench], Iterator[Complaint]]


def dciodvfy(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """IOD and attributes (dicom3tools)."""
    yield from _each(case, dciodvfy_errors)


def dcentvfy(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """One patient, one study, one frame of reference for all objects and their source (dicom3tools)."""
    paths = (*case.subject.files, *(entry.path for entry in case.objects))
    yield from (Complaint("all", text) for text in dcentvfy_errors(*paths))


def dicom_validator(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Modules and attributes (dicom-validator with the tables of PS3.3)."""
    yield from _each(case, iod_errors)


def dcmpschk(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """File meta, values, value representations of all, and the sense of a presentation state (DCMTK)."""
    yield from _each(case, _dcmpschk_errors)


def pixelmed(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Templates and context groups of reports (PixelMed)."""
    yield from _each(case, bench.pixelmed().report_errors, "SR")


def dcmtk_documents(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Reports and key object notes read and rendered as text and as HTML (dsrdump, dsr2html)."""
    for tool in ("dsrdump", "dsr2html"):
        yield from _each(case, lambda path, tool=tool: _failure(tool, "-q", path), *DOCUMENTS)


def dcmtk_pixels(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Secondary captures rendered (dcm2pnm), PDFs unpacked (dcm2pdf)."""
    yield from _each(case, lambda path: _failure("dcm2pnm", "-q", path, bench.folder / "picture.pgm"), "SC", "HEATMAP")
    yield from _each(case, lambda path: _failure("dcm2pdf", "-q", path, bench.folder / "report.pdf"), "PDF")


def dcmqi_segmentation(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Voxels of each segment, how many and where, through dcmqi and SimpleITK."""
    for part, entry in enumerate(case.of("SEG")):
        folder = bench.folder / f"dcmqi-{part}"
        try:
            found = segments(entry.path, folder)
        except (AssertionError, ValueError, RuntimeError) as error:
            yield Complaint("SEG", f"not read: {_last_line(str(error))}")
            continue
        for (number, mask), segment in zip(
            case.masks[part].items(), case.analysis.label_maps[part].present, strict=True
        ):
            images = [each.image for each in found if each.number == number and each.label == segment.label]
            if len(images) != 1:
                yield Complaint("SEG", f"segment {number} is there {len(images)} times")
                continue
            yield from _place_differs(images[0], mask, case, number)


def dcmqi_report(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Measurement groups with finding, tracking UID, and a value or an evaluation (tid1500reader)."""
    for entry in case.of("SR"):
        try:
            groups = tid1500(entry.path, bench.folder).get("Measurements", [])
        except (AssertionError, ValueError) as error:
            yield Complaint("SR", f"not read: {_last_line(str(error))}")
            continue
        complete = [
            group
            for group in groups
            if group.get("TrackingUniqueIdentifier")
            and group.get("Finding")
            and (group.get("measurementItems") or group.get("qualitativeEvaluations"))
        ]
        yield from _groups_missing(len(complete), case)


def highdicom_reader(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """``segread`` with voxel counts, ``srread`` with its measurement groups."""
    for entry, truth in zip(case.of("SEG"), case.truth, strict=False):
        seg = highdicom.seg.segread(entry.path)
        frames = seg.get_frames() if hasattr(seg, "get_frames") else seg.pixel_array
        yield from _counts_differ(_voxels(seg, np.asarray(frames)), truth)
    for entry in case.of("SR"):
        report = highdicom.sr.srread(entry.path).content
        groups = (
            *report.get_image_measurement_groups(),
            *report.get_planar_roi_measurement_groups(),
            *report.get_volumetric_roi_measurement_groups(),
        )
        yield from _groups_missing(len(groups), case)


def dcmjs(case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """Voxel counts and measurement groups, as web viewers read them; nothing that is compressed."""
    readable = [entry for entry in case.objects if not _compressed(entry.path)]
    read = dict(zip(readable, dcmjs_read([entry.path for entry in readable]), strict=True))
    truths = dict(zip(case.of("SEG"), case.truth, strict=False))
    for entry, found in read.items():
        if found.instance_uid != entry.sop_instance_uid:
            yield Complaint(entry.kind, "read as another instance")
        if entry in truths:
            yield from _counts_differ(found.voxels, truths[entry])
        if entry.kind == "SR":
            complete = [group for group in found.groups if group.finding and group.tracking_uid]
            yield from _groups_missing(len(complete), case)


CHECKERS: Mapping[str, Checker] = {
    "dciodvfy": dciodvfy,
    "dcentvfy": dcentvfy,
    "dicom-validator": dicom_validator,
    "dcmpschk": dcmpschk,
    "PixelMed": pixelmed,
    "dsrdump, dsr2html": dcmtk_documents,
    "dcm2pnm, dcm2pdf": dcmtk_pixels,
    "segimage2itkimage": dcmqi_segmentation,
    "tid1500reader": dcmqi_report,
    "highdicom": highdicom_reader,
    "dcmjs": dcmjs,
}


def _each(case: Encoded, errors: Callable[[Path], list[str]], *kinds: str) -> Iterator[Complaint]:
    """Each error of each object of some kinds, of all by default."""
    for entry in case.of(*kinds) if kinds else case.objects:
        yield from (Complaint(entry.kind, text) for text in dict.fromkeys(errors(entry.path)))


def _failure(tool: str, *arguments: object) -> list[str]:
    command = [require_tool(tool), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace")
    return [f"{tool} ended with {done.returncode}: {_last_line(done.stderr)}"] if done.returncode else []


def _dcmpschk_errors(path: Path) -> list[str]:
    done = subprocess.run([require_tool("dcmpschk"), path], capture_output=True, text=True, errors="replace")
    lines = (done.stdout + done.stderr).splitlines()
    errors = [line for line in lines if re.match(r"\s*(E:|F:|Error|error)", line)]
    return errors or [f"ended with {done.returncode}"] * bool(done.returncode)


def _last_line(text: str) -> str:
    """Without paths, which differ each time."""
    return re.sub(r"\S+/", "", (text.strip().splitlines() or ["no message"])[-1])


def _compressed(path: Path) -> bool:
    return bool(pydicom.filereader.read_file_meta_info(path).TransferSyntaxUID.is_encapsulated)


def _groups_missing(found: int, case: Encoded) -> Iterator[Complaint]:
    """Each segment that was found has a group at least, and each class."""
    classification = case.analysis.findings.classification
    expected = sum(map(len, case.truth)) + (len(classification.classes) if classification else 0)
    if found < expected:
        yield Complaint("SR", f"{found} measurement groups of {expected}")


def _voxels(seg: pydicom.Dataset, frames: NDArray[np.uint8]) -> dict[int, int]:
    frames = frames.reshape(-1, seg.Rows, seg.Columns)
    if seg.SegmentationType == "LABELMAP":
        numbers, counts = np.unique(frames[frames > 0], return_counts=True)
        return dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    found: dict[int, int] = {}
    shared = seg.SharedFunctionalGroupsSequence[0]
    for groups, frame in zip(seg.PerFrameFunctionalGroupsSequence, frames, strict=True):
        place = groups if "SegmentIdentificationSequence" in groups else shared
        number = int(place.SegmentIdentificationSequence[0].ReferencedSegmentNumber)
        found[number] = found.get(number, 0) + int((frame > 0).sum())
    return found


def _counts_differ(found: dict[int, int], truth: dict[int, int]) -> Iterator[Complaint]:
    for number in sorted({*found, *truth}):
        if found.get(number, 0) != truth.get(number, 0):
            yield Complaint("SEG", f"segment {number} has {found.get(number, 0)} voxels of {truth.get(number, 0)}")


def _place_differs(image: SimpleITK.Image, mask: NDArray[np.bool_], case: Encoded, number: int) -> Iterator[Complaint]:
    """Compare how many voxels there are, and the centre of them in patient coordinates."""
    inside = np.argwhere(SimpleITK.GetArrayViewFromImage(image) > 0)[:, ::-1]
    if len(inside) != mask.sum():
        yield Complaint("SEG", f"segment {number} has {len(inside)} voxels of {mask.sum()}")
        return
    centre = image.TransformContinuousIndexToPhysicalPoint(inside.mean(axis=0).tolist())
    if (away := float(np.linalg.norm(np.subtract(centre, _centre(mask, case))))) > SAME_PLACE_MM:
        yield Complaint("SEG", f"segment {number} lies {away:.2f} mm off")


def _centre(mask: NDArray[np.bool_], case: Encoded) -> NDArray[np.float64]:
    """Of the voxels of a mask, LPS mm; an X-ray lies in the plane that its SEG has."""
    image = case.analysis.image
    if not isinstance(image, Volume):
        height, width = image.pixel
        row, column = np.argwhere(mask).mean(axis=0)
        return np.array([column * width, row * height, 0.0])
    places = [
        (image.slice_affine(index) @ [0, *np.argwhere(plane).mean(axis=0), 1])[:3] * plane.sum()
        for index, plane in enumerate(mask)
        if plane.any()
    ]
    return np.asarray(np.sum(places, axis=0) / mask.sum())
