"""A package from a careless operator, from a broken disk, or from somebody who wants to do harm."""

import io
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from engines.errors import ModelPackageError, RuntimeUnavailable
from engines.packages.package import load_package
from engines.runtimes.base import RuntimeSettings, create_engine
from tests.small_models import volume_package

HEADER = b"\x93NUMPY\x01\x00v\x00"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return volume_package(tmp_path)


def refusal(folder: Path) -> str:
    with pytest.raises(ModelPackageError) as caught:
        load_package(folder)
    said = str(caught.value)
    assert len(said) < 1000
    assert "\n" not in said
    return said


def edit(folder: Path, old: str, new: str) -> None:
    path = folder / "model.toml"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")


def members(folder: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(folder / "golden.npz") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def pack(folder: Path, contents: dict[str, bytes], compression: int = zipfile.ZIP_DEFLATED) -> None:
    with zipfile.ZipFile(folder / "golden.npz", "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("patch = [8,", f"patch = [{'1' * 5000},", "not valid TOML: Exceeds the limit"),
        ("patch = [8,", "patch = [1000000000,", r"input.patch.1 = 1000000000 is wrong"),
        ("patch = [8,", "patch = [-0.0,", "input.patch.1 = -0.0 is wrong"),
        ("patch = [8,", "patch = [inf,", "input.patch.1 = inf is wrong"),
        ("[-1000.0, 0.0]", "[nan, 0.0]", "input.window.1 = nan is wrong"),
        ("[2.0, 2.0, 2.0]", "[1e-300, 2.0, 2.0]", "input.spacing_mm.1 = 1e-300 is wrong"),
        ("[2.0, 2.0, 2.0]", "[1e400, 2.0, 2.0]", "input.spacing_mm.1 = inf is wrong"),
        ("overlap = 0.25", "overlap = 0.9999999", "input.overlap = 0.9999999 is wrong"),
        ("overlap = 0.25", f"overlap = {'[' * 5000}{']' * 5000}", "not valid TOML: maximum recursion"),
        ("overlap = 0.25", f"overlap = {'{a=' * 5000}1{'}' * 5000}", "not valid TOML: maximum recursion"),
        ("probability_error = 0.02", "probability_error = nan", "verify.max_probability_error = nan is wrong"),
    ],
)
def test_numbers_that_make_no_sense_are_refused(folder: Path, old: str, new: str, said: str) -> None:
    edit(folder, old, new)
    assert said in refusal(folder)


@pytest.mark.parametrize(
    "label", ["\\u0007", "two\\nlines", "\u202egnul", "\\u001b[31mred", "   ", "x" * 10_000, "a\\\\b"]
)
def test_labels_that_would_mislead_a_reader_or_break_a_result_are_refused(folder: Path, label: str) -> None:
    edit(folder, 'label = "Dark"', f'label = "{label}"')
    assert "segmentation.segments.1.label" in refusal(folder)


def test_a_code_with_a_backslash_is_refused(folder: Path) -> None:
    edit(folder, 'value = "39607008"', 'value = "396\\\\07008"')
    assert "segmentation.segments.1.type.value" in refusal(folder)


@pytest.mark.parametrize("content", [b"\0" * 1000, "name = 1".encode("utf-16"), b"# much\n" * 100_000])
def test_what_is_no_description_is_refused(folder: Path, content: bytes) -> None:
    (folder / "model.toml").write_bytes(content)
    assert "model.toml" in refusal(folder)


@pytest.mark.parametrize(
    ("array", "said"),
    [
        (b"hello", "golden.npz cannot be read"),
        (HEADER + b"__import__('os').abort()".ljust(117) + b"\n", "malformed node"),
        (
            HEADER + b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000, 100000000)}".ljust(117) + b"\n",
            "PiB",
        ),
    ],
)
def test_golden_arrays_that_are_none_are_refused(folder: Path, array: bytes, said: str) -> None:
    pack(folder, {**members(folder), "image.npy": array})
    assert said in refusal(folder)


def test_pickled_golden_arrays_are_never_unpickled(folder: Path) -> None:
    written = io.BytesIO()
    np.save(written, np.array([print], object), allow_pickle=True)
    pack(folder, {**members(folder), "image.npy": written.getvalue()})
    assert "allow_pickle" in refusal(folder)


def test_golden_arrays_that_would_fill_the_memory_are_refused_unread(folder: Path) -> None:
    pack(folder, members(folder))
    path = folder / "golden.npz"
    content = path.read_bytes()
    directory = content.index(b"PK\x01\x02")
    size = directory + 24  # of what is unpacked (APPNOTE 4.3.12)
    path.write_bytes(content[:size] + (0xFFFFFFF0).to_bytes(4, "little") + content[size + 4 :])
    assert "golden arrays have at most 4 GB" in refusal(folder)


@pytest.mark.parametrize("compression", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_damaged_golden_arrays_are_refused_wherever_the_damage_is(folder: Path, compression: int) -> None:
    pack(folder, members(folder), compression)
    path = folder / "golden.npz"
    content = path.read_bytes()
    refused = 0
    for part in range(1, 20):
        place = len(content) * part // 20
        for damaged in (content[:place], content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]):
            path.write_bytes(damaged)
            try:
                load_package(folder)
            except ModelPackageError:
                refused += 1
    assert refused > 30, "only a byte that means nothing, a date say, may be another"


def external(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    weight = model.graph.initializer[0]
    weight.ClearField("raw_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    weight.external_data.add(key="location", value=location)
    return model


def within_a_node(model: onnx.ModelProto, location: str) -> onnx.ModelProto:
    """The same weight as the value of a Constant within a branch."""
    weight = external(model, location).graph.initializer[0]
    constant = onnx.helper.make_node("Constant", [], ["value"], value=weight)
    branch = onnx.helper.make_graph([constant], "branch", [], [])
    del model.graph.initializer[0]
    model.graph.node.append(onnx.helper.make_node("If", ["c"], ["d"], then_branch=branch, else_branch=branch))
    return model


@pytest.mark.parametrize("hide", [external, within_a_node])
@pytest.mark.parametrize("location", ["weights.bin", "../weights.bin", "/etc/hostname"])
def test_weights_outside_of_the_network_are_refused_for_the_digest_would_not_cover_them(
    folder: Path, hide: Callable[[onnx.ModelProto, str], onnx.ModelProto], location: str
) -> None:
    network = folder / "model.onnx"
    network.write_bytes(hide(onnx.load(network), location).SerializeToString())
    assert "model.onnx keeps weights in other files" in refusal(folder)


def test_a_quantised_network_with_weights_outside_is_refused_too(folder: Path) -> None:
    network = external(onnx.load(folder / "model.onnx"), "weights.bin")
    (folder / "model.int8.onnx").write_bytes(network.SerializeToString())
    assert "model.int8.onnx keeps weights in other files" in refusal(folder)


@pytest.mark.parametrize(
    "content", [b"", b"hello", b"PK\x03\x04" + b"\0" * 100, b"\x0a\x05hello\x12\x03abc", b"\xff" * 99]
)
def test_what_is_no_network_is_refused_by_the_runtime_in_one_line(folder: Path, content: bytes) -> None:
    (folder / "model.onnx").write_bytes(content)
    with pytest.raises(RuntimeUnavailable, match=r"OpenVINO cannot use .*model\.onnx") as caught:
        create_engine(load_package(folder), RuntimeSettings()).activate()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["model.toml", "model.onnx", "golden.npz", "CARD.md"])
def test_what_is_no_file_is_refused_and_not_waited_for(folder: Path, name: str) -> None:
    (folder / name).unlink()
    os.mkfifo(folder / name)
    assert f"has no {name}" in refusal(folder)
