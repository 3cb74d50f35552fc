"""What happens to a series after it was received, from top to bottom: assemble, infer, encode, deliver.

Each stage reads what the one before it left in the spool, and says which jobs come next. Every stage may run twice and
then leaves the same.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import structlog

from engines.package import ModelPackage
from engines.types import Findings, Image
from service.deliver.scu import send, sendable
from service.errors import ConfigurationError, Quarantined, Rejected
from service.handover import load_findings, load_item, save_findings, save_item
from service.ledger.ledger import ASSEMBLE, DELIVER, ENCODE, INFER, Job, Ledger, NextJob, ResultRecord
from service.results.encode import encode
from service.routing.models import route
from service.series.assembly import LeftOut, NoVolume, assemble
from service.settings import Settings
from service.spool import Spool

log = structlog.get_logger()


class Engines(Protocol):
    """What the pipeline needs of the engine layer."""

    def run(self, name: str, image: Image) -> Findings:
        """Run a model, by name, on an image."""


@dataclass(frozen=True)
class Outcome:
    """What a stage has come to: a note for the operator, the jobs that follow, the results so far."""

    note: str
    next_jobs: tuple[NextJob, ...] = ()
    results: tuple[ResultRecord, ...] = ()


Stage = Callable[[Job], Outcome]


class Pipeline:
    """The stages of one node."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        ledger: Ledger,
        packages: Mapping[str, ModelPackage],
        engines: Engines,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._ledger = ledger
        self._packages = packages
        self._engines = engines

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in order."""
        return {ASSEMBLE: self.assemble, INFER: self.infer, ENCODE: self.encode, DELIVER: self.deliver}

    def assemble(self, job: Job) -> Outcome:
        """Files to items; what cannot be used goes to quarantine; each item goes to the models that want it."""
        series = job.series.key
        try:
            assembly = assemble(self._spool.instances(series))
        except NoVolume as error:
            raise Quarantined("; ".join([str(error), *self._leave_out(series, error.left_out)])) from None
        notes: list[str] = []
        next_jobs: list[NextJob] = []
        for item in assembly.items:
            save_item(self._spool.work(series, item.key), item)
            models, reasons = route(item.facts, self._packages, job.series.sender, self._settings.routing)
            next_jobs += [NextJob(INFER, item.key, model) for model in models]
            if not models:
                notes.append("no model wants it: " + "; ".join(f"{name}: {why}" for name, why in reasons.items()))
        notes += self._leave_out(series, assembly.left_out)
        return Outcome("; ".join(dict.fromkeys(notes)), tuple(next_jobs))

    def infer(self, job: Job) -> Outcome:
        """Item and model to findings."""
        item = load_item(self._spool.work(job.series.key, job.item), self._spool.instance_folder(job.series.key))
        findings = self._engines.run(job.model, item.image)
        findings = replace(findings, notes=item.notes + findings.notes)
        save_findings(self._spool.work(job.series.key, job.item, job.model), findings)
        engine = findings.engine
        note = f"{engine.runtime}, {engine.precision}, {engine.device}"
        return Outcome(note, (NextJob(ENCODE, job.item, job.model),))

    def encode(self, job: Job) -> Outcome:
        """Findings to result objects, checked against the source series."""
        series = job.series.key
        item = load_item(self._spool.work(series, job.item), self._spool.instance_folder(series))
        findings = load_findings(self._spool.work(series, job.item, job.model))
        objects = encode(findings, item.image, item.headers(), self._spool.results(series, job.item, job.model))
        records = tuple(
            ResultRecord(series, job.item, job.model, result, status="encoded", archive="") for result in objects
        )
        return Outcome(", ".join(result.kind for result in objects), (NextJob(DELIVER, job.item, job.model),), records)

    def deliver(self, job: Job) -> Outcome:
        """Result objects to the archive of the sender."""
        destination = self._settings.destination_for(job.series.sender)
        if destination is None:
            raise ConfigurationError(
                f"no archive is configured for the sender {job.series.sender}; "
                f"add [senders.{job.series.sender}] with an archive, restart, then `wetread jobs retry {job.id}`"
            )
        records = [
            record
            for record in self._ledger.results(job.series.key)
            if (record.item, record.model, record.status) == (job.item, job.model, "encoded")
        ]
        files = [sendable(record.result.path) for record in records]
        refusals = {answer.refusal for answer in send(destination, self._settings.node.ae_title, files)} - {""}
        if refusals:
            raise Rejected("; ".join(sorted(refusals)))
        sent = tuple(replace(record, status="sent", archive=destination.name) for record in records)
        return Outcome(f"{len(sent)} objects sent to {destination.name}", results=sent)

    def _leave_out(self, series: str, files: Sequence[LeftOut]) -> list[str]:
        """Quarantine the faulty ones; give a note for each reason."""
        for file in files:
            if file.faulty:
                self._spool.quarantine(series, file.file, file.reason)
        notes = []
        for (reason, faulty), count in Counter((file.reason, file.faulty) for file in files).items():
            event = "instance.quarantined" if faulty else "instance.left_out"
            notes.append(f"{count} instances {'in quarantine' if faulty else 'left out'}: {reason}")
            log.warning(event, series=series, instances=count, reason=reason)
        return notes
