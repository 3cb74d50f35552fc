"""A sender's archive in the test's own process: it keeps all that it is sent, in order, and can be held up."""

import threading
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from pynetdicom import AE, evt
from pynetdicom.sop_class import Comprehensive3DSRStorage, SegmentationStorage, Verification

from service.types import Destination
from tests.running_node import free_ports


@dataclass(frozen=True)
class Arrival:
    """One C-STORE request: who it says it is, and its data set as sent."""

    sop_instance_uid: str
    data_set: bytes


class Archive:
    """A Storage SCP for SEG and SR. While `gate` is cleared it stores, but does not answer.

    Parameters
    ----------
    port
        Where to listen; a free one by default.
    """

    def __init__(self, port: int | None = None) -> None:
        self.destination = Destination("pacs", "PACS", "127.0.0.1", port or free_ports(1)[0])
        self.arrivals: list[Arrival] = []
        self.gate = threading.Event()
        self.gate.set()

    @property
    def objects(self) -> dict[str, bytes]:
        """What it holds by SOP Instance UID. Each object that came twice must have come with the same bytes."""
        held: dict[str, bytes] = {}
        for arrival in self.arrivals:
            assert held.setdefault(arrival.sop_instance_uid, arrival.data_set) == arrival.data_set
        return held

    def __enter__(self) -> Self:
        ae = AE(self.destination.ae_title)
        for sop_class in (Verification, SegmentationStorage, Comprehensive3DSRStorage):
            ae.add_supported_context(sop_class)
        address = (self.destination.host, self.destination.port)
        self._server = ae.start_server(address, block=False, evt_handlers=[(evt.EVT_C_STORE, self._store)])
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.gate.set()
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        uid = str(event.request.AffectedSOPInstanceUID)
        self.arrivals.append(Arrival(uid, event.encoded_dataset(include_meta=False)))
        self.gate.wait(60)
        return 0x0000
