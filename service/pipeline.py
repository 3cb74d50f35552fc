"""What happens to a series after it was received, from top to bottom: assemble, infer, encode, deliver, commit.

Each stage reads what the one before it left in the spool, and says which jobs come next. Every stage may run twice and
then leaves the same.
"""

from collections import Counter
from collections.abc import Callable, Collection, Container, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Lock
from types import MappingProxyType
from typing import Protocol

import structlog

from engines.packages.package import ModelPackage
from engines.types import Findings, Image, Volume
from service.deliver.capabilities import Capabilities
from service.deliver.confirmation import Confirmation
from service.deliver.scu import Answer, sendable
from service.deliver.sender import Senders
from service.encoding import Encoding, encode_files
from service.errors import ConfigurationError, Quarantined, Rejected
from service.handover import (
    FINDINGS,
    drop_items,
    drop_slabs,
    found_of,
    items_in,
    load_findings,
    load_item,
    save_findings,
    save_item,
    save_state,
    state_of,
)
from service.ledger.ledger import Ledger
from service.ledger.records import (
    ASSEMBLE,
    CANCELLED,
    COMMIT,
    DELIVER,
    DONE,
    ENCODE,
    ENCODED,
    INFER,
    SENT,
    STAT,
    Job,
    NextJob,
    ResultRecord,
)
from service.results.analysis import Analysis
from service.results.predecessors import version_of
from service.results.storage import Storage, storage
from service.routing.models import route
from service.routing.triage import is_urgent
from service.series.assembly import Assembly, Item, assemble_from
from service.series.reader import LeftOut
from service.series.streaming import Streaming
from service.settings import Settings
from service.spool import Spool, key_of
from service.superseding import take_over
from service.types import Destination, ResultObject
from service.versions import revision

log = structlog.get_logger()


class Engines(Protocol):
    """What the pipeline needs of the engine layer."""

    @property
    def packages(self) -> Mapping[str, ModelPackage]:
        """The models that are served just now, by name."""
        ...

    def run(self, model: str, image: Image, *, probabilities: bool = False, urgent: bool = False) -> Findings:
        """Run a model, by name, on an image; keep the probabilities of its segments where they are asked for."""


class NoEngines:
    """Of a node that runs no models (`service.roles`)."""

    packages: Mapping[str, ModelPackage] = MappingProxyType({})

    def run(self, model: str, image: Image, *, probabilities: bool = False, urgent: bool = False) -> Findings:
        """Never called: such a node takes no such job."""
        raise ConfigurationError(f"this node runs no models, not {model} either; start one with --role work")


@dataclass(frozen=True)
class Outcome:
    """What a stage has come to: a note for the operator, the jobs that follow, the results so far.

    ``urgent`` says that the work on the study comes before all other from now on.
    """

    note: str
    next_jobs: tuple[NextJob, ...] = ()
    results: tuple[ResultRecord, ...] = ()
    urgent: bool = False


Stage = Callable[[Job], Outcome]
Encode = Callable[[Encoding], tuple[ResultObject, ...] | None]

CHANGED = "the series has changed since; it is analysed again"


class Pipeline:
    """The stages of one node."""

    def __init__(
        self,
        settings: Settings,
        spool: Spool,
        ledger: Ledger,
        streaming: Streaming,
        engines: Engines,
        capabilities: Capabilities,
        senders: Senders,
        encode: Encode = encode_files,
    ) -> None:
        self._settings = settings
        self._spool = spool
        self._ledger = ledger
        self._streaming = streaming
        self._engines = engines
        self._capabilities = capabilities
        self._senders = senders
        self._encode = encode
        self._confirmation = Confirmation(settings, ledger)
        self._making = [Lock() for _ in range(16)]

    @property
    def stages(self) -> dict[str, Stage]:
        """The stages by name, in order."""
        return {
            ASSEMBLE: self.assemble,
            INFER: self.infer,
            ENCODE: self.encode,
            DELIVER: self.deliver,
            COMMIT: self.commit,
        }

    def assemble(self, job: Job) -> Outcome:
        """Files to items; what cannot be used goes to quarantine; each new item goes to the models that want it."""
        series = job.series.key
        state = self._state(series)
        assembly = self._assembled(series)
        notes, faults, next_jobs = list[str](), list(assembly.refused), list[NextJob]()
        inferred = self._inferred(series, {item.key for item in assembly.items})
        for item in assembly.items:
            folder = self._spool.work(series, item.key)
            save_item(folder, item)
            models, refusals = route(item.facts, self._engines.packages, job.series.sender, self._settings.routing)
            next_jobs += [
                NextJob(INFER, item.key, model)
                for model in models
                if (item.key, model) not in inferred or not self._found_of(folder / model, item)
            ]
            if not models and any(why.faulty for why in refusals.values()):
                faults += [f"{name}: {why}" for name, why in refusals.items() if why.faulty]
            elif not models:
                notes.append("no model wants it: " + "; ".join(f"{name}: {why}" for name, why in refusals.items()))
        self._leave_only(series, assembly, state)
        note = "; ".join(dict.fromkeys([*faults, *notes, *self._leave_out(series, assembly.left_out)]))
        if faults and not next_jobs and not inferred:
            raise Quarantined(note)
        return Outcome(note, tuple(next_jobs))

    def _assembled(self, series: str) -> Assembly:
        """The images of a series, as far as it has come, with what a reader must know of how far that is."""
        self._spool.fetch(series)
        assembly = assemble_from(self._streaming.take(series), self._spool.instances(series))
        note = self._partial(series)
        if not note:
            return assembly
        partial = tuple(
            replace(
                item,
                facts=replace(item.facts, partial=True),
                notes=(*item.notes, note),
                version=key_of(item.version, note),
            )
            for item in assembly.items
        )
        return replace(assembly, items=partial)

    def _partial(self, series: str) -> str:
        """What a reader must know of how far a series has come; empty where that is all."""
        decisions = self._ledger.decisions(series)
        if not decisions or not decisions[-1].partial:
            return ""
        return "The series may be incomplete: " + "; ".join(decisions[-1].against) + "."

    def _state(self, series: str) -> str:
        """What images are made of, where each node makes them for itself; else empty."""
        state = self._spool.state(series)
        return state and key_of(state, self._partial(series))

    def _found_of(self, folder: Path, item: Item) -> bool:
        """Whether findings about an item as it is now are there."""
        self._spool.fetch_file(folder / FINDINGS)
        return found_of(folder, item)

    def _leave_only(self, series: str, assembly: Assembly, state: str) -> None:
        """Remove what earlier assemblies of a series have left here."""
        folder = self._spool.work(series)
        drop_items(folder, {item.key for item in assembly.items})
        drop_slabs(folder, [item.image.array for item in assembly.items])
        save_state(folder, state)

    def _inferred(self, series: str, items: Container[str]) -> set[tuple[str, str]]:
        """Items and models of which an inference was done.

        Work on items that are no more, because a late slice changed how the series splits, is cancelled.
        """
        jobs = [job for job in self._ledger.list_jobs(series_key=series) if job.item]
        for job in jobs:
            if job.item not in items and job.state not in (DONE, CANCELLED):
                self._ledger.operator_cancel(job.id)
        return {(job.item, job.model) for job in jobs if (job.stage, job.state) == (INFER, DONE)}

    def _item(self, job: Job) -> Item:
        """What assembly has left for a job; made again where this machine has lost it, or never had it."""
        series = job.series.key
        folder, instances = self._spool.work(series, job.item), self._spool.instance_folder(series)
        with self._making[hash(series) % len(self._making)]:  # two jobs on a series do not make it twice
            state = self._state(series)
            with suppress(FileNotFoundError):
                if state_of(folder.parent) == state:
                    self._spool.fetch(series)
                    return load_item(folder, instances)
            assembly = self._assembled(series)
            for item in assembly.items:
                save_item(self._spool.work(series, item.key), item)
            if state:  # what was made of other instances may bear the same names
                self._leave_only(series, assembly, state)
        try:
            return load_item(folder, instances)
        except FileNotFoundError:
            raise Quarantined(f"the series no longer holds {job.item}; cancel this job") from None

    def infer(self, job: Job) -> Outcome:
        """Item and model to findings."""
        item = self._item(job)
        package = self._engines.packages.get(job.model)
        if package is None:
            raise ConfigurationError(
                f"the model {job.model} is served no more; add it again and `wetread engines reload`, then "
                f"`wetread jobs retry {job.id}`, or cancel the job"
            )
        version = key_of(item.version, package.identity.digest)
        began = self._ledger.analysis_began(job, version)
        fractional = self._settings.profile_for(job.series.sender).segmentation == "fractional"
        urgent = job.priority <= STAT
        findings = self._engines.run(job.model, item.image, probabilities=fractional, urgent=urgent)
        findings = replace(findings, analysed_at=began, notes=item.notes + findings.notes)
        folder = self._spool.work(job.series.key, job.item, job.model)
        save_findings(folder, findings, item)
        self._spool.publish_folder(folder)
        engine = findings.engine
        note = f"{engine.runtime}, {engine.precision}, {engine.device}"
        triage = self._settings.routing.get(job.model)
        stat = triage is not None and is_urgent(findings, triage.stat)
        # not what was found: notes are logged
        note += f"; its study comes first from now on (routing.{job.model}.stat)" if stat else ""
        return Outcome(note, (NextJob(ENCODE, job.item, job.model),), urgent=stat)

    def encode(self, job: Job) -> Outcome:
        """Findings to result objects, checked against the source series; they supersede what was said before."""
        series = job.series.key
        item = self._item(job)
        folder = self._spool.work(series, job.item, job.model)
        self._spool.fetch_folder(folder)
        if not found_of(folder, item):
            return Outcome(CHANGED)
        findings = load_findings(folder)
        asked_for = self._settings.profile_for(job.series.sender)
        profile, replaced = self._capabilities.fit(asked_for, self._destination(job))
        if not profile.objects:
            why = "; ".join(replaced)
            raise Rejected(f"nothing can be delivered: {why}; correct the archive or its results in the settings")
        analysis = Analysis(findings, item.image, item.headers(1), profile, revision(item.files))
        earlier = take_over(self._ledger, job, analysis.series_uids, self._gone(series, item))
        places = (self._spool.work(series, job.item), self._spool.instance_folder(series), folder)
        results = self._spool.results(series, job.item, job.model)
        objects = self._encode(Encoding(*places, profile, earlier.predecessors, results))
        if objects is None:
            return Outcome(CHANGED)
        self._spool.publish_files(*(result.path for result in objects))
        records = [ResultRecord(series, job.item, job.model, result, ENCODED, archive="") for result in objects]
        note = ", ".join(dict.fromkeys(result.kind for result in objects))
        if earlier.predecessors:
            note += f", version {version_of(earlier.predecessors)}"
        note = "; ".join([note or f"nothing was found that {', '.join(profile.objects)} could show", *replaced])
        next_jobs = (NextJob(DELIVER, job.item, job.model),) if objects else ()
        return Outcome(note, next_jobs, (*records, *earlier.superseded))

    def _gone(self, series: str, item: Item) -> Callable[[str], bool]:
        """Tells of an item of the series whether it is no more, because its slices are in others, as in this one."""
        if not isinstance(item.image, Volume):
            return lambda key: False  # a radiograph is an image of its own
        items = items_in(self._spool.work(series))
        return lambda key: key not in items

    def _destination(self, job: Job) -> Destination:
        """The archive that gets the results of a job."""
        destination = self._settings.destination_for(job.series.sender)
        if destination is None:
            raise ConfigurationError(
                f"no archive is configured for the sender {job.series.sender}; "
                f"add [senders.{job.series.sender}] with an archive, restart, then `wetread jobs retry {job.id}`"
            )
        return destination

    def deliver(self, job: Job) -> Outcome:
        """Result objects to the archive of the sender; what it takes in no case is encoded again, in another form."""
        destination = self._destination(job)
        self._senders.require_open(destination.name)
        self._confirmation.await_turn(job)
        records = self._ledger.begin_sending(job, destination.name)
        if not records:
            return Outcome("nothing to send: a later version takes its place")
        records = [replace(record, result=self._spool.result_here(record.result)) for record in records]
        answers: dict[Path, Answer] = {}
        try:
            files = [sendable(record.result.path) for record in records]
            for answer in self._senders.send(destination.name, files):
                answers[answer.file.path] = answer
        finally:
            taken = {path for path, answer in answers.items() if not answer.refusal}
            self._ledger.not_sent(job, [record for record in records if record.result.path not in taken])
        if taken and self._senders.came_back(destination.name):
            self._ledger.archive_is_back(self._settings.senders_of(destination.name))
        sent = tuple(replace(record, status=SENT) for record in records if record.result.path in taken)
        refusals = "; ".join(sorted({answer.refusal for answer in answers.values()} - {""}))
        unsupported = {answer.file.storage for answer in answers.values() if answer.unsupported}
        if unsupported and self._has_another_form(job, destination, unsupported):
            note = f"{refusals}; encoded again in a form that it takes"
            return Outcome(note, (NextJob(ENCODE, job.item, job.model),), sent)
        if refusals:
            raise Rejected(refusals)
        asks = self._settings.archives[destination.name].commitment != "no"
        next_jobs = (NextJob(COMMIT, job.item, job.model),) if asks else ()
        return Outcome(f"{len(sent)} objects sent to {destination.name}", next_jobs, sent)

    def commit(self, job: Job) -> Outcome:
        """What was sent: does the archive have it? What it does not keep is sent again."""
        confirmed = self._confirmation.confirm(job)
        next_jobs = (NextJob(DELIVER, job.item, job.model),) if confirmed.again else ()
        return Outcome(confirmed.note, next_jobs)

    def _has_another_form(self, job: Job, destination: Destination, unsupported: Collection[Storage]) -> bool:
        """Whether results can be encoded without what an archive does not take."""
        profile, _ = self._capabilities.fit(self._settings.profile_for(job.series.sender), destination)
        return bool(profile.objects) and all(storage(kind, profile) not in unsupported for kind in profile.objects)

    def _leave_out(self, series: str, files: Sequence[LeftOut]) -> list[str]:
        """Quarantine the faulty ones; give a note for each reason."""
        for file in files:
            if file.faulty:
                self._spool.quarantine(series, file.file, file.reason)
        notes = []
        for (reason, faulty), count in Counter((file.reason, file.faulty) for file in files).items():
            event = "instance.quarantined" if faulty else "instance.left_out"
            instances = "1 instance" if count == 1 else f"{count} instances"
            notes.append(f"{instances} {'in quarantine' if faulty else 'left out'}: {reason}")
            log.warning(event, series=series, instances=count, reason=reason)
        return notes
