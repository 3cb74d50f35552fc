"""Rules that configure a U-Net by its training images (Isensee et al., nnU-Net, Nature Methods 2021). No PyTorch.

They go from a fingerprint of the images and a budget of memory to the grid, the patch, the batch and the shape of the
network, in 2D and 3D. Left out of nnU-Net: its normalisation of values (a recipe says its own), cascades, and the
choice between 2D and 3D.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

ANISOTROPIC = 3.0
"""How many times as coarse as the others an axis has to be, to be treated on its own."""

SMALLEST = 4
"""Least length of a feature map's axis."""

BUDGET, REFERENCE_GB = {2: 12 * 85e6, 3: 2 * 560e6}, 8.0
"""By the number of axes: values in the feature maps of a batch that are trained in so many GB."""

WIDEST = {2: 512, 3: 320}
"""By the number of axes: most channels of a stage."""

LEAST_BATCH = 2
SEEN_AT_ONCE = 0.05
"""Largest part of all training voxels in one batch."""

COVERED = 0.25
"""Part of a median image that a patch has to hold; else a 3D grid is made coarser (nnU-Net's low resolution)."""

Lengths = tuple[int, ...]
Spacing = tuple[float, ...]


@dataclass(frozen=True)
class Fingerprint:
    """What the rules know of the training images.

    Attributes
    ----------
    shapes
        In voxels or pixels, in array order.
    spacings
        In mm along the same axes; 1 where unknown.
    """

    shapes: Sequence[Lengths]
    spacings: Sequence[Spacing]


@dataclass(frozen=True)
class Plan:
    """What the rules chose.

    Attributes
    ----------
    spacing
        Of the grid, in mm.
    patch
        Of training and serving; each axis can be halved as often as the network does.
    batch
        Patches of one step.
    strides, kernels
        Of the convolutions of each stage, along each axis.
    features
        Channels of each stage.
    """

    spacing: Spacing
    patch: Lengths
    batch: int
    strides: tuple[Lengths, ...]
    kernels: tuple[Lengths, ...]
    features: tuple[int, ...]


def plan(fingerprint: Fingerprint, classes: int, memory_gb: float = REFERENCE_GB, features: int = 32) -> Plan:
    """Choose grid, patch, batch and network.

    Parameters
    ----------
    fingerprint
        Of the training images.
    classes
        Background among them.
    memory_gb
        Of an imagined GPU; less of it makes patches smaller, and so the steps quicker.
    features
        Channels of the first stage (nnU-Net: 32); they double with each.
    """
    spacing = target_spacing(fingerprint)
    fine = _plan_at(spacing, fingerprint, classes, memory_gb, features)
    chosen, median = fine, np.array(_median_shape(fingerprint, spacing))
    while len(spacing) == 3 and np.prod(chosen.patch) < COVERED * np.prod(median):
        coarsest = max(spacing)
        behind = [step < coarsest / 2 for step in spacing]
        grow = behind if any(behind) else [True] * len(spacing)
        spacing = tuple(1.03 * step if each else step for step, each in zip(spacing, grow, strict=True))
        chosen = _plan_at(spacing, fingerprint, classes, memory_gb, features)
        median = np.array(_median_shape(fingerprint, spacing))
    fine_voxels = np.prod(_median_shape(fingerprint, fine.spacing))
    return fine if fine_voxels < 2 * np.prod(median) else chosen


def target_spacing(fingerprint: Fingerprint) -> Spacing:
    """Give the median of the spacings; of an axis that is far coarser than the others, the tenth percentile."""
    spacings, shapes = np.array(fingerprint.spacings, float), np.array(fingerprint.shapes)
    target, lengths = np.median(spacings, axis=0), np.median(shapes, axis=0)
    worst = int(np.argmax(target))
    others = np.arange(len(target)) != worst
    if target[worst] > ANISOTROPIC * target[others].max() and lengths[worst] * ANISOTROPIC < lengths[others].min():
        target[worst] = max(np.percentile(spacings[:, worst], 10), target[others].max())
    return tuple(float(step) for step in target)


def topology(spacing: Spacing, patch: Lengths) -> tuple[tuple[Lengths, ...], tuple[Lengths, ...], Lengths]:
    """Give strides and kernels of the stages, and the patch grown to what can be halved that often.

    An axis is halved as long as it is no coarser than twice the finest and its feature maps stay `SMALLEST` long. Its
    kernels have one voxel until the others are nearly as coarse.
    """
    steps, lengths = list(spacing), list(patch)
    kernel = [1] * len(patch)
    strides: list[Lengths] = [(1,) * len(patch)]
    kernels: list[Lengths] = []
    while axes := [axis for axis, length in enumerate(lengths) if length >= 2 * SMALLEST]:
        finest = min(steps[axis] for axis in axes)
        axes = [axis for axis in axes if steps[axis] < 2 * finest]
        if len(axes) == 1 and lengths[axes[0]] < 3 * SMALLEST:
            break
        kernel = [3 if step < 2 * min(steps) else size for step, size in zip(steps, kernel, strict=True)]
        kernels.append(tuple(kernel))
        strides.append(tuple(2 if axis in axes else 1 for axis in range(len(patch))))
        for axis in axes:
            steps[axis], lengths[axis] = 2 * steps[axis], -(-lengths[axis] // 2)
    kernels.append((3,) * len(patch))
    divisors = np.prod(strides, axis=0)
    grown = tuple(int(-(-length // divisor) * divisor) for length, divisor in zip(patch, divisors, strict=True))
    return tuple(strides), tuple(kernels), grown


def feature_values(chosen: Plan, classes: int) -> int:
    """Count the values in all feature maps of one patch: what stands for memory in the rules."""
    total, places = 0, np.array(chosen.patch)
    for stage, (stride, features) in enumerate(zip(chosen.strides, chosen.features, strict=True)):
        places = places // stride
        last = stage == len(chosen.strides) - 1
        # Two convolutions on the way down; on the way up two more, and the transposed one.
        total += (2 if last else 5) * features * int(np.prod(places))
    return total + classes * int(np.prod(chosen.patch))


def _plan_at(spacing: Spacing, fingerprint: Fingerprint, classes: int, memory_gb: float, features: int) -> Plan:
    """Choose patch, batch and network for a grid: start too large, shorten the longest axis until it fits."""
    dimension, median = len(spacing), _median_shape(fingerprint, spacing)
    longest = 256**3 if dimension == 3 else 2048**2
    fineness = 1 / np.array(spacing)
    start = fineness * (longest / np.prod(fineness)) ** (1 / dimension)
    first = tuple(min(round(length), limit) for length, limit in zip(start, median, strict=True))
    chosen = _network_of(Plan(spacing, first, LEAST_BATCH, (), (), ()), features)
    budget = BUDGET[dimension] * memory_gb / REFERENCE_GB
    while feature_values(chosen, classes) > budget / LEAST_BATCH:
        axis = int(np.argmax(np.array(chosen.patch) / median))
        # By the divisor of the patch that comes next, or lengths would be skipped that can be halved just as well.
        next_divisor = np.prod(topology(spacing, _shorter(chosen.patch, axis, _divisor(chosen, axis)))[0], axis=0)[axis]
        patch = _shorter(chosen.patch, axis, int(next_divisor))
        if patch[axis] < SMALLEST:
            raise ValueError(f"{memory_gb} GB are too few for any patch; give the rules more memory, or fewer features")
        chosen = _network_of(replace(chosen, patch=patch), features)
    fits = round(budget / feature_values(chosen, classes))
    voxels = np.prod(median) * len(fingerprint.shapes)
    enough = round(SEEN_AT_ONCE * voxels / np.prod(chosen.patch))
    return replace(chosen, batch=max(min(fits, enough), LEAST_BATCH))


def _network_of(chosen: Plan, features: int) -> Plan:
    strides, kernels, patch = topology(chosen.spacing, chosen.patch)
    widths = tuple(min(features * 2**stage, WIDEST[len(patch)]) for stage in range(len(strides)))
    return replace(chosen, patch=patch, strides=strides, kernels=kernels, features=widths)


def _divisor(chosen: Plan, axis: int) -> int:
    return int(np.prod(chosen.strides, axis=0)[axis])


def _shorter(patch: Lengths, axis: int, by: int) -> Lengths:
    return tuple(length - by if index == axis else length for index, length in enumerate(patch))


def _median_shape(fingerprint: Fingerprint, spacing: Spacing) -> Lengths:
    sizes = np.array(fingerprint.shapes) * np.array(fingerprint.spacings) / np.array(spacing)
    return tuple(int(length) for length in np.median(np.round(sizes), axis=0))
