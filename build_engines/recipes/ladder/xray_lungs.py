"""The ladder of lung fields on X-rays (Montgomery): encoders of one decoder, other networks."""

from collections.abc import Mapping

from build_engines.recipes.ladder.rows import Row

ROWS: Mapping[str, Row] = {}
