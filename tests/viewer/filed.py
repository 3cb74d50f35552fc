"""Images and what was found in them, filed in an archive as a viewer finds them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK
from numpy.typing import NDArray
from PIL import Image
from pydicom import Dataset

from engines.inference.diameters import long_and_short_axis
from engines.inference.measurements import LONG_AXIS, MILLIMETRE, SHORT_AXIS
from engines.types import Code, Detection, Detections, Findings, LabelMap, Measurement, Segment, Volume
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.profile import ResultProfile
from tests.conftest import WrapAsDX
from tests.orthanc import Orthanc
from tests.unit.service.results.examples import (
    LEFT_LUNG,
    MILLILITRE,
    NODULE,
    RIGHT_LUNG,
    VOLUME,
    Example,
    air_in_body,
    lung_findings,
    nodule_in,
    pneumonia_findings,
    read_ct,
    read_radiograph,
)

NLST = "dicom/ct_nlst101287_toshiba_jpegls_plus_sybil_sr"
XRAY = "MCUCXR_0030_0"
"""A chest X-ray of the Montgomery set (NLM), with the lung fields as a radiologist has drawn them."""


@dataclass(frozen=True, eq=False)
class Filed:
    """A series with the results of one analysis, in the archive.

    Attributes
    ----------
    results
        The headers of the result objects by kind.
    """

    example: Example
    results: Mapping[str, Sequence[Dataset]]

    @property
    def study_uid(self) -> str:
        return str(self.example.headers[0].StudyInstanceUID)

    @property
    def series_uid(self) -> str:
        return str(self.example.headers[0].SeriesInstanceUID)

    def of(self, kind: str) -> Dataset:
        """The first object of a kind."""
        return self.results[kind][0]

    def truth(self) -> Iterator[tuple[Segment, dict[str, int]]]:
        """Each segment with how many voxels it has on each source image on which it has any."""
        label_map, image = self.example.findings.label_map, self.example.image
        assert label_map is not None
        sources = image.sources if isinstance(image, Volume) else (image.source,)
        planes = label_map.array.reshape(len(sources), -1)
        for segment in label_map.segments:
            counts = (planes == segment.number).sum(axis=1)
            yield segment, {uid: int(count) for uid, count in zip(sources, counts, strict=True) if count}

    def slice_at(self, point: tuple[float, float, float]) -> str:
        """The source image that a point of the array lies on."""
        assert isinstance(self.example.image, Volume)
        return self.example.image.sources[int(point[0])]

    def slice_with_most(self, label: str) -> str:
        """The source image on which a segment has most voxels."""
        [voxels] = [voxels for segment, voxels in self.truth() if segment.label == label]
        return max(voxels, key=voxels.__getitem__)


def file_results(
    orthanc: Orthanc, example: Example, sources: Sequence[Path], folder: Path, profile: ResultProfile
) -> Filed:
    """Encode an example and file it with its source images."""
    objects = encode(Analysis(example.findings, example.image, example.headers, profile), folder)
    orthanc.upload(*sources, *(entry.path for entry in objects))
    results: dict[str, list[Dataset]] = {}
    for entry in objects:
        results.setdefault(entry.kind, []).append(pydicom.dcmread(entry.path, stop_before_pixels=True))
    return Filed(example, results)


def chest_ct(shared_data: Path) -> tuple[Example, list[Path]]:
    """The real CT with its lungs and its nodule, measured; and its files."""
    folder = shared_data / NLST
    files = sorted(folder.glob("CT_*/*.dcm"))
    volume, headers = read_ct(files[0].parent)
    [boxes] = folder.glob("SR_*/*.dcm")
    nodule = nodule_in(volume, pydicom.dcmread(boxes))
    labels = np.where(nodule, NODULE.number, _lungs(volume)).astype(np.uint8)
    long, short = long_and_short_axis(nodule, volume.spacing[1:])
    measurements = (
        Measurement(NODULE.number, VOLUME, float(nodule.sum() * np.prod(volume.spacing) / 1000), MILLILITRE),
        Measurement(NODULE.number, LONG_AXIS, long.millimetres, MILLIMETRE, points=long.ends),
        Measurement(NODULE.number, SHORT_AXIS, short.millimetres, MILLIMETRE, points=short.ends),
    )
    lungs = lung_findings(labels, volume)
    label_map = LabelMap(labels, (LEFT_LUNG, RIGHT_LUNG, NODULE))
    found = replace(lungs, label_map=label_map, measurements=lungs.measurements + measurements)
    return Example(volume, headers, found), files


def small_ct(shared_data: Path) -> tuple[Example, list[Path]]:
    """The small real CT with lungs, crudely; and its files."""
    folder = shared_data / "dicom" / "ct_cip64_79slices"
    volume, headers = read_ct(folder)
    return Example(volume, headers, lung_findings(air_in_body(volume), volume)), sorted(folder.glob("*.dcm"))


def nodules_in(example: Example) -> Example:
    """The same CT with what a detector might say of it: a box in the left lung, and a point in the right one."""
    image = example.image
    assert isinstance(image, Volume)
    slices, rows, columns = image.array.shape
    places = ((slices // 2, rows * 0.5, columns * 0.72), (slices // 2 + 3, rows * 0.45, columns * 0.3))
    centre, point = ((image.affine @ (*place, 1))[:3] for place in places)
    half = np.array([14.0, 11.0, 6.0])
    found = (
        Detection("Nodule", NODULE.type, 0.93, tuple((centre - half).tolist()), tuple((centre + half).tolist())),
        Detection("Nodule", NODULE.type, 0.61, tuple(point.tolist()), tuple(point.tolist())),
    )
    model = replace(example.findings.model, name="ct-nodule", uid_root="7")
    detections = Detections(found, (("Nodule", NODULE.type), ("Mass", Code("4147007", "SCT", "Mass"))))
    said = replace(example.findings, model=model, label_map=None, measurements=(), detections=detections)
    return replace(example, findings=said)


def chest_xray(shared_data: Path, wrap_as_dx: WrapAsDX, folder: Path, less: int = 0) -> tuple[Example, list[Path]]:
    """A real X-ray with its lung fields and three classes, one with an activation map; and its file.

    Parameters
    ----------
    less
        So many rows and columns are left out.
    """
    picture, mask = (
        np.asarray(Image.open(shared_data / "cxr_lung" / each).convert("L"))[less:, less:]
        for each in (f"img/{XRAY}.jpg", f"mask/{XRAY}.png")
    )
    png = folder / f"xray-{less}.png"
    Image.fromarray(picture).save(png)
    file = wrap_as_dx(png, folder / f"xray-{less}.dcm")
    image, headers = read_radiograph(file)
    image = replace(image, array=picture.astype(np.float32))
    # the patient's left is on the right of the picture
    left = np.arange(mask.shape[1]) > mask.shape[1] // 2
    fields = np.where(mask > 127, np.where(left, LEFT_LUNG.number, RIGHT_LUNG.number), 0).astype(np.uint8)
    label_map = LabelMap(fields, (LEFT_LUNG, RIGHT_LUNG))
    found = replace(_with_activation(pneumonia_findings(), image.array.shape), label_map=label_map)
    return Example(image, headers, found), [file]


def _lungs(volume: Volume) -> NDArray[np.uint8]:
    """The largest body of air that does not reach the first corner, left and right by the middle column."""
    air = SimpleITK.GetImageFromArray((volume.array < -500).astype(np.uint8))
    by_size = SimpleITK.GetArrayFromImage(SimpleITK.RelabelComponent(SimpleITK.ConnectedComponent(air)))
    lungs = by_size == (2 if by_size[0, 0, 0] == 1 else 1)
    left = np.arange(lungs.shape[2]) > lungs.shape[2] // 2
    return np.where(lungs, np.where(left, LEFT_LUNG.number, RIGHT_LUNG.number), 0).astype(np.uint8)


def _with_activation(findings: Findings, shape: tuple[int, ...]) -> Findings:
    """As if the network had looked at the base of the right lung for the most probable class, and nowhere else."""
    assert findings.classification is not None
    best = findings.classification.best
    row, column = np.ogrid[: shape[0], : shape[1]]
    far = ((row - shape[0] * 0.58) / (shape[0] * 0.12)) ** 2 + ((column - shape[1] * 0.28) / (shape[1] * 0.1)) ** 2
    seen = replace(best, activation=(255 * np.exp(-far)).astype(np.uint8))
    classes = tuple(seen if entry is best else entry for entry in findings.classification.classes)
    return replace(findings, classification=replace(findings.classification, classes=classes))
