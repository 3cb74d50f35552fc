from pathlib import Path

import numpy as np
import pydicom
import pytest
import SimpleITK
from numpy.typing import NDArray
from pydicom.dataset import Dataset

from service.demo.body import NODULE, Body, paint_body
from service.demo.canvas import Grid
from service.demo.phantom import write_chest_ct, write_chest_xray
from tests.validators import dcentvfy_errors, dciodvfy_errors


@pytest.fixture(scope="module")
def body() -> Body:
    return paint_body(Grid.centred((100, 128, 128), (3.0, 3.0, 3.0)))


def slices(folder: Path) -> list[Dataset]:
    return sorted((pydicom.dcmread(path) for path in folder.iterdir()), key=lambda d: d.ImagePositionPatient[2])


def pixels(instance: Dataset) -> NDArray[np.float32]:
    return instance.pixel_array.astype(np.float32) * float(instance.RescaleSlope) + float(instance.RescaleIntercept)


def test_the_body_has_two_separate_lungs_of_plausible_volume(body: Body) -> None:
    lungs = SimpleITK.ConnectedComponent(SimpleITK.GetImageFromArray((body.lung > 0.5).astype(np.uint8)))
    components = SimpleITK.GetArrayFromImage(SimpleITK.RelabelComponent(lungs))
    litres = np.bincount(components.ravel())[1:3] * 0.027 / 1000

    assert np.all((litres > 1.2) & (litres < 3.5)), litres
    centres = [np.mean(np.nonzero(components == label)[2]) for label in (1, 2)]
    assert min(centres) < 50
    assert max(centres) > 78


def test_the_heart_lies_left_and_the_liver_right(body: Body) -> None:
    left, right = body.lung[:, :, body.grid.x > 0].sum(), body.lung[:, :, body.grid.x < 0].sum()
    level = np.abs(body.grid.z - 20).argmin()
    row = np.abs(body.grid.y + 10).argmin()
    at = {x: body.hu[level, row, np.abs(body.grid.x - x).argmin()] for x in (-60, 100)}

    assert left < right
    assert at[-60] == pytest.approx(60, abs=10)
    assert at[100] < -50


def test_tissues_have_the_hounsfield_units_of_a_chest(body: Body) -> None:
    lung = body.hu[body.lung > 0.99]

    assert -900 < np.median(lung) < -780
    assert body.hu[0, 0, 0] == -1000
    assert body.hu.max() > 400


def test_the_nodule_is_solid_and_surrounded_by_lung(body: Body) -> None:
    x, y, z = NODULE
    index = tuple(int(np.abs(axis - c).argmin()) for axis, c in ((body.grid.z, z), (body.grid.y, y), (body.grid.x, x)))

    assert body.hu[index] > -50
    assert body.lung[index] > 0.5


def test_the_ct_is_one_regular_axial_series(phantom_ct: Path) -> None:
    series = slices(phantom_ct)

    assert len(series) == 120
    assert len({d.SeriesInstanceUID for d in series}) == 1
    assert len({d.SOPInstanceUID for d in series}) == 120
    assert np.diff([float(d.ImagePositionPatient[2]) for d in series]) == pytest.approx(2.5)
    assert pixels(series[60])[0, 0] < -900


def test_the_xray_shows_the_heart_on_the_right_of_the_image_and_the_head_on_top(phantom_xray: Path) -> None:
    (instance,) = (pydicom.dcmread(path) for path in phantom_xray.iterdir())
    image = pixels(instance)
    left_of_spine, right_of_spine = image[560:640, 300:420], image[560:640, 604:724]

    assert instance.PatientOrientation == ["L", "F"]
    assert right_of_spine.mean() > 1.2 * left_of_spine.mean()
    assert image[900:, 200:400].mean() > 1.5 * image[300:450, 200:400].mean()


def test_the_same_seed_gives_the_same_pixels_under_fresh_uids(tmp_path: Path, phantom_xray: Path) -> None:
    first = pydicom.dcmread(next(phantom_xray.iterdir()))
    again = pydicom.dcmread(next(write_chest_xray(tmp_path / "again").iterdir()))
    other = pydicom.dcmread(next(write_chest_xray(tmp_path / "other", seed=2).iterdir()))

    assert again.PixelData == first.PixelData
    assert other.PixelData != first.PixelData
    assert len({d.StudyInstanceUID for d in (first, again, other)}) == 3


def test_both_images_can_join_one_study(tmp_path: Path) -> None:
    ct = pydicom.dcmread(write_chest_ct(tmp_path / "ct", study_uid="1.2.3") / "ct0001.dcm")
    xray = pydicom.dcmread(write_chest_xray(tmp_path / "dx", study_uid="1.2.3") / "dx0001.dcm")

    assert ct.StudyInstanceUID == xray.StudyInstanceUID == "1.2.3"
    assert ct.SeriesInstanceUID != xray.SeriesInstanceUID


def test_the_images_are_valid_dicom(phantom_ct: Path, phantom_xray: Path) -> None:
    assert dciodvfy_errors(phantom_ct / "ct0060.dcm") == []
    assert dciodvfy_errors(phantom_xray / "dx0001.dcm") == []
    assert dcentvfy_errors(*phantom_ct.iterdir()) == []
