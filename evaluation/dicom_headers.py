"""What lies in a folder of DICOM files: series of images, and the SEGs and SRs about them. Reads headers only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset, uid

from evaluation.dicom_image import is_dicom
from evaluation.errors import DataError

VOLUMES = (uid.CTImageStorage, uid.EnhancedCTImageStorage, uid.LegacyConvertedEnhancedCTImageStorage)
RADIOGRAPHS = (
    uid.ComputedRadiographyImageStorage,
    uid.DigitalXRayImageStorageForPresentation,
    uid.DigitalXRayImageStorageForProcessing,
)
SEGMENTATIONS = (uid.SegmentationStorage, uid.UID("1.2.840.10008.5.1.4.1.1.66.7"))
"""Segmentation and Label Map Segmentation."""
REPORTS = (uid.EnhancedSRStorage, uid.ComprehensiveSRStorage, uid.Comprehensive3DSRStorage)

_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID", "Modality",
    "ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing", "PatientID", "PatientSex", "PatientAge",
    "PatientBirthDate", "StudyDate", "ContentDate", "ContentTime", "Manufacturer", "ViewPosition",
    "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence", "ReferencedSeriesSequence",
    "CurrentRequestedProcedureEvidenceSequence", "PertinentOtherEvidenceSequence", "SegmentSequence",
]  # fmt: skip

Watch = Callable[[str, int, int], object]
"""Is told what is being done, how much of it is done, and how much there is."""


@dataclass(frozen=True, eq=False)
class Plane:
    """Where an image lies: the centre of its first pixel, a step down a column, a step along a row, in LPS mm."""

    instance: str
    frame: int
    corner: NDArray[np.float64]
    down: NDArray[np.float64]
    right: NDArray[np.float64]

    @property
    def normal(self) -> NDArray[np.float64]:
        """Unit vector across the image."""
        across: NDArray[np.float64] = np.cross(self.right, self.down)
        return across / np.linalg.norm(across)


@dataclass(eq=False)
class Series:
    """The images of one series: their files by SOP Instance UID, and the header of the first."""

    study: str
    uid: str
    first: Dataset
    files: dict[str, Path] = field(default_factory=dict)
    planes: list[Plane] = field(default_factory=list)

    @property
    def frame_of_reference(self) -> str:
        """Its FrameOfReferenceUID, or empty."""
        return str(self.first.get("FrameOfReferenceUID") or "")

    @property
    def volume(self) -> bool:
        """Whether its images are slices."""
        return self.first.SOPClassUID in VOLUMES


@dataclass(frozen=True, eq=False)
class Reference:
    """A SEG or SR, and what it refers to."""

    file: Path
    header: Dataset
    series: frozenset[str]
    instances: frozenset[str]

    @property
    def made(self) -> tuple[str, str, str]:
        """Grows with the time at which its content was made."""
        return str(self.header.get("ContentDate") or ""), str(self.header.get("ContentTime") or ""), str(self.file)

    def is_about(self, series: Series, others: Sequence[Series]) -> bool:
        """Tell whether it refers to a series: by its UIDs or, where it names none that is here, by the place."""
        if self._names(series):
            return True
        place = str(self.header.get("FrameOfReferenceUID") or "")
        return bool(place) and place == series.frame_of_reference and not any(self._names(each) for each in others)

    def _names(self, series: Series) -> bool:
        # a report names, of several series, those of the whole study as evidence; its instances are what it is about
        return bool(self.instances & series.files.keys()) or (not self.instances and series.uid in self.series)


@dataclass(frozen=True, eq=False)
class Folder:
    """All that was found; ``unread`` counts DICOM files whose header cannot be read."""

    series: tuple[Series, ...]
    segmentations: tuple[Reference, ...]
    reports: tuple[Reference, ...]
    unread: int


def read_headers(folder: Path, watch: Watch) -> Folder:
    """Read the headers of all DICOM files in a folder and below.

    Raises
    ------
    DataError
        There are none.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and is_dicom(file))
    if not files:
        raise DataError(f"{folder} holds neither a manifest.csv nor DICOM files; name another folder")
    series: dict[tuple[str, str], Series] = {}
    references: dict[bool, list[Reference]] = {True: [], False: []}
    unread = 0
    for number, file in enumerate(files):
        watch("reading headers", number, len(files))
        try:
            header = pydicom.dcmread(file, stop_before_pixels=True, specific_tags=_TAGS)
            kind, instance = header.SOPClassUID, str(header.SOPInstanceUID)
            if kind in (*VOLUMES, *RADIOGRAPHS):
                key = str(header.StudyInstanceUID), str(header.SeriesInstanceUID)
                of_series = series.setdefault(key, Series(*key, header))
                of_series.files[instance] = file
                of_series.planes += _planes(header, instance)
            elif kind in (*SEGMENTATIONS, *REPORTS):
                references[kind in REPORTS].append(Reference(file, header, *_referred(header)))
        except (OSError, MemoryError):
            raise
        except Exception:  # a header can be wrong in more ways than its parser foresees
            unread += 1
    for each in series.values():
        _sort(each.planes)
    watch("reading headers", len(files), len(files))
    return Folder(tuple(series.values()), tuple(references[False]), tuple(references[True]), unread)


def _sort(planes: list[Plane]) -> None:
    """Along the normal of the first."""
    if planes:
        normal = planes[0].normal
        planes.sort(key=lambda plane: float(plane.corner @ normal))


def _planes(header: Dataset, instance: str) -> Iterator[Plane]:
    """The plane of an image, or of each of its frames; none of an X-ray."""
    frames = header.get("PerFrameFunctionalGroupsSequence")
    if frames is None:
        if header.get("ImagePositionPatient") and header.get("ImageOrientationPatient"):
            yield _plane(instance, 1, header, header, header)
        return
    shared = (header.get("SharedFunctionalGroupsSequence") or [Dataset()])[0]
    for number, frame in enumerate(frames, start=1):
        macros = (
            (frame.get(keyword) or shared.get(keyword) or [Dataset()])[0]
            for keyword in ("PlanePositionSequence", "PlaneOrientationSequence", "PixelMeasuresSequence")
        )
        yield _plane(instance, number, *macros)


def _plane(instance: str, frame: int, position: Dataset, orientation: Dataset, measures: Dataset) -> Plane:
    along = np.array(orientation.ImageOrientationPatient, float)
    down, right = (float(step) for step in measures.PixelSpacing)
    return Plane(instance, frame, np.array(position.ImagePositionPatient, float), along[3:] * down, along[:3] * right)


def _referred(header: Dataset) -> tuple[frozenset[str], frozenset[str]]:
    """The series and the instances that a SEG names, or the series of a report's evidence."""
    evidence = [
        *(header.get("CurrentRequestedProcedureEvidenceSequence") or []),
        *(header.get("PertinentOtherEvidenceSequence") or []),
    ]
    series = [
        *(header.get("ReferencedSeriesSequence") or []),
        *(item for study in evidence for item in study.get("ReferencedSeriesSequence") or []),
    ]
    instances = {
        str(item.ReferencedSOPInstanceUID)
        for each in header.get("ReferencedSeriesSequence") or []
        for item in each.get("ReferencedInstanceSequence") or []
    }
    for frame in header.get("PerFrameFunctionalGroupsSequence") or []:
        for derivation in frame.get("DerivationImageSequence") or []:
            instances |= {str(item.ReferencedSOPInstanceUID) for item in derivation.get("SourceImageSequence") or []}
    return frozenset(str(item.get("SeriesInstanceUID", "")) for item in series), frozenset(instances)


def counted(reasons: Mapping[str, int]) -> Iterator[str]:
    """Say of each reason how many series it is about."""
    for reason, count in reasons.items():
        yield f"{count} series {'was' if count == 1 else 'were'} left out: {reason}."
