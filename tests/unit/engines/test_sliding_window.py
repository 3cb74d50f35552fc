import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engines.errors import OutOfMemory
from engines.inference import sliding_window as module
from engines.inference.sliding_window import Answer, choose_patch, flipped, on_largest_patch, sliding_window, tile
from engines.runtimes.base import Outputs

PATCH = (8, 8, 8)


def pointwise(tensor: np.ndarray) -> Outputs:
    """Two classes that depend on the voxel alone."""
    return {"classes": np.concatenate([tensor, 1 - tensor], axis=1)}


def smeared(tensor: np.ndarray) -> Outputs:
    """Two classes that depend on the neighbours too, one along each axis, and on what is on which side."""
    before = np.roll(tensor, (1, 2, 3), axis=(2, 3, 4))
    return {"classes": np.concatenate([0.7 * tensor + 0.3 * before, before], axis=1)}


def windows(
    image: np.ndarray, overlap: float = 0.25, infer: module.Infer = pointwise, batch: int = 1, blend: str = "gaussian"
) -> Answer:
    return sliding_window(infer, image, PATCH, overlap, ("classes",), batch=batch, blend=blend)


def random_image(shape: tuple[int, ...], channels: int = 1) -> np.ndarray:
    return np.random.default_rng(1).random((channels, *shape), dtype=np.float32)


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize(
    "shape",
    [(8, 8, 8), (9, 8, 8), (5, 20, 3), (31, 17, 23), (1, 1, 1)],
    ids=["one patch", "one voxel more", "smaller and larger", "many patches", "one voxel"],
)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_windows_of_a_pointwise_network_equal_the_whole_volume(
    shape: tuple[int, int, int], overlap: float, blend: str
) -> None:
    image = random_image(shape)
    answer = windows(image, overlap, blend=blend).maps["classes"]
    np.testing.assert_allclose(answer, pointwise(image[None])["classes"][0], atol=1e-5)


@given(shape=st.tuples(*[st.integers(1, 30)] * 3), overlap=st.floats(0, 0.9), length=st.integers(1, 12))
@settings(deadline=None)
def test_patches_cover_every_voxel_stay_inside_and_overlap_as_asked(
    shape: tuple[int, int, int], overlap: float, length: int
) -> None:
    tiling = tile(shape, (length, 8, 8), overlap)
    seen = np.zeros(tiling.size, int)
    for start in tiling.starts:
        at = tuple(first + edge for first, edge in zip(start, tiling.before, strict=True))
        box = tuple(slice(first, first + size) for first, size in zip(at, tiling.patch, strict=True))
        assert seen[box].shape == tiling.patch
        seen[box] += 1
    assert seen.min() >= 1
    assert len(set(tiling.starts)) == len(tiling.starts), "no patch is run twice"
    along = sorted({start[0] for start in tiling.starts})
    # a patch starts at a whole voxel: up to one less is shared than asked for
    assert all(length - step > overlap * length - 1 for step in np.diff(along))


def test_every_patch_has_the_networks_shape_and_padding_is_zero_on_both_sides() -> None:
    seen = []

    def infer(tensor: np.ndarray) -> Outputs:
        seen.append(tensor.copy())
        return {"classes": tensor}

    answer = windows(np.ones((2, 4, 20, 6), np.float32), infer=infer)
    assert {patch.shape for patch in seen} == {(1, 2, 8, 8, 8)}
    for patch in seen:
        assert float(patch.sum()) == 2 * 4 * 8 * 6
        assert (patch[:, :, 2:6, :, 1:7] == 1).all()
    assert answer.maps["classes"].shape == (2, 4, 20, 6)
    assert {window.start[::2] for window in answer.windows} == {(-2, -1)}


@pytest.mark.parametrize("blend", ["gaussian", "constant"])
@pytest.mark.parametrize("batch", [2, 3, 5, 100])
def test_a_batch_of_patches_gives_the_same_as_one_after_the_other(batch: int, blend: str) -> None:
    image, sizes = random_image((21, 9, 17), channels=2), []

    def infer(tensor: np.ndarray) -> Outputs:
        sizes.append(len(tensor))
        return {**smeared(tensor[:, :1]), "class": tensor.mean(axis=(2, 3, 4))}

    one = windows(image, 0.5, infer, blend=blend)
    sizes.clear()
    several = windows(image, 0.5, infer, batch, blend)
    assert max(sizes) == min(batch, len(one.windows))
    np.testing.assert_array_equal(several.maps["classes"], one.maps["classes"])
    assert [window.start for window in several.windows] == [window.start for window in one.windows]
    for window, other in zip(several.windows, one.windows, strict=True):
        np.testing.assert_array_equal(window.answers["class"], other.answers["class"])


def test_the_centre_of_a_patch_outweighs_the_border_of_its_neighbour() -> None:
    profile = seam("gaussian")
    assert (profile[:4] == 0).all()
    assert (profile[8:] == 1).all()
    assert (np.diff(profile) >= 0).all()
    assert profile[4] < 0.2
    assert profile[7] > 0.8


def test_constant_weights_average_where_patches_overlap() -> None:
    assert seam("constant").tolist() == [0] * 4 + [0.5] * 4 + [1] * 4


def seam(blend: str) -> np.ndarray:
    """The second patch says 1 where the first says 0; they share four columns."""
    answers = iter([np.zeros((1, 1, *PATCH), np.float32), np.ones((1, 1, *PATCH), np.float32)])
    answer = windows(np.zeros((1, 8, 8, 12), np.float32), 0.5, lambda _: {"classes": next(answers)}, blend=blend)
    return answer.maps["classes"][0, 4, 4]


def test_very_large_maps_are_summed_in_half_precision_without_a_visible_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    image = random_image((31, 17, 23))
    whole = windows(image, 0.5, smeared).maps["classes"]
    monkeypatch.setattr(module, "MOST_FLOAT32", 0)
    half = windows(image, 0.5, smeared).maps["classes"]
    assert (whole.dtype, half.dtype) == (np.float32, np.float16)
    np.testing.assert_allclose(half.astype(np.float32), whole, atol=1 / 255, rtol=0)


@pytest.mark.parametrize("flips", [(0,), (2, 1), (0, 1, 2)], ids=str)
def test_flips_average_the_network_over_mirror_images_made_by_hand(flips: tuple[int, ...]) -> None:
    image = random_image(PATCH)[None]
    by_hand = []
    for number in range(2 ** len(flips)):
        turned = image
        chosen = [axis for place, axis in enumerate(flips) if number >> place & 1]
        for axis in chosen:
            turned = turned[(slice(None),) * (axis + 2) + (slice(None, None, -1),)]
        answer = smeared(turned)["classes"]
        for axis in chosen:
            answer = answer[(slice(None),) * (axis + 2) + (slice(None, None, -1),)]
        by_hand.append(answer)
    found = flipped(smeared, flips)(image)["classes"]
    np.testing.assert_allclose(found, np.mean(by_hand, axis=0), atol=1e-6)
    assert not np.allclose(found, smeared(image)["classes"], atol=1e-3), "the network must be one that sees sides"


def test_flips_average_classes_without_mirroring_them() -> None:
    def first_column(tensor: np.ndarray) -> Outputs:
        return {"class": tensor[:, :, :, 0].mean(axis=2)}

    image = np.zeros((2, 1, 4, 4), np.float32)
    image[0, 0, :, 0], image[1, 0, :, 3] = 1.0, 0.5
    assert flipped(first_column, (1,))(image)["class"].tolist() == [[0.5], [0.25]]


def test_the_smallest_grid_that_covers_an_image_is_chosen_or_the_largest() -> None:
    grids = [(8, 8, 8), (4, 4, 32), (16, 16, 16)]
    assert choose_patch((4, 4, 4), grids) == (8, 8, 8)
    assert choose_patch((3, 4, 30), grids) == (4, 4, 32)
    assert choose_patch((9, 2, 2), grids) == (16, 16, 16)
    assert choose_patch((40, 2, 2), grids) == (16, 16, 16)


def refusing(above: int, tried: list[tuple[int, ...]]) -> module.Infer:
    """A network on a device that has no room for more voxels."""

    def infer(tensor: np.ndarray) -> Outputs:
        tried.append(tensor.shape[2:])
        if tensor[0, 0].size > above:
            raise OutOfMemory(f"{tensor[0, 0].size} voxels")
        return pointwise(tensor)

    return infer


def on_grids(image: np.ndarray, above: int, tried: list[tuple[int, ...]]) -> np.ndarray:
    def run(patch: tuple[int, ...]) -> Answer:
        return sliding_window(refusing(above, tried), image, patch, 0.25, ("classes",))

    grids = [(8, 8, 8), (12, 12, 12), (24, 24, 24)]
    return on_largest_patch(run, image.shape[1:], grids, "tiny").maps["classes"]


def test_where_memory_is_short_the_next_smaller_grid_gives_the_answer() -> None:
    image, tried = random_image((20, 11, 13)), []
    with capture_logs() as logged:
        answer = on_grids(image, 8**3, tried)
    np.testing.assert_allclose(answer, pointwise(image[None])["classes"][0], atol=1e-5)
    assert list(dict.fromkeys(tried)) == [(24, 24, 24), (12, 12, 12), (8, 8, 8)]
    assert [(entry["event"], entry["patch"]) for entry in logged] == [
        ("inference.out_of_memory", [24, 24, 24]),
        ("inference.out_of_memory", [12, 12, 12]),
    ]


def test_where_no_grid_fits_the_error_names_model_grid_reason_and_what_to_do() -> None:
    with pytest.raises(OutOfMemory, match=r"tiny .* smallest grid \[8, 8, 8\] \(512 voxels\);.*further_patches"):
        on_grids(random_image((20, 11, 13)), 100, [])


def test_memory_that_runs_out_in_the_middle_of_a_volume_starts_it_again_with_smaller_patches() -> None:
    image, calls = random_image((20, 11, 13)), iter(range(100))

    def infer(tensor: np.ndarray) -> Outputs:
        if next(calls) == 3:
            raise OutOfMemory("gone")
        return pointwise(tensor)

    def run(patch: tuple[int, ...]) -> Answer:
        return sliding_window(infer, image, patch, 0.25, ("classes",))

    answer = on_largest_patch(run, image.shape[1:], [(6, 6, 6), (10, 10, 10)], "tiny").maps["classes"]
    np.testing.assert_allclose(answer, pointwise(image[None])["classes"][0], atol=1e-5)
