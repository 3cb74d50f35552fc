"""Lungs on a chest CT without learning: threshold, airways, morphology, left and right. No PyTorch.

The steps are those of Hu, Hoffman and Reinhardt, Automatic Lung Segmentation for Accurate Quantitation of Volumetric
X-Ray CT Images (IEEE TMI 20, 2001): air within the body, without the airways; the lungs torn apart where they touch;
their border smoothed, so that vessels belong to them. `Settings` were chosen on the four CT that the networks are
trained on.
"""

from dataclasses import dataclass

import numpy as np
import SimpleITK as sitk  # noqa: N813
from numpy.typing import NDArray

from build_engines.recipes.data.sources import LEFT, RIGHT
from engines.types import Volume

Mask = sitk.Image
"""Of voxels 0 and 1."""

SMALL_LUNG = 0.2
"""Of the larger one: a smaller second component is none, and the lungs are one component."""

LEAST_ML = 2000.0
"""Air in the body of an adult: with less of it a lung was lost."""

RIM_MM, EMPTY = 5.0, -960.0
"""Around a round field of view, where smoothing makes tissue as dark as air; and what is darker than any lung (HU)."""

WIDEST_BRIDGE_MM = 12.0
"""Half of the thickness at which lungs that touch are still torn apart."""

LARGEST_AIRWAY_ML, SHORTEST_AIRWAY_MM, HIGH, CENTRAL, AIRWAY_STEP = 120.0, 60.0, 0.85, 0.15, 20.0
"""Trachea and main bronchi: how large and long they are; how high they reach and how far from the middle they are, as
parts of all air in the body; and by how many HU the threshold falls."""


@dataclass(frozen=True)
class Settings:
    """What was chosen on the training CT.

    Attributes
    ----------
    sigma_mm
        Of the Gaussian that takes noise away.
    air
        Below it there is air (HU).
    airway
        Below it there may be airways (HU); less where lungs are as dark.
    wall_mm
        Thickness of the airways' wall, which goes with them.
    closing_mm
        Radius of the closing that takes in vessels, and nodules at the pleura.
    """

    sigma_mm: float = 0.5
    air: float = -240.0
    airway: float = -860.0
    wall_mm: float = 2.0
    closing_mm: float = 4.0


CHOSEN = Settings()


def segment(volume: Volume, settings: Settings = CHOSEN) -> NDArray[np.uint8]:
    """Label the left (1) and the right lung (2).

    Parameters
    ----------
    volume
        Its axes go along those of the patient: slices to the head, rows to the back, columns to the left.
    settings
        See `Settings`.

    Returns
    -------
    NDArray[np.uint8]
        Shape of the volume's array; 0 where there is no lung, and everywhere if none was found.
    """
    image = sitk.GetImageFromArray(np.clip(volume.array, -1024, 600).astype(np.float32))
    image.SetSpacing([float(step) for step in reversed(volume.spacing)])
    smooth = sitk.SmoothingRecursiveGaussian(image, settings.sigma_mm)
    air = smooth < settings.air
    inner = within_body(air)
    if np.count_nonzero(sitk.GetArrayViewFromImage(inner)) * np.prod(volume.spacing) < 1000 * LEAST_ML:
        # Lungs that the field of view cuts are one with what lies around it.
        inner = air & (smooth > EMPTY) & ~grown(padding(image), RIM_MM)
    airways = grown(find_airways(inner, smooth, settings.airway), settings.wall_mm)
    labels = np.zeros(volume.array.shape, np.uint8)
    lungs = two_lungs(inner & ~airways)
    # Left is where x is larger.
    for label, lung in zip((RIGHT, LEFT), sorted(lungs, key=_middle), strict=False):
        closed = sitk.GetArrayFromImage(closing(lung, settings.closing_mm) & ~airways)
        labels[(closed > 0) & (labels == 0)] = label
    return labels


def within_body(air: Mask) -> Mask:
    """Take away air that reaches the sides of the image; lungs may reach its first and last slice."""
    components = sitk.ConnectedComponent(air)
    array = sitk.GetArrayViewFromImage(components)
    sides = (array[:, 0], array[:, -1], array[:, :, 0], array[:, :, -1])
    outside = np.unique(np.concatenate([np.unique(side) for side in sides]))
    return sitk.ChangeLabel(components, {int(label): 0 for label in outside if label}) > 0


def padding(image: sitk.Image) -> Mask:
    """Find what no slice shows: outside of a round field of view all slices have the same value."""
    array = sitk.GetArrayFromImage(image)
    same = np.broadcast_to(np.ptp(array, axis=0) == 0, array.shape).astype(np.uint8)
    mask = sitk.GetImageFromArray(same)
    mask.CopyInformation(image)
    return mask


def find_airways(inner: Mask, smooth: sitk.Image, highest: float) -> Mask:
    """Find trachea and main bronchi: dark, in the middle, as high as the lungs or higher, and far smaller than these.

    The threshold falls until they no longer leak into the lungs; nothing is found if they always do.
    """
    shapes = sitk.LabelShapeStatisticsImageFilter()
    shapes.Execute(inner)
    if not shapes.HasLabel(1):
        return inner
    first, _, lowest, width, _, slices = shapes.GetBoundingBox(1)
    step, _, rise = inner.GetSpacing()
    middle = inner.GetOrigin()[0] + (first + width / 2) * step
    for threshold in np.arange(highest, -990, -AIRWAY_STEP):
        components = sitk.ConnectedComponent(inner & (smooth < float(threshold)))
        shapes.Execute(components)
        for label in shapes.GetLabels():
            _, _, low, _, _, height = shapes.GetBoundingBox(label)
            long, high = height * rise > SHORTEST_AIRWAY_MM, low + height > lowest + HIGH * slices
            central = abs(shapes.GetCentroid(label)[0] - middle) < CENTRAL * width * step
            if long and high and central and shapes.GetPhysicalSize(label) < 1000 * LARGEST_AIRWAY_ML:
                return components == label
    return inner & ~inner


def two_lungs(air: Mask) -> list[Mask]:
    """Give the two largest components, torn apart where they touch (mostly in front of the heart); one if there is one.

    The thinnest place gives way first: what is nearer to a border than so many millimetres is taken away until two
    parts are left, and each voxel then goes to the nearer one.
    """
    parts = _large_components(air)
    if len(parts) > 1 or not parts:
        return parts
    (whole,) = parts
    depth = -_distance(whole)
    for radius in np.arange(1.0, WIDEST_BRIDGE_MM, 1.0):
        cores = _large_components(depth > float(radius))
        if len(cores) > 1:
            first, second = (_distance(core) for core in cores)
            nearer = first < second
            return [whole & nearer, whole & ~nearer]
    return parts


def closing(mask: Mask, radius_mm: float) -> Mask:
    """Close gaps narrower than twice the radius, and fill holes slice by slice."""
    box = sitk.LabelShapeStatisticsImageFilter()
    box.Execute(mask)
    start, size = np.split(np.array(box.GetBoundingBox(1)), 2)
    margin = np.ceil(radius_mm / np.array(mask.GetSpacing())).astype(int) + 1
    low = np.maximum(start - margin, 0)
    high = np.minimum(start + size + margin, mask.GetSize())
    part = sitk.RegionOfInterest(mask, (high - low).tolist(), low.tolist())
    closed = grown(grown(part, radius_mm), -radius_mm) | part
    filled = sitk.GetArrayFromImage(closed)
    for plane in filled:
        plane[:] = sitk.GetArrayFromImage(sitk.BinaryFillhole(sitk.GetImageFromArray(plane)))
    whole = sitk.GetArrayFromImage(mask)
    whole[low[2] : high[2], low[1] : high[1], low[0] : high[0]] = filled
    result = sitk.GetImageFromArray(whole)
    result.CopyInformation(mask)
    return result


def grown(mask: Mask, millimetres: float) -> Mask:
    """Move the border outwards; inwards if negative. The image's edges are no border."""
    return _distance(mask) <= millimetres


def _distance(mask: Mask) -> sitk.Image:
    """Give the distance to the border in mm, negative inside; far away where there is no border."""
    if not sitk.GetArrayViewFromImage(mask).any():
        return sitk.Cast(mask, sitk.sitkFloat32) + 1e6
    return sitk.SignedMaurerDistanceMap(mask, insideIsPositive=False, squaredDistance=False, useImageSpacing=True)


def _large_components(mask: Mask) -> list[Mask]:
    """Give the largest component and the second, if that is no crumb beside it."""
    components = sitk.RelabelComponent(sitk.ConnectedComponent(mask))
    sizes = np.bincount(sitk.GetArrayViewFromImage(components).ravel())[1:3]
    return [components == index + 1 for index, size in enumerate(sizes) if size > SMALL_LUNG * sizes[0]]


def _middle(mask: Mask) -> float:
    return float(np.nonzero(sitk.GetArrayViewFromImage(mask))[2].mean())
