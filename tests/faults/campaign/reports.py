"""Faults of an archive's reports on storage commitment: late, twice, over either association, with failures in them."""

import io
import threading
import time
from collections import Counter
from dataclasses import dataclass
from random import Random
from typing import Any

from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_context, build_role
from pynetdicom.dsutils import decode, encode

from tests.faults.campaign.archives import SEND_SECONDS, InFront
from tests.faults.campaign.front import N_ACTION_RQ, N_EVENT_REPORT_RQ, Message, Talk
from tests.faults.campaign.world import World
from tests.raw_peer import COMMAND, DATA, LAST, command_set, p_data, pdv, uid, us

PUSH, INSTANCE = "1.2.840.10008.1.20.1", "1.2.840.10008.1.20.1.1"
"""Storage Commitment Push Model SOP Class and its well-known instance (PS3.4 J.3)."""
REASONS = (0x0110, 0x0112, 0x0213)
MOST_FAILURES = 2
"""Of one instance: after more, the node rightly takes it for a dead letter."""


@dataclass(frozen=True)
class How:
    """How a request is answered: over which association, after how many seconds, how often, with how many failures."""

    over: str
    delay: float
    times: int
    fails: float


class Reports(InFront):
    """Requests are taken here and answered here, in ways that are drawn, from what the real archive has.

    A report is late (so that it is asked again meanwhile), comes twice, over the node's association or a new one with
    or without a role negotiation, and now and then names an instance as not kept that is there.
    """

    name = "archive-reports"

    def arrange(self, world: World, random: Random) -> None:
        """Answer all requests from the beginning."""
        super().arrange(world, random)
        world.sections[f"archives.{world.archive.name}"] = {"commitment": "require", "commitment_seconds": 3.0}
        self._world, self._random, self._lock = world, Random(random.random()), threading.Lock()
        self._failed: Counter[str] = Counter()
        self._peace = False
        self.answers: Counter[str] = Counter()
        self.front.decide = lambda talk, message: 0x0000 if message.field == N_ACTION_RQ else None
        self.front.whole = self._asked

    def strike(self, world: World, random: Random) -> None:
        """Let it be asked."""
        world.wait(lambda: self.answers.total() >= 5, SEND_SECONDS)

    def relent(self, world: World) -> None:
        """Report soon, and what is true."""
        self._peace = True
        world.note(failures=self._failed.total(), **self.answers)

    # ---- reporting -------------------------------------------------------------------------------------------------

    def _asked(self, talk: Talk, message: Message) -> None:
        if message.field == N_ACTION_RQ:
            threading.Thread(target=self._answer, args=(talk, message), daemon=True).start()

    def _drawn(self) -> How:
        with self._lock:
            if self._peace:
                return How("new", 0.05, 1, 0.0)
            over = self._random.choice(("same", "new", "new, no role"))
            delay = self._random.choice((0.02, 0.5, 2.5, 5.0))
            return How(over, delay, self._random.choice((1, 1, 2)), self._random.choice((0.0, 0.4)))

    def _answer(self, talk: Talk, message: Message) -> None:
        how = self._drawn()
        syntax = UID(message.syntax)
        asked = decode(io.BytesIO(message.data_set), syntax.is_implicit_VR, syntax.is_little_endian)
        time.sleep(how.delay)
        told, kind = self._report(asked, how.fails)
        for number in range(how.times):
            if how.over == "same" and talk.line in self.front.lines:
                status = self._over_same(talk, message, told, kind, number)
            else:
                status = self._over_new(told, kind, "no role" not in how.over)
            self.answers[f"{how.over}: {status}"] += 1

    def _report(self, asked: Dataset, fails: float) -> tuple[Dataset, int]:
        """What the archive has of what it is asked for, but for what is drawn to fail."""
        kept, failed = [], []
        for item in asked.ReferencedSOPSequence:
            one = Dataset()
            one.ReferencedSOPClassUID, one.ReferencedSOPInstanceUID = (
                item.ReferencedSOPClassUID,
                item.ReferencedSOPInstanceUID,
            )
            name = str(item.ReferencedSOPInstanceUID)
            there = bool(self._world.orthanc.rest.post("/tools/lookup", content=name).json())
            with self._lock:
                drawn = self._random.random() < fails and self._failed[name] < MOST_FAILURES and not self._peace
                if drawn:
                    self._failed[name] += 1
                reason = self._random.choice(REASONS) if there else 0x0112
            if drawn or not there:
                one.FailureReason = reason
                failed.append(one)
            else:
                kept.append(one)
        told = Dataset()
        told.TransactionUID = asked.TransactionUID
        if kept:
            told.ReferencedSOPSequence = kept
        if failed:
            told.FailedSOPSequence = failed
        return told, 2 if failed else 1

    def _over_same(self, talk: Talk, message: Message, told: Dataset, kind: int, number: int) -> str:
        """The response is taken where it comes, and not looked at."""
        syntax = UID(message.syntax)
        content = encode(told, syntax.is_implicit_VR, syntax.is_little_endian) or b""
        fields = {
            0x0002: uid(PUSH),
            0x0100: us(N_EVENT_REPORT_RQ),
            0x0110: us(1000 + number),
            0x0800: us(0x0001),
            0x1000: uid(INSTANCE),
            0x1002: us(kind),
        }
        try:
            talk.to_node(p_data(pdv(message.context, COMMAND | LAST, command_set(fields))))
            talk.to_node(p_data(pdv(message.context, DATA | LAST, content)))
        except OSError:
            return "gone"
        return "sent"

    def _over_new(self, told: Dataset, kind: int, role: bool) -> str:
        ae = AE(self._world.archive.ae_title)
        ae.acse_timeout = ae.dimse_timeout = ae.network_timeout = 10
        roles: list[Any] = [build_role(UID(PUSH), scp_role=True)] if role else []
        over = ae.associate("127.0.0.1", self._world.node_ports[0], [build_context(PUSH)], "WETREAD", ext_neg=roles)
        if not over.is_established:
            return "no association"
        for context in over.accepted_contexts:  # pynetdicom would not let one without a role report
            context._as_scp = True
        answer, _ = over.send_n_event_report(told, kind, UID(PUSH), UID(INSTANCE))
        over.release()
        return f"0x{answer.Status:04X}" if "Status" in answer else "no answer"
