"""A real Orthanc as the archive, on free ports of the loopback interface."""

import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from service.types import Destination
from tests.conftest import REPO_ROOT
from tests.running_node import free_ports
from tests.validators import require_tool
from tests.waiting import eventually

FORWARD_LUA = REPO_ROOT / "deploy" / "forward.lua"
DICOMWEB_PLUGIN = Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")


@dataclass(frozen=True)
class Orthanc:
    """A running Orthanc: its AE title and DICOM port, and its REST interface."""

    ae_title: str
    dicom_port: int
    rest: httpx.Client

    @property
    def destination(self) -> Destination:
        """Where it is for an SCU."""
        return Destination("orthanc", self.ae_title, "127.0.0.1", self.dicom_port)

    @property
    def dicomweb(self) -> str:
        """The base URL of its DICOMweb services."""
        return str(self.rest.base_url.join("dicom-web"))

    def get(self, path: str, **parameters: Any) -> Any:
        """The JSON answer to a REST request."""
        answer = self.rest.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()

    def post(self, path: str, content: object) -> Any:
        """The JSON answer to a REST request with JSON."""
        return self.rest.post(path, json=content).raise_for_status().json()

    def upload(self, *files: Path) -> None:
        """Store files over REST."""
        for file in files:
            self.rest.post("/instances", content=file.read_bytes()).raise_for_status()

    def sop_instances(self, modality: str) -> list[str]:
        """SOP Instance UIDs of what it holds of one modality."""
        found = self.post("/tools/find", {"Level": "Instance", "Expand": True, "Query": {"Modality": modality}})
        return [instance["MainDicomTags"]["SOPInstanceUID"] for instance in found]

    def count(self) -> int:
        """How many instances it holds in all."""
        return int(self.get("/statistics")["CountInstances"])

    def instances(self, study_uid: str) -> list[str]:
        """Orthanc's own names of all instances of a study."""
        return list(self.post("/tools/find", {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}}))

    def fetch(self, instance: str, target: Path) -> Path:
        """Write one instance, named by Orthanc's own name, to a file."""
        target.write_bytes(self.rest.get(f"/instances/{instance}/file").raise_for_status().content)
        return target

    def study(self, study_uid: str) -> str:
        """Orthanc's own name of a study."""
        [study] = self.post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}})
        return str(study)

    def forward(self, study_uid: str) -> None:
        """Send a whole study to the node, as a person would by the web interface, and wait until it is sent."""
        self.post("/modalities/wetread/store", {"Resources": [self.study(study_uid)], "Synchronous": True})

    def changes(self, kind: str, resource: str | None = None) -> int:
        """How often something happened, for example ``StableStudy``, to one resource or in all."""
        changes = self.get("/changes", limit=100_000)["Changes"]
        return sum(change["ChangeType"] == kind and resource in (None, change["ID"]) for change in changes)

    def jobs(self) -> list[dict[str, Any]]:
        """Its jobs, each with ``Type`` and ``State``."""
        return list(self.get("/jobs", expand=True))


@contextmanager
def running_orthanc(
    folder: Path,
    node_port: int,
    *,
    node_ae_title: str = "WETREAD",
    ae_title: str = "ORTHANC",
    dicom_port: int | None = None,
    stable_seconds: int = 2,
    dicomweb: bool = False,
    also: Mapping[str, object] | None = None,
) -> Iterator[Orthanc]:
    """Run Orthanc with our forwarding script, the node at ``node_port``; the test is skipped where there is none.

    It listens on ``dicom_port``, or on a free one. With ``dicomweb`` it serves DICOMweb too, where it has the plugin.
    ``also`` are further keys of its configuration, which win.
    """
    # Debian puts it where a user's PATH does not lead
    program = require_tool(shutil.which("Orthanc", path="/usr/sbin:/usr/local/sbin") or "Orthanc")
    plugins = [str(_dicomweb_plugin())] if dicomweb else []
    folder.mkdir(parents=True, exist_ok=True)
    free_port, http_port = free_ports(2)
    dicom_port = dicom_port or free_port
    configuration = folder / "orthanc.json"
    configuration.write_text(
        json.dumps(
            {
                "Name": "test",
                "StorageDirectory": str(folder / "db"),
                "IndexDirectory": str(folder / "db"),
                "LuaScripts": [str(FORWARD_LUA)],
                "Plugins": plugins,
                "HttpPort": http_port,
                "HttpBindAddresses": ["127.0.0.1"],
                "AuthenticationEnabled": False,
                "DicomAet": ae_title,
                "DicomPort": dicom_port,
                "DicomModalities": {"wetread": {"AET": node_ae_title, "Host": "127.0.0.1", "Port": node_port}},
                "StableAge": stable_seconds,
                "OverwriteInstances": True,
                "JobsHistorySize": 1000,
                **(also or {}),
            }
        )
    )
    log = folder / "orthanc.log"
    with log.open("wb") as output:
        # without TCP_NODELAY each instance would wait 40 ms for Nagle's algorithm
        process = subprocess.Popen(
            [program, configuration], stdout=output, stderr=output, env=os.environ | {"TCP_NODELAY": "1"}
        )
    with httpx.Client(base_url=f"http://127.0.0.1:{http_port}", trust_env=False, timeout=60) as rest:
        orthanc = Orthanc(ae_title, dicom_port, rest)
        try:
            eventually(lambda: _answers(orthanc, process, log), "Orthanc answers")
            yield orthanc
        finally:
            process.terminate()
            process.wait(30)


def _dicomweb_plugin() -> Path:
    if not DICOMWEB_PLUGIN.exists():
        require_tool("orthanc-dicomweb")  # no program, but skipped and failed like one
    return DICOMWEB_PLUGIN


def _answers(orthanc: Orthanc, process: subprocess.Popen[bytes], log: Path) -> bool:
    if process.poll() is not None:
        pytest.fail(f"Orthanc ended with {process.returncode}:\n{log.read_text()[-2000:]}")
    try:
        return bool(orthanc.get("/system"))
    except httpx.TransportError:
        return False
