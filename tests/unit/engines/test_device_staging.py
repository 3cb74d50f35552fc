"""Copies to a device and back that are larger than the buffers between."""

import numpy as np
import pytest

from engines.device import memory as module
from engines.device.memory import Allocations, Staging
from engines.errors import OutOfMemory
from tests.cuda_on_cpu import CpuDriver

STAGE = 4096


@pytest.fixture(autouse=True)
def _small_buffers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "STAGE", STAGE)


@pytest.mark.parametrize("size", [1, STAGE - 1, STAGE, 2 * STAGE + 3, 5 * STAGE + 1])
def test_an_array_comes_back_as_it_was_sent_whatever_its_size(size: int) -> None:
    driver = CpuDriver()
    stream = driver.Stream()
    staging, array = Staging(driver, stream), np.resize(np.arange(251, dtype=np.uint8), size)
    with Allocations(driver, stream) as memory:
        address = memory.send(staging, array)
        assert address is not None
        back = np.zeros_like(array)
        staging.receive(back, address)
    np.testing.assert_array_equal(back, array)


def test_what_was_sent_may_be_changed_at_once() -> None:
    driver = CpuDriver()
    stream = driver.Stream()
    staging, array, back = Staging(driver, stream), np.arange(1000.0), np.zeros(1000)
    with Allocations(driver, stream) as memory:
        address = memory.send(staging, array)
        assert address is not None
        array[:] = -1
        staging.receive(back, address)
    np.testing.assert_array_equal(back, np.arange(1000.0))


def test_parts_are_made_when_they_are_asked_for_and_in_order() -> None:
    driver = CpuDriver()
    stream = driver.Stream()
    staging, back, asked = Staging(driver, stream), np.zeros(3 * STAGE + 5, np.uint8), []
    with Allocations(driver, stream) as memory:
        part = memory.take(STAGE)

        def make(first: int, count: int) -> int:
            asked.append((first, count))
            stream.enqueue(lambda: driver.view(part, (count,), np.uint8).fill(1 + first // STAGE))
            return part

        staging.receive(back, make)
    assert asked == [(0, STAGE), (STAGE, STAGE), (2 * STAGE, STAGE), (3 * STAGE, 5)]
    np.testing.assert_array_equal(back, np.repeat([1, 2, 3, 4], [STAGE, STAGE, STAGE, 5]))


def test_what_was_taken_is_given_back_when_there_is_no_more() -> None:
    driver = CpuDriver(limit=2**20)
    with Allocations(driver, driver.Stream()) as memory:
        memory.take(100)
        memory.take(7, np.float32)
        with pytest.raises(OutOfMemory, match="the GPU has no 2 MiB left"):
            memory.take(2 * 2**20)
        assert len(driver.held) == 2
    assert not driver.held
