"""Results for any viewer: captures and the PDF, as OHIF shows them."""

from pathlib import Path

import pytest

from tests.viewer.filed import Filed
from tests.viewer.ohif import Viewer


def shown(viewer: Viewer, filed: Filed, kind: str, share: float) -> None:
    """Open the series of a kind alone, and wait until it is there."""
    header = filed.of(kind)
    viewer.open(filed.study_uid, header.SeriesInstanceUID, share=share)
    assert viewer.listed(header.SeriesDescription) == 1
    assert viewer.console() == []


@pytest.mark.parametrize(("image", "kind"), [("ct", "SC"), ("xray", "SC"), ("xray", "HEATMAP")])
def test_captures_are_one_series_of_pictures(
    image: str, kind: str, viewer: Viewer, request: pytest.FixtureRequest, pictures: Path
) -> None:
    filed: Filed = request.getfixturevalue(f"filed_{image}")
    shown(viewer, filed, kind, share=0.05)
    assert viewer.images() == len(filed.results[kind])
    viewer.picture(pictures / f"ohif-{image}-{kind.lower()}.png")


@pytest.mark.parametrize("image", ["ct", "xray"])
def test_the_pdf_is_shown(image: str, viewer: Viewer, request: pytest.FixtureRequest, pictures: Path) -> None:
    filed: Filed = request.getfixturevalue(f"filed_{image}")
    shown(viewer, filed, "PDF", share=0.3)
    viewer.picture(pictures / f"ohif-{image}-pdf.png")


def test_what_ohif_cannot_show_leaves_the_image_where_it_is(viewer: Viewer, filed_small_ct: Filed) -> None:
    headers = [filed_small_ct.of(kind) for kind in ("GSPS", "KO")]
    series = (filed_small_ct.series_uid, *(header.SeriesInstanceUID for header in headers))
    viewer.open(filed_small_ct.study_uid, *series)
    for header in headers:
        viewer.show(header.SeriesDescription)
        viewer.stand_still()
        assert viewer.lit() > 0.2
    assert viewer.console() == []
