"""``wetread demo``: the first thing a person sees is the whole product, and programs can read what came of it."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pydicom
from PIL import Image

from tests.running_node import command
from tests.validators import dciodvfy_errors

LUNGS = {("ct-lung", modality) for modality in ("SEG", "OT", "SR")}
MODELS = {"CT": LUNGS | {("ct-nodule", modality) for modality in ("OT", "SR")}}
MODELS["DX"] = {
    *(("cxr-lung", modality) for modality in ("SEG", "OT", "SR")),
    *(("cxr-pneumonia", modality) for modality in ("OT", "SR")),
}


def demo(out: Path, *arguments: str | Path) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    done = command("demo", "--out", out, "--json", *arguments, timeout=280)
    return done, json.loads(done.stdout.splitlines()[-1])


def assert_results_are_there(told: dict[str, Any]) -> set[tuple[str, str]]:
    """Every result that was told of is a sound DICOM file of that class and UID; return model and modality of each."""
    found = set()
    for result in told["results"]:
        assert set(result) == {"series", "model", "sop_class", "sop_instance_uid", "status", "path"}
        assert result["status"] == "sent"
        data_set = pydicom.dcmread(result["path"])
        assert (data_set.SOPClassUID, data_set.SOPInstanceUID) == (result["sop_class"], result["sop_instance_uid"])
        assert data_set.StudyInstanceUID in told["studies"]
        assert dciodvfy_errors(Path(result["path"])) == []
        found.add((result["model"], data_set.Modality))
    return found


def pictures(out: Path) -> dict[str, Path]:
    """The overlay pictures by model."""
    found = {}
    for path in out.glob("run-*/overlays/*.png"):
        with Image.open(path) as picture:
            assert min(picture.size) >= 200
            assert len(picture.convert("RGB").getcolors(1 << 24) or []) > 100, "an empty picture"
        found[path.stem.split("-", 1)[1]] = path
    return found


def test_the_demo_shows_the_whole_job_with_phantoms(tmp_path: Path) -> None:
    done, told = demo(tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1, "with --json nothing else is on standard output"
    assert set(told) == {"ok", "studies", "results", "quarantined", "seconds"}
    assert told["ok"] is True
    assert told["quarantined"] == []
    assert assert_results_are_there(told) == MODELS["CT"] | MODELS["DX"]
    assert set(told["seconds"]) == {"receive", "assemble", "infer", "encode", "deliver"}
    assert set(pictures(tmp_path)) == {"ct-lung", "ct-nodule", "cxr-lung", "cxr-pneumonia"}
    assert "research use only" in done.stderr.lower()


def test_the_demo_takes_a_folder_with_a_real_study_and_what_travels_with_it(tmp_path: Path, shared_data: Path) -> None:
    study = tmp_path / "study"
    shutil.copytree(shared_data / "dicom" / "ct_cip64_79slices", study / "ct")
    (study / "README.txt").write_text("not DICOM")
    for report in (shared_data / "dicom").glob("ct_nlst*/SR_*/*.dcm"):
        (study / report.name).symlink_to(report)
    done, told = demo(tmp_path / "out", "--study", study)
    assert done.returncode == 0, done.stderr
    assert told["ok"] is True
    # its slices are too far apart for nodules
    assert assert_results_are_there(told) == LUNGS
    assert set(pictures(tmp_path / "out")) == {"ct-lung"}
    assert "not sent: README.txt" in done.stderr
    assert "Comprehensive 3D SR Storage: carried along, never processed" in done.stderr


def test_a_demo_without_any_result_does_not_say_that_all_is_well(tmp_path: Path, phantom_ct: Path) -> None:
    study = tmp_path / "study"
    study.mkdir()
    for file in sorted(phantom_ct.iterdir())[:12]:
        (study / file.name).symlink_to(file)
    done, told = demo(tmp_path / "out", "--study", study)
    assert done.returncode == 1
    assert told["ok"] is False
    assert told["results"] == []
    assert "12 slices, fewer than 20" in done.stderr


def test_a_demo_of_a_folder_without_dicom_says_so(tmp_path: Path) -> None:
    (tmp_path / "study").mkdir()
    done, told = demo(tmp_path / "out", "--study", tmp_path / "study")
    assert done.returncode == 1
    assert "no DICOM file in it or below it" in done.stderr
    assert (told["ok"], told["results"]) == (False, [])
    assert "no DICOM file in it or below it" in told["error"]
