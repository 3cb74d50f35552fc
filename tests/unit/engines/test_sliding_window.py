import numpy as np
import pytest

from engines.sliding_window import sliding_window


def pointwise(tensor: np.ndarray) -> np.ndarray:
    """Two classes that depend on the voxel alone."""
    return np.concatenate([tensor, 1 - tensor], axis=1)


@pytest.mark.parametrize(
    "shape",
    [(8, 8, 8), (9, 8, 8), (5, 20, 3), (31, 17, 23), (1, 1, 1)],
    ids=["one patch", "one voxel more", "smaller and larger", "many patches", "one voxel"],
)
@pytest.mark.parametrize("overlap", [0.0, 0.25, 0.75])
def test_windows_of_a_pointwise_network_equal_the_whole_volume(shape: tuple[int, int, int], overlap: float) -> None:
    image = np.random.default_rng(1).random(shape, dtype=np.float32)
    answer = sliding_window(pointwise, image, (8, 8, 8), overlap, classes=2)
    np.testing.assert_allclose(answer, pointwise(image[None, None])[0], atol=1e-5)


def test_every_patch_has_the_networks_shape_and_padding_is_zero() -> None:
    seen = []

    def infer(tensor: np.ndarray) -> np.ndarray:
        seen.append(tensor.copy())
        return tensor

    sliding_window(infer, np.ones((4, 20, 6), np.float32), (8, 8, 8), 0.25, classes=1)
    assert {patch.shape for patch in seen} == {(1, 1, 8, 8, 8)}
    assert {float(patch.sum()) for patch in seen} == {4 * 8 * 6}


def test_the_centre_of_a_patch_outweighs_the_border_of_its_neighbour() -> None:
    answers = iter([np.zeros((1, 1, 8, 8, 8), np.float32), np.ones((1, 1, 8, 8, 8), np.float32)])
    blended = sliding_window(lambda _: next(answers), np.zeros((8, 8, 12), np.float32), (8, 8, 8), 0.5, classes=1)
    profile = blended[0, 4, 4]
    assert (profile[:4] == 0).all()
    assert (profile[8:] == 1).all()
    assert (np.diff(profile) >= 0).all()
    assert profile[4] < 0.2
    assert profile[7] > 0.8
