"""Faults of the archive: away, slow, full, particular. The real Orthanc stands behind a front, which does the harm."""

import threading
import time
from dataclasses import replace
from random import Random
from typing import ClassVar

from pydicom.uid import SegmentationStorage

from tests.faults.campaign.fault import Harm
from tests.faults.campaign.front import C_STORE_RQ, N_ACTION_RQ, Front, Message, Talk
from tests.faults.campaign.holding import held
from tests.faults.campaign.jumping_clock import JumpingClock
from tests.faults.campaign.world import World

LABEL_MAP = "1.2.840.10008.5.1.4.1.1.66.7"
NO_ROOM, NOT_SUPPORTED = 0xA700, 0x0122
SEND_SECONDS = 25.0
"""So long a fault waits for what it is to strike."""


class InFront(Harm):
    """A fault whose archive stands behind a front."""

    archive: ClassVar[dict[str, object]] = {}
    """Further keys of ``[archives.orthanc]``."""

    def arrange(self, world: World, random: Random) -> None:
        """Put the front in between."""
        self.front = world.keep(Front(world.orthanc_port))
        world.archive = replace(world.archive, port=self.front.port)
        world.sections[f"archives.{world.archive.name}"] = dict(self.archive)

    def relent(self, world: World) -> None:
        """Pass all on, as it comes."""
        self.front.decide = lambda talk, message: None
        self.front.cut_at = lambda message: None
        self.front.before_answer = lambda message: True
        self.front.open()
        self.front.go_on()


class Away(InFront):
    """The archive is not there when results are to be sent, up to three times; at times the node is killed meanwhile.

    How many threads and sockets the node holds while results wait is noted, beside those of before.
    """

    name = "archive-away"

    def strike(self, world: World, random: Random) -> None:
        """Shut, and open again."""
        before = held(world.node.process.pid, self.front.port)
        killed, waiting = 0, 0
        for _ in range(random.choice((1, 1, 2, 3))):
            world.pause_for(random.uniform(0, 2))
            self.front.shut()
            world.wait(lambda: world.events("deliver.postponed") or world.events("commit.postponed"), SEND_SECONDS)
            if random.random() < 0.3:
                world.node.kill()
                world.node.start()
                killed += 1
            world.pause_for(random.uniform(0.5, 4))
            waiting = max(waiting, len(world.rows("SELECT id FROM jobs WHERE stage = 'deliver' AND state = 'ready'")))
            away = held(world.node.process.pid, self.front.port)
            self.front.open()
        world.note(killed=killed, waiting=waiting, before=before.as_json(), away=away.as_json())


class AwayForHours(InFront):
    """The archive is not there for twelve hours of the node's clock, with the retry times that are shipped.

    The clock is set on as soon as all that was due has been tried.

    How many results wait is noted, what the node holds then and before, and how often work was tried.
    """

    name = "archive-away-12h"
    hours: ClassVar[float] = 12.0
    settle_seconds: ClassVar[float] = 120.0

    def arrange(self, world: World, random: Random) -> None:
        """The shipped times of retries, and a clock."""
        super().arrange(world, random)
        self._clock = JumpingClock(world.folder / "clock")
        world.environment = {**world.environment, **self._clock.environment}
        world.sections["retry"] = {"first_seconds": 5.0, "longest_seconds": 900.0}
        world.settle_seconds = self.settle_seconds

    def strike(self, world: World, random: Random) -> None:
        """Shut, and let hours pass."""
        before = held(world.node.process.pid, self.front.port)
        self.front.shut()
        series = sum(map(len, world.series.values()))
        waiting = "SELECT id FROM jobs WHERE stage = 'deliver' AND state = 'ready' AND attempts > 0"
        world.wait(lambda: len(world.rows(waiting)) >= series, 10 * SEND_SECONDS + series, 0.1)
        most, looks = before, 0
        while self._clock.seconds < self.hours * 3600:
            self._clock.jump(random.randint(30, 900))
            world.wait(lambda: not self._due(world), SEND_SECONDS + series, 0.05)
            away, looks = held(world.node.process.pid, self.front.port), looks + 1
            most = max(most, away, key=lambda one: one.threads + one.sockets)
        jobs = world.rows("SELECT attempts, state FROM jobs WHERE stage = 'deliver'")
        results = world.rows("SELECT id FROM results WHERE status IN ('encoded', 'sending')")
        tried = [job["attempts"] for job in jobs]
        world.note(hours=round(self._clock.seconds / 3600, 1), looks=looks, waiting=len(results), tried=max(tried))
        world.note(before=before.as_json(), away=most.as_json(), states=sorted({job["state"] for job in jobs}))

    def _due(self, world: World) -> bool:
        """Whether a delivery is to be tried now, or is being."""
        now = time.time() + self._clock.seconds
        jobs = world.rows("SELECT state, run_at FROM jobs WHERE stage = 'deliver'")
        return any(job["state"] == "running" or (job["state"] == "ready" and job["run_at"] <= now) for job in jobs)

    def relent(self, world: World) -> None:
        """It is there again; after the longest wait all is due."""
        super().relent(world)
        self._clock.jump(1080)


class AwayForHoursWithFiveHundred(AwayForHours):
    """The same with 500 results that wait."""

    name = "archive-away-12h-500"
    reference = "own"
    settle_seconds = 600.0

    def arrange(self, world: World, random: Random) -> None:
        """Two results of each series."""
        super().arrange(world, random)
        world.series = {"CT1": list(range(0, 250, 2)), "CT2": list(range(1, 250, 2))}
        world.pause = 0.0


class Silent(InFront):
    """The archive's machine takes connections, and nothing that is sent there arrives; then all of it does."""

    name = "archive-silent"
    archive: ClassVar = {"answer_seconds": 2.0}

    def strike(self, world: World, random: Random) -> None:
        """Hold, and go on."""
        for _ in range(random.choice((1, 2))):
            if random.random() < 0.5:
                world.wait(lambda: world.events("deliver.started"), SEND_SECONDS)
            world.pause_for(random.uniform(0, 0.3))
            self.front.hold()
            world.pause_for(random.uniform(1, 5))
            if random.random() < 0.5:
                self.front.hang_up()
            self.front.go_on()
        world.note(lines=self.front.accepted)


class Slow(InFront):
    """Each answer takes its time, now and then more than the node waits for: then the archive has an object, and the
    node does not know."""

    name = "archive-slow"
    archive: ClassVar = {"answer_seconds": 1.5}

    def strike(self, world: World, random: Random) -> None:
        """Wait before each answer."""
        late, lock = [0], threading.Lock()

        def wait(message: Message) -> bool:
            with lock:
                seconds = 2.0 if message.field == C_STORE_RQ and random.random() < 0.3 else random.uniform(0, 0.7)
                late[0] += seconds == 2.0
            time.sleep(seconds)
            return True

        self.front.before_answer = wait
        world.wait(lambda: late[0] > 3, SEND_SECONDS)
        world.note(late=late[0])


class Aborts(InFront):
    """The archive aborts amid an object, or when it has it and before it says so."""

    name = "archive-aborts"

    def strike(self, world: World, random: Random) -> None:
        """Abort a few times."""
        done, lock = {"amid": 0, "unsaid": 0}, threading.Lock()

        def amid(message: Message) -> int | None:
            with lock:
                if message.field != C_STORE_RQ or message.length < 1:
                    return None
                if getattr(message, "drawn", None) is None:
                    message.drawn = random.random() < 0.4  # type: ignore[attr-defined]
                    message.at = random.choice((0, 100, 2000, 20000))  # type: ignore[attr-defined]
                if message.drawn and message.length > message.at:  # type: ignore[attr-defined]
                    done["amid"] += 1
                    return message.at  # type: ignore[attr-defined, no-any-return]
                return None

        def unsaid(message: Message) -> bool:
            with lock:
                abort = random.random() < 0.3
                done["unsaid"] += abort
                return not abort

        self.front.cut_at, self.front.before_answer = amid, unsaid
        world.wait(lambda: sum(done.values()) > random.randint(3, 8), SEND_SECONDS)
        world.note(**done)


class NoRoom(InFront):
    """The archive is out of resources (0xA700) for a while."""

    name = "archive-no-room"

    def strike(self, world: World, random: Random) -> None:
        """Answer in its place."""
        refused, most = [0], random.randint(2, 12)

        def full(talk: Talk, message: Message) -> int | None:
            refused[0] += message.field == C_STORE_RQ
            return NO_ROOM if message.field == C_STORE_RQ else None

        self.front.decide = full
        world.wait(lambda: refused[0] >= most, SEND_SECONDS)
        world.note(refused=refused[0])


class Particular(InFront):
    """The archive does not take some SOP classes; at times it is away, too, while that is found out."""

    reference = "own"
    classes: ClassVar[frozenset[str]]
    when_sent: ClassVar[bool]

    def arrange(self, world: World, random: Random) -> None:
        """Refuse them, from the beginning and for good."""
        super().arrange(world, random)
        world.orthanc_sections["UnknownSopClassAccepted"] = True
        if self.when_sent:
            self.front.decide = self._refuse
        else:
            self.front.refused = self.classes

    def strike(self, world: World, random: Random) -> None:
        """Hang up now and then."""
        for _ in range(random.randint(0, 4)):
            world.wait(lambda: self.front.lines, SEND_SECONDS)
            world.pause_for(random.uniform(0, 0.2))
            self.front.hang_up()
        world.note(learnt=len(world.events("archive.refuses")))

    def relent(self, world: World) -> None:
        """It stays as it is."""

    def _refuse(self, talk: Talk, message: Message) -> int | None:
        return NOT_SUPPORTED if message.field == C_STORE_RQ and message.sop_class in self.classes else None


class RefusesSeg(Particular):
    """It does not accept SEG in the negotiation: it gets label maps."""

    name = "archive-refuses-seg"
    classes, when_sent = frozenset({str(SegmentationStorage)}), False


class RefusesSegWhenSent(Particular):
    """It accepts SEG and label maps, and refuses both when they are sent (0x0122): it gets secondary captures."""

    name = "archive-refuses-seg-late"
    classes, when_sent = frozenset({str(SegmentationStorage), LABEL_MAP}), True


class NeverCommits(InFront):
    """It takes requests for storage commitment and never reports. With *auto* it is verified in the end; with *require*
    it is asked until it reports after all."""

    name = "archive-never-commits"

    def arrange(self, world: World, random: Random) -> None:
        """Take all requests from the beginning."""
        super().arrange(world, random)
        self._asked = 0
        self.required = random.random() < 0.5
        own = {"commitment": "require" if self.required else "auto", "commitment_seconds": 2.0}
        world.sections[f"archives.{world.archive.name}"] = own
        self.front.decide = self._take

    def _take(self, talk: Talk, message: Message) -> int | None:
        self._asked += message.field == N_ACTION_RQ
        return 0x0000 if message.field == N_ACTION_RQ else None

    def strike(self, world: World, random: Random) -> None:
        """Let it be asked more than once."""
        most = random.randint(5, 10)
        world.wait(lambda: self._asked >= most, SEND_SECONDS)

    def relent(self, world: World) -> None:
        """Report from now on, where that is required."""
        if self.required:
            super().relent(world)
        world.note(required=self.required, asked=self._asked)
