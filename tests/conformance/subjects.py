"""What the matrix is about: real images as a node has them after assembly, and something found in each."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import pydicom
from numpy.typing import NDArray
from pydicom import Dataset
from pydicom.uid import DigitalXRayImageStorageForPresentation

from engines.inference.diameters import long_and_short_axis
from engines.inference.measurements import LONG_AXIS, MILLIMETRE, SHORT_AXIS
from engines.types import (
    Classification,
    Code,
    Detection,
    Detections,
    Findings,
    Image,
    InputStatistic,
    LabelMap,
    Measurement,
    Segment,
    Volume,
)
from service.series.assembly import assemble
from tests.enhanced import as_enhanced
from tests.synthetic_ct import Scan, save, write_scan
from tests.unit.service.results.examples import (
    ANATOMY,
    LUNG,
    air_in_body,
    findings,
    lung_findings,
    pneumonia_findings,
    two_fields,
)

NODULE = Segment(
    3,
    "Nodule",
    Code("49755003", "SCT", "Morphologically Abnormal Structure"),
    Code("27925004", "SCT", "Nodule"),
    (250, 220, 60),
)
SLICES = 12
"""Of a real series: enough to be one."""


@dataclass(frozen=True, eq=False)
class Subject:
    """An image as the node has it, and what was found in it.

    Attributes
    ----------
    files
        Of the image: what shares patient and study with its results.
    """

    image: Image
    headers: Sequence[Dataset]
    findings: Findings
    files: tuple[Path, ...]


Find = Callable[[Image], Findings]
Make = Callable[[Path, Path], Subject]
"""From the folder of real data and a folder to write to."""


def assembled(files: Sequence[Path], find: Find) -> Subject:
    """The only image of a series, through the node's own assembly; the findings carry its notes."""
    [item] = assemble(files).items
    return Subject(item.image, item.headers(), replace(find(item.image), notes=item.notes), tuple(files))


def middle_slices(folder: Path) -> list[Path]:
    """A few slices in a row from the middle of a series."""
    files = sorted(folder.glob("*.dcm"), key=_place)
    start = (len(files) - SLICES) // 2
    return files[start : start + SLICES]


def _place(file: Path) -> float:
    return float(pydicom.dcmread(file, stop_before_pixels=True).ImagePositionPatient[2])


def lungs(image: Image) -> Findings:
    """Air in the body, left and right."""
    assert isinstance(image, Volume)
    return lung_findings(air_in_body(image), image)


def nothing(image: Image) -> Findings:
    """No voxel of any segment."""
    return lung_findings(np.zeros(image.array.shape, np.uint8), image)


def lungs_and_nodule(image: Image) -> Findings:
    """Lungs, and in the left one a ball with its axes measured; the model is sure of it in its middle."""
    assert isinstance(image, Volume)
    labels = air_in_body(image)
    inside = ball(labels.shape, (0.5, 0.5, 0.7), 0.06)
    labels[inside] = NODULE.number
    found = lung_findings(labels, image)
    assert found.label_map is not None
    axes = zip((LONG_AXIS, SHORT_AXIS), long_and_short_axis(inside, image.spacing[1:]), strict=True)
    measured = [Measurement(NODULE.number, name, axis.millimetres, MILLIMETRE, points=axis.ends) for name, axis in axes]
    segments = (*found.label_map.segments, NODULE)
    probabilities = np.stack([np.where(labels == segment.number, 230, 10).astype(np.uint8) for segment in segments])
    return replace(
        found,
        label_map=LabelMap(labels, segments, probabilities),
        measurements=(*found.measurements, *measured),
    )


def overlap(image: Image) -> Findings:
    """A nodule in a label map of its own, over the lungs."""
    found = lungs(image)
    nodule = np.where(ball(image.array.shape, (0.5, 0.5, 0.7), 0.06), NODULE.number, 0).astype(np.uint8)
    return replace(found, overlapping=(LabelMap(nodule, (NODULE,)),))


def hundred_segments(image: Image) -> Findings:
    """Blocks of voxels in a row, each a segment."""
    labels = np.zeros(image.array.shape, np.uint8)
    rows, columns = labels.shape[1:]
    segments = []
    for number in range(1, 101):
        row, column = divmod(number - 1, 10)
        labels[
            2:6,
            row * rows // 10 : (row + 1) * rows // 10 - 1,
            column * columns // 10 : (column + 1) * columns // 10 - 1,
        ] = number
        segments.append(Segment(number, f"Part {number}", ANATOMY, LUNG, (number * 2, 255 - number * 2, 128)))
    return findings(label_map=LabelMap(labels, tuple(segments)))


def fields(image: Image) -> Findings:
    """The lung fields of an X-ray."""
    return lung_findings(two_fields(image.array.shape), image)


def classes(image: Image) -> Findings:
    """Three classes of an X-ray, each with what speaks for it."""
    assert image.array.ndim == 2
    found = pneumonia_findings()
    assert found.classification is not None
    rows, columns = image.array.shape
    fall = np.linspace(255, 0, columns).astype(np.uint8)
    activation: NDArray[np.uint8] = np.repeat(fall[None], rows, axis=0)
    mapped = tuple(replace(entry, activation=activation) for entry in found.classification.classes)
    return replace(found, classification=Classification(mapped))


def nodules(image: Image) -> Findings:
    """A box, a flat one and a point in a CT; a box that reaches beyond an X-ray, and a point; of masses none."""
    nodule, mass = NODULE.type, Code("4147007", "SCT", "Mass")
    shape = np.array(image.array.shape)
    places = [(0.5, 0.45, 0.6), (0.3, 0.6, 0.3), (0.7, 0.3, 0.4)]
    centres = [np.array(place[-len(shape) :]) * shape for place in places]
    halves = [0.1 * shape.max(), 0.0, 0.0]
    if isinstance(image, Volume):
        centres = [(image.affine @ (*centre, 1))[:3] for centre in centres]
        halves = [np.array([14.0, 11.0, 3.0]), np.array([5.0, 5.0, 0.0]), np.zeros(3)]
    found = (
        Detection(
            "Nodule",
            nodule,
            score,
            tuple((centre - half).tolist()),
            tuple((centre + half).tolist()),
            28.0 if isinstance(image, Volume) and np.any(half) else None,
        )
        for centre, half, score in zip(centres, halves, (0.93, 0.71, 0.505), strict=True)
    )
    statistics = (
        InputStatistic("median", -600.0, "HU", -900.0, -500.0),
        InputStatistic("pixel_mm", 0.7, "mm", 1.0, 2.0),
    )
    looked_for = (("Nodule", nodule), ("Mass", mass))
    return findings(detections=Detections(tuple(found), looked_for), input_statistics=statistics)


def detected_and_classified(image: Image) -> Findings:
    """Detections, and classes that do not exclude each other."""
    likely = classes(image).classification
    assert likely is not None
    alone = tuple(replace(entry, probability=0.75, activation=None) for entry in likely.classes)
    return replace(nodules(image), classification=Classification(alone, exclusive=False))


def fields_and_classes(image: Image) -> Findings:
    """Both."""
    return replace(fields(image), classification=classes(image).classification)


def lesion(image: Image) -> Findings:
    """Whatever is not air."""
    mass = Segment(1, "Lesion", NODULE.category, Code("4147007", "SCT", "Mass"), (200, 50, 50))
    return findings(label_map=LabelMap((image.array > -500).astype(np.uint8), (mass,)))


def ball(shape: Sequence[int], centre: Sequence[float], radius: float) -> NDArray[np.bool_]:
    """A ball; centre as fractions of the three sizes, radius as a fraction of the columns."""
    steps = np.ogrid[tuple(slice(size) for size in shape)]
    offsets = [step - size * place for step, size, place in zip(steps, shape, centre, strict=True)]
    return np.asarray(sum(offset**2 for offset in offsets) < (shape[-1] * radius) ** 2)


def ct(folder: str, find: Find, data: Path, work: Path) -> Subject:
    """A part of a real series."""
    [series] = data.glob(folder)
    return assembled(middle_slices(series), find)


def whole_ct(folder: str, find: Find, data: Path, work: Path) -> Subject:
    """All of a real series."""
    return assembled(sorted((data / folder).glob("*.dcm")), find)


def enhanced(find: Find, data: Path, work: Path) -> Subject:
    """A part of a real series as one Enhanced CT."""
    return assembled([as_enhanced(middle_slices(data / "ct_cip64_79slices"), work / "enhanced.dcm")], find)


def odd(find: Find, data: Path, work: Path) -> Subject:
    """Slices whose pixels fill no whole byte, turned about two axes."""
    places = tuple(2.5 * index for index in range(9))
    scan = Scan(places, orientation=(0.96, 0.28, 0.0, -0.168, 0.576, 0.8), shape=(27, 21), spacing=(0.8, 0.7))
    return assembled(write_scan(scan, work / "odd"), find)


def xray(name: str, find: Find, data: Path, work: Path) -> Subject:
    """A real computed radiograph."""
    return assembled([data / "cr" / name], find)


def digital_xray(name: str, find: Find, data: Path, work: Path) -> Subject:
    """A real radiograph as the digital X-ray that a newer machine would send."""
    image = pydicom.dcmread(data / "cr" / name)
    image.SOPClassUID, image.Modality = DigitalXRayImageStorageForPresentation, "DX"
    image.PresentationIntentType = "FOR PRESENTATION"
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "2.25.7"
    save(image, work / "dx.dcm", image.file_meta.TransferSyntaxUID)
    return assembled([work / "dx.dcm"], find)


SUBJECTS: Mapping[str, Make] = {
    "ct": partial(ct, "ct_nlst101287_toshiba_jpegls_plus_sybil_sr/CT_*", lungs_and_nodule),
    "small-ct": partial(ct, "ct_cip64_79slices", lungs_and_nodule),
    "tilted-ct": partial(whole_ct, "ct_ge_tilt_variable_spacing", lesion),
    "enhanced-ct": partial(enhanced, lungs),
    "odd-size": partial(odd, lesion),
    "nothing-found": partial(ct, "ct_cip64_79slices", nothing),
    "100-segments": partial(ct, "ct_cip64_79slices", hundred_segments),
    "overlap": partial(ct, "ct_cip64_79slices", overlap),
    "ct-detections": partial(ct, "ct_cip64_79slices", nodules),
    "cr-detections": partial(xray, "wg04_RG3_RLE.dcm", detected_and_classified),
    "cr": partial(xray, "wg04_RG2_JPLL.dcm", fields),
    "cr-classes": partial(xray, "wg04_RG3_RLE.dcm", classes),
    "dx": partial(digital_xray, "fo_CR-ModalitySequenceLUT.dcm", fields_and_classes),
}
