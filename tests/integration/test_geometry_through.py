"""A lesion whose place is known comes back in its place: files → volume → label map → SEG → an independent reader."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from engines.types import Code, EngineIdentity, Findings, LabelMap, ModelIdentity, Segment, Volume
from service.results.encode import encode
from service.series.assembly import Item, assemble
from tests.synthetic_ct import Scan, write_enhanced, write_scan
from tests.unit.service.results.examples import analysis_of
from tests.validators import segments

CENTROID_MM = 0.1
VOLUME = 0.001
FEW = settings(max_examples=25, deadline=None, phases=[Phase.explicit, Phase.reuse, Phase.generate])
"""Each example writes a series and runs dcmqi; making a failing one smaller would take minutes."""


def rotated(turn: Sequence[float]) -> tuple[float, ...]:
    """ImageOrientationPatient of an axial slice turned about x, y and z."""
    axes = np.eye(3)
    for axis, angle in enumerate(turn):
        c, s = np.cos(angle), np.sin(angle)
        one, (i, j) = np.eye(3), [k for k in range(3) if k != axis]
        one[i, i], one[i, j], one[j, i], one[j, j] = c, -s, s, c
        axes = axes @ one
    return tuple(float(value) for value in np.round([*axes[:, 0], *axes[:, 1]], 12))


CANONICAL = {
    "axial": (1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
    "feet first, prone": (1.0, 0.0, 0.0, 0.0, -1.0, 0.0),
    "decubitus": (0.0, 1.0, 0.0, -1.0, 0.0, 0.0),
    "coronal": (1.0, 0.0, 0.0, 0.0, 0.0, -1.0),
    "sagittal": (0.0, 1.0, 0.0, 0.0, 0.0, -1.0),
    "mirrored": (-1.0, 0.0, 0.0, 0.0, 1.0, 0.0),
}
ORIENTATIONS = st.one_of(st.sampled_from(list(CANONICAL.values())), st.tuples(*[st.floats(-3, 3)] * 3).map(rotated))
SCANS = st.builds(
    Scan,
    places=st.builds(
        lambda count, spacing: tuple(spacing * index for index in range(count)), st.integers(8, 20), st.floats(0.6, 4.0)
    ),
    orientation=ORIENTATIONS,
    shape=st.tuples(st.integers(12, 30), st.integers(12, 30)),
    spacing=st.tuples(st.floats(0.5, 2.0), st.floats(0.5, 2.0)).map(
        lambda each: (round(each[0], 3), round(each[1], 3))
    ),
    radius=st.floats(4, 9),
)


def lesion_of(item: Item) -> Findings:
    """What a perfect model would find: everything brighter than air."""
    lesion = Code("4147007", "SCT", "Mass")
    segment = Segment(1, "Lesion", Code("49755003", "SCT", "Morphologically Altered Structure"), lesion, (200, 50, 50))
    return Findings(
        ModelIdentity("perfect", "1.0", "ab" * 32, "99", "Apache-2.0", "Research use only: a test"),
        EngineIdentity("none", "fp32", "CPU"),
        analysed_at=pydicom.valuerep.DT("20260102030405"),  # type: ignore[arg-type]
        label_map=LabelMap((item.image.array > -500).astype(np.uint8), (segment,)),
    )


def encoded(item: Item, folder: Path) -> Path:
    seg, _ = encode(analysis_of(lesion_of(item), item.image, item.headers()), folder)
    return seg.path


def centroid_and_millilitres(image: SimpleITK.Image) -> tuple[NDArray[np.float64], float]:
    """As an independent reader (dcmqi, ITK) has it."""
    found = np.argwhere(SimpleITK.GetArrayFromImage(image) > 0)[:, ::-1]
    points = [image.TransformContinuousIndexToPhysicalPoint(index.astype(float).tolist()) for index in found]
    return np.mean(points, axis=0), len(found) * float(np.prod(image.GetSpacing())) / 1000


def points_of_seg(path: Path) -> NDArray[np.float64]:
    """The voxels of a SEG by the plane of each frame, for what an ITK image cannot hold: tilt and uneven spacing."""
    seg = pydicom.dcmread(path)
    shared = seg.SharedFunctionalGroupsSequence[0]
    orientation = np.array(shared.PlaneOrientationSequence[0].ImageOrientationPatient, float)
    spacing = np.array(shared.PixelMeasuresSequence[0].PixelSpacing, float)
    points = []
    for groups, frame in zip(
        seg.PerFrameFunctionalGroupsSequence, seg.pixel_array.reshape(-1, seg.Rows, seg.Columns), strict=True
    ):
        origin = np.array(groups.PlanePositionSequence[0].ImagePositionPatient, float)
        row, column = np.nonzero(frame)
        points.append(
            origin + np.outer(row, orientation[3:] * spacing[0]) + np.outer(column, orientation[:3] * spacing[1])
        )
    return np.concatenate(points)


def as_sets(points: NDArray[np.float64]) -> NDArray[np.float64]:
    return points[np.lexsort(np.round(points, 3).T)]


def assert_same_lesion(item: Item, scan: Scan, folder: Path) -> None:
    [found] = segments(encoded(item, folder), folder / "itk")
    centroid, millilitres = centroid_and_millilitres(found.image)
    truth = scan.lesion_points()
    np.testing.assert_allclose(centroid, truth.mean(axis=0), atol=CENTROID_MM)
    voxel = scan.spacing[0] * scan.spacing[1] * (scan.places[1] - scan.places[0]) / 1000
    assert millilitres == pytest.approx(len(truth) * voxel, rel=VOLUME)


@FEW
@given(scan=SCANS, seed=st.integers(0, 1000), backwards=st.booleans())
def test_a_lesion_survives_any_orientation_spacing_size_numbering_and_order_of_arrival(
    scan: Scan, seed: int, backwards: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        numbers = range(len(scan.places), 0, -1) if backwards else range(1, len(scan.places) + 1)
        files = write_scan(scan, Path(folder) / "ct", numbers)
        arrival = np.random.default_rng(seed).permutation(len(files))
        [item] = assemble([files[index] for index in arrival]).items
        [again] = assemble(files).items
        np.testing.assert_array_equal(item.image.array, again.image.array)
        assert isinstance(item.image, Volume)
        np.testing.assert_allclose(item.image.affine, again.image.affine, atol=1e-12)  # type: ignore[union-attr]
        assert_same_lesion(item, scan, Path(folder))


@FEW
@given(
    scan=SCANS,
    tilt=st.floats(-30, 30),
    gaps=st.lists(st.sampled_from([1.0, 1.0, 1.0, 1.6, 2.0, 3.0]), min_size=9, max_size=16),
)
def test_a_lesion_survives_tilt_and_uneven_spacing(scan: Scan, tilt: float, gaps: list[float]) -> None:
    places = (0.0, *np.cumsum(gaps).tolist())
    scan = Scan(places, scan.orientation, scan.shape, scan.spacing, tilt, radius=scan.radius)
    with tempfile.TemporaryDirectory() as folder:
        [item] = assemble(write_scan(scan, Path(folder) / "ct")).items
        points = points_of_seg(encoded(item, Path(folder)))
    truth = scan.lesion_points()
    assert len(points) == len(truth)
    np.testing.assert_allclose(as_sets(points), as_sets(truth), atol=1e-3)


@FEW
@given(first=SCANS, turn=ORIENTATIONS, seed=st.integers(0, 1000))
def test_two_stacks_in_one_series_or_one_enhanced_ct_are_told_apart(
    first: Scan, turn: tuple[float, ...], seed: int
) -> None:
    """Two acquisitions at the same positions, or another orientation; the second one has its lesion elsewhere."""
    second = Scan(
        first.places, turn, first.shape, first.spacing, centre=(0.3, 0.4, 0.6), radius=first.radius,
        attributes={"AcquisitionNumber": 2},
    )  # fmt: skip
    first = Scan(
        first.places, first.orientation, first.shape, first.spacing, radius=first.radius,
        attributes={"AcquisitionNumber": 1},
    )  # fmt: skip
    count = len(first.places)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = write_scan(first, folder / "ct", series="1.2.3.4", study="1.2.3")
        files += write_scan(second, folder / "ct", range(count + 1, 2 * count + 1), series="1.2.3.4", study="1.2.3")
        shuffled = np.random.default_rng(seed).permutation(2 * count)
        items = assemble([files[index] for index in shuffled]).items
        assert [item.key for item in items] == ["volume-1", "volume-2"]
        enhanced = write_enhanced([first, second], folder / "enhanced.dcm", shuffled.tolist())
        stacks = assemble([enhanced]).items
        assert len(stacks) == 2
        for item, scan in zip(items, (first, second), strict=True):
            target = folder / item.key
            target.mkdir()
            assert_same_lesion(item, scan, target)
        truths = sorted((as_sets(scan.lesion_points()) for scan in (first, second)), key=lambda one: one[0].tolist())
        found = sorted(
            (as_sets(points_of_seg(encoded(item, folder / f"e{item.key}"))) for item in stacks),
            key=lambda one: one[0].tolist(),
        )
        for points, truth in zip(found, truths, strict=True):
            np.testing.assert_allclose(points, truth, atol=1e-3)
