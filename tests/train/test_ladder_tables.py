"""The tables of docs/models.md are what docs/ladder says."""

from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("torch", reason="the ladder needs the extra 'train' (torch)")

from build_engines.recipes.folders import RESULTS
from build_engines.recipes.ladder.every_row import ROWS
from build_engines.recipes.ladder.latencies import SHIPPED, package_of
from build_engines.recipes.ladder.rows import Result, Row
from build_engines.recipes.ladder.tables import PAGE, TABLES, Column, Table, results_of, table, written
from evaluation.estimate import Estimate

COLUMNS = (Column("auc", "AUC"), Column("hausdorff95_mm", "Hausdorff, mm", less=True, digits=1))
SYSTEMS = {name: Row("some", f"System {name}") for name in ("some-first", "some-second", "other")}
RESULT = Result(
    metrics={"auc": Estimate(0.9, 0.85, 0.95), "hausdorff95_mm": Estimate(7.0, np.nan, np.nan)},
    parameters=12_345,
    operations=2_000_000,
    latency_ms=1.5,
)


def test_the_page_has_the_figures_that_were_measured() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page, ROWS, results_of(ROWS)) == page, "run make ladder-tables"


def test_every_row_is_in_a_table_and_every_result_is_of_a_row() -> None:
    shown = "".join(table(each, ROWS, {}) for each in TABLES.values())
    assert [name for name in ROWS if f"`{name}`" not in shown] == []
    assert {file.stem for file in RESULTS.glob("*.json")} <= set(ROWS)


def test_what_is_shipped_is_timed_from_where_it_is_shipped() -> None:
    assert set(SHIPPED) == {name for name in ROWS if name.endswith("-shipped")}
    assert all((package_of(name) / "model.onnx").is_file() for name in SHIPPED)


def test_the_best_of_a_column_is_bold_and_less_may_be_better() -> None:
    second = replace(RESULT, metrics={"auc": Estimate(0.8, 0.7, 0.9), "hausdorff95_mm": Estimate(5.0, np.nan, np.nan)})
    lines = table(Table("some-.*", COLUMNS), SYSTEMS, {"some-first": RESULT, "some-second": second}).splitlines()
    assert lines[2].startswith(
        "| System some-first (`some-first`) | **0.900** [0.850–0.950] | 7.0 | 12.3 k | 2 M | 1.5 ms"
    )
    assert lines[3].startswith("| System some-second (`some-second`) | 0.800 [0.700–0.900] | **5.0** |")


def test_what_was_not_measured_is_said_and_another_table_s_row_is_not() -> None:
    text = table(Table("some-.*", COLUMNS), SYSTEMS, {"some-first": RESULT})
    assert "Written, but not measured yet: `some-second`." in text
    assert "**" not in text
    assert "other" not in text


def test_a_page_without_a_table_s_mark_is_refused() -> None:
    with pytest.raises(ValueError, match="xray-lungs"):
        written("<!-- ladder:ct-lungs -->\n<!-- /ladder -->", ROWS, {})
