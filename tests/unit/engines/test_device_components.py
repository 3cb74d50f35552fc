"""Connected components on a device, whatever the order of its threads.

The order is shuffled, or several threads run at once with real atomics and get in each other's way as often as can be.
That finds a union that is lost; it is no proof for a GPU's memory model (see kernels.cu for the papers that have one).
"""

from collections.abc import Callable

import numpy as np
import pytest

from engines.device.components import drop_small_components
from engines.device.kernels import Kernels
from engines.device.memory import Allocations, Staging
from engines.inference.postprocessing import keep_largest_component
from tests.cuda_on_cpu import COMPILER, CpuDriver

pytestmark = pytest.mark.skipif(COMPILER is None, reason="needs g++, which compiles the kernels for the CPU")


def kept_on_device(labels: np.ndarray, seed: int, at_once: int) -> np.ndarray:
    """The label map after all but the largest component of each label were dropped."""
    driver = CpuDriver()
    stream = driver.Stream()
    driver.seed, driver.at_once = seed, at_once
    kernels, staging, classes = Kernels(driver, stream), Staging(driver, stream), int(labels.max()) + 1
    probabilities = np.where(np.arange(classes)[:, None, None, None] == labels, 0.8, 0.2 / classes).astype(np.float32)
    with Allocations(driver, stream) as memory:
        given = memory.take(labels.size)
        maps = memory.take(probabilities.size, np.float32)
        staging.send(labels, given)
        staging.send(probabilities, maps)
        drop_small_components(kernels, memory, given, labels.shape, maps, classes)
        after = np.empty_like(probabilities)
        staging.receive(after, maps)
    dropped = (after != probabilities).any(axis=0)
    assert (after[0, dropped] == 1).all()
    assert not after[1:, dropped].any()
    return after.argmax(axis=0).astype(np.uint8)


def specks(shape: tuple[int, int, int], share: float, labels: int, seed: int) -> np.ndarray:
    """Voxels at random: near a share of 0.31 they hang together in the most tangled way."""
    random = np.random.default_rng(seed)
    return (random.integers(1, labels + 1, shape) * (random.random(shape) < share)).astype(np.uint8)


def snake(shape: tuple[int, int, int]) -> np.ndarray:
    """One component as long as can be: every second row, joined at alternate ends, in every second slice."""
    labels = np.zeros(shape, np.uint8)
    labels[::2, ::2] = 1
    labels[::2, 1::4, -1] = 1
    labels[::2, 3::4, 0] = 1
    labels[1::4, -1 - (shape[1] + 1) % 2, -1] = 1
    labels[3::4, 0, 0] = 1
    return labels


IMAGES: dict[str, Callable[[], np.ndarray]] = {
    "specks of one label": lambda: specks((12, 30, 40), 0.31, 1, 1),
    "specks of three labels": lambda: specks((12, 30, 40), 0.8, 3, 2),
    "dense specks": lambda: specks((9, 25, 31), 0.6, 1, 3),
    "many labels": lambda: specks((9, 25, 31), 0.9, 255, 4),
    "a snake": lambda: snake((7, 21, 32)),
    "one block": lambda: np.ones((8, 16, 16), np.uint8),
    "nothing": lambda: np.zeros((4, 5, 6), np.uint8),
}


@pytest.mark.parametrize(("seed", "at_once"), [(0, 1), (1, 1), (2, 1), (0, 4), (3, 4), (4, 8)])
@pytest.mark.parametrize("image", IMAGES.values(), ids=IMAGES.keys())
def test_the_largest_component_of_each_label_is_kept_in_any_order_of_threads(
    image: Callable[[], np.ndarray], seed: int, at_once: int
) -> None:
    labels = image()
    np.testing.assert_array_equal(kept_on_device(labels, seed, at_once), keep_largest_component(labels))


def test_voxels_that_touch_by_an_edge_or_across_a_border_are_apart() -> None:
    labels = np.zeros((3, 4, 5), np.uint8)
    labels[0, 0, :3] = 1
    labels[1, 1, 2] = labels[1, 0, 3] = labels[0, 1, 4] = labels[0, 3, 4] = labels[1, 3, 0] = 1
    kept = kept_on_device(labels, 0, 1)
    assert kept.sum() == 3
    assert kept[0, 0, :3].all()


def test_of_components_of_the_same_size_the_first_is_kept_as_on_the_host() -> None:
    labels = np.zeros((4, 5, 6), np.uint8)
    for number, place in enumerate([(3, 4, 5), (0, 2, 1), (2, 0, 0), (1, 1, 5)]):
        labels[place] = 1 + number % 2
    for seed in range(4):
        np.testing.assert_array_equal(kept_on_device(labels, seed, 1), keep_largest_component(labels))
