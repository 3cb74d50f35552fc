"""An archive in the test's own process that is asked for storage commitment, and reports as a script says."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from pydicom import Dataset
from pynetdicom import AE, build_context, build_role, evt

from service.archive.dimse import STUDY_ROOT_FIND
from service.commitment import REQUEST, STORAGE_COMMITMENT, STORAGE_COMMITMENT_INSTANCE
from service.receive.contexts import CARRIED_ALONG, PROCESSED
from service.types import Destination
from service.wire import VERIFICATION
from tests.running_node import free_ports

PUSH = str(STORAGE_COMMITMENT)


@dataclass(frozen=True)
class Transaction:
    """A request for storage commitment."""

    uid: str
    references: tuple[tuple[str, str], ...]

    @property
    def instances(self) -> tuple[str, ...]:
        """SOP Instance UIDs."""
        return tuple(instance for _, instance in self.references)


@dataclass
class CommittingArchive:
    """Takes what it is sent, and reports on it.

    Attributes
    ----------
    node
        Port of the node, for reports over associations of its own.
    reports
        How: ``same`` association, ``new`` one, ``new, no role``, ``never``; ``none``: it knows no storage commitment.
    delay
        Seconds before it reports.
    keeps
        How often it does not keep an instance, by SOP Instance UID: so often it reports that it has none such.
    status
        Of its answers to N-ACTION.
    finds
        Whether it answers C-FIND.
    """

    node: int = 0
    reports: str = "same"
    delay: float = 0.0
    loses: dict[str, int] = field(default_factory=dict)
    status: int = 0x0000
    finds: bool = True
    times: int = 1
    """How often it sends each report."""
    hides: set[str] = field(default_factory=set)
    """SOP Instance UIDs that C-FIND does not give."""
    ae_title: str = "PACS"
    stored: list[str] = field(default_factory=list)
    held: dict[str, Dataset] = field(default_factory=dict)
    asked: list[Transaction] = field(default_factory=list)
    answers: list[int] = field(default_factory=list)
    """Statuses of the node's responses to its reports; -1: none, or no association."""

    def __post_init__(self) -> None:
        self.destination = Destination("pacs", self.ae_title, "127.0.0.1", free_ports(1)[0])
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        ae = AE(self.ae_title)
        ae.add_supported_context(VERIFICATION)
        for sop_class in (*PROCESSED, *CARRIED_ALONG):
            ae.add_supported_context(sop_class)
        if self.reports != "none":
            ae.add_supported_context(PUSH)
        if self.finds:
            ae.add_supported_context(STUDY_ROOT_FIND)
        handlers: list[Any] = [
            (evt.EVT_C_STORE, self._store),
            (evt.EVT_C_FIND, self._find),
            (evt.EVT_N_ACTION, self._action),
        ]
        address = (self.destination.host, self.destination.port)
        self._server = ae.start_server(address, block=False, evt_handlers=handlers)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for thread in self._threads:
            thread.join(30)
        self._server.shutdown()

    def _store(self, event: evt.Event) -> int:
        data_set = event.dataset
        self.stored.append(str(data_set.SOPInstanceUID))
        self.held[str(data_set.SOPInstanceUID)] = data_set
        return 0x0000

    def _find(self, event: evt.Event) -> Iterator[tuple[int, Dataset | None]]:
        for uid, data_set in list(self.held.items()):
            if uid not in self.hides and data_set.SeriesInstanceUID == event.identifier.SeriesInstanceUID:
                match = Dataset()
                match.QueryRetrieveLevel = "IMAGE"
                match.SOPInstanceUID = uid
                yield 0xFF00, match

    def _action(self, event: evt.Event) -> tuple[int, Dataset | None]:
        assert event.action_type == REQUEST
        assert str(event.request.RequestedSOPInstanceUID) == str(STORAGE_COMMITMENT_INSTANCE)
        asked = event.action_information
        references = tuple(
            (str(item.ReferencedSOPClassUID), str(item.ReferencedSOPInstanceUID))
            for item in asked.ReferencedSOPSequence
        )
        transaction = Transaction(str(asked.TransactionUID), references)
        self.asked.append(transaction)
        if self.status == 0x0000 and self.reports != "never":
            thread = threading.Thread(target=self._report_later, args=(event.assoc, transaction), daemon=True)
            self._threads.append(thread)
            thread.start()
        return self.status, None

    def _report_later(self, over: Any, transaction: Transaction) -> None:
        time.sleep(max(self.delay, 0.02))  # the response to N-ACTION comes first
        for _ in range(self.times):
            if self.reports == "same":
                answer, _reply = over.send_n_event_report(
                    *self.report(transaction), PUSH, str(STORAGE_COMMITMENT_INSTANCE)
                )
                self.answers.append(int(answer.Status) if "Status" in answer else -1)
            else:
                self.tell(transaction)

    def report(self, transaction: Transaction) -> tuple[Dataset, int]:
        """The event information and Event Type ID of a report."""
        information = Dataset()
        information.TransactionUID = transaction.uid
        kept, failed = [], []
        for sop_class, instance in transaction.references:
            item = Dataset()
            item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = sop_class, instance
            if self.loses.get(instance, 0) > 0 or instance not in self.held:
                self.loses[instance] = self.loses.get(instance, 0) - 1
                item.FailureReason = 0x0112
                failed.append(item)
            else:
                kept.append(item)
        if kept:
            information.ReferencedSOPSequence = kept
        if failed:
            information.FailedSOPSequence = failed
        return information, 2 if failed else 1

    def tell(self, transaction: Transaction, calling: str | None = None) -> int:
        """Report over an association of its own; the status of the response, or -1."""
        ae = AE(calling or self.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        roles = [] if "no role" in self.reports else [build_role(PUSH, scp_role=True)]
        over = ae.associate("127.0.0.1", self.node, contexts=[build_context(PUSH)], ae_title="WETREAD", ext_neg=roles)
        status = -1
        if over.is_established and over.accepted_contexts:
            for context in over.accepted_contexts:  # pynetdicom would not let one without a role report
                context._as_scp = True
            answer, _ = over.send_n_event_report(*self.report(transaction), PUSH, str(STORAGE_COMMITMENT_INSTANCE))
            status = int(answer.Status) if "Status" in answer else -1
            over.release()
        self.answers.append(status)
        return status
