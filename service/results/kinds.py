"""The kinds of result objects: who writes each, who checks it, and when there is one.

A new kind is a module in `service.results.writers`, one in `service.results.checks`, and a line here.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from pydicom import Dataset

from service.results.analysis import Analysis
from service.results.checks.capture import check_captures
from service.results.checks.document import check_document
from service.results.checks.heat_map import check_heat_maps
from service.results.checks.heat_map_segmentation import check_heat_map_segmentation
from service.results.checks.key_objects import check_key_objects
from service.results.checks.presentation_state import check_presentation_states
from service.results.checks.report import check_report
from service.results.checks.segmentation import check_segmentation
from service.results.checks.structure_set import check_structure_set
from service.results.profile import Kind
from service.results.writers.capture import write_captures
from service.results.writers.document import write_document
from service.results.writers.heat_map import has_activation, write_heat_maps
from service.results.writers.heat_map_segmentation import write_heat_map_segmentation
from service.results.writers.key_objects import has_key_images, write_key_objects
from service.results.writers.presentation_state import has_annotations, write_presentation_states
from service.results.writers.report import write_report
from service.results.writers.segmentation import write_segmentations
from service.results.writers.structure_set import has_contours, write_structure_set
from service.types import ResultObject


class Writer(Protocol):
    """Encodes all objects of one kind."""

    def __call__(self, analysis: Analysis, folder: Path, made: Sequence[ResultObject]) -> Sequence[ResultObject]:
        """Write the objects into a folder (`service.results.files.keep`).

        Parameters
        ----------
        made
            The objects of other kinds that were made before; a report and a key object note refer to them.

        Raises
        ------
        Exception
            The object cannot be encoded: of any type, for `service.results.encode` makes one of all.
        """


class Check(Protocol):
    """Compares the decoded objects of one kind with what they were made from."""

    def __call__(self, datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
        """Raise `Quarantined` where something differs, or an object is missing or too many.

        Parameters
        ----------
        datasets
            The objects in the order of their numbers, each read when it is asked for and already checked for its
            identity (`service.results.self_check`): hundreds of pictures have no room in memory together.
        made
            The objects of the kinds before.
        """


@dataclass(frozen=True)
class ResultKind:
    """One kind.

    Attributes
    ----------
    applies
        Whether the findings give such an object at all: there is no SEG of nothing.
    write, check
        The writer, and its counterpart in the self-check.
    """

    applies: Callable[[Analysis], bool]
    write: Writer
    check: Check


def always(_: Analysis) -> bool:
    """Whatever was found."""
    return True


def has_segments(analysis: Analysis) -> bool:
    """A segment has a voxel."""
    return bool(analysis.label_maps)


KINDS: Mapping[Kind, ResultKind] = {
    "SEG": ResultKind(has_segments, write_segmentations, check_segmentation),
    "HEATMAP-SEG": ResultKind(has_activation, write_heat_map_segmentation, check_heat_map_segmentation),
    "RTSTRUCT": ResultKind(has_contours, write_structure_set, check_structure_set),
    "SC": ResultKind(always, write_captures, check_captures),
    "HEATMAP": ResultKind(has_activation, write_heat_maps, check_heat_maps),
    "PDF": ResultKind(always, write_document, check_document),
    "GSPS": ResultKind(has_annotations, write_presentation_states, check_presentation_states),
    "KO": ResultKind(has_key_images, write_key_objects, check_key_objects),
    "SR": ResultKind(always, write_report, check_report),
}
"""In the order in which they are written; the SR comes last and refers to all others (IHE AIR)."""


def wanted(analysis: Analysis) -> tuple[Kind, ...]:
    """The kinds that an analysis is written as, in the order of writing."""
    return tuple(kind for kind, entry in KINDS.items() if kind in analysis.profile.objects and entry.applies(analysis))
