"""Which engines stay active where memory is short."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from engines.errors import OutOfMemory, RuntimeUnavailable
from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import Engine, Outputs, RuntimeSettings
from engines.serving.compute_device import ComputeDevice
from engines.serving.device_memory import MEGABYTE, ProcessMemory
from engines.serving.residency import Residency, ResidentEngine
from engines.types import EngineIdentity


class Memory:
    """Stands in for a device's memory, so that a test knows what is free; counts in megabytes."""

    def __init__(self, size: int = 1000) -> None:
        self.size = size
        self.taken = 0
        self.most = 0

    def used(self) -> int:
        return self.taken * MEGABYTE

    def take(self, megabytes: int) -> None:
        if self.taken + megabytes > self.size:
            raise OutOfMemory(f"{megabytes} MB are not free")
        self.taken += megabytes
        self.most = max(self.most, self.taken)


class Sized(Engine):
    """Stands in for an engine that takes memory when it is activated, and for each grid when it first sees it."""

    def __init__(self, memory: Memory, size: int, whole_path: bool = False) -> None:
        self._memory = memory
        self._size = size
        self._taken = 0
        self._grids: set[tuple[int, ...]] = set()
        self._whole_path = whole_path
        self.activations = 0
        self.fails: Exception | None = None

    @property
    def identity(self) -> EngineIdentity:
        return EngineIdentity("sized", "fp32", "nowhere")

    @property
    def whole_path(self) -> Any:
        if not self._whole_path or not self._taken:
            return None
        session = self.activations
        return lambda volume: (volume, session, self.activations)

    def activate(self) -> None:
        self._memory.take(self._size)
        self._taken = self._size
        self.activations += 1

    def infer(self, tensor: np.ndarray) -> Outputs:
        assert self._taken, "not active"
        grid = tensor.shape[2:]
        if grid not in self._grids:
            self._memory.take(grid[0])  # a grid of n voxels takes n MB
            self._taken += grid[0]
            self._grids.add(grid)
        return {"doubled": 2 * tensor}

    def deactivate(self) -> None:
        self._memory.taken -= self._taken
        self._taken = 0
        self._grids.clear()
        if self.fails:
            raise self.fails


def on(grid: int) -> np.ndarray:
    return np.ones((1, 1, grid), np.float32)


def engines_of(
    memory: Memory, *sizes: int, budget: int | None = None
) -> tuple[Residency, list[ResidentEngine], list[Sized]]:
    residency = Residency(memory.used, None if budget is None else budget * MEGABYTE)
    inner = [Sized(memory, size) for size in sizes]
    return residency, [ResidentEngine(f"m{number}", each, residency) for number, each in enumerate(inner)], inner


def test_without_a_budget_all_stay_active() -> None:
    memory = Memory()
    residency, engines, inner = engines_of(memory, 100, 200, 300)
    for engine in [*engines, *engines]:
        engine.infer(on(10))
    assert residency.active == ("m0", "m1", "m2")
    assert [each.activations for each in inner] == [1, 1, 1]
    assert [engine.memory // MEGABYTE for engine in engines] == [110, 210, 310]


def test_the_least_recently_used_makes_room_and_comes_back_when_it_is_asked() -> None:
    memory = Memory()
    residency, (a, b, c), inner = engines_of(memory, 100, 100, 100, budget=250)
    a.infer(on(10))
    b.infer(on(10))
    a.infer(on(10))
    with capture_logs() as events:
        c.infer(on(10))
    assert residency.active == ("m0", "m2")
    assert [(event["model"], event["memory_mb"]) for event in events if event["event"] == "engine.evicted"] == [
        ("m1", 110)
    ]
    np.testing.assert_array_equal(b.infer(on(10))["doubled"], 2 * on(10))
    assert residency.active == ("m2", "m1")
    assert [each.activations for each in inner] == [1, 2, 1]


def test_what_an_engine_took_before_is_made_free_before_it_is_activated_again() -> None:
    memory = Memory()
    _, (a, b), _ = engines_of(memory, 100, 100, budget=150)
    a.infer(on(10))
    b.infer(on(10))
    memory.most = 0
    for engine in (a, b, a, b):
        engine.infer(on(10))
    assert memory.most == 110


def test_an_engine_larger_than_the_budget_is_refused_with_model_sizes_and_setting() -> None:
    memory = Memory()
    residency, (small, large), _ = engines_of(memory, 50, 300, budget=200)
    small.infer(on(10))
    for _ in range(2):
        with pytest.raises(OutOfMemory, match=r"m1 alone takes 310 MB .* budget of 200 MB; raise engines\.memory_mb"):
            large.infer(on(10))
    assert residency.active == ("m0",)
    assert memory.taken == 60
    small.infer(on(10))


def test_a_grid_that_is_too_large_is_refused_once_and_for_all_and_a_smaller_one_serves() -> None:
    memory = Memory()
    _, (engine,), (inner,) = engines_of(memory, 50, budget=200)
    engine.infer(on(20))
    for _ in range(3):
        with pytest.raises(OutOfMemory, match="m0 alone takes 250 MB"):
            engine.infer(on(180))
    engine.infer(on(20))
    assert inner.activations == 2
    assert memory.taken == 70


def test_out_of_memory_evicts_the_least_recently_used_and_tries_again() -> None:
    memory = Memory(size=400)
    residency, (a, b, c), inner = engines_of(memory, 100, 100, 150)
    a.infer(on(10))
    b.infer(on(10))
    c.infer(on(10))  # 110 + 110 + 150 are there, the grid's 10 too
    assert residency.active == ("m0", "m1", "m2")
    c.infer(on(200))  # has to be alone
    assert residency.active == ("m2",)
    a.infer(on(10))
    assert residency.active == ("m0",)
    assert [each.activations for each in inner] == [2, 1, 3]


def test_out_of_memory_of_an_engine_that_is_alone_is_the_callers() -> None:
    memory = Memory(size=100)
    residency, (a, b), _ = engines_of(memory, 60, 200)
    a.infer(on(10))
    with pytest.raises(OutOfMemory, match="200 MB are not free"):
        b.infer(on(10))
    assert memory.taken == 0
    with pytest.raises(OutOfMemory, match="50 MB are not free"):
        a.infer(on(50))
    a.infer(on(10))
    assert residency.active == ("m0",)


def test_a_retired_engine_serves_no_more_and_its_memory_is_free() -> None:
    memory = Memory()
    residency, (a, b), _ = engines_of(memory, 100, 100)
    for engine in (a, b):
        engine.infer(on(10))
    a.deactivate()
    assert memory.taken == 110
    with pytest.raises(RuntimeUnavailable, match="m0 is not active"):
        a.infer(on(10))
    residency.close()
    assert memory.taken == 0
    with pytest.raises(RuntimeUnavailable, match="m1 is not active"):
        b.infer(on(10))


def test_an_engine_whose_device_fails_as_it_is_closed_keeps_no_other_active() -> None:
    memory = Memory()
    residency, engines, inner = engines_of(memory, 100, 100)
    for engine in engines:
        engine.infer(on(10))
    inner[0].fails = RuntimeUnavailable("the GPU fell off the bus")
    with capture_logs() as events:
        residency.close()
    assert memory.taken == 0
    assert [event["reason"] for event in events] == ["the GPU fell off the bus"]


def test_the_whole_path_is_that_of_the_engine_as_it_is_active_now() -> None:
    memory = Memory()
    residency = Residency(memory.used, 150 * MEGABYTE)
    ct = ResidentEngine("ct", Sized(memory, 100, whole_path=True), residency)
    other = ResidentEngine("other", Sized(memory, 100), residency)
    assert ct.whole_path is None
    ct.infer(on(10))
    path: Any = ct.whole_path
    other.infer(on(10))
    assert residency.active == ("other",)
    assert path("a volume") == ("a volume", 2, 2)
    other.infer(on(10))
    assert path("a volume") == ("a volume", 3, 3)
    assert other.whole_path is None


@given(
    st.lists(st.integers(1, 120), min_size=1, max_size=5),
    st.lists(st.tuples(st.integers(0, 4), st.integers(1, 60)), max_size=60),
    st.integers(50, 300),
    st.integers(60, 400),
)
def test_the_budget_holds_and_nobody_uses_an_engine_that_is_not_active(
    sizes: list[int], uses: list[tuple[int, int]], budget: int, size: int
) -> None:
    memory = Memory(size)
    _, engines, inner = engines_of(memory, *sizes, budget=budget)
    for which, grid in uses:
        number = which % len(engines)
        try:
            answer = engines[number].infer(on(grid))
        except OutOfMemory:
            # rightly so: alone, with the grids that it has seen, it would not fit either
            assert sizes[number] + sum({each for one, each in uses if one % len(engines) == number}) > min(budget, size)
        else:
            np.testing.assert_array_equal(answer["doubled"], 2 * on(grid))
        assert memory.taken <= min(budget, size)
        assert memory.taken == sum(each._taken for each in inner)


def test_the_memory_of_the_process_grows_by_what_it_takes() -> None:
    memory = ProcessMemory()
    before = memory.read().used
    array = np.ones(100 * MEGABYTE, np.uint8)
    grown = memory.read().used - before
    assert 0.9 * array.nbytes < grown < 1.5 * array.nbytes


def test_the_second_number_of_statm_counts_pages(tmp_path: Path) -> None:
    statm = tmp_path / "statm"
    statm.write_text("5000 123 45 6 0 789 0\n")
    assert ProcessMemory(statm).read() == (123 * os.sysconf("SC_PAGESIZE"), None)


def test_a_real_engine_larger_than_the_setting_is_refused() -> None:
    package = load_package(SHIPPED_MODELS / "cxr-lung")
    settings = RuntimeSettings(threads=1)
    with ComputeDevice("the CPU", settings, memory_mb=2, batch_seconds=0.0) as cpu:
        engine = cpu.engine(package, settings)
        with pytest.raises(
            OutOfMemory, match=r"cxr-lung alone takes \d+ MB .* budget of 2 MB; raise engines\.memory_mb"
        ):
            engine.infer(package.golden().input)
