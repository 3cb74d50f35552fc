"""Every row of the ladder, by name; run as a program, it lists them."""

from collections.abc import Mapping

from build_engines.recipes.ladder import (
    ct_lungs,
    nodule_cad,
    nodule_detection,
    nodule_outlines,
    nodule_patches,
    xray_classes,
    xray_lungs,
)
from build_engines.recipes.ladder.rows import Row

ROWS: Mapping[str, Row] = {
    **xray_lungs.ROWS,
    **ct_lungs.ROWS,
    **xray_classes.ROWS,
    **nodule_patches.ROWS,
    **nodule_outlines.ROWS,
    **nodule_detection.ROWS,
    **nodule_cad.ROWS,
}

if __name__ == "__main__":
    print("\n".join(ROWS))
