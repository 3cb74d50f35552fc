"""All files of an evaluation: the report with its pictures, and what programs read."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from engines.packages.package import ModelPackage
from evaluation.cases import Case
from evaluation.judge import Models
from evaluation.judgement import CaseResult, Judgement
from evaluation.outputs import PREDICTIONS, REPORT_JSON, write_json, write_predictions
from evaluation.report import Circumstances, Pictured, ranked, write_report

PICTURES = "pictures"
"""The folder of the overlay pictures."""
SHOWN = 4
"""Worst cases that the report shows, and as many best ones."""


def write_files(
    out: Path,
    judgement: Judgement,
    circumstances: Circumstances,
    cases: Sequence[Case],
    models: Models,
    package: ModelPackage,
) -> None:
    """Write them into a folder, which is made. Needs Jinja2 and matplotlib.

    Parameters
    ----------
    cases
        Those that were judged; the worst and the best are run once more for their pictures.
    """
    (out / PICTURES).mkdir(parents=True, exist_ok=True)
    write_json(out / REPORT_JSON, judgement)
    write_predictions(out / PREDICTIONS, judgement)
    order, by_name = ranked(judgement.cases), {case.name: case for case in cases}
    groups = {"worst": order[:SHOWN], "best": order[SHOWN:][::-1][:SHOWN]}
    pictured = {words: _pictured(results, by_name, models, package) for words, results in groups.items()}
    for words, group in pictured.items():
        for number, each in enumerate(group, start=1):
            (out / PICTURES / f"{words}-{number}.png").write_bytes(each.png)
    write_report(out, judgement, circumstances, pictured["worst"], pictured["best"])


def _pictured(
    results: Sequence[CaseResult], cases: Mapping[str, Case], models: Models, package: ModelPackage
) -> list[Pictured]:
    from evaluation.overlays import picture

    found = []
    for result in results:
        case = cases[result.name]
        found.append(Pictured(result, picture(case, models.run(package.name, case.image()), package)))
    return found
