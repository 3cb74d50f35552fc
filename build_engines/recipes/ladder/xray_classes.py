"""The ladder of classes of chest X-rays: MobileNetV2 with shuffle attention, crops, ablation."""

from collections.abc import Mapping

from build_engines.recipes.ladder.rows import Row

ROWS: Mapping[str, Row] = {}
