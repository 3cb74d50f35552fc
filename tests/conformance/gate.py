"""Which checker notices which damage: the table ``docs/validators.md``.

``python -m tests.conformance.gate`` (``make validators``) writes the table anew.
"""

import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache, partial
from pathlib import Path

import pydicom

from service.errors import Quarantined
from service.results.analysis import Analysis
from service.results.encode import encode
from service.results.kinds import KINDS
from service.results.profile import ResultProfile
from service.results.self_check import self_check
from service.types import ResultObject
from tests.conformance.cases import Encoded
from tests.conformance.checkers import CHECKERS, Bench, Complaint
from tests.conformance.damages import DAMAGES
from tests.conformance.subjects import Make, ct, digital_xray, fields_and_classes, lungs_and_nodule
from tests.conformance.waivers import WAIVERS
from tests.conftest import REPO_ROOT
from tests.validators.pixelmed import PixelMed, pixelmed

TABLE = REPO_ROOT / "docs" / "validators.md"
SELF_CHECK = "self-check"
SUBJECTS: Mapping[str, Make] = {
    "small-ct all": partial(ct, "ct_cip64_79slices", lungs_and_nodule),
    "dx all": partial(digital_xray, "fo_CR-ModalitySequenceLUT.dcm", fields_and_classes),
}
"""By their names in the matrix. A CT has all kinds but the heat maps of a classifier, which an X-ray has."""

INTRODUCTION = """\
# What is noticed before it is sent

Every result object is compared with its source and the findings before it leaves (the node's own *self-check*), and the
tests put every kind of object in every form before independent validators and readers. Here sound objects are damaged,
one thing at a time: who notices? Written by `make validators`; `tests/conformance/test_gate.py` fails where a damage is
noticed by nobody, where a sound object is complained of, and where this is not what happens.

"""


class Gate:
    """Sound objects of every kind, and what each checker says about each of them once it is damaged."""

    def __init__(self, data: Path, folder: Path, running: Callable[[], PixelMed]) -> None:
        self._folder, self._running = folder, running
        profile = ResultProfile(objects=tuple(KINDS), captures=2)
        self._cases = []
        for name, make in SUBJECTS.items():
            subject = make(data / "dicom", folder)
            analysis = Analysis(subject.findings, subject.image, subject.headers, profile)
            self._cases.append(Encoded(name, subject, analysis, encode(analysis, folder / name)))
        # a damage is asked about by its own test and by that of the table
        self._said = cache(self._said_anew)

    def damages(self) -> list[tuple[str, str]]:
        """Kind and name of each, of the kinds that there are."""
        return [(kind, name) for kind, named in DAMAGES.items() if kind in KINDS for name in named]

    def sound(self, kind: str) -> Mapping[str, frozenset[Complaint]]:
        """What each checker says about an object as it was written, read and written again by pydicom."""
        return self._said(kind, "")

    def unexplained(self, kind: str) -> list[tuple[str, Complaint]]:
        """What is said against a sound object, and by whom, that no waiver explains."""
        name = self._case_of(kind).name
        return [
            (checker, complaint)
            for checker, complaints in self.sound(kind).items()
            for complaint in complaints
            if not any(waiver.covers(checker, name, complaint) for waiver in WAIVERS)
        ]

    def noticed_by(self, kind: str, name: str) -> tuple[str, ...]:
        """Who has something against the damaged object that is not said of the sound one."""
        sound, said = self.sound(kind), self._said(kind, name)
        return tuple(checker for checker, complaints in said.items() if complaints - sound[checker])

    def _said_anew(self, kind: str, name: str) -> Mapping[str, frozenset[Complaint]]:
        case = self._case_of(kind)
        entry = case.of(kind)[0]
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            work = Path(folder)
            dataset = pydicom.dcmread(entry.path)
            if name:
                DAMAGES[kind][name](dataset)
            path = work / entry.path.name
            dataset.save_as(path)
            changed = replace(entry, path=path)
            objects = tuple(changed if each is entry else each for each in case.objects)
            alone = replace(case, objects=(changed,))
            bench = Bench(work, self._running)
            said = {SELF_CHECK: frozenset(_self_check(objects, case.analysis))}
            return said | {checker: frozenset(_complaints(checker, alone, bench)) for checker in CHECKERS}

    def _case_of(self, kind: str) -> Encoded:
        return next(each for each in self._cases if each.of(kind))

    def table(self) -> str:
        """The whole document."""
        checkers = [SELF_CHECK, *CHECKERS]
        lines = [["object", "damage", *checkers], ["---"] * 2 + [":-:"] * len(checkers)]
        counts = dict.fromkeys(checkers, 0)
        damages = self.damages()
        for kind, name in damages:
            noticed = self.noticed_by(kind, name)
            lines.append([kind, name, *("×" if checker in noticed else "" for checker in checkers)])
            counts |= {checker: counts[checker] + 1 for checker in noticed}
        lines.append(["", f"**of {len(damages)}**", *(f"**{counts[checker]}**" for checker in checkers)])
        return INTRODUCTION + "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _self_check(objects: Sequence[ResultObject], analysis: Analysis) -> Iterator[Complaint]:
    try:
        self_check(objects, analysis)
    except Quarantined as error:
        yield Complaint("", str(error))


def _complaints(checker: str, case: Encoded, bench: Bench) -> Iterator[Complaint]:
    """A reader that fails on an object has noticed that something is wrong with it."""
    try:
        for complaint in CHECKERS[checker](case, bench):
            # paths differ each time
            yield replace(complaint, text=complaint.text.replace(str(bench.folder), ""))
    except Exception as error:  # whatever a reader raises on a damaged object
        yield Complaint("", type(error).__name__)


@contextmanager
def gate(data: Path) -> Iterator[Gate]:
    """The gate with all that it needs."""
    with tempfile.TemporaryDirectory() as folder, pixelmed() as running:
        yield Gate(data, Path(folder), lambda: running)


if __name__ == "__main__":
    with gate(REPO_ROOT.parent / "shared" / "data") as ready:
        TABLE.write_text(ready.table())
    print(f"wrote {TABLE.relative_to(REPO_ROOT)}", file=sys.stderr)
