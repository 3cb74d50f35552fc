"""The ladder of the CAD pipeline for CT nodules, classical and deep."""

from collections.abc import Mapping

from build_engines.recipes.ladder.rows import Row

ROWS: Mapping[str, Row] = {}
