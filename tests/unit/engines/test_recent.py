from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from threading import Barrier, Event

import numpy as np
import pytest

from engines.errors import OutOfMemory
from engines.packages.package import load_packages
from engines.runtimes.base import RuntimeSettings
from engines.runtimes.openvino import OpenVinoEngine
from engines.serving.engine_set import open_engines
from engines.serving.recent import KEPT, Recent, digest
from engines.types import EngineIdentity, Findings, ModelIdentity, Radiograph, Volume
from tests.small_models import classifier_package, xray_package

FINDINGS = Findings(
    ModelIdentity("lung", "1", "0", "1", "CC0-1.0", ""),
    EngineIdentity("none", "fp32", "none"),
    datetime(2026, 1, 1, tzinfo=UTC),
)


def radiograph(seed: int = 1) -> Radiograph:
    return Radiograph(np.random.default_rng(seed).random((60, 80), np.float32), None, "1.2.3")


def test_a_model_that_another_is_cropped_to_runs_once_for_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    xray_package(tmp_path)
    classifier_package(tmp_path)
    runs = 0
    infer = OpenVinoEngine.infer

    def counted(engine: OpenVinoEngine, tensor: np.ndarray) -> object:
        nonlocal runs
        runs += 1
        return infer(engine, tensor)

    with open_engines(load_packages(tmp_path), RuntimeSettings(threads=1)) as engines:
        monkeypatch.setattr(OpenVinoEngine, "infer", counted)
        alone = engines.run("tiny-cxr", radiograph())
        assert runs == 1
        engines.run("tiny-class", radiograph())
        assert runs == 2
        engines.run("tiny-class", radiograph(seed=2))
        assert runs == 4
        again = engines.run("tiny-cxr", radiograph(seed=2))
        assert runs == 4
        assert engines.run("tiny-cxr", radiograph(), probabilities=True).label_map.probabilities is not None
        assert runs == 5
    assert not np.array_equal(alone.label_map.array, again.label_map.array)


def test_two_who_ask_at_the_same_time_get_the_same_answer_from_one_run() -> None:
    recent, asked, runs = Recent(), Barrier(2), []

    def analyse() -> Findings:
        runs.append(1)
        Event().wait(0.2)
        return replace(FINDINGS)

    def ask() -> Findings:
        asked.wait(10)
        return recent.find("key", analyse)

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.submit(ask), pool.submit(ask)
    assert one.result() is other.result()
    assert len(runs) == 1


def test_a_failure_is_not_kept() -> None:
    recent = Recent()

    def fail() -> Findings:
        raise OutOfMemory("full")

    with pytest.raises(OutOfMemory):
        recent.find("key", fail)
    assert recent.find("key", lambda: FINDINGS) is FINDINGS


def test_only_the_last_findings_are_kept() -> None:
    recent = Recent()
    first = recent.find(0, lambda: replace(FINDINGS))
    for key in range(1, KEPT):
        recent.find(key, lambda: replace(FINDINGS))
    assert recent.find(0, lambda: replace(FINDINGS)) is first
    for key in range(1, KEPT + 1):
        recent.find(key + KEPT, lambda: replace(FINDINGS))
    assert recent.find(0, lambda: replace(FINDINGS)) is not first


def test_an_image_is_told_by_its_pixels_and_by_where_they_lie() -> None:
    array = np.arange(24, dtype=np.int16).reshape(2, 3, 4)
    volume = Volume(array, np.eye(4), ("1", "2"))
    moved = np.eye(4)
    moved[0, 3] = 1e-9
    others = [
        replace(volume, array=array + 1),
        replace(volume, array=array.astype(np.float32)),
        replace(volume, array=array.reshape(2, 4, 3)),
        replace(volume, affine=moved),
        replace(volume, sources=("1", "3")),
        replace(volume, at=(0.0, 1.5)),
    ]
    assert digest(replace(volume, array=array.copy(), affine=np.eye(4))) == digest(volume)
    assert len({digest(each) for each in (volume, *others)}) == len(others) + 1
    film = radiograph()
    assert digest(replace(film, orientation=("R", "F"))) != digest(film)
