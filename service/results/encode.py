"""Findings become files: SEG, SR and what else the archive shows, and all are checked after they were written."""

from pathlib import Path

from service.errors import Quarantined, WetreadError, told_by_place
from service.results.analysis import Analysis
from service.results.kinds import KINDS, wanted
from service.results.self_check import self_check
from service.results.soundness import require_sound
from service.types import ResultObject


def encode(analysis: Analysis, folder: Path) -> tuple[ResultObject, ...]:
    """Encode the findings of one model about one image.

    Parameters
    ----------
    folder
        Where the files go, each named ``KIND-UID.dcm`` by its own SOP Instance UID. The same analysis gives the same
        files, byte for byte.

    Returns
    -------
    tuple[ResultObject, ...]
        The kinds that the profile names and the findings give, in the order of `service.results.kinds.KINDS`.

    Raises
    ------
    Quarantined
        The source lacks what a result must refer to, what was found cannot be, or it is not what was written.
    """
    require_sound(analysis)
    folder.mkdir(parents=True, exist_ok=True)
    objects: list[ResultObject] = []
    for kind in wanted(analysis):
        try:
            objects += KINDS[kind].write(analysis, folder, tuple(objects))
        except (WetreadError, OSError, MemoryError):  # the worker knows which of them passes
            raise
        # input is foreign, and libraries raise what they like: it would be the same the next time
        except Exception as error:
            raise Quarantined(
                f"the {kind} of {analysis.findings.model.name} cannot be encoded ({told_by_place(error)}); "
                "nothing is sent, look at source and model or report it"
            ) from error
    self_check(objects, analysis)
    return tuple(objects)
