"""Every real series at hand gets an outcome that is known, and stands in docs/outcomes.md."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pydicom
import pytest

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from engines.types import Volume
from service.series.assembly import Item, assemble
from tests.outcomes import ANY_CT, ONE_BY_ONE, TABLE, folders, planned, table
from tests.small_models import EVERY_CT, volume_package

pytestmark = pytest.mark.filterwarnings("ignore")  # of pydicom, about what is odd in these files


@pytest.fixture(scope="module")
def data(shared_data: Path) -> Path:
    return shared_data / "dicom"


@pytest.fixture(scope="module")
def packages(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, ModelPackage]:
    folder = tmp_path_factory.mktemp("models")
    volume_package(folder, ANY_CT, selection=EVERY_CT)
    return {**load_packages(SHIPPED_MODELS), **load_packages(folder)}


def test_every_real_series_has_the_outcome_that_the_table_says(data: Path) -> None:
    assert table(data) == TABLE.read_text(encoding="utf-8"), "`make outcomes` writes it anew: look at what has changed"


def test_no_single_file_ends_in_a_reason_that_nobody_foresaw(data: Path, packages: Mapping[str, ModelPackage]) -> None:
    """Each file by itself too: in its folder it may be replaced by another encoding of the same instance."""
    looked_at = 0
    for folder in folders(data):
        for file in sorted(path for path in folder.iterdir() if path.is_file()):
            found = planned(file, packages)
            reasons = [each.reason for each in found.apart]
            reasons += [each.reason for series in found.series for each in series.left_out]
            for reason in reasons:
                assert "cannot be understood" not in reason, file.name
                assert "cannot be read" not in reason, file.name
            looked_at += len(found.series) + sum(each.instances for each in found.apart)
    assert looked_at > 400


def volumes_of(folder: Path) -> list[Item]:
    return [item for item in assemble(sorted(folder.iterdir())).items if isinstance(item.image, Volume)]


def test_the_head_with_three_spacings_and_a_tilt_is_one_sheared_uneven_volume(data: Path) -> None:
    [item] = volumes_of(data / "ct_ge_tilt_variable_spacing")
    assert isinstance(item.image, Volume)
    assert item.facts.tilt_degrees == pytest.approx(18.5, abs=0.01)
    assert item.image.at is not None
    spacings = np.round(np.diff(item.image.at) * item.image.spacing[0] * np.cos(np.radians(18.5)), 1)
    assert sorted(set(spacings.tolist())) == [1.1, 4.0, 7.0]
    assert "not evenly spaced" in " ".join(item.notes)


def test_all_lossless_encodings_of_the_enhanced_ct_hold_the_same_values(data: Path) -> None:
    items = [item for file in sorted((data / ONE_BY_ONE).glob("CT*")) for item in assemble([file]).items]
    assert len(items) == 10
    lossy = [item for item in items if any("with loss" in note for note in item.notes)]
    lossless = [item for item in items if item not in lossy]
    assert len(lossless) == 8
    for item in items:
        assert isinstance(item.image, Volume)
        assert item.image.frames == (2, 1), "the second frame lies below the first"
    for item in lossless[1:]:
        np.testing.assert_array_equal(item.image.array, lossless[0].image.array)


def test_the_table_tells_nothing_of_a_patient(data: Path) -> None:
    words = set(TABLE.read_text(encoding="utf-8").replace(";", " ").split())
    for file in sorted(path for path in data.rglob("*") if path.is_file()):
        try:
            header = pydicom.dcmread(file, specific_tags=["PatientName", "PatientID", "PatientBirthDate"])
        except Exception:  # no DICOM, or broken: nothing of it can be in the table
            continue
        of_the_patient = " ".join(str(element.value) for element in header).replace("^", " ").split()
        assert not {word for word in of_the_patient if len(word) > 3} & words, file.name
