"""One archive, and each version of OHIF in front of it, for all viewer tests."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest

from service.results.kinds import KINDS
from service.results.profile import ResultProfile, SegmentationForm
from tests.conftest import REPO_ROOT, WrapAsDX
from tests.orthanc import Orthanc, running_orthanc
from tests.running_node import free_ports
from tests.unit.service.results.examples import Example, lung_findings
from tests.validators import missing
from tests.viewer.filed import Filed, chest_ct, chest_xray, file_results, nodules_in, small_ct
from tests.viewer.ohif import Viewer, open_viewer
from tests.viewer.server import serving

VERSIONS = ("3.12.10", "3.13.2")
ALL_KINDS = ResultProfile(objects=tuple(KINDS))


@pytest.fixture
def pictures(viewer: Viewer, tmp_path: Path) -> Path:
    """Where screenshots go: those of the last version into the folder that ``OHIF_PICTURES`` names."""
    named = os.environ.get("OHIF_PICTURES")
    return Path(named) if named and viewer.version == VERSIONS[-1] else tmp_path


@pytest.fixture(scope="session")
def orthanc(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orthanc]:
    """An archive that serves DICOMweb."""
    [nobody] = free_ports(1)
    with running_orthanc(tmp_path_factory.mktemp("orthanc"), nobody, dicomweb=True) as running:
        yield running


@pytest.fixture(scope="session", params=VERSIONS)
def viewer(request: pytest.FixtureRequest, orthanc: Orthanc) -> Iterator[Viewer]:
    """Each version of OHIF in front of the archive."""
    version = request.param
    dist = REPO_ROOT / ".ohif" / version / "dist"
    if not dist.is_dir():
        missing(f"OHIF {version} is not there (scripts/ohif)")
    with serving(dist, str(orthanc.rest.base_url)) as url, open_viewer(version, url) as opened:
        yield opened


@pytest.fixture(scope="session")
def filed_ct(orthanc: Orthanc, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """The real CT with lungs and nodule, as objects of all kinds."""
    return file_results(orthanc, *chest_ct(shared_data), tmp_path_factory.mktemp("ct"), ALL_KINDS)


@pytest.fixture(scope="session")
def filed_small_ct(orthanc: Orthanc, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """The small real CT with lungs, as objects of all kinds; its SEG is a label map."""
    profile = ALL_KINDS.model_copy(update={"segmentation": "labelmap"})
    return file_results(orthanc, *small_ct(shared_data), tmp_path_factory.mktemp("small"), profile)


@pytest.fixture(scope="session")
def filed_nothing(orthanc: Orthanc, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """The small real CT as if no lung had been found in it, as a report."""
    found, files = small_ct(shared_data)
    nothing = lung_findings(np.zeros(found.image.array.shape, np.uint8), found.image)
    example = Example(found.image, found.headers, nothing)
    return file_results(orthanc, example, files, tmp_path_factory.mktemp("nothing"), ResultProfile(objects=("SR",)))


@pytest.fixture(scope="session")
def filed_detections(orthanc: Orthanc, shared_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Filed:
    """The small real CT with a box and a point that were detected."""
    example, files = small_ct(shared_data)
    return file_results(orthanc, nodules_in(example), files, tmp_path_factory.mktemp("detections"), ALL_KINDS)


@pytest.fixture(scope="session")
def filed_xray(
    orthanc: Orthanc, shared_data: Path, wrap_as_dx: WrapAsDX, tmp_path_factory: pytest.TempPathFactory
) -> Filed:
    """The real X-ray with fields, classes and an activation map, as objects of all kinds."""
    folder = tmp_path_factory.mktemp("xray")
    return file_results(orthanc, *chest_xray(shared_data, wrap_as_dx, folder), folder, ALL_KINDS)


@pytest.fixture(scope="session")
def filed_odd_xray(
    orthanc: Orthanc, shared_data: Path, wrap_as_dx: WrapAsDX, tmp_path_factory: pytest.TempPathFactory
) -> Mapping[SegmentationForm, Filed]:
    """The same X-ray with 381 rows and columns, its SEG in two forms."""
    folder = tmp_path_factory.mktemp("odd")
    example, files = chest_xray(shared_data, wrap_as_dx, folder, less=3)
    forms: tuple[SegmentationForm, ...] = ("binary", "labelmap")
    return {
        form: file_results(orthanc, example, files, folder, ResultProfile(objects=("SEG",), segmentation=form))
        for form in forms
    }
