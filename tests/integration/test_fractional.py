"""Probabilities from the engine to the archive, for an archive that wants them."""

from pathlib import Path

import pydicom
import pytest

from tests.archive import Archive
from tests.running_node import RunningNode, small_engines


@pytest.mark.parametrize("form", ["fractional", "binary"])
def test_an_archive_gets_probabilities_only_where_its_segs_are_fractional(
    tmp_path: Path, phantom_ct: Path, phantom_xray: Path, form: str
) -> None:
    results = {"segmentation": form}
    with Archive() as archive:
        sections = {
            "engines": small_engines(tmp_path / "models"),
            f"archives.{archive.destination.name}.results": results,
        }
        with RunningNode(tmp_path, archive.destination, models=(), sections=sections) as node:
            sources = (*sorted(phantom_ct.glob("*.dcm")), *sorted(phantom_xray.glob("*.dcm")))
            node.send(sources)
            node.ended()
            segs = [pydicom.dcmread(row["path"]) for row in node.results() if row["kind"] == "SEG"]
            kept = [*tmp_path.rglob("probabilities-*.npy")]
    assert [seg.SegmentationType for seg in segs] == [form.upper()] * 2
    if form == "binary":
        assert not kept, "nothing is kept that nobody asked for"
        return
    for seg in segs:
        values = seg.pixel_array[seg.pixel_array > 0]
        assert values.max() > 250
        assert ((values > 20) & (values < 230)).any(), "a mask, no probabilities"
    assert len(archive.objects) == len(node.results())
