"""``wetread evaluate`` as somebody uses it who has images and knows what they show."""

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk  # noqa: N813
from PIL import Image

from engines.packages.package import SHIPPED_MODELS, load_package
from engines.runtimes.base import RuntimeSettings
from engines.serving.engine_set import open_engines
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.profile import ResultProfile
from service.series.assembly import assemble
from tests.conftest import WrapAsDX
from tests.running_node import command
from tests.small_models import classifier_package, detector_package, xray_package


def evaluated(*arguments: str | Path) -> tuple[dict[str, Any], str]:
    """What the command says to programs in its last line, and what it says on standard error."""
    done = command("evaluate", *arguments, "--json", timeout=300)
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    assert list(said) == ["model", "data", "n", "metrics"]
    return said, done.stderr


def refused(*arguments: str | Path) -> str:
    """The one sentence with which the command refuses."""
    done = command("evaluate", *arguments)
    assert done.returncode == 1, done.stdout
    [sentence] = done.stderr.strip().splitlines()
    return sentence


@pytest.fixture
def external(tmp_path: Path, shared_data: Path, wrap_as_dx: WrapAsDX) -> Path:
    """A test set as others make one: a file and a class, in four formats; two rows are broken."""
    folder = tmp_path / "theirs"
    (folder / "images" / "more").mkdir(parents=True)
    source = shared_data / "cxr" / "images"
    lines = ["file,class"]
    for name in ("normal", "viral"):
        for number, jpeg in enumerate(sorted((source / name).iterdir())[:4]):
            pixels = np.asarray(Image.open(jpeg).convert("L"))
            file = Path("more") / f"{name}-{number}"
            if number == 0:
                file = file.with_suffix(".jpeg")
                shutil.copy(jpeg, folder / "images" / file)
            elif number == 1:
                file = file.with_suffix(".dcm")
                wrap_as_dx(jpeg, folder / "images" / file)
            else:
                file = file.with_suffix(".png")
                kind = np.uint16 if number == 2 else np.uint8
                Image.fromarray(pixels.astype(kind) * kind(257 if number == 2 else 1)).save(folder / "images" / file)
            lines.append(f"{file.as_posix()},{name}")
    (folder / "images" / "broken.png").write_bytes(b"no picture")
    lines += ["broken.png,normal", "gone.png,viral"]
    (folder / "manifest.csv").write_text("\n".join(lines) + "\n")
    return folder


def test_an_external_set_needs_no_more_than_files_and_classes(tmp_path: Path, external: Path) -> None:
    out = tmp_path / "report"
    said, told = evaluated("cxr-pneumonia", external / "manifest.csv", "--out", out, "--rounds", "50", "--threads", "1")
    assert said["n"] == 8
    assert said["model"].startswith("cxr-pneumonia ")
    area = said["metrics"]["auc_viral_vs_normal"]
    assert 0 <= area["low"] <= area["value"] <= area["high"] <= 1
    assert "broken.png" in told
    assert "gone.png (line 11): the image is missing" in told
    html = (out / "report.html").read_text()
    assert "For research use only" in html
    assert html.count("data:image/png") == 8
    assert len((out / "predictions.csv").read_text().splitlines()) == 1 + 10
    assert json.loads((out / "report.json").read_text())["metrics"] == said["metrics"]
    assert len(list((out / "pictures").iterdir())) == 8
    # 8 and 16 bits, and DICOM, of one image say the same
    again, _ = evaluated("cxr-pneumonia", external, "--rounds", "50", "--threads", "1")
    assert again == said


def test_a_model_agrees_with_its_own_segs_to_the_last_voxel(tmp_path: Path, phantom_ct: Path) -> None:
    """The node's own SEG as a reference: whatever is lost on the way is no longer 1."""
    folder = tmp_path / "ct"
    shutil.copytree(phantom_ct, folder)
    [item] = assemble(sorted(folder.glob("*.dcm"))).items
    package = load_package(SHIPPED_MODELS / "ct-lung")
    with open_engines({"ct-lung": package}, RuntimeSettings(precision="auto", threads=1)) as engines:
        findings = engines.run("ct-lung", item.image)
    analysis = Analysis(findings, item.image, item.headers(), ResultProfile(objects=("SEG",)))
    [seg] = encode(analysis, tmp_path / "seg")
    shutil.copy(seg.path, folder / "zz.dcm")
    out = tmp_path / "report"
    said, told = evaluated("ct-lung", folder, "--out", out)
    assert said["n"] == 1
    assert {name: figure["value"] for name, figure in said["metrics"].items() if name.startswith("dice")} == {
        "dice": 1.0, "dice_left_lung": 1.0, "dice_right_lung": 1.0,
    }  # fmt: skip
    assert "AUTOMATIC" in told
    header = pydicom.dcmread(item.files[0], stop_before_pixels=True)
    written = "".join(file.read_text() for file in out.iterdir() if file.is_file())
    for secret in (str(header.PatientName), str(header.PatientID), str(header.SeriesInstanceUID)):
        assert secret not in written + told


def test_a_detector_is_judged_by_lesions_in_mm(tmp_path: Path) -> None:
    """One bright ball in each of two scans: one is known, one is not, so that half of what is found is false."""
    package = detector_package(tmp_path / "models")
    for name in ("one", "other"):
        values = np.full((16, 20, 24), -1000, np.int16)
        values[6:11, 8:13, 12:17] = 0
        image = sitk.GetImageFromArray(values)
        image.SetSpacing((2.0, 2.0, 2.0))
        image.SetOrigin((100.0, -50.0, 10.0))
        sitk.WriteImage(image, tmp_path / f"{name}.nii.gz")
    # the middle voxel of the ball, in LPS
    (tmp_path / "manifest.csv").write_text("file,x,y,z,diameter_mm\none.nii.gz,128,-30,26,10\nother.nii.gz,,,,\n")
    said, told = evaluated(package, tmp_path, "--threads", "1", "--out", tmp_path / "report")
    values_of = {name: figure["value"] for name, figure in said["metrics"].items()}
    assert values_of["lesion_sensitivity"] == 1.0
    # the unknown ball has the same score as the known one
    assert (values_of["froc_sensitivity_at_0.25"], values_of["froc_sensitivity_at_0.5"]) == (0.0, 1.0)
    assert "There are 1 lesions in 2 scans" in told


def test_a_package_or_a_model_of_a_configuration_is_cropped_to_the_one_beside_it(tmp_path: Path) -> None:
    """In the bright field the classifier sees nothing but brightness; without the crop it would see mostly darkness."""
    models = tmp_path / "models"
    package, _ = classifier_package(models), xray_package(models)
    folder = tmp_path / "data"
    folder.mkdir()
    rows = ["file,class,sex,note"]
    for number in range(12):
        values = np.zeros((64, 96), np.uint8)
        values[20:40, 30:60] = 255
        values[26:31, 40:46] = 0
        Image.fromarray(values).save(folder / f"{number}.png")
        rows.append(f"{number}.png,bright,{'MF'[number % 2]},n{number % 3}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    out = tmp_path / "report"
    said, _ = evaluated(package, folder, "--threads", "1", "--by", "note", "--out", out)
    assert said["metrics"]["accuracy"]["value"] == 1.0
    subgroups = json.loads((out / "report.json").read_text())["subgroups"]
    assert {words: part["n"] for words, part in subgroups.items()} == {"sex = F": 6, "sex = M": 6}  # 4 a note: too few
    config = tmp_path / "wetread.toml"
    config.write_text(f'[engines]\nfolders = ["{models}"]\n')
    again, _ = evaluated("tiny-class", folder, "--threads", "1", "--config", config)
    assert again == said


def test_images_unlike_those_of_the_training_are_counted(tmp_path: Path, shared_data: Path) -> None:
    """Of three X-rays with their lungs, one is shown with dark bone."""
    source = shared_data / "cxr_lung"
    (tmp_path / "masks").mkdir()
    rows = ["file"]
    for number, mask in enumerate(sorted((source / "mask").glob("MCUCXR*.png"))[:3]):
        pixels = np.asarray(Image.open(source / "img" / f"{mask.stem}.jpg").convert("L"))
        Image.fromarray(pixels if number else 255 - pixels).save(tmp_path / f"{number}.png")
        shutil.copy(mask, tmp_path / "masks" / f"{number}.png")
        rows.append(f"{number}.png")
    (tmp_path / "manifest.csv").write_text("\n".join(rows))
    said, told = evaluated("cxr-lung", tmp_path, "--threads", "1")
    assert said["n"] == 3
    assert "1 of 3 images that were run are unlike those that the model was trained on" in told


def test_what_cannot_be_judged_is_refused_in_one_sentence(tmp_path: Path, external: Path, phantom_ct: Path) -> None:
    assert "there is no model 'cxr-pneumona'; choose of" in refused("cxr-pneumona", external)
    assert "does not exist" in refused("cxr-pneumonia", tmp_path / "nowhere")
    assert "neither a manifest.csv nor DICOM" in refused("cxr-pneumonia", _empty(tmp_path))
    assert "holds no SEG" in refused("ct-lung", phantom_ct)
    assert "a folder of DICOM has no splits" in refused("ct-lung", phantom_ct, "--split", "test")
    assert "choose of auto, fp32" in refused("ct-lung", phantom_ct, "--precision", "fp17")
    assert "needs the column mask" in refused("cxr-lung", external)
    assert "takes a Volume, not a Radiograph" in refused("ct-lung", _with_masks(tmp_path))
    (external / "manifest.csv").write_text("file,class\nbroken.png,normal\ngone.png,viral\n")
    assert "none of the 2 images" in refused("cxr-pneumonia", external)
    (external / "manifest.csv").write_text("file,class\nmore/normal-0.jpeg,tuberculosis\n")
    assert "the model has no class 'tuberculosis'; it has Normal, Pneumonia" in refused("cxr-pneumonia", external)


def _empty(folder: Path) -> Path:
    (folder / "empty").mkdir()
    return folder / "empty"


def _with_masks(folder: Path) -> Path:
    Image.new("L", (64, 64), 90).save(folder / "a.png")
    (folder / "manifest.csv").write_text("file,mask\na.png,a.png\n")
    return folder
