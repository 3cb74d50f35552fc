"""The types that every room speaks: images with their geometry going in, findings coming out.

Arrays are indexed ``[slice, row, column]`` (CT) or ``[row, column]`` (X-ray). Positions are millimetres in the DICOM
patient coordinate system, LPS: *x* grows to the patient's left, *y* to the posterior, *z* to the head
(PS3.3 C.7.6.2.1.1).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Affine = NDArray[np.float64]
"""4×4 matrix from array index ``(slice, row, column, 1)`` to LPS position ``(x, y, z, 1)`` in mm."""


@dataclass(frozen=True, eq=False)
class Volume:
    """A CT series as one array.

    Attributes
    ----------
    array
        Shape ``[slice, row, column]``, int16 or float32, in ``unit``.
    affine
        Array index to LPS millimetres, see `Affine`.
    sources
        SOP Instance UID of the image that each slice came from, in slice order.
    unit
        Modality unit of the values after the modality transform (UCUM; ``[hnsf'U]`` is the Hounsfield unit).
    at
        Where each slice lies along the affine's slice axis, growing, from 0; None where slice *k* lies at *k*. Only
        slices that are not evenly spaced (gaps, blocks of other spacing) need it.
    frames
        Frame number (from 1) of each slice within its source; None where sources are single-frame images.
    """

    array: NDArray[np.int16] | NDArray[np.float32]
    affine: Affine
    sources: tuple[str, ...]
    unit: str = "[hnsf'U]"
    at: tuple[float, ...] | None = None
    frames: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        if self.array.ndim != 3 or self.affine.shape != (4, 4):
            raise ValueError(f"a Volume needs a 3D array and a 4×4 affine, got {self.array.shape}, {self.affine.shape}")
        if len(self.sources) != self.array.shape[0]:
            raise ValueError(f"{len(self.sources)} sources for {self.array.shape[0]} slices")
        for each in (self.at, self.frames):
            if each is not None and len(each) != self.array.shape[0]:
                raise ValueError(f"{len(each)} places for {self.array.shape[0]} slices")

    def slice_affine(self, index: int) -> Affine:
        """The affine of one slice: from ``(0, row, column, 1)`` to LPS mm."""
        affine = self.affine.copy()
        affine[:3, 3] += (index if self.at is None else self.at[index]) * affine[:3, 0]
        return affine

    @property
    def spacing(self) -> tuple[float, float, float]:
        """Length of one step along slice, row and column, in mm; slices need not be one step apart, see ``at``."""
        slice_, row, column = np.linalg.norm(self.affine[:3, :3], axis=0)
        return float(slice_), float(row), float(column)


@dataclass(frozen=True, eq=False)
class Radiograph:
    """One projection image.

    Attributes
    ----------
    array
        Shape ``[row, column]``, float32; larger is whiter (bone bright, air dark) whatever the source's photometric
        interpretation was.
    spacing
        Distance between rows and between columns in mm, None where unknown: in the patient where it was calibrated or
        the magnification is known, otherwise at the detector, where everything is larger. The notes of the item say
        which.
    source
        SOP Instance UID of the image.
    orientation
        Where the rows (growing column index) and the columns (growing row index) of the array point to: two of L, R, A,
        P, H, F, the first letters of PatientOrientation (PS3.3 C.7.6.1.1.1). A frontal chest X-ray lies as a reader
        wants it with ``("L", "F")``, which is also taken where the header says nothing.
    aspect
        Height of a pixel over its width; it counts only where the spacing, which tells it too, is not known.
    """

    array: NDArray[np.float32]
    spacing: tuple[float, float] | None
    source: str
    orientation: tuple[str, str] = ("L", "F")
    aspect: float = 1.0

    def __post_init__(self) -> None:
        if self.array.ndim != 2:
            raise ValueError(f"a Radiograph needs a 2D array, got {self.array.shape}")

    @property
    def pixel(self) -> tuple[float, float]:
        """Height and width of a pixel: in mm where the spacing is known, otherwise in units of its width."""
        return self.spacing or (self.aspect, 1.0)


Image = Volume | Radiograph


@dataclass(frozen=True)
class Code:
    """A coded concept (PS3.3 section 8): value, scheme designator, meaning."""

    value: str
    scheme: str
    meaning: str


@dataclass(frozen=True)
class Segment:
    """What one value of a label map means (PS3.3 C.8.20.4).

    ``number`` is the value in the label map, from 1. ``colour`` is sRGB, 0–255, as recommended for display.
    """

    number: int
    label: str
    category: Code
    type: Code
    colour: tuple[int, int, int]
    laterality: Code | None = None


@dataclass(frozen=True, eq=False)
class LabelMap:
    """One label per voxel or pixel, on the grid of the source image.

    Attributes
    ----------
    array
        Shape of the source image's array, uint8; 0 is background, other values are segment numbers.
    segments
        What the values mean; every value that the model can give, present in the array or not.
    probabilities
        How sure the model is of each segment, where that was asked for: shape ``[segment, ...]`` in the order of
        ``segments``, then that of the array; uint8, 255 is a probability of 1.
    """

    array: NDArray[np.uint8]
    segments: tuple[Segment, ...]
    probabilities: NDArray[np.uint8] | None = None

    @property
    def slices(self) -> NDArray[np.uint8]:
        """The array as ``[slice, row, column]``; an X-ray is one slice."""
        return self.array.reshape(-1, *self.array.shape[-2:])

    @cached_property
    def counts(self) -> NDArray[np.int64]:
        """How many voxels of each slice have each value, ``[slice, value]``."""
        # slice by slice: counting the whole array at once takes eight times its memory
        return np.stack([np.bincount(labels.ravel(), minlength=256) for labels in self.slices])

    @cached_property
    def present(self) -> tuple[Segment, ...]:
        """The segments that have at least one voxel."""
        found = self.counts.sum(axis=0)
        return tuple(segment for segment in self.segments if found[segment.number])


@dataclass(frozen=True)
class ClassProbability:
    """The probability of one class: ``code`` says what was looked for, ``probability`` is in 0–1.

    ``activation`` is its class activation map where the model gives one: on the grid of the image, ``[row, column]``,
    uint8, 255 where the image speaks most for the class (Zhou et al., CVPR 2016), 0 where it says nothing or no.
    """

    label: str
    code: Code
    probability: float
    activation: NDArray[np.uint8] | None = field(default=None, compare=False, repr=False)


@dataclass(frozen=True)
class Classification:
    """The classes of one image. If they exclude each other, the probabilities sum to 1; if not, each stands alone."""

    classes: tuple[ClassProbability, ...]
    exclusive: bool = True

    @property
    def best(self) -> ClassProbability:
        """The most probable class."""
        return max(self.classes, key=lambda entry: entry.probability)

    @property
    def present(self) -> tuple[ClassProbability, ...]:
        """What the image is said to show: the most probable class, or of such as stand alone each with 0.5 or more."""
        if self.exclusive:
            return (self.best,)
        return tuple(entry for entry in self.classes if entry.probability >= 0.5)


@dataclass(frozen=True)
class Detection:
    """One thing that was found somewhere in the image: a box, or a point where ``low`` equals ``high``.

    ``score`` is in 0–1, from the network; it is no probability. ``low`` and ``high`` are the box's corners: in a volume
    as x, y, z in LPS mm, along the patient's axes; in an X-ray as row and column of the array, where whole numbers are
    the centres of pixels. ``diameter_mm`` is that of the thing, where the model says so.
    """

    label: str
    code: Code
    score: float
    low: tuple[float, ...]
    high: tuple[float, ...]
    diameter_mm: float | None = None


@dataclass(frozen=True)
class Detections:
    """What a detection model has found, the highest score first, and ``looked_for``: all that it could have found."""

    found: tuple[Detection, ...]
    looked_for: tuple[tuple[str, Code], ...]

    @property
    def absent(self) -> tuple[tuple[str, Code], ...]:
        """What was looked for and not found: label and code."""
        found = {(entry.code.value, entry.code.scheme) for entry in self.found}
        return tuple(entry for entry in self.looked_for if (entry[1].value, entry[1].scheme) not in found)


@dataclass(frozen=True)
class InputStatistic:
    """One number about the image as the network saw it (`engines.inference.input_statistics`).

    ``least`` and ``largest`` are those of the images that the model was trained on, None where the package says
    nothing. ``unit`` is "" where there is none.
    """

    name: str
    value: float
    unit: str
    least: float | None = None
    largest: float | None = None

    @property
    def outside(self) -> bool:
        """Whether the model has seen nothing like it in training."""
        return self.least is not None and self.largest is not None and not self.least <= self.value <= self.largest


@dataclass(frozen=True)
class Measurement:
    """One number about one segment.

    ``concept`` says what was measured, ``unit`` is a UCUM code, ``derivation`` says how many values became one (a mean,
    say; the modifier of TID 1419). ``points`` are the ends of what was measured along a line, each as slice, row and
    column of the array; whole numbers are the centres of voxels.
    """

    segment: int
    concept: Code
    value: float
    unit: Code
    derivation: Code | None = None
    points: tuple[tuple[float, float, float], ...] = ()


@dataclass(frozen=True)
class ModelIdentity:
    """Which model said it.

    ``digest`` is the SHA-256 of the network's file in hexadecimal (of an ensemble: of its files' digests),
    ``uid_root`` the model's part of derived UIDs.
    """

    name: str
    version: str
    digest: str
    uid_root: str
    licence: str
    intended_use: str


@dataclass(frozen=True)
class EngineIdentity:
    """What the model ran on, for example ``openvino 2026.4.1``, ``fp32``, ``CPU``."""

    runtime: str
    precision: str
    device: str


@dataclass(frozen=True, eq=False)
class Findings:
    """All that one run of one model says about one series.

    ``analysed_at`` is the start of the analysis; it is kept with the findings so that a repeated encoding gives the
    same bytes. ``notes`` are statements of input quality for the reader (partial series, lossy compression).
    ``overlapping`` are further label maps on the same grid, for segments that overlap those before them; a segment
    number means one segment in all of them.
    """

    model: ModelIdentity
    engine: EngineIdentity
    analysed_at: datetime
    label_map: LabelMap | None = None
    classification: Classification | None = None
    measurements: tuple[Measurement, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: Mapping[str, float] = field(default_factory=dict)
    overlapping: tuple[LabelMap, ...] = ()
    detections: Detections | None = None
    input_statistics: tuple[InputStatistic, ...] = ()

    @property
    def label_maps(self) -> tuple[LabelMap, ...]:
        """All label maps, each free of overlaps."""
        return (self.label_map, *self.overlapping) if self.label_map else ()
