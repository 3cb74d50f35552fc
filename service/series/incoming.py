"""One series that is being received: what has come, over which associations, with which pauses."""

from collections import Counter
from dataclasses import dataclass, field, replace

from service.header import HeaderFacts
from service.ledger.records import SeriesRecord
from service.series.continuity import Continuity
from service.series.evidence import Observed
from service.series.reader import RADIOGRAPHS
from service.series.rhythm import Pauses
from service.settings import SeriesSettings
from service.spool import key_of


@dataclass
class Asked:
    """What the archive was asked about a series, and has answered.

    Attributes
    ----------
    count
        Its count, or None where it does not know the series or cannot say.
    at, arrivals
        When it was asked last, and after how many arrivals.
    pending
        Whether the answer is awaited.
    short
        How often in a row it has said that it has more, without anything having come in between.
    fetched
        Whether the rest was fetched.
    """

    count: int | None = None
    at: float = 0.0
    arrivals: int = -1
    pending: bool = False
    short: int = 0
    fetched: bool = False


@dataclass
class Incoming:
    """A series that is being received, or was complete a short while ago. Times are seconds of one clock."""

    record: SeriesRecord
    last_event: float
    alive_until: float = 0.0
    continuity: Continuity = field(default_factory=Continuity)
    asked: Asked = field(default_factory=Asked)
    pauses: Pauses = field(default_factory=Pauses)
    arrivals: int = 0
    moved_on: bool = False
    lost: bool = False
    expected: set[int] = field(default_factory=set)
    """Associations over which an instance has come that is not told of yet: it may not be completed before."""
    interrupted: bool = False
    """Whether the node ended while it was open, and has started again."""
    _instances: set[str] = field(default_factory=set)
    _open: set[int] = field(default_factory=set)
    _last: dict[int, str] = field(default_factory=dict)
    """The last instance of each open association."""
    _bringer: dict[str, int] = field(default_factory=dict)
    """Which association has brought an instance first."""
    _twice: set[str] = field(default_factory=set)
    """Instances that a second association has brought, too."""
    _carried: bool = False
    """Whether any association is known to have carried it: after a restart there is none."""
    _announced: dict[int | None, int | None] = field(default_factory=dict)
    """ImagesInAcquisition by AcquisitionNumber; None where images do not agree or do not say."""
    _acquired: Counter[int | None] = field(default_factory=Counter)
    _xrays: int = 0
    _multi_frame: int = 0

    def take(self, facts: HeaderFacts) -> None:
        """An instance lies in the spool, whenever it came."""
        instance = key_of(facts.sop_instance_uid)
        if instance in self._instances:
            return
        self._instances.add(instance)
        self.continuity.add(facts)
        self._xrays += facts.sop_class_uid in RADIOGRAPHS
        self._multi_frame += facts.frames > 1
        acquisition, announced = facts.acquisition_number, facts.images_in_acquisition
        self._acquired[acquisition] += 1
        if self._announced.setdefault(acquisition, announced) != announced:
            self._announced[acquisition] = None

    def take_unread(self, instance: str) -> None:
        """An instance (its key) lies in the spool of which nothing else is known."""
        self._instances.add(instance)

    def arrived(self, association: int, facts: HeaderFacts, now: float, settings: SeriesSettings) -> None:
        """An instance has come over an association."""
        pause = now - self.last_event
        # what is fetched says nothing about the sender, and what comes when nobody would have waited is no habit
        if self._open and pause <= settings.silent_seconds:
            self.pauses = replace(self.pauses, within=max(self.pauses.within, pause))
        elif self._returned and pause <= settings.quiet_ceiling_seconds:
            self.pauses = replace(self.pauses, between=max(self.pauses.between, pause))
        if association not in self._open:
            self.lost = False
        self._open.add(association)
        self.expected.discard(association)
        instance = self._last[association] = key_of(facts.sop_instance_uid)
        if self._bringer.setdefault(instance, association) != association:
            self._twice.add(instance)
        self._carried = True
        self.moved_on = False
        self.arrivals += 1
        self.last_event = now
        self.take(facts)

    def knows(self, instance: str) -> bool:
        """Whether an instance (its key) was taken."""
        return instance in self._instances

    @property
    def _returned(self) -> bool:
        return self._carried and not self._open and not self.lost and not self.asked.fetched

    def ended(self, association: int, aborted: bool, now: float) -> None:
        """An association that carried it has ended."""
        self.expected.discard(association)
        if association in self._open:
            self._open.remove(association)
            # a sender that has waited too long for its answer brings the instance anew, before its end is noticed here
            self.lost |= self._last.pop(association) not in self._twice and aborted
            if not self._open:
                self.last_event = now

    @property
    def open(self) -> bool:
        """Whether an association that carried it is open."""
        return bool(self._open)

    @property
    def instances(self) -> int:
        """How many different instances there are."""
        return len(self._instances)

    def observed(self, usual: Pauses) -> Observed:
        """What is known now, in the light of what is usual for the sender."""
        within, between = max(usual.within, self.pauses.within), max(usual.between, self.pauses.between)
        lost = self.lost and not usual.aborts
        return Observed(
            instances=self.instances,
            last_event=self.last_event,
            alive_until=self.alive_until,
            usual_pause=within if self._open else between,
            open=self.open,
            released=self._carried and not self._open and not lost,
            lost=lost,
            interrupted=self.interrupted and not self._carried,
            moved_on=self.moved_on,
            slices=self.continuity.verdict,
            announced=bool(self._acquired) and self._announced == dict(self._acquired),
            archive=self.asked.count,
            confirmed=self.asked.arrivals == self.arrivals and not self.asked.pending,
            whole_images=bool(self._instances) and self._xrays == len(self._instances),
            multi_frame=bool(self._instances) and self._multi_frame == len(self._instances),
        )
