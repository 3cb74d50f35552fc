"""Engine files: named after all that an engine depends on, and never loaded when half-written."""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import engines.runtimes.engine_file as engine_file
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage, load_package
from engines.runtimes.engine_file import HEADER, engine_file_name, read_engine, write_engine
from tests.small_models import xray_package

ENGINE = bytes(range(256)) * 64


@pytest.fixture
def package(tmp_path: Path) -> ModelPackage:
    return load_package(xray_package(tmp_path / "models"))


def name(package: ModelPackage, **changed: Any) -> str:
    keys: dict[str, Any] = {
        "runtime": "rtx-1.7",
        "device": "sm89",
        "precision": "fp16",
        "grids": [(32, 48)],
        "batch": 1,
    }
    return engine_file_name(package, package.networks[0], **{**keys, **changed})


@pytest.mark.parametrize(
    "changed",
    [
        {"runtime": "rtx-1.8"},
        {"runtime": "tensorrt-1.7"},
        {"device": "sm120"},
        {"precision": "fp32"},
        {"batch": 8},
        {"grids": [(48, 32)]},
        {"grids": [(32, 48), (64, 64)]},
    ],
    ids=str,
)
def test_each_thing_that_an_engine_depends_on_gives_it_another_name(
    package: ModelPackage, changed: dict[str, Any]
) -> None:
    assert name(package) == name(package)
    assert name(package, **changed) != name(package)


def test_another_network_gives_another_name(package: ModelPackage) -> None:
    before = name(package)
    network = package.networks[0]
    network.write_bytes(network.read_bytes() + b"\0")
    assert name(package) != before


def test_a_new_way_of_compiling_gives_another_name(package: ModelPackage, monkeypatch: pytest.MonkeyPatch) -> None:
    before = name(package)
    monkeypatch.setattr(engine_file, "ENGINE_REVISION", engine_file.ENGINE_REVISION + 1)
    assert name(package) != before


def test_what_was_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "new" / "some.engine"
    write_engine(path, ENGINE)
    assert read_engine(path) == ENGINE
    assert [each.name for each in path.parent.iterdir()] == ["some.engine"]


@pytest.mark.parametrize("length", [0, 4, HEADER - 1, HEADER, HEADER + 1, HEADER + len(ENGINE) - 1])
def test_an_engine_file_that_was_cut_short_is_refused(tmp_path: Path, length: int) -> None:
    path = tmp_path / "some.engine"
    write_engine(path, ENGINE)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(RuntimeUnavailable, match=r"some\.engine is damaged or was cut short; remove it and build"):
        read_engine(path)


@pytest.mark.parametrize("place", [0, 8, HEADER, -1])
def test_an_engine_file_with_one_flipped_bit_is_refused(tmp_path: Path, place: int) -> None:
    path = tmp_path / "some.engine"
    write_engine(path, ENGINE)
    content = bytearray(path.read_bytes())
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(RuntimeUnavailable, match="damaged"):
        read_engine(path)


def test_an_engine_file_with_the_name_of_another_is_refused(tmp_path: Path) -> None:
    write_engine(tmp_path / "one.engine", ENGINE)
    (tmp_path / "one.engine").rename(tmp_path / "two.engine")
    with pytest.raises(RuntimeUnavailable, match=r"two\.engine is damaged"):
        read_engine(tmp_path / "two.engine")


def test_a_missing_engine_file_is_named_with_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(RuntimeUnavailable, match=r"none\.engine cannot be read .*build the engine again"):
        read_engine(tmp_path / "none.engine")


def test_a_write_that_fails_leaves_the_file_before_it_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "some.engine"
    write_engine(path, ENGINE)

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        write_engine(path, b"another")
    assert read_engine(path) == ENGINE
    assert [each.name for each in tmp_path.iterdir()] == ["some.engine"]


def test_whoever_reads_while_others_write_gets_a_whole_engine(tmp_path: Path) -> None:
    path = tmp_path / "some.engine"
    versions = [bytes([number]) * 100_000 for number in range(4)]
    write_engine(path, versions[0])

    def write(several: Sequence[bytes]) -> None:
        for engine in several * 5:
            write_engine(path, engine)

    with ThreadPoolExecutor(2) as pool:
        writing = [pool.submit(write, versions[:2]), pool.submit(write, versions[2:])]
        while not all(each.done() for each in writing):
            assert read_engine(path) in versions
    for each in writing:
        each.result()
