"""What the capacity model starts from: `benchmarks/capacity.toml`, or a file of one's own in the same form."""

import math
import random
import tomllib
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Stage = Literal["receive", "assemble", "infer", "encode", "deliver"]
POOL: dict[Stage, str] = {
    "receive": "receive", "assemble": "prepare", "infer": "infer", "encode": "prepare", "deliver": "deliver",
}  # fmt: skip
"""Which slots a stage takes. Assembling and encoding share those that prepare, as they share a thread of a node."""
HOURS = 24


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Cost(_Part):
    """Seconds of one slot: ``fixed + per_slice * slices``, times a lognormal factor of median 1."""

    fixed: float = 0.0
    per_slice: float = 0.0
    spread: float = 0.0
    """Standard deviation of the factor's logarithm."""

    def median(self, slices: float) -> float:
        return self.fixed + self.per_slice * slices

    def mean(self, slices: float) -> float:
        return self.median(slices) * math.exp(self.spread**2 / 2)

    def draw(self, slices: int, chance: random.Random) -> float:
        return self.median(slices) * (chance.lognormvariate(0.0, self.spread) if self.spread else 1.0)


class Quantiles(_Part):
    """A lognormal distribution by its median and the value that one in twenty exceeds."""

    median: float
    p95: float

    @property
    def sigma(self) -> float:
        return math.log(self.p95 / self.median) / 1.6449

    @property
    def mean(self) -> float:
        return self.median * math.exp(self.sigma**2 / 2)

    def draw(self, chance: random.Random) -> float:
        return chance.lognormvariate(math.log(self.median), self.sigma)


class Kind(_Part):
    """A kind of study: how much of it there is, and what it costs."""

    share: float
    """Of all studies."""
    items: float
    """Images (volumes, X-rays) of a study that models want; on average, at least one."""
    slices: Quantiles
    """Of one of them; an X-ray has one."""
    slice_mb: float
    slices_per_second: float
    """How fast a sender sends it."""
    models: int
    objects: int
    """Results that are sent, of all models."""
    result_mb: float
    costs: dict[Stage, Cost]
    """Of all models together."""


class MachineGroup(_Part):
    """Machines of one sort: what each brings, and how often it is away."""

    slots: dict[Literal["receive", "prepare", "infer"], int]
    fails_every_days: float = 0.0
    repair_minutes: float = 30.0


class Event(_Part):
    """Something that happens on the day: ``count`` machines of a group, or of the archives, are away for a while."""

    what: str
    """A machine group, or ``archive``."""
    at_hour: float
    hours: float
    count: int = 1
    planned: bool = False
    """Drained beforehand: what runs there ends before the machine does."""


class Scenario(_Part):
    """So many studies a day, and the machines for them."""

    title: str
    studies_per_day: float
    machines: dict[str, int]
    archives: int = 1
    events: tuple[Event, ...] = ()


class Limits(_Part):
    """What the parts that a cell shares can do, and how much of it is planned with."""

    ledger_transitions: float
    """A second, durable, by all workers together."""
    transitions_per_job: float
    spool_passes: float
    """How often the bytes of an image are written to the spool or read from it."""
    spool_mb: float
    """A second, written and read together."""
    spool_syncs: float
    """A second."""
    archive_objects: float
    """A second, that one archive takes over one association."""
    planned: Annotated[float, Field(gt=0, le=1)]


class Retry(_Part):
    """As ``[retry]`` and the lease of the ledger."""

    first_seconds: float
    longest_seconds: float
    lease_seconds: float


class Inputs(_Part):
    """The whole file."""

    hours: Annotated[tuple[float, ...], Field(min_length=HOURS, max_length=HOURS)]
    """How many studies come in each hour of a day, in any unit."""
    urgent_share: float
    completeness: Quantiles
    """Seconds from the last image to the start (docs/completeness.md)."""
    associations_per_archive: int
    kinds: dict[str, Kind]
    machines: dict[str, MachineGroup]
    limits: Limits
    retry: Retry
    scenarios: dict[str, Scenario]

    @property
    def peak(self) -> float:
        """Studies of the busiest hour over those of an average one."""
        return max(self.hours) * HOURS / sum(self.hours)


def load(path: Path) -> Inputs:
    """Read the file; what is wrong is said by key."""
    return Inputs(**tomllib.loads(path.read_text(encoding="utf-8")))
