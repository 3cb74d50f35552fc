"""`deploy/forward.lua` in a real Orthanc, with a DICOM receiver in the node's place."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pydicom
import pytest
from pydicom.uid import CTImageStorage, DigitalXRayImageStorageForPresentation, SegmentationStorage, generate_uid
from pynetdicom import AE, evt

from tests.orthanc import Orthanc, running_orthanc
from tests.waiting import eventually


@dataclass
class ReceivedHere:
    """A receiver that writes down which instances came."""

    port: int = 0
    uids: list[str] = field(default_factory=list)

    def store(self, event: evt.Event) -> int:
        self.uids.append(event.request.AffectedSOPInstanceUID)
        return 0x0000


@pytest.fixture
def receiver() -> Iterator[ReceivedHere]:
    received = ReceivedHere()
    entity = AE("WETREAD")
    for sop_class in (CTImageStorage, DigitalXRayImageStorageForPresentation, SegmentationStorage):
        entity.add_supported_context(sop_class)
    server = entity.start_server(("127.0.0.1", 0), block=False, evt_handlers=[(evt.EVT_C_STORE, received.store)])
    received.port = server.server_address[1]
    yield received
    server.shutdown()


@pytest.fixture
def orthanc(tmp_path: Path, receiver: ReceivedHere) -> Iterator[Orthanc]:
    with running_orthanc(tmp_path / "orthanc", receiver.port, stable_seconds=1) as running:
        yield running


def as_result(image: Path, target: Path) -> Path:
    """An object of the same study as an image, with the modality of a result."""
    dataset = pydicom.dcmread(image)
    dataset.Modality, dataset.SOPClassUID = "SEG", SegmentationStorage
    dataset.SOPInstanceUID, dataset.SeriesInstanceUID = generate_uid(), generate_uid()
    dataset.save_as(target)
    return target


def study_is_stable_again(orthanc: Orthanc, times: int) -> None:
    eventually(lambda: orthanc.changes("StableStudy") >= times, f"the study is stable {times} times")
    eventually(lambda: all(job["State"] == "Success" for job in orthanc.jobs()), "all forwarding has ended")


def test_a_stable_study_is_forwarded_once_although_results_make_it_stable_again(
    orthanc: Orthanc, receiver: ReceivedHere, phantom_ct: Path, tmp_path: Path
) -> None:
    slices = sorted(phantom_ct.iterdir())[:5]

    orthanc.upload(*slices)
    study_is_stable_again(orthanc, 1)
    assert len(receiver.uids) == 5

    orthanc.upload(as_result(slices[0], tmp_path / "seg.dcm"))
    study_is_stable_again(orthanc, 2)
    assert len(receiver.uids) == 5


def test_a_series_that_has_grown_is_forwarded_again_as_a_whole(
    orthanc: Orthanc, receiver: ReceivedHere, phantom_ct: Path
) -> None:
    slices = sorted(phantom_ct.iterdir())[:5]

    orthanc.upload(*slices[:4])
    study_is_stable_again(orthanc, 1)
    orthanc.upload(slices[4])
    study_is_stable_again(orthanc, 2)

    assert len(receiver.uids) == 4 + 5
    assert len(set(receiver.uids)) == 5


def test_an_xray_is_forwarded_too(orthanc: Orthanc, receiver: ReceivedHere, phantom_xray: Path) -> None:
    orthanc.upload(*phantom_xray.iterdir())
    study_is_stable_again(orthanc, 1)

    assert len(receiver.uids) == 1
