"""Real images, read once for all tests of this folder."""

from pathlib import Path

import pytest

from tests.unit.service.results.examples import Example, air_in_body, lung_findings, read_ct


@pytest.fixture(scope="session")
def nlst_ct(shared_data: Path) -> Example:
    """The real chest CT, with the air in it as left and right lung."""
    [folder] = (shared_data / "dicom" / "ct_nlst101287_toshiba_jpegls_plus_sybil_sr").glob("CT_*")
    volume, headers = read_ct(folder)
    return Example(volume, headers, lung_findings(air_in_body(volume), volume))


@pytest.fixture(scope="session")
def chest_64(shared_data: Path) -> Example:
    """The small real chest CT."""
    volume, headers = read_ct(shared_data / "dicom" / "ct_cip64_79slices")
    return Example(volume, headers, lung_findings(air_in_body(volume), volume))
