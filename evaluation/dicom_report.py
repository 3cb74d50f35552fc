"""What a report says (TID 1500 of PS3.16 and what looks like it, whoever wrote it): findings, and where they are."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset

from engines.errors import WetreadError
from engines.types import Code
from evaluation.dicom_segmentation import says
from evaluation.errors import DataError

MEASUREMENT_GROUP = Code("125007", "DCM", "Measurement Group")
IMAGING_MEASUREMENTS = Code("126010", "DCM", "Imaging Measurements")
QUALITATIVE = Code("C0034375", "UMLS", "Qualitative Evaluations")
FINDING = Code("121071", "DCM", "Finding")
TRACKING = Code("112040", "DCM", "Tracking Unique Identifier")
ALGORITHM = Code("111001", "DCM", "Algorithm Name")
PRESENCE = Code("121052", "DCM", "Presence of property")
CERTAINTY = Code("111012", "DCM", "Certainty of Finding")
PRESENT, ABSENT = Code("52101004", "SCT", "Present"), Code("2667000", "SCT", "Absent")
DIAMETERS = (
    Code("81827009", "SCT", "Diameter"),
    Code("103339001", "SCT", "Long Axis"),
    Code("103340004", "SCT", "Maximum diameter"),
    Code("121207", "DCM", "Longest Diameter"),
)
MILLIMETRES = {"mm": 1.0, "cm": 10.0}
LIKELY = 50.0
"""Per cent of certainty from which on a finding counts."""
DEEPEST = 50
"""Levels of a report; more is none."""
CIRCLE_POINTS = 32
MOST_REGIONS = 5000
"""Of a report; more is none."""


@dataclass(frozen=True, eq=False)
class Region:
    """A place in an image: row and column, whole numbers are the centres of pixels; ``frame`` of a multi-frame one."""

    instance: str
    frame: int
    points: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Place:
    """A place in the patient: points in LPS mm."""

    frame_of_reference: str
    points: NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Finding:
    """What a report says to be there.

    Attributes
    ----------
    code
        What it is; None where the report does not say.
    tracking
        The same for all that is said of one thing; empty where there is none.
    diameter_mm
        The largest that was measured.
    """

    code: Dataset | None
    tracking: str
    regions: tuple[Region, ...] = ()
    places: tuple[Place, ...] = ()
    diameter_mm: float | None = None


def read_findings(file: Path) -> tuple[Finding, ...] | None:
    """Read all findings that a report says to be present, in its order; None where it is no report of measurements.

    Raises
    ------
    DataError
        It cannot be understood.
    """
    try:
        document = pydicom.dcmread(file)
        containers = [*_all(document, IMAGING_MEASUREMENTS, 0), *_all(document, QUALITATIVE, 0)]
        findings = tuple(finding for each in containers for finding in _findings(each))
    except (WetreadError, OSError, MemoryError):
        raise
    except Exception as error:  # written by anybody
        raise DataError(f"an SR cannot be understood ({type(error).__name__}); look at it in a viewer") from error
    _require_sound(findings)
    return findings if containers else None


def _require_sound(findings: tuple[Finding, ...]) -> None:
    drawn = [region.points for each in findings for region in each.regions]
    drawn += [place.points for each in findings for place in each.places]
    if len(drawn) > MOST_REGIONS:
        raise DataError(f"an SR draws {len(drawn)} regions; more than {MOST_REGIONS} are no report")
    if not all(len(points) and np.isfinite(points).all() for points in drawn):
        raise DataError("an SR draws a region without a place; look at it in a viewer")


def _findings(container: Dataset) -> Iterator[Finding]:
    """Of measurement groups; and of evaluations, which say "X: present" or "finding: X"."""
    for item in container.get("ContentSequence") or []:
        if _about(item, MEASUREMENT_GROUP):
            yield from _of_group(item)
        elif item.get("ValueType") == "CODE" and says(item.ConceptCodeSequence[0], PRESENT):
            yield Finding(item.ConceptNameCodeSequence[0], "")
        elif item.get("ValueType") == "CODE" and _about(item, FINDING):
            yield Finding(item.ConceptCodeSequence[0], "")


def _of_group(group: Dataset) -> Iterator[Finding]:
    """A group that says that something is absent, or unlikely, is no finding; nor is a program's that names none."""
    items = list(group.get("ContentSequence") or [])
    for item in items:
        if _about(item, PRESENCE) and says(item.ConceptCodeSequence[0], ABSENT):
            return
        if _about(item, CERTAINTY) and _number(item)[0] < LIKELY:
            return
    codes = [item.ConceptCodeSequence[0] for item in items if item.get("ValueType") == "CODE" and _about(item, FINDING)]
    if not codes and any(_about(item, ALGORITHM) for item in items):
        return
    tracking = [str(item.UID) for item in items if item.get("ValueType") == "UIDREF" and _about(item, TRACKING)]
    yield Finding(
        codes[0] if codes else None,
        tracking[0] if tracking else "",
        tuple(region for item in items for region in _regions(item)),
        tuple(_place(item) for item in items if item.get("ValueType") == "SCOORD3D"),
        max(_diameters(items), default=None),
    )


def _regions(item: Dataset) -> Iterator[Region]:
    """Where an item lies in an image; the image is in the item itself (PS3.3 C.17.3, SELECTED FROM)."""
    if item.get("ValueType") != "SCOORD":
        return
    columns_and_rows = np.array(item.GraphicData, float).reshape(-1, 2)
    # the first pixel spans 0 to 1 (PS3.3 C.10.5.1.2)
    points = _outline(str(item.GraphicType), columns_and_rows)[:, ::-1] - 0.5
    for source in item.get("ContentSequence") or []:
        for image in source.get("ReferencedSOPSequence") or []:
            frames = image.get("ReferencedFrameNumber")
            for frame in [1] if frames is None else np.atleast_1d(frames):
                yield Region(str(image.ReferencedSOPInstanceUID), int(frame), points)


def _place(item: Dataset) -> Place:
    points = np.array(item.GraphicData, float).reshape(-1, 3)
    return Place(str(item.get("ReferencedFrameOfReferenceUID", "")), points)


def _outline(kind: str, points: NDArray[np.float64]) -> NDArray[np.float64]:
    """The points around a graphic (PS3.3 C.18.6.1.1): a circle is its centre and a point on it, an ellipse its axes."""
    turns = np.linspace(0, 2 * np.pi, CIRCLE_POINTS, endpoint=False)
    if kind == "CIRCLE":
        radius = np.linalg.norm(points[1] - points[0])
        points = points[0] + radius * np.stack([np.cos(turns), np.sin(turns)], axis=1)
    elif kind == "ELLIPSE":
        centre = points.mean(axis=0)
        major, minor = (points[1] - points[0]) / 2, (points[3] - points[2]) / 2
        points = centre + np.cos(turns)[:, None] * major + np.sin(turns)[:, None] * minor
    return points


def _diameters(items: list[Dataset]) -> Iterator[float]:
    for item in items:
        if item.get("ValueType") == "NUM" and any(_about(item, code) for code in DIAMETERS):
            value, unit = _number(item)
            if unit in MILLIMETRES and value > 0:
                yield value * MILLIMETRES[unit]


def _number(item: Dataset) -> tuple[float, str]:
    values = item.get("MeasuredValueSequence") or []
    if not values:
        return float("nan"), ""
    return float(values[0].NumericValue), str(values[0].MeasurementUnitsCodeSequence[0].CodeValue)


def _all(item: Dataset, code: Code, depth: int) -> Iterator[Dataset]:
    """Every container below an item that is about something."""
    for child in item.ContentSequence if "ContentSequence" in item and depth < DEEPEST else []:
        if _about(child, code):
            yield child
        else:
            yield from _all(child, code, depth + 1)


def _about(item: Dataset, code: Code) -> bool:
    names = item.get("ConceptNameCodeSequence") or []
    return bool(names) and says(names[0], code)
