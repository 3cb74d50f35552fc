from pathlib import Path

import numpy as np
import pytest

from engines.errors import ModelPackageError, PermanentError
from engines.inference.analyse import analyse
from engines.inference.region import cropped, near_segments
from engines.packages.description import VolumeInput
from engines.packages.package import ModelPackage, load_package, load_packages
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.serving.engine_set import open_engines
from engines.types import Code, Detections, LabelMap, Segment, Volume
from tests.small_models import detector_package, volume_package, xray_package
from tests.unit.engines.test_detection import CT_ORIENTATIONS, NOON, ct_with_balls, turned

LUNG = Segment(1, "Lung", Code("123037004", "SCT", "Anatomical Structure"), Code("39607008", "SCT", "Lung"), (1, 2, 3))
SHAPE = (20, 40, 50)
KEYS = 'crop_to = "tiny-ct"\ncrop_margin_mm = 6.0\n'


def region(*box: slice) -> LabelMap:
    labels = np.zeros(SHAPE, np.uint8)
    labels[box] = 1
    return LabelMap(labels, (LUNG,))


def lung_detector(models: Path, within_mm: float | None = None) -> ModelPackage:
    folder = detector_package(models, "tiny-lung-nodules", uid_root="97")
    description = folder / "model.toml"
    text = description.read_text().replace("[detection]", KEYS + "\n[detection]")
    if within_mm is not None:
        text = text.replace("most_overlap", f"within_mm = {within_mm}\nmost_overlap")
    description.write_text(text)
    return load_package(folder)


def run(package: ModelPackage, volume: Volume, labels: LabelMap | None) -> Detections:
    with create_engine(package, RuntimeSettings()) as engine:
        found = analyse(package, engine, volume, clock=lambda: NOON, region=labels).detections
    assert found is not None
    return found


def wanted(package: ModelPackage) -> VolumeInput:
    assert isinstance(package.input, VolumeInput)
    return package.input


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> ModelPackage:
    return lung_detector(tmp_path_factory.mktemp("models"), within_mm=4.0)


def test_a_volume_is_cropped_to_the_segments_and_the_margin_around_them(package: ModelPackage) -> None:
    affine = turned((2, 1, 0), (False, True, False))
    volume = Volume(np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE), affine, tuple(map(str, range(20))))
    part = cropped(package, wanted(package), volume, region(slice(8, 12), slice(10, 20), slice(2, 30)))
    # 6 mm are three slices of 2 mm, and six rows and columns of 1 mm
    np.testing.assert_array_equal(part.array, volume.array[5:15, 4:26, 0:36])
    np.testing.assert_allclose(part.affine @ (0, 0, 0, 1), affine @ (5, 4, 0, 1))
    assert part.sources == volume.sources[5:15]


def test_uneven_slices_keep_their_places_in_a_crop(package: ModelPackage) -> None:
    at = (*np.arange(10.0).tolist(), *(np.arange(10) * 2 + 12.0).tolist())
    affine = turned((2, 1, 0), (False, False, False))
    volume = Volume(np.zeros(SHAPE, np.int16), affine, tuple(map(str, range(20))), at=at, frames=tuple(range(1, 21)))
    part = cropped(package, wanted(package), volume, region(slice(8, 12), slice(10, 20), slice(2, 30)))
    # slice 8 lies at 8 and slice 11 at 14, so the margin of three reaches from 5 to 17
    assert part.at == (0.0, 1.0, 2.0, 3.0, 4.0, 7.0, 9.0, 11.0)
    assert part.frames == (6, 7, 8, 9, 10, 11, 12, 13)
    # slice 12 lies at 16, so the margin begins at 13: with slice 11, which lies at 14
    behind = cropped(package, wanted(package), volume, region(slice(12, 14), slice(10, 20), slice(2, 30)))
    assert behind.frames == (12, 13, 14, 15)
    np.testing.assert_allclose(part.slice_affine(5), volume.slice_affine(10) @ np.array(
        [[1, 0, 0, 0], [0, 1, 0, 4], [0, 0, 1, 0], [0, 0, 0, 1]]
    ))  # fmt: skip


@pytest.mark.parametrize(("order", "against"), CT_ORIENTATIONS)
def test_a_box_in_a_cropped_volume_lies_around_its_ball(
    package: ModelPackage, order: tuple[int, ...], against: tuple[bool, ...]
) -> None:
    affine = turned(order, against)
    centre, beside = (tuple((affine @ (*index, 1))[:3].tolist()) for index in ((9, 15, 20), (4, 32, 42)))
    lung = region(slice(6, 13), slice(8, 24), slice(10, 30))
    [box] = run(package, ct_with_balls(affine, SHAPE, centre, beside), lung).found
    np.testing.assert_allclose(np.add(box.low, box.high) / 2, centre, atol=2.0)


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_a_box_in_a_cropped_volume_that_lies_askew_lies_around_its_ball(
    package: ModelPackage, seed: int, mirrored: bool
) -> None:
    random = np.random.default_rng(seed)
    affine = np.eye(4)
    affine[:3, :3] = np.linalg.qr(random.normal(size=(3, 3)))[0] * (2.0, 1.0, 1.0)
    affine[:3, 0] += affine[:3, 1] * random.uniform(-0.8, 0.8)  # a tilted gantry
    if (np.linalg.det(affine[:3, :3]) < 0) is not mirrored:
        affine[:3, 2] *= -1
    affine[:3, 3] = random.uniform(-100, 100, 3)
    centre = tuple((affine @ (9, 15, 20, 1))[:3].tolist())
    # up to the border of the volume on one side
    [box] = run(package, ct_with_balls(affine, SHAPE, centre), region(slice(0, 13), slice(8, 40), slice(10, 30))).found
    np.testing.assert_allclose(np.add(box.low, box.high) / 2, centre, atol=2.0)


def test_what_is_beside_the_segments_is_only_found_where_nothing_is_said_of_a_distance(tmp_path: Path) -> None:
    affine = turned((2, 1, 0), (False, False, False))
    inside, outside = (tuple((affine @ (*index, 1))[:3].tolist()) for index in ((9, 15, 10), (9, 15, 30)))
    # all of the outer ball is in the margin of the crop
    volume, lung = ct_with_balls(affine, SHAPE, inside, outside), region(slice(4, 16), slice(5, 35), slice(5, 25))
    assert len(run(lung_detector(tmp_path / "any"), volume, lung).found) == 2
    [box] = run(lung_detector(tmp_path / "near", within_mm=2.0), volume, lung).found
    np.testing.assert_allclose(np.add(box.low, box.high) / 2, inside, atol=2.0)


@pytest.mark.parametrize("shear", [0.0, 0.6])
def test_the_distance_to_a_segment_is_in_millimetres_of_the_patient(shear: float) -> None:
    affine = turned((2, 1, 0), (False, True, False))
    affine[1, 0] = shear
    volume = Volume(np.zeros(SHAPE, np.int16), affine, tuple(map(str, range(20))))
    labels = np.zeros(SHAPE, np.uint8)
    labels[10, 20, 25] = 1
    voxel = (affine @ (10, 20, 25, 1))[:3]
    points = voxel + np.random.default_rng(1).uniform(-8, 8, (400, 3))
    found = near_segments(volume, LabelMap(labels, (LUNG,)), 5.0)(points)
    index = (points - affine[:3, 3]) @ np.linalg.inv(affine)[:3, :3].T
    in_voxel = (np.abs(index - (10, 20, 25)) <= 0.5).all(axis=1)
    np.testing.assert_array_equal(found, (np.linalg.norm(points - voxel, axis=1) <= 5.0) | in_voxel)


def test_no_point_at_all_is_near_nothing() -> None:
    volume = Volume(np.zeros(SHAPE, np.int16), turned((2, 1, 0), (False,) * 3), tuple(map(str, range(20))))
    assert near_segments(volume, region(), 5.0)(np.zeros((0, 3))).shape == (0,)


def test_a_crop_to_nothing_is_refused(package: ModelPackage) -> None:
    volume = ct_with_balls(turned((2, 1, 0), (False,) * 3), SHAPE)
    with pytest.raises(PermanentError, match="tiny-ct found nothing in the series"):
        run(package, volume, region(slice(0, 0)))
    with pytest.raises(PermanentError, match="needs the label map of tiny-ct on the same series"):
        run(package, volume, None)


def test_the_model_that_a_volume_is_cropped_to_runs_first(tmp_path: Path) -> None:
    volume_package(tmp_path)
    lung_detector(tmp_path, within_mm=4.0)
    affine = turned((2, 1, 0), (False, False, False))
    centre = tuple((affine @ (9, 15, 20, 1))[:3].tolist())
    volume = ct_with_balls(affine, SHAPE, centre)
    with open_engines(load_packages(tmp_path), RuntimeSettings()) as engines:
        found = engines.run("tiny-lung-nodules", volume).detections
    # "Bright", which is the ball itself, is the one that counts
    assert found is not None
    assert len(found.found) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('crop_to = "tiny-ct"\n', "", "crop_margin_mm needs crop_to"),
        (KEYS, "", "detection.within_mm needs a volume and input.crop_to"),
        ("crop_margin_mm = 6.0", "crop_margin = 0.1", "crop_margin has no meaning for this kind of input"),
        ("within_mm = 4.0\n", "within_mm = -1.0\n", "within_mm = -1.0 is wrong"),
    ],
)
def test_keys_of_a_crop_that_do_not_agree_are_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    description = lung_detector(tmp_path, within_mm=4.0).folder / "model.toml"
    description.write_text(description.read_text().replace(old, new))
    with pytest.raises(ModelPackageError, match=message):
        load_package(description.parent)


def test_a_volume_is_not_cropped_to_an_x_ray_model(tmp_path: Path) -> None:
    xray_package(tmp_path, "tiny-ct")
    lung_detector(tmp_path)
    with pytest.raises(ModelPackageError, match="must be a segmentation model of a volume that needs no crop itself"):
        load_packages(tmp_path)
