"""A real Orthanc as a process of its own, in a folder of its own, that forwards what it gets to a node."""

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, cast

import httpx
from pydicom import Dataset, dcmread
from pydicom.filebase import DicomBytesIO

from service.types import Destination
from tests.running_node import free_ports
from tests.validators import require_tool
from tests.waiting import eventually

FORWARD = Path(__file__).resolve().parents[1] / "deploy" / "forward.lua"
STABLE_AGE = 2
"""Seconds without a new instance after which Orthanc calls a study stable, and forwards it."""


class Orthanc:
    """Debian's Orthanc with ``deploy/forward.lua``; use it as a context manager, after `forward_to`.

    Parameters
    ----------
    folder
        Where its configuration, its database and its log lie.
    """

    def __init__(self, folder: Path) -> None:
        self._program = require_tool("Orthanc")
        self._folder = folder
        port, self._http_port = free_ports(2)
        self.destination = Destination("orthanc", "ORTHANC", "127.0.0.1", port)
        self._node: Destination | None = None

    def forward_to(self, node: Destination) -> None:
        """Name the node that studies are forwarded to and that may send."""
        self._node = node

    def __enter__(self) -> Self:
        assert self._node is not None
        node = {"AET": self._node.ae_title, "Host": self._node.host, "Port": self._node.port, "AllowStore": True}
        config = {
            "StorageDirectory": str(self._folder / "db"),
            "IndexDirectory": str(self._folder / "db"),
            "HttpPort": self._http_port,
            "RemoteAccessAllowed": False,
            "AuthenticationEnabled": False,
            "DicomAet": self.destination.ae_title,
            "DicomPort": self.destination.port,
            "DicomCheckCalledAet": True,
            "DicomAlwaysAllowStore": False,
            "DicomModalities": {"wetread": node},
            "LuaScripts": [str(FORWARD)],
            "OverwriteInstances": True,
            "StableAge": STABLE_AGE,
            "JobsHistorySize": 1000,
        }
        (self._folder / "orthanc.json").write_text(json.dumps(config))
        # DCMTK leaves Nagle's algorithm on: 40 ms for each instance without this
        environment = {**os.environ, "TCP_NODELAY": "1"}
        with (self._folder / "orthanc.log").open("wb") as log:
            self._process = subprocess.Popen(
                [self._program, self._folder / "orthanc.json"], stdout=log, stderr=log, env=environment
            )
        self._rest = httpx.Client(base_url=f"http://127.0.0.1:{self._http_port}", timeout=60)
        eventually(self._answers, "Orthanc answers")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._rest.close()
        self._process.terminate()
        self._process.wait(60)

    def _answers(self) -> bool:
        assert self._process.poll() is None, (self._folder / "orthanc.log").read_text()
        try:
            return self._rest.get("/system").status_code == 200
        except httpx.TransportError:
            return False

    def upload(self, path: Path) -> None:
        """Store a file by REST."""
        self._rest.post("/instances", content=path.read_bytes()).raise_for_status()

    def instances(self, study_uid: str) -> list[str]:
        """Orthanc's names of all instances of a study."""
        query = {"Level": "Instance", "Query": {"StudyInstanceUID": study_uid}, "Limit": 0}
        return cast(list[str], self._post("/tools/find", query))

    def count(self) -> int:
        """How many instances it holds in all."""
        return int(self._get("/statistics")["CountInstances"])

    def fetch(self, instance: str, path: Path) -> Path:
        """Write one instance, named by Orthanc's name, to a file."""
        answer = self._rest.get(f"/instances/{instance}/file")
        path.write_bytes(answer.raise_for_status().content)
        return path

    def header(self, instance: str) -> Dataset:
        """Read one instance without its pixels."""
        content = self._rest.get(f"/instances/{instance}/file").raise_for_status().content
        return dcmread(DicomBytesIO(content), stop_before_pixels=True)

    def times_stable(self, study_uid: str) -> int:
        """How often a study has become stable."""
        [study] = self._post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}})
        changes: Sequence[Mapping[str, Any]] = self._get("/changes?limit=100000")["Changes"]
        return sum(change["ChangeType"] == "StableStudy" and change["ID"] == study for change in changes)

    def times_forwarded(self) -> int:
        """How many jobs have sent something to the node."""
        jobs: Sequence[Mapping[str, Any]] = self._get("/jobs?expand")
        return sum(job["Type"] == "DicomModalityStore" for job in jobs)

    def forward(self, study_uid: str) -> None:
        """Send a whole study to the node, as a person at its web interface would, and wait until it is sent."""
        studies = self._post("/tools/find", {"Level": "Study", "Query": {"StudyInstanceUID": study_uid}})
        self._post("/modalities/wetread/store", {"Resources": studies, "Synchronous": True})

    def _get(self, path: str) -> Any:
        return self._rest.get(path).raise_for_status().json()

    def _post(self, path: str, content: object) -> Any:
        return self._rest.post(path, json=content).raise_for_status().json()
