"""Did anything get lost, doubled or changed? Looked at from outside, without a line of the node's code.

Four witnesses are compared: what senders wrote down as acknowledged, the files of the spool, the ledger by plain SQL,
and the archive by its REST interface.

*Equal* means: the same elements with the same values, in the same sequences, pixels included, but for `MOMENTS`. These
say when the analysis began, which a run cannot have from another; in each object all of them must be the moment that
the ledger has for that analysis. UIDs follow from the images, the model and the form, and are compared.
"""

import hashlib
import json
import sqlite3
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pydicom
from pydicom import Dataset
from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset

from tests.faults.campaign.ledger_file import rows

MOMENTS = {
    "ContentDate",
    "ContentTime",
    "InstanceCreationDate",
    "InstanceCreationTime",
    "SeriesDate",
    "SeriesTime",
    "ContributionDateTime",
}
"""Elements that tell when the analysis began (PS3.3 C.12.1, C.7.3.1)."""


SINGLE = ("SEG", "SR")
"""Kinds of which an analysis has one object; of the others the run without faults tells how many."""


@dataclass(frozen=True)
class Finding:
    """Something that must not be.

    Attributes
    ----------
    kind
        ``lost``, ``doubled``, ``differing``: of images or results. ``held``: work that has not ended, or has ended
        without a result. ``unsound``: a witness contradicts another, or itself.
    """

    kind: str
    text: str


@dataclass
class Witnesses:
    """Where to look.

    Attributes
    ----------
    sent
        The senders' logs: a JSON line with ``instance``, ``series`` and ``sha256`` of the data set for each image that
        was acknowledged.
    spool
        The folder.
    ledger
        Path of an SQLite file, or URL of a PostgreSQL database.
    archive
        Base URL of Orthanc's REST interface.
    """

    sent: list[Path]
    spool: Path
    ledger: str
    archive: str


@dataclass
class Audited:
    """What was found.

    Attributes
    ----------
    acknowledged
        Images that the senders were told are safe.
    results
        Objects in the archive.
    statuses
        How many results are ``committed``, ``verified`` ...
    objects
        Of each object in the archive, by SOP Instance UID: what it is equal to.
    """

    acknowledged: int = 0
    results: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    objects: dict[str, str] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def count(self, kind: str) -> int:
        """How many findings there are of a kind."""
        return sum(finding.kind == kind for finding in self.findings)

    def as_json(self) -> dict[str, object]:
        """For the line of a run."""
        kinds = {kind: self.count(kind) for kind in ("lost", "doubled", "differing", "held", "unsound")}
        found = [asdict(finding) for finding in self.findings]
        return {"acknowledged": self.acknowledged, "results": self.results, **kinds, "statuses": self.statuses} | (
            {"findings": found} if found else {}
        )


def audit(witnesses: Witnesses, reference: Mapping[str, Mapping[str, str]] | None = None) -> Audited:
    """Compare the witnesses, and what is in the archive with a run without faults.

    Parameters
    ----------
    reference
        By Series Instance UID of the images: what is to be in the archive, as `Audited.objects` tells it. None: this is
        the run without faults.
    """
    found = Audited()
    sent = acknowledged_in(witnesses.sent)
    found.acknowledged = len(sent)
    found.findings += images_found(sent, witnesses.spool)
    held = objects_in(witnesses.archive)
    found.results = len(held)
    results = rows(witnesses.ledger, "SELECT * FROM results")
    found.statuses = dict(Counter(row["status"] for row in results))
    began = began_by(witnesses.ledger)
    found.findings += [*sound(witnesses.ledger), *ended(witnesses.ledger), *known(results, held, witnesses.spool)]
    for uid, data_set in held.items():
        moments, found.objects[uid] = told_apart(data_set)
        if not moments <= began:
            found.findings.append(Finding("differing", f"{uid}: bears {sorted(moments - began)}, no analysis's moment"))
    if reference is not None:
        due = {
            uid: digest
            for series in {line["series"] for line in sent.values()}
            for uid, digest in reference[series].items()
        }
        found.findings += compared(due, found.objects)
    return found


# ---- images ------------------------------------------------------------------------------------------------------


def acknowledged_in(logs: Iterable[Path]) -> dict[str, dict[str, str]]:
    """The lines of senders' logs by SOP Instance UID."""
    lines = [json.loads(line) for log in logs if log.exists() for line in log.read_text().splitlines()]
    return {line["instance"]: line for line in lines}


def images_found(sent: Mapping[str, Mapping[str, str]], spool: Path) -> Iterator[Finding]:
    """Each acknowledged image lies in the spool once, with the bytes that were sent, and no other does."""
    there: dict[str, list[str]] = defaultdict(list)
    for path in sorted((spool / "series").glob("*/*")):
        if path.is_file():
            uid, digest = image_in(path)
            there[uid].append(digest)
    quarantined = [image_in(path)[0] for path in sorted((spool / "quarantine").glob("*/instance.dcm"))]
    for uid in quarantined:
        yield Finding("held", f"{uid}: in quarantine")
    for uid, line in sent.items():
        if uid not in there:
            yield Finding("lost", f"image {uid}: acknowledged, and not in the spool")
        elif line["sha256"] not in there[uid]:
            yield Finding("differing", f"image {uid}: not what was sent")
    for uid, digests in there.items():
        if len(digests) > 1:
            yield Finding("doubled", f"image {uid}: lies there {len(digests)} times")
        if uid not in sent:
            yield Finding("unsound", f"image {uid}: never sent")


def image_in(path: Path) -> tuple[str, str]:
    """SOP Instance UID of a file's data set, and its digest (PS3.10 7.1)."""
    content = path.read_bytes()
    if content[128:138] != b"DICM\x02\x00\x00\x00UL":
        return f"{path.name}: no DICOM file", ""
    data_set = content[144 + int.from_bytes(content[140:144], "little") :]
    uid = str(pydicom.dcmread(BytesIO(content), specific_tags=["SOPInstanceUID"]).SOPInstanceUID)
    return uid, hashlib.sha256(data_set).hexdigest()


# ---- results -----------------------------------------------------------------------------------------------------


def objects_in(archive: str) -> dict[str, Dataset]:
    """All that Orthanc holds, by SOP Instance UID."""
    # a connection that is kept may be closed by the server just when the next request comes
    alone = httpx.Limits(max_keepalive_connections=0)
    with httpx.Client(base_url=archive, trust_env=False, timeout=60, limits=alone) as rest:
        names = rest.get("/instances").raise_for_status().json()
        files = [rest.get(f"/instances/{name}/file").raise_for_status().content for name in names]
    data_sets = [pydicom.dcmread(BytesIO(file)) for file in files]
    return {str(data_set.SOPInstanceUID): data_set for data_set in data_sets}


def told_apart(data_set: Dataset) -> tuple[set[str], str]:
    """The moments that an object bears, and the digest of all the rest of it."""
    moments: set[str] = set()
    rest = _without_moments(data_set, moments)
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, rest)
    return moments, hashlib.sha256(encoded.getvalue()).hexdigest()


def _without_moments(data_set: Dataset, moments: set[str]) -> Dataset:
    """A copy, every sequence of which is written the same way however it came."""
    rest = Dataset()
    values = {element.keyword: str(element.value) for element in data_set if element.keyword in MOMENTS}
    for prefix in ("Content", "InstanceCreation", "Series"):
        if f"{prefix}Date" in values:
            moments.add(values[f"{prefix}Date"] + values.get(f"{prefix}Time", ""))
    if "ContributionDateTime" in values:
        moments.add(values["ContributionDateTime"])
    for element in data_set:
        if element.keyword in MOMENTS:
            continue
        if element.VR == "SQ":
            items = [_without_moments(item, moments) for item in element.value]
            rest.add_new(element.tag, "SQ", items)
        else:
            rest.add(element)
    return rest


def began_by(ledger: str) -> set[str]:
    """The moments at which analyses began, as DICOM writes them (DT)."""
    analyses = rows(ledger, "SELECT began_at FROM analyses")
    return {_written(datetime.fromtimestamp(row["began_at"], UTC)) for row in analyses}


def _written(moment: datetime) -> str:
    return moment.strftime("%Y%m%d%H%M%S.%f") if moment.microsecond else moment.strftime("%Y%m%d%H%M%S")


def compared(due: Mapping[str, str], objects: Mapping[str, str]) -> Iterator[Finding]:
    """What is in the archive with what would be there without faults."""
    for uid, digest in due.items():
        if uid not in objects:
            yield Finding("lost", f"result {uid}: not in the archive")
        elif objects[uid] != digest:
            yield Finding("differing", f"result {uid}: not what a run without faults makes")
    for uid in objects.keys() - due.keys():
        yield Finding("doubled", f"result {uid}: a run without faults does not make it")


# ---- the ledger --------------------------------------------------------------------------------------------------


def sound(ledger: str) -> Iterator[Finding]:
    """The database is whole."""
    if not ledger.startswith("postgresql://"):
        with closing(sqlite3.connect(ledger)) as connection:
            for (line,) in connection.execute("PRAGMA integrity_check"):
                if line != "ok":
                    yield Finding("unsound", f"ledger: {line}")
    for table in ("jobs", "results", "decisions", "analyses"):
        [row] = rows(ledger, f"SELECT count(*) AS n FROM {table} WHERE series NOT IN (SELECT key FROM series)")
        if row["n"]:
            yield Finding("unsound", f"ledger: {row['n']} rows of {table} without a series")


def ended(ledger: str) -> Iterator[Finding]:
    """Every job has been done, and every series has gone through all stages."""
    jobs = rows(ledger, "SELECT * FROM jobs")
    stages: dict[str, set[str]] = {row["key"]: set() for row in rows(ledger, "SELECT key FROM series")}
    for job in jobs:
        stages[job["series"]].add(job["stage"])
        if job["state"] != "done":
            yield Finding("held", f"{job['stage']} of {job['series']} is {job['state']}: {job['note']}")
    for series, seen in stages.items():
        if missing := {"receive", "assemble", "infer", "encode", "deliver", "commit"} - seen:
            yield Finding("held", f"{series} has had no {', '.join(sorted(missing))}")


def known(results: list[dict[str, Any]], held: Mapping[str, Dataset], spool: Path) -> Iterator[Finding]:
    """The ledger tells of each result what is true of it, and the archive has what the node has made."""
    counted = [row for row in results if row["status"] != "superseded" and row["kind"] in SINGLE]
    made = Counter((row["series"], row["item"], row["model"], row["kind"]) for row in counted)
    for what, count in made.items():
        if count > 1:
            yield Finding("doubled", f"{count} results {what[-1]} of {what[0]} in the ledger")
    for row in results:
        uid, status = row["sop_instance_uid"], row["status"]
        if status == "superseded":
            if uid in held:
                yield Finding("unsound", f"result {uid} is superseded, so it was never sent, and is in the archive")
            continue
        if status not in ("sent", "verified", "committed"):
            yield Finding("held", f"result {uid} is {status}")
        if uid not in held:
            yield Finding("lost", f"result {uid} is {status}, and not in the archive")
            continue
        path = Path(row["path"]) if Path(row["path"]).is_absolute() else spool / row["path"]
        ours = pydicom.dcmread(path)
        if told_apart(ours) != told_apart(held[uid]):
            yield Finding("differing", f"result {uid}: the archive's is not the one in the spool")
    for uid in held.keys() - {row["sop_instance_uid"] for row in results}:
        yield Finding("doubled", f"result {uid}: in the archive, and not in the ledger")
