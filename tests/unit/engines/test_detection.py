import tracemalloc
from collections.abc import Sequence
from datetime import UTC, datetime
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import ModelPackageError
from engines.inference.analyse import analyse
from engines.inference.detection import (
    Candidates,
    candidates,
    detect,
    extent,
    non_maximum_suppression,
    to_patient,
    within_volume,
)
from engines.inference.orientation import Turn
from engines.inference.sliding_window import Window
from engines.packages.description import ClassEntry, CodeEntry, DetectionSection
from engines.packages.package import ModelPackage, load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.types import Detections, Image, LabelMap, Radiograph, Segment, Volume
from tests.small_models import detector_package

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NODULE = CodeEntry(value="27925004", scheme="SCT", meaning="Nodule")
MASS = CodeEntry(value="4147007", scheme="SCT", meaning="Mass")


def section(**more: object) -> DetectionSection:
    classes = (ClassEntry(label="Nodule", code=NODULE), ClassEntry(label="Mass", code=MASS))
    return DetectionSection(places="places", scores="scores", classes=classes, **more)  # type: ignore[arg-type]


def window(places: Sequence[object], scores: Sequence[object], start: tuple[int, ...] = (0, 0)) -> Window:
    return Window(start, {"places": np.array(places, np.float32), "scores": np.array(scores, np.float32)})


def boxes(*each: tuple[float, ...], scores: Sequence[float], classes: Sequence[int] | None = None) -> Candidates:
    """Boxes of two dimensions, each as low and high corner in voxels whose centres are whole numbers."""
    places = np.array(each, float).reshape(len(each), 2, 2)
    return Candidates(places, np.array(scores, float), np.array(classes or [0] * len(each), np.int64))


SQUARE = extent((10, 10))


@pytest.mark.parametrize(
    ("format", "order", "written"),
    [
        ("corners", "axes", [2, 1, 5, 7]),
        ("corners", "reversed", [1, 2, 7, 5]),
        ("centre_size", "axes", [3.5, 4, 3, 6]),
        ("centre_size", "reversed", [4, 3.5, 6, 3]),
    ],
)
def test_a_box_is_read_in_each_way_of_writing_it(format: str, order: str, written: list[float]) -> None:
    # rows 2 to 4 and columns 1 to 6: its outer edges are 2 and 5, 1 and 7, counted from the edge of the first pixel
    found = candidates(section(format=format, order=order), [window([written], [[0.9, 0.1]])], SQUARE)
    np.testing.assert_allclose(found.places, [[[1.5, 0.5], [4.5, 6.5]]])
    assert found.classes.tolist() == [0]


def test_a_point_is_read_as_the_centre_of_a_pixel() -> None:
    found = candidates(section(format="points", order="reversed"), [window([[6, 2]], [[0.1, 0.9]])], SQUARE)
    np.testing.assert_allclose(found.places, [[[2, 6], [2, 6]]])
    assert found.classes.tolist() == [1]


def test_only_what_has_the_least_score_is_proposed_and_one_place_may_be_two_things() -> None:
    windows = [window([[0, 0, 2, 2], [4, 4, 6, 6]], [[0.5, 0.75], [0.25, 0.49]])]
    found = candidates(section(least_score=0.5), windows, SQUARE)
    assert found.scores.tolist() == [0.5, 0.75]
    assert found.classes.tolist() == [0, 1]


def test_what_has_its_centre_in_the_padding_is_dropped_and_what_reaches_into_it_is_cut() -> None:
    windows = [window([[0, 0, 4, 4], [1, 2, 7, 6]], [[0.9, 0.1]] * 2, start=(-3, -3))]
    found = candidates(section(), windows, SQUARE)
    # from rows -2 to 4 and columns -1 to 3 only what is from 0 on
    np.testing.assert_allclose(found.places, [[[-0.5, -0.5], [3.5, 2.5]]])


def test_boxes_of_one_class_that_overlap_more_than_allowed_are_one() -> None:
    # 4 × 4 each; shifted by one column the overlap is 12 / 20, by two columns 8 / 24
    proposed = boxes((0, 0, 4, 4), (0, 1, 4, 5), (0, 2, 4, 6), scores=[0.7, 0.9, 0.8])
    assert non_maximum_suppression(section(most_overlap=0.5), proposed).tolist() == [1]
    assert non_maximum_suppression(section(most_overlap=0.6), proposed).tolist() == [1, 2, 0]
    assert non_maximum_suppression(section(most_overlap=0.59), boxes(*CORNERS[:2], scores=[0.7, 0.9])).tolist() == [1]


CORNERS = ((0.0, 0.0, 4.0, 4.0), (0.0, 1.0, 4.0, 5.0))


def test_boxes_of_different_classes_may_be_at_one_place() -> None:
    proposed = boxes((0, 0, 4, 4), (0, 0, 4, 4), scores=[0.7, 0.9], classes=[0, 1])
    assert non_maximum_suppression(section(), proposed).tolist() == [1, 0]


def test_what_was_suppressed_suppresses_nothing() -> None:
    # the second goes for the first; the third overlaps only the second
    proposed = boxes((0, 0, 4, 4), (0, 1, 4, 5), (0, 2, 4, 6), scores=[0.9, 0.8, 0.7])
    assert non_maximum_suppression(section(most_overlap=0.5), proposed).tolist() == [0, 2]


def test_points_nearer_than_the_least_distance_are_one() -> None:
    places = np.repeat(np.array([[[0.0, 0.0]], [[3.0, 4.0]], [[3.0, 3.9]]]), 2, axis=1)
    proposed = Candidates(places, np.array([0.9, 0.8, 0.7]), np.zeros(3, np.int64))
    assert non_maximum_suppression(section(format="points", least_distance=5.0), proposed).tolist() == [0, 1]


def test_equal_scores_keep_their_order_and_only_so_many_are_kept() -> None:
    proposed = boxes(*((0, 6 * place, 4, 6 * place + 4) for place in range(5)), scores=[0.5, 0.9, 0.5, 0.5, 0.9])
    assert non_maximum_suppression(section(), proposed).tolist() == [1, 4, 0, 2, 3]
    assert non_maximum_suppression(section(most=3), proposed).tolist() == [1, 4, 0]


def test_a_box_without_any_size_divides_by_nothing() -> None:
    proposed = boxes((2, 2, 2, 2), (2, 2, 2, 2), scores=[0.9, 0.8])
    assert non_maximum_suppression(section(), proposed).tolist() == [0, 1]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(*[st.integers(0, 12)] * 2, *[st.integers(1, 6)] * 2, st.integers(1, 20), st.integers(0, 1)),
        max_size=25,
    )
)
def test_of_any_boxes_those_kept_lie_apart_and_each_other_lies_on_a_better_one(
    drawn: list[tuple[int, int, int, int, int, int]],
) -> None:
    proposed = boxes(
        *((row, column, row + height, column + width) for row, column, height, width, _, _ in drawn),
        scores=[score / 20 for *_, score, _ in drawn],
        classes=[class_ for *_, class_ in drawn],
    )
    kept = non_maximum_suppression(section(most_overlap=0.4), proposed).tolist()
    assert proposed.scores[kept].tolist() == sorted(proposed.scores[kept], reverse=True)

    def on_one_place(one: int, other: int) -> bool:
        if proposed.classes[one] != proposed.classes[other]:
            return False
        cells = [
            {(row, column) for row in range(int(low[0]), int(high[0])) for column in range(int(low[1]), int(high[1]))}
            for low, high in (proposed.places[one], proposed.places[other])
        ]
        return len(cells[0] & cells[1]) > 0.4 * len(cells[0] | cells[1])

    assert not any(on_one_place(one, other) for one, other in permutations(kept, 2))
    for other in set(range(len(drawn))).difference(kept):
        assert any(on_one_place(one, other) and proposed.scores[one] >= proposed.scores[other] for one in kept)


def test_a_hundred_thousand_boxes_take_no_table_of_their_overlaps() -> None:
    random = np.random.default_rng(0)
    low = random.uniform(0, 500, (100_000, 1, 3))
    proposed = Candidates(np.concatenate([low, low + 20], axis=1), random.random(100_000), np.zeros(100_000, np.int64))
    tracemalloc.start()
    kept = non_maximum_suppression(section(most=50), proposed)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(kept) == 50
    assert most < 100e6


@settings(max_examples=60, deadline=None)
@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3), st.tuples(*[st.integers(1, 4)] * 3))
def test_a_box_on_any_grid_along_the_patient_is_the_box_around_its_voxels(
    order: list[int], against: tuple[bool, ...], spacing: tuple[int, ...]
) -> None:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * np.where(against, -1, 1) * spacing
    affine[:3, 3] = (31, -17, 211)
    voxels = np.stack(np.meshgrid(range(2, 5), range(1, 3), range(4, 9), indexing="ij"), axis=-1).reshape(-1, 3)
    found = detect(
        section(), [window([[2, 1, 4, 5, 3, 9]], [[0.9, 0.1]], start=(0, 0, 0))], extent((9, 9, 9)), to_patient(affine)
    )
    [box] = found.found
    centres = voxels @ affine[:3, :3].T + affine[:3, 3]
    half = np.abs(affine[:3, :3]).sum(axis=1) / 2
    np.testing.assert_allclose(box.low, centres.min(axis=0) - half)
    np.testing.assert_allclose(box.high, centres.max(axis=0) + half)


def test_what_was_looked_for_is_told_where_nothing_was_found() -> None:
    found = detect(section(), [window([[0, 0, 4, 4]], [[0.1, 0.2]])], SQUARE, lambda corners: corners)
    assert found == Detections((), (("Nodule", NODULE.code), ("Mass", MASS.code)))


def test_beside_a_tilted_volume_there_is_nothing() -> None:
    affine = np.eye(4)
    affine[1, 0] = 1.0  # each slice lies one millimetre further to the back
    volume = Volume(np.zeros((10, 10, 10), np.int16), affine, ("1.2",) * 10)
    holds = within_volume(volume)
    # index (9, 0, 0) lies at x = 0, y = 0, z = 9 plus the shear
    inside = affine @ (9, 0, 0, 1)
    np.testing.assert_array_equal(holds(np.array([inside[:3], inside[:3] - (0, 3, 0)])), [True, False])


def test_the_last_slice_of_uneven_ones_is_within_the_volume() -> None:
    affine = np.eye(4)[:, [2, 1, 0, 3]]
    volume = Volume(np.zeros((3, 4, 4), np.int16), affine, ("1", "2", "3"), at=(0.0, 1.0, 6.0))
    np.testing.assert_array_equal(within_volume(volume)(np.array([[1, 1, 6.4], [1, 1, 6.6]])), [True, False])


@given(st.booleans(), st.tuples(st.booleans(), st.booleans()), st.integers(0, 4), st.integers(0, 6))
def test_a_place_on_a_turned_image_is_where_its_pixel_went(
    transposed: bool, flips: tuple[bool, bool], row: int, column: int
) -> None:
    turn, array = Turn(transposed, flips), np.zeros((5, 7))
    array[row, column] = 1
    turned = turn.apply(array)
    place = turn.places(np.array([[row, column]], float), array.shape)
    np.testing.assert_array_equal(place, np.argwhere(turned))
    np.testing.assert_array_equal(turn.undo_places(place, turned.shape), [[row, column]])


# End to end: a small network that finds what is bright and BALL voxels across.


def run(package: ModelPackage, image: Image, region: LabelMap | None = None) -> Detections:
    with create_engine(package, RuntimeSettings(threads=1)) as engine:
        found = analyse(package, engine, image, clock=lambda: NOON, region=region).detections
    assert found is not None
    return found


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def ct_detector(models: Path) -> ModelPackage:
    return load_package(detector_package(models))


@pytest.fixture(scope="module")
def xray_detector(models: Path) -> ModelPackage:
    return load_package(detector_package(models, "tiny-spots", (32, 48), "99"))


def ct_with_balls(affine: np.ndarray, shape: tuple[int, int, int], *centres: tuple[float, float, float]) -> Volume:
    """Balls of 10 mm in air."""
    volume = Volume(np.full(shape, -1000, np.int16), affine, tuple(f"1.2.{number}" for number in range(shape[0])))
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    position = index @ affine[:3, :3].T + affine[:3, 3]
    for centre in centres:
        volume.array[np.linalg.norm(position - centre, axis=-1) < 5.5] = 0
    return volume


def turned(order: tuple[int, ...], against: tuple[bool, ...]) -> np.ndarray:
    affine = np.eye(4)
    affine[:3, :3] = np.eye(3)[:, order] * np.where(against, -1.0, 1.0) * (2.0, 1.0, 1.0)
    affine[:3, 3] = (31.0, -17.0, 211.0)
    return affine


CT_ORIENTATIONS = [
    ((2, 1, 0), (False, False, False)),
    ((2, 1, 0), (True, False, False)),
    ((2, 1, 0), (False, True, True)),
    ((1, 2, 0), (False, True, False)),
    ((0, 2, 1), (False, True, False)),
]


@pytest.mark.parametrize(("order", "against"), CT_ORIENTATIONS)
def test_a_box_is_around_the_bright_ball_in_every_orientation(
    ct_detector: ModelPackage, order: tuple[int, ...], against: tuple[bool, ...]
) -> None:
    affine, shape = turned(order, against), (14, 36, 44)
    centre = tuple((affine @ (5, 12, 30, 1))[:3].tolist())
    [box] = run(ct_detector, ct_with_balls(affine, shape, centre)).found
    assert box.label == "Nodule"
    # within a voxel of the network's grid
    np.testing.assert_allclose(np.add(box.low, box.high) / 2, centre, atol=2.0)
    np.testing.assert_allclose(np.subtract(box.high, box.low), 10.0)


def test_a_diameter_is_given_where_the_package_asks_for_it(models: Path) -> None:
    folder = detector_package(models, "tiny-measured", uid_root="96")
    description = folder / "model.toml"
    description.write_text(description.read_text().replace("[detection]", '[detection]\nmeasurements = ["diameter"]'))
    affine = turned((2, 1, 0), (False, True, True))
    centre = tuple((affine @ (0, 12, 30, 1))[:3].tolist())
    # cut by the first slice, but not beside it
    [box] = run(load_package(folder), ct_with_balls(affine, (14, 36, 44), centre)).found
    assert box.diameter_mm == pytest.approx(10.0)
    assert box.high[2] - box.low[2] < 10.0


@pytest.mark.parametrize(
    ("grid", "format", "message"),
    [
        ((12, 16, 20), "points", "a point has no diameter"),
        ((32, 48), "corners", "detection.measurements are for volumes"),
    ],
)
def test_what_has_no_diameter_is_not_measured(tmp_path: Path, grid: tuple[int, ...], format: str, message: str) -> None:
    folder = detector_package(tmp_path, grid=grid, format=format)
    description = folder / "model.toml"
    description.write_text(description.read_text().replace("[detection]", '[detection]\nmeasurements = ["diameter"]'))
    with pytest.raises(ModelPackageError, match=message):
        load_package(folder)


def test_what_several_windows_see_is_found_once(ct_detector: ModelPackage) -> None:
    affine, shape = turned((2, 1, 0), (False, False, False)), (30, 60, 80)
    centres = [tuple((affine @ (*index, 1))[:3].tolist()) for index in ((7, 15, 20), (15, 30, 40), (15, 30, 60))]
    found = run(ct_detector, ct_with_balls(affine, shape, *centres)).found
    middles = sorted(tuple(np.add(box.low, box.high) / 2) for box in found)
    assert len(found) == 3
    np.testing.assert_allclose(middles, sorted(centres), atol=2.0)


def test_nothing_is_found_in_air(ct_detector: ModelPackage) -> None:
    found = run(ct_detector, ct_with_balls(turned((2, 1, 0), (False,) * 3), (14, 36, 44)))
    assert found.found == ()
    assert [label for label, _ in found.looked_for] == ["Nodule", "Mass"]


def xray_with_spot(shape: tuple[int, int], centre: tuple[int, int], size: tuple[int, int]) -> np.ndarray:
    """A rectangle of 1 in 0, which grows from its middle."""
    array = np.zeros(shape, np.float32)
    rows, columns = (slice(at - half, at + half + 1) for at, half in zip(centre, size, strict=True))
    array[rows, columns] = 1.0
    return array


@pytest.mark.parametrize("format", ["corners", "points"])
def test_a_spot_is_found_on_an_upright_x_ray_with_padding(models: Path, format: str) -> None:
    package = load_package(detector_package(models, f"tiny-{format}", (32, 48), "99", format=format))
    # 64 × 64 pixels become 32 × 32 in the middle of 48 columns
    image = Radiograph(xray_with_spot((64, 64), (40, 12), (4, 4)), None, "1.2.3")
    [found] = run(package, image).found
    np.testing.assert_allclose(np.add(found.low, found.high) / 2, (40, 12), atol=1.01)
    np.testing.assert_allclose(np.subtract(found.high, found.low), 0 if format == "points" else 10, atol=1e-6)


def test_a_box_ends_where_the_x_ray_ends_and_not_in_the_padding_beside_it(xray_detector: ModelPackage) -> None:
    image = Radiograph(xray_with_spot((64, 64), (40, 3), (4, 3)), None, "1.2.3")
    [found] = run(xray_detector, image).found
    assert found.low[1] == -0.5
    assert 4 < found.high[1] < 9.5


@pytest.mark.parametrize("orientation", list(product("LR", "HF")) + list(product("HF", "LR")))
def test_a_spot_is_found_however_an_x_ray_lies(xray_detector: ModelPackage, orientation: tuple[str, str]) -> None:
    lies = orientation[0] in "HF"
    shape, centre = ((64, 96), (12, 60)) if lies else ((96, 64), (60, 12))
    image = Radiograph(xray_with_spot(shape, centre, (8, 8)), None, "1.2.3", orientation)
    [found] = run(xray_detector, image).found
    # upright it is 96 × 64, a third of which fits into 32 × 48: within a pixel of the network's grid
    np.testing.assert_allclose(np.add(found.low, found.high) / 2, centre, atol=3.01)
    np.testing.assert_allclose(np.subtract(found.high, found.low), 15)


def test_a_box_in_a_cropped_x_ray_of_oblong_pixels_lies_on_the_whole_image(models: Path) -> None:
    package = load_package(detector_package(models, "tiny-cropped", (32, 48), "99", crop_to="tiny-cxr"))
    labels = np.zeros((120, 100), np.uint8)
    labels[40:104, 30:78] = 1
    code = NODULE.code
    region = LabelMap(labels, (Segment(1, "Field", code, code, (1, 2, 3)),))
    # pixels are twice as wide as high: 64 × 48 of them become 32 × 48
    array = xray_with_spot((120, 100), (80, 60), (5, 2))
    image = Radiograph(array, (0.2, 0.4), "1.2.3", ("R", "H"))
    [found] = run(package, image, region).found
    assert abs(found.low[0] + found.high[0] - 2 * 80) <= 4.01
    assert abs(found.low[1] + found.high[1] - 2 * 60) <= 2.01
    np.testing.assert_allclose(np.subtract(found.high, found.low), (10, 5))


def test_a_detection_is_not_flipped(models: Path) -> None:
    folder = detector_package(models, "tiny-flipped", (32, 48))
    description = folder / "model.toml"
    flipped = description.read_text().replace("percentiles", "flips = [1]\npercentiles")
    description.write_text(flipped)
    with pytest.raises(ModelPackageError, match="flips turn no places back"):
        load_package(folder)
