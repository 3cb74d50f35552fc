"""The threads of a node that work: which stages each takes, and on whose series."""

from collections.abc import Iterator

from service.ledger.jobs import Whose
from service.ledger.ledger import Ledger
from service.ledger.records import ASSEMBLE, COMMIT, DELIVER, ENCODE, INFER
from service.operate.metrics import Metrics
from service.pipeline import Pipeline
from service.retry import RetryPolicy
from service.roles import Role
from service.settings import Settings
from service.worker import Worker

PREPARING, DELIVERING, CONFIRMING = (ASSEMBLE, ENCODE), (DELIVER,), (COMMIT,)
"""Which stages share a thread, beside the inference, and what is encoded at the same time as something else: an archive
that is slow holds up no inference, and the other way round; and one that is slow to commit, neither a delivery nor what
another one commits."""


def whose_results(settings: Settings) -> Iterator[Whose]:
    """On whose series each thread that delivers works: some for each archive, so that one that is slow holds up no
    other; and one for senders without an archive, whose jobs end there.
    """
    for name, archive in settings.archives.items():
        if senders := settings.senders_of(name):
            yield from [Whose(senders)] * archive.parallel
    yield Whose(tuple(settings.senders), only=False)


def make_workers(
    settings: Settings, role: Role, pipeline: Pipeline, ledger: Ledger, metrics: Metrics
) -> Iterator[Worker]:
    """The workers of a node of this role, to be started."""
    retry = RetryPolicy.of(settings.retry)
    lanes: list[tuple[str, ...]] = []
    if role.works:
        lanes = [PREPARING, *[(ENCODE,)] * (settings.node.encoders - 1), *[(INFER,)] * settings.engines.parallel]
    for lane in lanes:
        stages = {stage: pipeline.stages[stage] for stage in lane}
        yield Worker(ledger, stages, retry, metrics)
    if role.delivers:
        whoses = list(whose_results(settings))
        for lane, each in ((DELIVERING, whoses), (CONFIRMING, dict.fromkeys(whoses))):
            stages = {stage: pipeline.stages[stage] for stage in lane}
            for whose in each:
                yield Worker(ledger, stages, retry, metrics, whose=whose)
    if settings.expects_urgent and role.works:  # so that no urgent image waits for routine ones
        infer = {INFER: pipeline.infer}
        yield Worker(ledger, infer, retry, metrics, only_urgent=True)
