"""What speaks for a series being whole, what against, and what follows.

DICOM has no message that says that a series is complete. Each sign that it may be is worth points; with 100 the series
starts. Silence is worth the more, the shorter this sender's own pauses are (`service.series.rhythm`).
"""

from dataclasses import dataclass, field

from service.series.continuity import Verdict
from service.settings import SeriesSettings

ENOUGH = 100.0
"""Points with which a series is complete."""

WEIGHTS = {
    "whole image": 100.0,  # an X-ray: each image is a matter of its own
    "released": 50.0,  # every association that carried it was released by the sender
    "moved on": 40.0,  # after its last image, another series began in the same association
    "archive": 150.0,  # the archive's count equals ours
    "no gap": 20.0,  # three slices or more, positions and InstanceNumber without a gap
    "as announced": 30.0,  # as many as ImagesInAcquisition says
    "multi-frame": 50.0,  # an image that holds a whole stack
    "quiet": 100.0,  # times the silence, in units
}
"""What each piece of evidence is worth."""
FETCHED = "fetched"
"""Evidence of a series that this node has fetched, and not been sent: the archive's own list of its instances."""

PAUSES = 5.0
"""A unit of silence is so many times the sender's usual longest pause."""
OPEN_FLOOR_SECONDS = 10.0
"""The least unit while an association that carried the series is open and nothing at all comes in it."""


@dataclass(frozen=True)
class Evidence:
    """One thing that speaks for a series being whole: a key of `WEIGHTS`, its points, and words for an operator."""

    name: str
    points: float
    text: str


@dataclass(frozen=True)
class Decision:
    """Whether a series is complete, and what that rests on.

    Attributes
    ----------
    partial
        It starts although something speaks for more images to come.
    against
        What speaks against, in words for an operator.
    """

    complete: bool
    partial: bool
    evidence: tuple[Evidence, ...]
    against: tuple[str, ...] = ()

    @property
    def points(self) -> float:
        """The sum of the evidence."""
        return sum(one.points for one in self.evidence)

    def __str__(self) -> str:
        words = ", ".join(f"{one.text} +{one.points:.0f}" for one in self.evidence)
        return words + (f"; {'partial' if self.partial else 'against'}: {', '.join(self.against)}" * bool(self.against))


@dataclass(frozen=True)
class Observed:
    """What is known of a series that is being received. Times are seconds of one clock.

    Attributes
    ----------
    instances
        How many different ones have come.
    last_event
        When its last image came or, where that is later, when the last association that carried it ended.
    alive_until
        When the last image of any series came in an open association that carried this one.
    usual_pause
        The sender's usual longest pause in the state that the series is in, in seconds.
    open
        Whether an association that carried it is open.
    released
        Whether all associations that carried it were released by the sender.
    lost
        Whether an association that carried it was aborted, and no later one brought the series again.
    interrupted
        Whether the node itself has ended meanwhile, and nobody has brought more of it since: its sender may need a
        while to come back, so silence tells little.
    moved_on
        Whether another series began in the same association after the last image of this one.
    slices
        Whether its slices follow one another without a gap.
    announced
        ImagesInAcquisition (0020,1002), where all images agree that so many would come and so many have come.
    archive
        The archive's count, where it is known.
    confirmed
        Whether the archive was asked after the last image came.
    whole_images
        It holds nothing but X-rays.
    multi_frame
        It holds nothing but multi-frame images.
    """

    instances: int
    last_event: float
    alive_until: float = 0.0
    usual_pause: float = 0.0
    open: bool = False
    released: bool = False
    lost: bool = False
    interrupted: bool = False
    moved_on: bool = False
    slices: Verdict = field(default_factory=Verdict)
    announced: bool = False
    archive: int | None = None
    confirmed: bool = False
    whole_images: bool = False
    multi_frame: bool = False


def judge(observed: Observed, settings: SeriesSettings, now: float) -> Decision:
    """Weigh what is known of a series.

    What speaks against takes no points away: it makes the unit of silence as long as it may be, and a series that
    becomes complete all the same is partial. Where the archive has more than has come, points do not help; the series
    waits for the rest until the limit.
    """
    if observed.whole_images:
        return Decision(True, False, (_evidence("whole image", "X-ray, whole by itself"),))
    equal = observed.confirmed and observed.archive == observed.instances
    more = observed.archive is not None and observed.archive > observed.instances
    against = []
    if observed.slices.gap and not equal:  # what is missing here is missing at the source
        against.append(observed.slices.gap)
    if observed.lost and not equal:
        against.append("an association was lost and nothing came after it")
    if more:
        against.append(f"the archive has {observed.archive}")

    evidence = []
    if observed.released:
        evidence.append(_evidence("released", "released"))
    if observed.moved_on:
        evidence.append(_evidence("moved on", "another series began"))
    if equal:
        evidence.append(_evidence("archive", f"the archive has {observed.archive}"))
    if observed.slices.whole:
        evidence.append(_evidence("no gap", "no gap"))
    if observed.announced:
        evidence.append(_evidence("as announced", "as many as announced"))
    if observed.multi_frame:
        evidence.append(_evidence("multi-frame", "multi-frame"))
    silence = max(0.0, now - observed.last_event)
    points = WEIGHTS["quiet"] * _units(silence, observed, settings, bool(against))
    evidence.append(Evidence("quiet", points, f"quiet {silence:.1f} s"))

    limit = settings.silent_seconds if observed.open else settings.limit_seconds
    enough = sum(one.points for one in evidence) >= ENOUGH - 1e-6
    complete = silence >= limit or (enough and not more)
    return Decision(complete, complete and bool(against), tuple(evidence), tuple(against))


def _evidence(name: str, text: str) -> Evidence:
    return Evidence(name, WEIGHTS[name], text)


def _units(silence: float, observed: Observed, settings: SeriesSettings, against: bool) -> float:
    """Silence in units, each of which is evidence enough by itself."""
    ceiling = settings.silent_seconds if observed.open else settings.quiet_ceiling_seconds
    if against or observed.interrupted:
        return silence / ceiling
    floor = max(settings.quiet_seconds, 1e-3)
    unit = max(floor, min(PAUSES * observed.usual_pause, ceiling))
    if not observed.open or observed.moved_on:
        return silence / unit
    alive = min(silence, max(0.0, observed.alive_until - observed.last_event))
    return alive / unit + (silence - alive) / max(unit, OPEN_FLOOR_SECONDS)
