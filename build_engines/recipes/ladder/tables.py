"""``python -m build_engines.recipes.ladder.tables``: the tables of docs/models.md, made of what docs/ladder says."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from build_engines.recipes.folders import ROOT
from build_engines.recipes.ladder.rows import Result, Row, saved
from evaluation.estimate import Estimate

PAGE = ROOT / "docs" / "models.md"

MARKED = re.compile(r"(?<=<!-- ladder:)([a-z0-9-]+)( -->\n).*?(?=<!-- /ladder -->)", re.DOTALL)
"""A table's name, and what stands between its two marks."""


@dataclass(frozen=True)
class Column:
    """One figure of a table: its metric, its head, and whether less is better."""

    metric: str
    head: str
    less: bool = False
    digits: int = 3


@dataclass(frozen=True)
class Table:
    """Some rows of the ladder that were judged alike, as a pattern of their names, and the figures that are shown."""

    rows: str
    columns: tuple[Column, ...]


def _outlines(data: str, words: str) -> tuple[Column, ...]:
    return (
        Column(f"{data}.dice", f"Dice, {words}"),
        Column(f"{data}.frequency_weighted_iou", f"FWIoU, {words}"),
        Column(f"{data}.mean_pixel_accuracy", f"mean pixel accuracy, {words}"),
    )


XRAY_LUNGS = (*_outlines("montgomery_test", "Montgomery"), Column("shenzhen.dice", "Dice, Shenzhen"))

CLASSES = (
    Column("nih.auc_pneumonia_vs_normal", "AUC pneumonia, NIH only"),
    Column("auc_viral_vs_normal", "AUC viral"),
    Column("auc", "AUC, macro"),
    Column("f1", "F1, macro"),
    Column("sensitivity", "sensitivity, macro"),
    Column("specificity", "specificity, macro"),
    Column("ece", "ECE", less=True),
)

HELD_OUT = (
    Column("held_out.auc_viral_vs_normal", "AUC viral, sources held out"),
    Column("held_out.accuracy", "accuracy, sources held out"),
)

TABLES: Mapping[str, Table] = {
    "xray-lungs": Table("xray-lungs-.*", XRAY_LUNGS),
    "xray-losses": Table(
        "(xray-loss-.*|xray-lungs-mobilenetv2-sa)",
        XRAY_LUNGS,
    ),
    "ct-lungs": Table(
        "ct-lungs-.*",
        (
            Column("lctsc202.dice_lung", "Dice, LCTSC-202"),
            Column("lctsc202.hausdorff95_mm_lung", "Hausdorff 95 %, mm", less=True, digits=1),
            Column("lctsc202.volume_mae_ml_lung", "volume error, ml", less=True, digits=0),
            Column("cip64.dice_lung", "Dice, cip64"),
            Column("lctsc202_consolidation.dice_lung", "Dice, consolidation drawn in"),
            Column("lctsc202_thick_slices.dice_lung", "Dice, thick slices"),
        ),
    ),
    "xray-classes": Table("classes-.*(?<!-held-out)", CLASSES),
    "xray-classes-held-out": Table("(classes|cxr-pneumonia)-.*held-out", HELD_OUT),
    "ablation": Table("(ablation-.*|classes-mobilenetv2-sa)", CLASSES),
    "nodule-patches": Table(
        "nodule-patch-.*",
        (
            Column("auc_nodule", "AUC"),
            Column("accuracy", "accuracy"),
            Column("sensitivity_nodule", "sensitivity"),
            Column("specificity_nodule", "specificity"),
            Column("f1_nodule", "F1"),
        ),
    ),
    "nodule-outlines": Table(
        "nodule-outline-.*",
        (
            Column("dice", "Dice"),
            Column("dice_below_8_mm", "Dice below 8 mm"),
            Column("dice_from_8_mm", "Dice from 8 mm"),
            Column("hausdorff95_mm", "Hausdorff 95 %, mm", less=True, digits=1),
            Column("volume_mae_ml", "volume error, ml", less=True, digits=2),
        ),
    ),
    "nodule-detection": Table(
        "nodule-(ssd|centre2d|faster-rcnn)",
        (
            Column("lctsc202.froc_mean", "FROC, put into a chest"),
            Column("lctsc202.froc_mean_below_8_mm", "FROC below 8 mm"),
            Column("lctsc202.average_precision_at_iou_0.3", "average precision, IoU 0.3"),
            Column("lidc.froc_mean", "FROC, where they were"),
            Column("lidc.average_precision_at_iou_0.3", "average precision, where they were"),
        ),
    ),
    "nodule-cad": Table(
        "nodule-cad-.*",
        (
            Column("froc_sensitivity_at_1", "sensitivity at 1 FP a scan"),
            Column("froc_sensitivity_at_4", "at 4"),
            Column("froc_sensitivity_at_8", "at 8"),
            Column("froc_mean", "FROC mean"),
            Column("froc_mean_below_8_mm", "FROC mean below 8 mm"),
            Column("lidc_patches.auc", "AUC in the nodules' own patches"),
            Column("nlst.false_positives_before_nodule", "FP before the NLST nodule", less=True, digits=0),
        ),
    ),
}
"""By the name in the page's mark."""


def written(page: str, rows: Mapping[str, Row], results: Mapping[str, Result]) -> str:
    """Put every table of a page between its marks: ``<!-- ladder:NAME -->`` and ``<!-- /ladder -->``.

    Raises
    ------
    ValueError
        A mark names no table, or a table has no mark.
    """
    there = [found[1] for found in MARKED.finditer(page)]
    if sorted(there) != sorted(TABLES):
        raise ValueError(f"the page has marks for {', '.join(there)}; it needs one for each of {', '.join(TABLES)}")
    return MARKED.sub(lambda found: f"{found[1]}{found[2]}{table(TABLES[found[1]], rows, results)}", page)


def table(one: Table, rows: Mapping[str, Row], results: Mapping[str, Result]) -> str:
    """Write one table, and below it what it was measured on and which of its rows were not measured."""
    names = [name for name in rows if re.fullmatch(one.rows, name)]
    measured = [name for name in names if name in results]
    missing = ", ".join(f"`{name}`" for name in names if name not in results)
    lines = [*_table(one, {name: (rows[name], results[name]) for name in measured})] if measured else []
    for words, of in (
        ("Trained on", {results[name].trained_on for name in measured}),
        ("Judged on", {results[name].judged_on for name in measured}),
    ):
        lines += ["", *(f"{words}: {each}." for each in sorted(of) if each)] if of else []
    if missing:
        lines += ["", f"Written, but not measured yet: {missing}."]
    return "\n".join([*lines, ""]).lstrip("\n")


def _table(one: Table, measured: Mapping[str, tuple[Row, Result]]) -> list[str]:
    columns = [column for column in one.columns if any(column.metric in each.metrics for _, each in measured.values())]
    best = {column: _best(column, [result for _, result in measured.values()]) for column in columns}
    published = any(row.published for row, _ in measured.values())
    heads = ["system", *(column.head for column in columns), "weights", "multiply-adds", "one inference"]
    heads += ["published", "what differs"] if published else []
    lines = [f"| {' | '.join(heads)} |", f"|{'---|' * len(heads)}"]
    for name, (row, result) in measured.items():
        cells = [f"{row.title} (`{name}`)"]
        cells += [figure(result.metrics.get(column.metric), column.digits, best[column]) for column in columns]
        cells += [short(result.parameters), short(result.operations), time(result)]
        cells += [row.published, row.differs] if published else []
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _best(column: Column, results: Sequence[Result]) -> float:
    """Give the best value of a column, as it is written; NaN where there are not several to choose from."""
    values = [result.metrics[column.metric].value for result in results if column.metric in result.metrics]
    finite = [round(value, column.digits) for value in values if np.isfinite(value)]
    if len(finite) < 2:
        return float("nan")
    return min(finite) if column.less else max(finite)


def figure(estimate: Estimate | None, digits: int, best: float) -> str:
    """Write a figure with its interval; the best of a column in bold."""
    if estimate is None or np.isnan(estimate.value):
        return "–"
    value = f"{estimate.value:.{digits}f}"
    value = f"**{value}**" if round(estimate.value, digits) == best else value
    known = np.isfinite(estimate.low) and np.isfinite(estimate.high)
    return f"{value} [{estimate.low:.{digits}f}–{estimate.high:.{digits}f}]" if known else value


def short(number: int | None) -> str:
    """Write a large number in thousands, millions or thousands of millions."""
    if number is None:
        return "–"
    for unit, word in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {word}"
    return str(number)


def time(result: Result) -> str:
    """Write the time of one inference, and of what where it is no compiled network alone."""
    if result.latency_ms is None:
        return "–"
    milliseconds = result.latency_ms
    words = f"{milliseconds / 1000:.1f} s" if milliseconds >= 1000 else f"{milliseconds:.2g} ms"
    if milliseconds >= 100 and milliseconds < 1000:
        words = f"{milliseconds:.0f} ms"
    return words if result.engine == "OpenVINO FP32" else f"{words} ({result.engine})"


def results_of(rows: Mapping[str, Row]) -> dict[str, Result]:
    """Read what was measured of each row that was."""
    return {name: result for name in rows if (result := saved(name)) is not None}


def main() -> None:
    """Write the page anew."""
    from build_engines.recipes.ladder.every_row import ROWS

    page = PAGE.read_text(encoding="utf-8")
    PAGE.write_text(written(page, ROWS, results_of(ROWS)), encoding="utf-8")


if __name__ == "__main__":
    main()
