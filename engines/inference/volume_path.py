"""The whole path of one model over a CT series: to the network's grid, through the network, back to the voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import structlog

from engines.errors import OutOfMemory, PermanentError
from engines.inference.detection import detect, extent, to_patient, within_volume
from engines.inference.input_statistics import input_statistics
from engines.inference.measurements import HOUNSFIELD, measure
from engines.inference.postprocessing import (
    drop_small_components,
    drop_small_components_of_each,
    labels_on_source,
    masks_on_source,
    probabilities_on_source,
    separate,
)
from engines.inference.preprocessing import Array, resample_to_grid, scale
from engines.inference.reading import Reading, answer_of, classification, require_finite
from engines.inference.region import cropped, near_segments
from engines.inference.sliding_window import Answer, Maps, Window, flipped, on_largest_patch, sliding_window
from engines.packages.description import ClassificationSection, SegmentationSection, VolumeInput
from engines.packages.package import ModelPackage
from engines.runtimes.base import DeviceAnswer, Engine
from engines.types import Affine, Classification, LabelMap, Volume

log = structlog.get_logger()


@dataclass(frozen=True, eq=False)
class VolumeTensor:
    """A volume as a network is given it, not yet cut into patches.

    Attributes
    ----------
    tensor
        ``[channel, …grid]``.
    values
        The same on the grid in HU, clipped to the window and not scaled.
    affine
        Index of the grid to LPS millimetres.
    """

    tensor: Array
    values: Array
    affine: Affine


def volume_tensor(wanted: VolumeInput, volume: Volume) -> VolumeTensor:
    """Resample a volume, which is cropped already, clip it to the window and scale it."""
    grid, affine = resample_to_grid(volume, wanted.spacing_mm, wanted.axes)
    values = np.clip(grid, *wanted.window, out=grid)
    return VolumeTensor(scale(wanted, values, *wanted.window), values, affine)


def read_volume(
    package: ModelPackage,
    wanted: VolumeInput,
    engine: Engine,
    volume: Volume,
    region: LabelMap | None,
    probabilities: bool,
) -> Reading:
    """Run a model over a volume; see `engines.inference.analyse.analyse`."""
    _require_readable(package, wanted, volume)
    found, described = Reading(), package.description
    on_device = None if probabilities else _on_device(package, engine, volume)
    if on_device is not None:
        found.statistics = input_statistics(package, on_device.values, volume)
        found.seconds.update(on_device.seconds)
        found.label_maps = (LabelMap(on_device.labels, package.segments),)
        found.measurements = measure(package, volume, on_device.labels)
        return found
    with found.timed("preprocess"):
        seen = cropped(package, wanted, volume, region)
        given = volume_tensor(wanted, seen)
        found.statistics = input_statistics(package, given.values, seen)
    with found.timed("infer"):
        answer = _infer(package, wanted, engine, given.tensor)
    with found.timed("postprocess"):
        if section := described.segmentation:
            maps = answer.maps[section.tensor]
            found.label_maps = _label_maps(package, section, maps, given.affine, volume, probabilities)
            found.measurements = tuple(
                measurement for each in found.label_maps for measurement in measure(package, volume, each.array)
            )
        if described.classification:
            found.classification = _classify(described.classification, answer.windows)
        if described.detection:
            holds = [within_volume(volume)]
            if region is not None and described.detection.within_mm is not None:
                holds.append(near_segments(volume, region, described.detection.within_mm))
            placed = to_patient(given.affine)
            found.detections = detect(described.detection, answer.windows, extent(given.values.shape), placed, *holds)
    return found


def _require_readable(package: ModelPackage, wanted: VolumeInput, volume: Volume) -> None:
    slices = volume.array.shape[0]
    if slices < wanted.minimum_slices:
        raise PermanentError(
            f"{package.name} needs at least {wanted.minimum_slices} slices, the series has {slices}; send all of it"
        )
    if volume.unit != HOUNSFIELD.value:
        raise PermanentError(
            f"{package.name} needs Hounsfield units, the series is in {volume.unit!r}; check its Rescale Type"
        )
    require_finite(volume.array, "the series")


def _on_device(package: ModelPackage, engine: Engine, volume: Volume) -> DeviceAnswer | None:
    """Take the whole path on the device; None where the host has to, patch by patch.

    A device's memory may hold every patch, and still not the probabilities of all classes on the whole grid.
    """
    if engine.whole_path is None or not package.on_device:
        return None
    try:
        return engine.whole_path(volume)
    except OutOfMemory as error:
        log.warning("inference.on_host", model=package.name, reason=str(error))
        return None


def _infer(package: ModelPackage, wanted: VolumeInput, engine: Engine, tensor: Array) -> Answer:
    """Run the network whole where a patch covers the volume, in windows where none does, in smaller ones if need be."""
    segmentation = package.description.segmentation

    def on_patch(patch: tuple[int, ...]) -> Answer:
        return sliding_window(
            flipped(engine.infer, wanted.flips),
            tensor,
            patch,
            wanted.overlap,
            (segmentation.tensor,) if segmentation else (),
            blend=wanted.blend,
            batch=engine.batch,
        )

    answer = on_largest_patch(on_patch, tensor.shape[1:], wanted.grids, package.name)
    for array in (*answer.maps.values(), *(each for window in answer.windows for each in window.answers.values())):
        require_finite(array, answer_of(package, engine))
    return answer


def _label_maps(
    package: ModelPackage,
    section: SegmentationSection,
    maps: Maps,
    affine: Affine,
    volume: Volume,
    probabilities: bool,
) -> tuple[LabelMap, ...]:
    if section.overlapping:
        if section.keep_largest:
            drop_small_components_of_each(maps)
        return separate(masks_on_source(maps, affine, volume), package.segments)
    if section.keep_largest:
        drop_small_components(maps)
    grades = probabilities_on_source(maps, affine, volume) if probabilities else None
    return (LabelMap(labels_on_source(maps, affine, volume), package.segments, grades),)


def _classify(section: ClassificationSection, windows: Sequence[Window]) -> Classification:
    """Make one answer of those to several patches of a volume."""
    each = np.stack([window.answers[section.tensor] for window in windows])
    return classification(section, each.max(axis=0) if section.windows == "max" else each.mean(axis=0))
