"""Sources whose slices are tilted or uneven or frames of one image, with something found in them."""

from pathlib import Path

import numpy as np

from engines.types import Volume
from service.series.assembly import assemble
from tests.unit.service.results.examples import Example, lung_findings, two_fields


def tilted_head(shared_data: Path) -> Example:
    """The real head with gantry tilt and three spacings."""
    return _assembled(sorted((shared_data / "dicom" / "ct_ge_tilt_variable_spacing").iterdir()))


def enhanced_ct(shared_data: Path) -> Example:
    """The real multi-frame CT of two frames, the second of which is the first slice."""
    return _assembled([shared_data / "dicom" / "ct_enhanced_multiframe_2fr" / "CT0012.explicit_little_endian.dcm"])


def _assembled(files: list[Path]) -> Example:
    """Two ellipses with a hole each, on all slices but the first."""
    [item] = assemble(files).items
    volume = item.image
    assert isinstance(volume, Volume)
    ellipses = two_fields(volume.array.shape[1:])
    rows, columns = ellipses.shape
    ellipses[rows * 2 // 5 : rows // 2, columns // 4 : columns // 3] = 0
    labels = np.repeat(ellipses[None], len(volume.array), axis=0)
    if len(labels) > 2:
        labels[0] = 0
    return Example(volume, item.headers(), lung_findings(labels, volume))
