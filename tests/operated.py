"""A ledger with an operator's page over it, as a node serves it."""

import time
from pathlib import Path

import httpx
from pydicom.uid import ExplicitVRLittleEndian, SegmentationStorage

from service.deliver.capabilities import Capabilities
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, DELIVER, NextJob, ResultRecord, SeriesRecord
from service.operate.http import EngineHealth, Health, HttpServer
from service.operate.metrics import Metrics
from service.operate.operator import operator_routes
from service.operate.page import Page
from service.settings import Settings, parse
from service.types import ResultObject

HEALTH = Health(
    version="1.2.3",
    receiver_listening=True,
    ledger_reachable=True,
    spool_writable=True,
    spool_free_bytes=5_000_000_000,
    engines=(EngineHealth("ct-lung", "openvino", "fp32", "CPU", verified=True),),
)


class Operated:
    """A ledger with a dead letter, and the page over it."""

    def __init__(self, folder: Path, password: str = "") -> None:
        self.settings: Settings = parse(
            {
                "spool": {"path": str(folder)},
                "archives": {"pacs": {"ae_title": "PACS", "host": "pacs.example", "port": 104}},
                "senders": {"CT1": {"archive": "pacs"}},
            },
            "test",
        )
        self.ledger = Ledger(f"sqlite:///{folder / 'ledger.sqlite'}")
        routes = operator_routes(Page(lambda: HEALTH, self.ledger, self.settings), self.ledger, password)
        self.server = HttpServer("127.0.0.1", 0, lambda: HEALTH, Metrics.on_new_registry(), routes)
        self.server.start()
        self.url = f"http://127.0.0.1:{self.server.port}"

    def dead(self, note: str = "two slices at <one> position", key: str = "abcdef0123456789") -> int:
        self.ledger.open_series(SeriesRecord(key, "1.2", f"1.2.{key}", "CT", "CT1"), 3)
        self.ledger.complete_series(key, 3, "", [NextJob(ASSEMBLE)])
        job = self.ledger.claim([ASSEMBLE])
        assert job is not None
        self.ledger.bury(job, note)
        return job.id

    def get(self, path: str = "/", **headers: str) -> httpx.Response:
        return httpx.get(self.url + path, headers=headers, trust_env=False)

    def post(self, path: str, **headers: str) -> httpx.Response:
        return httpx.post(self.url + path, headers=headers, trust_env=False)

    def state(self, job: int) -> str:
        found = self.ledger.job(job)
        assert found is not None
        return found.state

    def close(self) -> None:
        self.server.stop()
        self.ledger.close()

    def populate(self) -> None:
        """What a busy day leaves: dead letters with long reasons, deliveries that wait, results, a refused form."""
        for number in range(3):
            self.dead(
                "12 slices are missing: slices 41 and 42 lie 15.0 mm apart, more than the 10.0 mm that it bridges; "
                "send the series again, whole, or cancel this job",
                f"{number}bcdef0123456789",
            )
        for number, status in enumerate(["committed"] * 7 + ["verified"] * 3 + ["sent"]):
            key = f"{number:x}1ec7ed000000000"
            self.ledger.open_series(SeriesRecord(key, "1.2", f"1.2.{number}", "DX", "CT1"), 1)
            self.ledger.complete_series(key, 1, "", [NextJob(DELIVER, "image", "cxr-pneumonia")])
            job = self.ledger.claim([DELIVER])
            assert job is not None
            result = ResultObject("SR", "1.1", f"2.25.{number}", Path("x.dcm"))
            self.ledger.finish(job, [], results=[ResultRecord(key, "image", "cxr-pneumonia", result, status, "pacs")])
        self.ledger.open_series(SeriesRecord("cafe000000000000", "1.9", "1.9.1", "CT", "CT1"), 1)
        self.ledger.complete_series("cafe000000000000", 1, "", [NextJob(DELIVER, "volume", "ct-lung")])
        job = self.ledger.claim([DELIVER])
        assert job is not None
        self.ledger.prioritise("cafe", 0)
        self.ledger.retry_later(job, time.time() + 240, "pacs does not answer at pacs.example:104 (timed out)")
        Capabilities("WETREAD", self.settings.spool.path).refused(
            self.settings.destination("pacs"), (SegmentationStorage, ExplicitVRLittleEndian), "0x0122"
        )
