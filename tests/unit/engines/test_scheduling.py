"""What a device does next, and with whom."""

import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event, current_thread, get_ident
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engines.errors import OutOfMemory, RuntimeUnavailable
from engines.packages.package import load_package
from engines.runtimes.base import Engine, Outputs, RuntimeSettings, create_engine
from engines.serving.queued_engine import QueuedEngine
from engines.serving.scheduling import DeviceQueue
from engines.types import EngineIdentity
from tests.small_models import convolutional_package, xray_package

NEVER = 3600.0
"""A latency that nothing may wait for: a test that does runs into its time limit."""


class Twice(Engine):
    """Stands in for an engine where a test has to know when it is asked and with what; answers with twice the input."""

    def __init__(self, batch: int = 1) -> None:
        self._batch = batch
        self.asked: list[list[float]] = []
        self.threads: set[str] = set()

    @property
    def identity(self) -> EngineIdentity:
        return EngineIdentity("twice", "fp32", "nowhere")

    @property
    def batch(self) -> int:
        return self._batch

    def activate(self) -> None:
        self.threads.add(current_thread().name)

    def infer(self, tensor: np.ndarray) -> Outputs:
        self.asked.append([float(each.flat[0]) for each in tensor])
        self.threads.add(current_thread().name)
        if (tensor < 0).any():
            raise OutOfMemory("negative")
        return {"twice": 2 * tensor, "first": tensor.reshape(len(tensor), -1)[:, :1]}

    def deactivate(self) -> None:
        self.threads.add(current_thread().name)


class Stage:
    """A queue, the threads that use it, and a way to keep it busy until all have asked."""

    def __init__(self, queue: DeviceQueue, pool: ThreadPoolExecutor) -> None:
        self.queue = queue
        self._pool = pool
        self._go_on = Event()

    def block(self) -> None:
        begun = Event()
        self._pool.submit(self.queue.call, "blocker", lambda: (begun.set(), self._go_on.wait()))
        assert begun.wait(10)

    def ask(self, engine: Engine, *values: float, urgent: bool = False, length: int = 3) -> Future[Outputs]:
        before = self.waiting
        tensor = np.stack([np.full((1, length), value, np.float32) for value in values])
        asked = self._pool.submit(self.queue.infer, "twice", engine, tensor, urgent=urgent)
        while not self._go_on.is_set() and self.waiting == before and not asked.done():
            time.sleep(0.001)
        return asked

    def call(self, task: Any) -> Future[Any]:
        return self._pool.submit(self.queue.call, "task", task)

    def go_on(self) -> None:
        self._go_on.set()

    @property
    def waiting(self) -> int:
        return len(self.queue._urgent) + len(self.queue._routine)


@pytest.fixture
def stage() -> Iterator[Stage]:
    with ThreadPoolExecutor(16) as pool, DeviceQueue("the device", batch_seconds=NEVER) as queue:
        stage = Stage(queue, pool)
        yield stage
        stage.go_on()


def results(*asked: Future[Outputs]) -> list[list[float]]:
    return [[float(each) for each in one.result(10)["first"][:, 0]] for one in asked]


def test_an_urgent_xray_is_served_between_two_patches_of_a_routine_volume(stage: Stage) -> None:
    order = []
    both = [Event(), Event()]

    class Patches(Twice):
        def infer(self, tensor: np.ndarray) -> Outputs:
            order.append(f"patch {tensor.flat[0]:.0f}")
            if len(order) == 2:
                both[0].set()
                assert both[1].wait(10)
            return super().infer(tensor)

    class Xray(Twice):
        def infer(self, tensor: np.ndarray) -> Outputs:
            order.append("X-ray")
            return super().infer(tensor)

    ct, xray = Patches(), Xray()

    def volume() -> None:
        for patch in range(4):
            stage.queue.infer("ct", ct, np.full((1, 1, 3), patch, np.float32))

    running = stage._pool.submit(volume)
    assert both[0].wait(10)
    urgent = stage.ask(xray, 9.0, urgent=True)
    both[1].set()
    urgent.result(10)
    running.result(10)
    assert order == ["patch 0", "patch 1", "X-ray", "patch 2", "patch 3"]


def test_urgent_comes_before_routine_and_otherwise_what_came_first(stage: Stage) -> None:
    engine = Twice()
    stage.block()
    asked = [stage.ask(engine, value, urgent=urgent) for value, urgent in ((1, 0), (2, 0), (3, 1), (4, 0), (5, 1))]
    stage.go_on()
    assert results(*asked) == [[1], [2], [3], [4], [5]]
    assert engine.asked == [[3], [5], [1], [2], [4]]


def test_inputs_of_one_engine_are_joined_up_to_its_batch(stage: Stage) -> None:
    engine = Twice(batch=4)
    stage.block()
    asked = [stage.ask(engine, 1.0), stage.ask(engine, 2.0, 3.0), stage.ask(engine, 4.0, 5.0), stage.ask(engine, 6.0)]
    asked.append(stage.ask(engine, 7.0, 8.0))
    stage.go_on()
    assert results(*asked) == [[1], [2, 3], [4, 5], [6], [7, 8]]
    assert engine.asked == [[1, 2, 3, 6], [4, 5, 7, 8]]
    np.testing.assert_array_equal(asked[2].result()["twice"][:, 0, 0], [8.0, 10.0])


def test_routine_inputs_fill_the_batch_of_an_urgent_one(stage: Stage) -> None:
    engine = Twice(batch=4)
    stage.block()
    asked = [stage.ask(engine, 1.0), stage.ask(engine, 2.0, urgent=True)]
    stage.go_on()
    assert results(*asked) == [[1], [2]]
    assert engine.asked == [[2, 1]]


def test_inputs_of_other_engines_and_other_grids_are_never_joined(stage: Stage) -> None:
    one, other = Twice(batch=4), Twice(batch=4)
    stage.block()
    asked = [
        stage.ask(one, 1.0, urgent=True),
        stage.ask(other, 2.0, urgent=True),
        stage.ask(one, 3.0, urgent=True, length=5),
    ]
    stage.go_on()
    assert results(*asked) == [[1], [2], [3]]
    assert (one.asked, other.asked) == ([[1], [3]], [[2]])


def test_a_routine_input_waits_until_its_batch_is_full(stage: Stage) -> None:
    engine = Twice(batch=4)
    asked = [stage.ask(engine, value) for value in (1.0, 2.0, 3.0)]
    assert not any(each.done() for each in asked)
    asked.append(stage.ask(engine, 4.0))
    assert sorted(results(*asked)) == [[1], [2], [3], [4]]
    assert [len(batch) for batch in engine.asked] == [4]


def test_a_routine_input_waits_no_longer_than_the_latency() -> None:
    engine = Twice(batch=4)
    with DeviceQueue("the device", batch_seconds=0.01) as queue:
        queue.infer("twice", engine, np.ones((1, 1, 3), np.float32))
    assert engine.asked == [[1]]


@pytest.mark.parametrize(("batch", "urgent"), [(4, True), (1, False)])
def test_an_urgent_input_and_one_without_company_do_not_wait(stage: Stage, batch: int, urgent: bool) -> None:
    assert results(stage.ask(Twice(batch), 1.0, urgent=urgent)) == [[1]]


def test_nothing_waits_for_company_while_other_work_waits(stage: Stage) -> None:
    engine = Twice(batch=4)
    asked = stage.ask(engine, 1.0)
    assert not asked.done()
    assert stage.call(lambda: "done").result(10) == "done"
    assert results(asked) == [[1]]


def test_an_error_goes_to_those_who_asked_and_to_nobody_else(stage: Stage) -> None:
    engine, other = Twice(batch=2), Twice()
    stage.block()
    asked = [stage.ask(engine, 1.0), stage.ask(engine, -2.0), stage.ask(engine, 3.0, 4.0), stage.ask(other, 5.0)]
    stage.go_on()
    for failed in asked[:2]:
        with pytest.raises(OutOfMemory, match="negative"):
            failed.result(10)
    assert results(*asked[2:]) == [[3, 4], [5]]


def test_more_inputs_than_the_engine_takes_are_refused(stage: Stage) -> None:
    with pytest.raises(ValueError, match="twice was given 3 inputs at once, but takes 2"):
        stage.ask(Twice(batch=2), 1.0, 2.0, 3.0).result(10)


def test_it_tells_what_runs_and_who_waits_for_it(stage: Stage) -> None:
    assert stage.queue.running is None
    seen = []
    stage.queue.call("ct", lambda: seen.append(stage.queue.running))
    assert (seen[0].model, seen[0].threads) == ("ct", {get_ident()})
    assert seen[0].since > 0
    assert stage.queue.running is None


def test_closing_lets_what_runs_end_and_fails_what_waits() -> None:
    engine, begun, go_on = Twice(), Event(), Event()
    with ThreadPoolExecutor(4) as pool:
        with DeviceQueue("the device") as queue:
            stage = Stage(queue, pool)
            runs = pool.submit(queue.call, "ct", lambda: (begun.set(), go_on.wait(10)))
            assert begun.wait(10)
            waits = [stage.ask(engine, 1.0), stage.ask(engine, 2.0, urgent=True)]
            pool.submit(lambda: (waits[1].exception(10), go_on.set()))
        assert runs.result(10) == (None, True)
        for each in waits:
            with pytest.raises(RuntimeUnavailable, match="twice is not active: the queue of the device is closed"):
                each.result(10)
        with pytest.raises(RuntimeUnavailable, match="closed"):
            queue.call("ct", lambda: None)
    assert engine.asked == []


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 2), st.integers(1, 3), st.booleans(), st.sampled_from([2, 3]), st.booleans()),
        min_size=1,
        max_size=40,
    )
)
def test_everybody_gets_the_answer_to_what_he_asked(asked: list[tuple[int, int, bool, int, bool]]) -> None:
    engines = [Twice(batch=3), Twice(batch=4), Twice(batch=5)]

    def ask(number: int) -> None:
        which, count, urgent, length, fails = asked[number]
        tensor = np.full((count, 1, length), number + 1.0, np.float32) * (-1 if fails else 1)
        try:
            answer = queue.infer("twice", engines[which], tensor, urgent=urgent)
        except OutOfMemory:
            return  # its own, or its neighbour's in the batch
        assert not fails
        np.testing.assert_array_equal(answer["twice"], 2 * tensor)

    with ThreadPoolExecutor(8) as pool, DeviceQueue("the device", batch_seconds=0.0005) as queue:
        for _ in pool.map(ask, range(len(asked))):
            pass
    for engine in engines:
        assert all(len(batch) <= engine.batch for batch in engine.asked)
    inputs = sum(len(batch) for engine in engines for batch in engine.asked)
    assert inputs == sum(count for _, count, *_ in asked)


@pytest.mark.parametrize("write", [convolutional_package, xray_package])
def test_a_real_engine_answers_the_same_bits_whatever_the_batch(tmp_path: Path, write) -> None:
    package = load_package(write(tmp_path))
    random = np.random.default_rng(1)
    tensors = [random.random((1 + number % 2, *package.input_shape[1:]), np.float32) for number in range(9)]
    with create_engine(package, RuntimeSettings(threads=2, batch=4)) as engine:
        alone = [engine.infer(tensor)["probabilities"] for tensor in tensors]
        with ThreadPoolExecutor(4) as pool, DeviceQueue("the CPU", batch_seconds=0.002) as queue:
            queued = QueuedEngine(package.name, engine, queue)
            for _ in range(3):
                order = random.permutation(len(tensors))
                together = pool.map(lambda number: queued.asked(urgent=bool(number % 3)).infer(tensors[number]), order)
                for number, answer in zip(order, together, strict=True):
                    np.testing.assert_array_equal(answer["probabilities"], alone[number])


def test_an_engine_is_touched_by_the_thread_of_its_device_alone(stage: Stage) -> None:
    engine = Twice()
    queued = QueuedEngine("twice", engine, stage.queue)
    with queued:
        queued.infer(np.ones((1, 1, 3), np.float32))
    assert engine.threads == {"queue of the device"}
    assert (queued.identity, queued.batch, queued.whole_path) == (engine.identity, 1, None)


def test_the_whole_path_of_a_volume_is_one_piece_of_work(stage: Stage) -> None:
    threads = []

    class OnDevice(Twice):
        @property
        def whole_path(self) -> Any:
            return lambda volume: SimpleNamespace(volume=volume, thread=threads.append(current_thread().name))

    path = QueuedEngine("ct", OnDevice(), stage.queue).asked(urgent=True).whole_path
    assert path is not None
    assert path("a volume").volume == "a volume"
    assert threads == ["queue of the device"]


def test_what_runs_next_is_told_before_it_runs() -> None:
    """Where it ends the process, nobody could tell afterwards whose it was."""
    told: list[tuple[str, frozenset[int], int]] = []
    engine = Twice()
    with DeviceQueue("device", on_start=lambda now: told.append((now.model, now.threads, len(engine.asked)))) as queue:
        queue.infer("twice", engine, np.ones((1, 1, 3), np.float32))
    assert told == [("twice", frozenset({get_ident()}), 0)]
