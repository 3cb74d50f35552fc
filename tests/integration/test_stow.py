"""Instances that come by STOW-RS through a whole node; the sender is Orthanc's DICOMweb client."""

from pathlib import Path

import httpx
import pydicom

from tests.copies import MIDDLE, copy_series
from tests.orthanc import running_orthanc
from tests.running_node import RunningNode, free_ports, small_engines

TOKEN = "a-token-that-is-long-enough-for-this"


def test_what_an_archive_sends_by_stow_is_worked_on_and_its_results_come_back(tmp_path: Path, phantom_ct: Path) -> None:
    series = copy_series(phantom_ct, tmp_path / "sent", MIDDLE)
    node_port, stow_port = free_ports(2)
    with running_orthanc(tmp_path / "orthanc", node_port, stable_seconds=3600, dicomweb=True) as orthanc:
        node = RunningNode(
            tmp_path,
            orthanc.destination,
            senders=["ORTHANC"],
            sections={
                "node": {"port": node_port},
                "engines": small_engines(tmp_path / "models"),
                "stow": {"enabled": True, "port": stow_port},
                "stow.tokens": {"ORTHANC": TOKEN},
            },
        )
        orthanc.upload(*series.files)
        with node:
            url = f"http://127.0.0.1:{stow_port}"
            server = {"Url": url, "HttpHeaders": {"Authorization": f"Bearer {TOKEN}"}}
            orthanc.rest.put("/dicom-web/servers/wetread", json=server).raise_for_status()
            wrong = {"Url": url, "HttpHeaders": {"Authorization": "Bearer no"}}
            orthanc.rest.put("/dicom-web/servers/stranger", json=wrong).raise_for_status()
            [study] = orthanc.get("/studies")
            order = {"Resources": [study], "Synchronous": True}

            refused = orthanc.rest.post("/dicom-web/servers/stranger/stow", json=order)
            assert refused.is_error
            assert not node.stored()

            orthanc.rest.post("/dicom-web/servers/wetread/stow", json=order).raise_for_status()
            kept = sorted(path.read_bytes()[128:] for path in node.stored())
            assert kept == sorted(
                orthanc.rest.get(f"/instances/{one}/file").content[128:] for one in orthanc.get("/instances")
            )
            jobs = node.ended(str(pydicom.dcmread(series.files[0]).SeriesInstanceUID))
            assert {job["state"] for job in jobs} == {"done"}
            assert orthanc.sop_instances("SR")
            assert httpx.get(f"{url}/studies", trust_env=False).status_code == 405
