"""The ladder of lungs on CT (LCTSC): a classical baseline, and 3D segmentation networks."""

from collections.abc import Mapping

from build_engines.recipes.ladder.rows import Row

ROWS: Mapping[str, Row] = {}
