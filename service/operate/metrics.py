"""What the node counts and measures, for Prometheus. No patient data: labels are stages, states and outcomes only."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from engines.serving.messages import EngineStatus

STAGE_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
"""Upper bounds in seconds: from the encoding of one X-ray to the inference of a long CT on a slow CPU."""

JobCounts = Callable[[], Mapping[tuple[str, str], int]]
"""Gives the number of jobs by (stage, state)."""

CertificateEnds = Callable[[], Mapping[tuple[str, str], float]]
"""Gives when each certificate ends, in seconds since the epoch, by (key of the setting, names)."""

EngineStatuses = Callable[[], Sequence[EngineStatus]]
"""Tells how each model is served."""


@dataclass(frozen=True)
class Metrics:
    """The node's metrics, on a registry of their own.

    Attributes
    ----------
    registry
        What ``/metrics`` shows.
    instances
        ``wetread_instances_total{outcome}``: instances received, by what became of them.
    inferences_lost
        ``wetread_inferences_lost_total``: jobs whose inference hung or died with its process; each is tried again.
    stage_seconds
        ``wetread_stage_seconds{stage}``: duration of each finished run of a stage. The count of ``deliver`` is the
        number of deliveries.
    """

    registry: CollectorRegistry
    instances: Counter
    inferences_lost: Counter
    stage_seconds: Histogram

    @classmethod
    def on_new_registry(cls) -> Self:
        """Make the metrics, all zero."""
        registry = CollectorRegistry()
        return cls(
            registry=registry,
            instances=Counter("wetread_instances", "Instances received, by outcome.", ["outcome"], registry=registry),
            inferences_lost=Counter("wetread_inferences_lost", "Jobs whose inference hung or died.", registry=registry),
            stage_seconds=Histogram(
                "wetread_stage_seconds",
                "Duration of the finished runs of each stage.",
                ["stage"],
                buckets=STAGE_BUCKETS,
                registry=registry,
            ),
        )

    def count_instance(self, outcome: str) -> None:
        """Count one received instance."""
        self.instances.labels(outcome).inc()

    def watch_jobs(self, counts: JobCounts) -> None:
        """Show ``wetread_jobs{stage,state}``, read from ``counts`` at each scrape; state ``dead`` is a dead letter."""
        self.registry.register(_JobsCollector(counts))

    def watch_engines(self, statuses: EngineStatuses) -> None:
        """Show ``wetread_engine_verified{model,runtime,precision,device}``, read from ``statuses`` at each scrape."""
        self.registry.register(_EnginesCollector(statuses))

    def watch_certificates(self, ends: CertificateEnds) -> None:
        """Show ``wetread_certificate_expiry_timestamp_seconds{key,certificate}``, read at each scrape."""
        self.registry.register(_CertificatesCollector(ends))


class _CertificatesCollector(Collector):
    def __init__(self, ends: CertificateEnds) -> None:
        self._ends = ends

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the certificates."""
        family = GaugeMetricFamily(
            "wetread_certificate_expiry_timestamp_seconds",
            "When a certificate of [tls] or [archives.NAME.tls] ends, in seconds since the epoch.",
            labels=("key", "certificate"),
        )
        for labels, end in sorted(self._ends().items()):
            family.add_metric(labels, end)
        yield family


class _EnginesCollector(Collector):
    def __init__(self, statuses: EngineStatuses) -> None:
        self._statuses = statuses

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Ask how each model is served."""
        family = GaugeMetricFamily(
            "wetread_engine_verified",
            "Whether the engine that serves a model reproduced its golden outputs.",
            labels=("model", "runtime", "precision", "device"),
        )
        for status in self._statuses():
            engine = status.engine
            family.add_metric((status.model, engine.runtime, engine.precision, engine.device), status.verified)
        yield family


class _JobsCollector(Collector):
    def __init__(self, counts: JobCounts) -> None:
        self._counts = counts

    def describe(self) -> Iterator[GaugeMetricFamily]:
        """Name the metric without reading it, so that registering asks the ledger nothing."""
        yield self._family()

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Read the ledger."""
        family = self._family()
        for (stage, state), count in sorted(self._counts().items()):
            family.add_metric((stage, state), count)
        yield family

    @staticmethod
    def _family() -> GaugeMetricFamily:
        return GaugeMetricFamily("wetread_jobs", "Jobs in the ledger, by stage and state.", labels=("stage", "state"))
