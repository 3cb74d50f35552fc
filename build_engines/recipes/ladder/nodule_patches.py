"""The ladder of nodule or not, on 2D patches of LUNA16, and nodule outlines on 3D patches of LIDC-IDRI."""

from collections.abc import Mapping

from build_engines.recipes.ladder.rows import Row

ROWS: Mapping[str, Row] = {}
