"""What becomes of every real series: `wetread route` over ../shared/data/dicom, as the table ``docs/outcomes.md``.

``python -m tests.outcomes`` (``make outcomes``) writes the table anew.
"""

import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass
from pathlib import Path

import pydicom
from pydicom.uid import UID, ImplicitVRLittleEndian

from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages
from service.errors import Quarantined
from service.header import facts_of
from service.routing.dry_run import DryRun, PlannedItem, PlannedSeries, dry_run
from service.spool import key_of
from tests.conftest import REPO_ROOT
from tests.small_models import EVERY_CT, volume_package

TABLE = REPO_ROOT / "docs" / "outcomes.md"
DATA = REPO_ROOT.parent / "shared" / "data" / "dicom"
ANY_CT = "any-ct"
ONE_BY_ONE = "ct_enhanced_multiframe_2fr"
"""A folder in which each file is another encoding of the same instances."""

INTRODUCTION = f"""\
# What becomes of real series

Every file of the public test sets in `../shared/data/dicom`, as `wetread route` sees it: folder by folder, series by
series, with the shipped models and one more, `{ANY_CT}`, that wants every CT of two slices or more, whatever it shows.
Written by `make outcomes`; `tests/integration/test_outcomes.py` fails where it is not what happens.

| outcome | meaning |
|---|---|
| processed | models run on it |
| split | it holds several images or stacks, each of which is processed |
| partial | processed, although slices are missing or cannot be used; the reader is told |
| not wanted | sound, but no model is meant for it |
| left out | stored, and never looked at by a model |
| quarantined | it cannot be used; kept with the reason, for an operator |
| not accepted | the association accepts no such objects, so the sender keeps them |
| no DICOM | not sent |

A series is named by its key, the beginning of a hash of its UIDs. What came without DICOM's file header is taken as it
would come over the wire. Of several files of one instance the first counts, as in a node, but for
`{ONE_BY_ONE}`, where each encoding is taken by itself.

"""
HEADER = ("folder", "series", "what it is", "geometry", "outcome", "why")


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    folder: str
    series: str
    what: str
    geometry: str
    outcome: str
    why: str


def table(data: Path) -> str:
    """The whole document, for a folder of folders."""
    with tempfile.TemporaryDirectory() as name:
        work = Path(name)
        volume_package(work / "models", ANY_CT, selection=EVERY_CT)
        packages = {**load_packages(SHIPPED_MODELS), **load_packages(work / "models")}
        rows = [row for folder in folders(data) for row in rows_of(folder, data, packages, work)]
    counts = Counter(row.outcome for row in rows)
    lines = [HEADER, ("---",) * len(HEADER), *(astuple(row) for row in rows)]
    text = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
    summary = ", ".join(f"{count} {outcome}" for outcome, count in counts.items())
    return f"{INTRODUCTION}{text}\n{len(rows)} lines: {summary}.\n"


def folders(data: Path) -> list[Path]:
    """The folders that hold files, in order."""
    return sorted({file.parent for file in data.rglob("*") if file.is_file() and file.parent != data})


def rows_of(folder: Path, data: Path, packages: Mapping[str, ModelPackage], work: Path) -> Iterator[Row]:
    """The rows of one folder."""
    name = str(folder.relative_to(data))
    files = as_received(folder, Path(tempfile.mkdtemp(dir=work)))
    for path in sorted(files.iterdir()) if name == ONE_BY_ONE else [files]:
        found = planned(path, packages)
        syntaxes = syntaxes_of(path)
        for series in found.series:
            yield _series_row(name, series, syntaxes[series.key])
        yield from _other_rows(name, found)


def planned(path: Path, packages: Mapping[str, ModelPackage]) -> DryRun:
    """What would become of a file or folder at a node without a configuration."""
    return dry_run(path, packages, None, "", lambda what, done, total: None)


def as_received(folder: Path, target: Path) -> Path:
    """A folder with the same files; bare data sets get the file header that a node writes before them."""
    for file in folder.iterdir():
        if file.is_file() and not _wrapped(file, target / file.name):
            (target / file.name).symlink_to(file.resolve())
    return target


def _wrapped(file: Path, target: Path) -> bool:
    with file.open("rb") as content:
        if content.read(132)[128:] == b"DICM":
            return False
    data_set = pydicom.dcmread(file, force=True)
    if "SOPClassUID" not in data_set:
        return False
    implicit, little = data_set.original_encoding
    explicit = pydicom.uid.ExplicitVRLittleEndian if little else pydicom.uid.ExplicitVRBigEndian
    data_set.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit
    pydicom.dcmwrite(target, data_set, enforce_file_format=True)
    return True


def syntaxes_of(path: Path) -> dict[str, list[str]]:
    """The transfer syntaxes of each series, by its key."""
    found: dict[str, set[str]] = defaultdict(set)
    for file in [path] if path.is_file() else path.iterdir():
        if file.read_bytes()[128:132] != b"DICM":
            continue
        try:
            facts = facts_of(file)
        except Quarantined:
            continue
        syntax = pydicom.filereader.read_file_meta_info(file).get("TransferSyntaxUID", "")
        found[key_of(facts.study_uid, facts.series_uid)].add(UID(syntax).name or "no transfer syntax")
    return {key: sorted(names) for key, names in found.items()}


def _series_row(folder: str, series: PlannedSeries, syntaxes: list[str]) -> Row:
    instances = f"{series.instances} instance{'s' if series.instances > 1 else ''}"
    what = "; ".join([f"{series.modality or 'no modality'}, {instances}", *syntaxes])
    geometry = _joined(_times(Counter(item.description for item in series.items)))
    return Row(folder, series.key, what, geometry, _outcome(series), _why(series))


def _outcome(series: PlannedSeries) -> str:
    quarantined = any(each.faulty for each in series.left_out)
    models = list(dict.fromkeys(model for item in series.items for model in item.models))
    if models:
        less = quarantined or any("missing" in note for item in series.items for note in item.notes)
        kind = "partial" if less else f"split ({len(series.items)})" if len(series.items) > 1 else "processed"
        return f"{kind}: {', '.join(models)}"
    if series.problem or quarantined or any(item.faulty for item in series.items):
        return "quarantined"
    return "not wanted" if series.items else "left out"


def _why(series: PlannedSeries) -> str:
    reasons = [series.problem] if series.problem else []
    reasons += [reason for item in series.items for reason in _reasons(item)]
    for each in series.left_out:
        reasons.append(f"{each.instances} quarantined: {each.reason}" if each.faulty else each.reason)
    reasons += [note for item in series.items for note in item.notes]
    return _joined(dict.fromkeys(reasons))


def _reasons(item: PlannedItem) -> Iterator[str]:
    """Why models that are for such a modality do not run, not why a model of X-rays does not run on a CT."""
    for refusal in dict.fromkeys(item.refusals.values()):
        if not refusal.reason.startswith("modality "):
            models = ", ".join(name for name, other in item.refusals.items() if other == refusal)
            yield f"{models}: {refusal.reason}"


def _other_rows(folder: str, found: DryRun) -> Iterator[Row]:
    for each in found.apart:
        count = f"{each.instances} instance{'s' if each.instances > 1 else ''}"
        yield Row(folder, "", count, "", "quarantined" if each.faulty else "not accepted", each.reason)
    if found.others:
        yield Row(folder, "", f"{found.others} file{'s' if found.others > 1 else ''}", "", "no DICOM", "")


def _times(counts: Counter[str]) -> Iterator[str]:
    for text, count in counts.items():
        yield f"{count} × {text}" if count > 1 else text


def _joined(texts: Iterable[str]) -> str:
    return "; ".join(text.rstrip(".") for text in texts)


if __name__ == "__main__":
    if not DATA.is_dir():
        sys.exit("needs ../shared/data/dicom, which is not part of the repository")
    TABLE.write_text(table(DATA), encoding="utf-8")
