"""The committed PTX: made from the source beside it, for GPUs since Ampere, with the parameters that are packed."""

import re
import shutil
import struct
import subprocess
from pathlib import Path

import pytest

from engines.device.kernels import PARAMETERS, PTX

ROOT = Path(__file__).parents[3]
NVCC = shutil.which("nvcc")
PARAMETER = re.compile(r"\.param (?:\.align (\d+) )?\.(\w+) \w+(?:\[(\d+)\])?")


def instructions(ptx: str) -> list[str]:
    """The lines that are no comments."""
    return [line.rstrip() for line in ptx.splitlines() if line.strip() and not line.lstrip().startswith("//")]


def version(tool: str) -> tuple[int, int]:
    found = re.search(
        r"release (\d+)\.(\d+)", subprocess.run([tool, "--version"], capture_output=True, text=True).stdout
    )
    return (int(found[1]), int(found[2])) if found else (0, 0)


@pytest.mark.skipif(NVCC is None, reason="needs nvcc")
def test_the_ptx_is_what_the_source_compiles_to(tmp_path: Path) -> None:
    made_by = re.search(r"release (\d+)\.(\d+)", PTX.read_text())
    assert made_by
    if version(str(NVCC)) != (int(made_by[1]), int(made_by[2])):
        pytest.skip(f"the PTX was made by nvcc {made_by[1]}.{made_by[2]}; another one words it otherwise")
    again = tmp_path / "kernels.ptx"
    subprocess.run([str(ROOT / "scripts" / "make_ptx.sh"), str(again)], check=True)
    assert instructions(PTX.read_text()) == instructions(again.read_text()), "run scripts/make_ptx.sh"


def test_every_gpu_since_ampere_with_a_driver_of_its_time_takes_the_ptx() -> None:
    lines = instructions(PTX.read_text())
    assert lines[:3] == [".version 7.0", ".target sm_80", ".address_size 64"]


def test_nothing_is_fused_so_that_results_are_the_same_bits_everywhere() -> None:
    assert not re.search(r"\bfma\.rn", "\n".join(body for body in instructions(PTX.read_text())))


def test_every_kernel_reads_its_parameters_where_they_are_packed() -> None:
    entries = dict(re.findall(r"\.visible \.entry (\w+)\((.*?)\)", PTX.read_text(), re.DOTALL))
    assert entries.keys() == PARAMETERS.keys()
    for name, declared in entries.items():
        offset, places = 0, []
        for align, kind, count in PARAMETER.findall(declared):
            size = int(count) if count else int(kind[1:]) // 8
            step = int(align) if align else size
            offset = -(-offset // step) * step
            places.append(offset)
            offset += size
        packed, written = "", []
        for group in PARAMETERS[name].split():
            for code in [group] if group[0].isdigit() else group:
                one = re.sub(r"^\d+", "", code)
                written.append(struct.calcsize(packed + "0" + one))
                packed += code
        assert (written, struct.calcsize(packed)) == (places, offset), name
