import shutil
from collections.abc import Mapping
from pathlib import Path

import pydicom
import pytest
from pydicom import Dataset
from rich.console import Console

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from service.routing.dry_run import Counted, DryRun, dry_run
from service.routing.dry_run_view import view
from service.settings import Settings, parse
from tests.copies import MIDDLE, copy_series
from tests.synthetic_ct import Scan, write_scan

CONFIGURED: dict[str, object] = {
    "senders": {"CT1": {"archive": "main"}, "CT2": {"archive": "other"}},
    "archives": {
        "main": {"ae_title": "MAIN", "host": "10.0.0.1", "port": 104},
        "other": {"ae_title": "OTHER", "host": "10.0.0.2", "port": 104},
    },
}


@pytest.fixture(scope="module")
def packages() -> Mapping[str, ModelPackage]:
    return load_packages(SHIPPED_MODELS)


@pytest.fixture
def folder(tmp_path: Path, phantom_ct: Path, phantom_xray: Path) -> Path:
    """A chest CT, an X-ray, and a file that is no DICOM."""
    copy_series(phantom_ct, tmp_path / "given" / "ct", MIDDLE)
    copy_series(phantom_xray, tmp_path / "given" / "xray")
    (tmp_path / "given" / "notes.txt").write_text("not DICOM")
    return tmp_path / "given"


def planned(
    path: Path, packages: Mapping[str, ModelPackage], settings: Settings | None = None, sender: str = ""
) -> DryRun:
    return dry_run(path, packages, settings, sender, lambda what, done, total: None)


def text_of(found: DryRun) -> str:
    console = Console(width=200, force_terminal=False)
    with console.capture() as shown:
        for line in view(found):
            console.print(line)
    return shown.get()


def test_each_series_says_what_it_is_what_runs_and_why_the_others_do_not(
    folder: Path, packages: Mapping[str, ModelPackage]
) -> None:
    found = planned(folder, packages)
    ct, xray = found.series
    assert (ct.modality, ct.instances, xray.modality, xray.instances) == ("CT", 40, "DX", 1)
    [volume] = ct.items
    assert volume.description.startswith("40 slices of ")
    assert ", axial, " in volume.description
    assert volume.models == ("ct-lung", "ct-nodule")
    assert set(volume.refusals) == {"cxr-lung", "cxr-pneumonia"}
    assert xray.items[0].models == ("cxr-lung", "cxr-pneumonia")
    assert found.others == 1
    assert not found.has_destination
    assert "no configuration" in found.destination


def test_a_single_file_is_enough(folder: Path, packages: Mapping[str, ModelPackage]) -> None:
    [file] = (folder / "xray").glob("*.dcm")
    [series] = planned(file, packages).series
    assert series.items[0].models == ("cxr-lung", "cxr-pneumonia")


@pytest.mark.parametrize(
    ("sender", "runs", "destination"),
    [
        ("", ["ct-lung", "ct-nodule"], "main (MAIN at"),
        ("CT2", [], "other (OTHER at"),
        ("CT3", [], "CT3 would be rejected"),
    ],
)
def test_the_sender_decides_what_runs_and_where_results_go(
    folder: Path, packages: Mapping[str, ModelPackage], sender: str, runs: list[str], destination: str
) -> None:
    routing = {"ct-lung": {"senders": ["CT1"]}, "ct-nodule": {"senders": ["CT1"]}}
    settings = parse({**CONFIGURED, "routing": routing}, "wetread.toml")
    found = planned(folder / "ct", packages, settings, sender)
    assert [*found.series[0].items[0].models] == runs
    assert destination in found.destination


def test_what_would_be_quarantined_refused_or_left_out_is_told_with_its_reason(
    folder: Path, packages: Mapping[str, ModelPackage], tmp_path: Path
) -> None:
    def nameless(data_set: Dataset) -> None:
        data_set.StudyInstanceUID = ""

    def mr(data_set: Dataset) -> None:
        data_set.SOPClassUID = data_set.file_meta.MediaStorageSOPClassUID = pydicom.uid.MRImageStorage

    copy_series(folder / "ct", folder / "nameless", slice(2), nameless)
    copy_series(folder / "ct", folder / "mr", slice(3), mr)
    first, second, *_ = sorted((folder / "ct").glob("*.dcm"))
    shutil.copy(first, folder / "ct" / "again.dcm")
    second.write_bytes(second.read_bytes()[:-5000])

    found = planned(folder, packages)
    assert {(each.instances, each.faulty, each.reason.split(":")[0]) for each in found.apart} == {
        (2, True, "StudyInstanceUID missing or empty"),
        (3, False, "MR Image Storage"),
    }
    ct = found.series[0]
    assert ct.instances == 40
    assert Counted(1, "the same instance again", faulty=False) in ct.left_out
    assert any(each.faulty and "truncated" in each.reason for each in ct.left_out)
    shown = text_of(found)
    assert "2 would be quarantined" in shown
    assert "3 would be refused" in shown
    assert "1 file not DICOM, skipped" in shown


def test_a_gap_that_is_too_wide_would_wait_for_an_operator(folder: Path, packages: Mapping[str, ModelPackage]) -> None:
    for file in sorted((folder / "ct").glob("*.dcm"))[15:22]:
        file.unlink()
    found = planned(folder / "ct", packages)
    [item] = found.series[0].items
    assert item.faulty
    assert item.refusals["ct-lung"].faulty
    assert "the series would wait for an operator" in text_of(found)


def test_slices_that_make_no_volume_together_would_wait_for_an_operator(
    tmp_path: Path, packages: Mapping[str, ModelPackage]
) -> None:
    files = write_scan(Scan(tuple(map(float, range(8)))), tmp_path / "ct")
    moved = pydicom.dcmread(files[3])
    moved.ImagePositionPatient[0] += 5
    moved.save_as(files[3])
    found = planned(tmp_path / "ct", packages)
    [series] = found.series
    assert series.items == ()
    assert series.problem.startswith("8 slices: slice 4 lies 5.0 mm beside the line of the others")
    assert "it would wait for an operator" in text_of(found)


def test_uneven_spacing_is_told_from_the_least_to_the_largest(
    tmp_path: Path, packages: Mapping[str, ModelPackage]
) -> None:
    write_scan(Scan((0.0, 2.0, 4.0, 6.0, 9.0, 12.0, 15.0), tilt_degrees=20.0), tmp_path / "ct")
    [item] = planned(tmp_path / "ct", packages).series[0].items
    assert "2.00 to 3.00 × 1.50 × 1.50 mm, tilted by 20.0°" in item.description


def test_nothing_that_may_tell_who_it_is_is_shown(
    folder: Path, packages: Mapping[str, ModelPackage], tmp_path: Path
) -> None:
    def named(data_set: Dataset) -> None:
        data_set.PatientName = "SECRET^NAME"
        data_set.PatientID = data_set.AccessionNumber = "SECRET"
        data_set.SeriesDescription = data_set.ProtocolName = data_set.StudyDescription = "SECRET chest"

    copy_series(folder / "ct", tmp_path / "secret", slice(30), named)
    settings = parse({**CONFIGURED, "routing": {"ct-lung": {"series_description": ["abdomen"]}}}, "wetread.toml")
    found = planned(tmp_path / "secret", packages, settings)
    assert "its series description is not abdomen" in text_of(found)
    assert "SECRET" not in text_of(found)
    assert "SECRET" not in repr(found)


def test_real_series_have_the_outcome_that_is_expected(shared_data: Path, packages: Mapping[str, ModelPackage]) -> None:
    lung = planned(shared_data / "dicom" / "ct_cip64_79slices", packages)
    assert lung.series[0].items[0].models == ("ct-lung",)
    nameless = planned(shared_data / "dicom" / "ct_siemens_j2k_totalseg", packages)
    assert nameless.series == ()
    assert [(each.instances, each.faulty) for each in nameless.apart] == [(20, True)]
