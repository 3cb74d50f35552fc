"""The parts of the benchmark of turnaround: the series that is another one each time, and the way of the last model."""

from pathlib import Path

import numpy as np
import pydicom
import pytest

from benchmarks.inference.images import NLST
from benchmarks.main_job.series import SIZE, write_series
from benchmarks.main_job.stages import COMPLETE, WAY, Job, keep, kept, taken
from benchmarks.turnaround import summary
from service.ledger.records import ASSEMBLE, COMMIT, DELIVER, ENCODE, INFER, RECEIVE
from service.series.assembly import assemble


def test_each_round_is_another_series_of_the_same_chest(tmp_path: Path, phantom_ct: Path) -> None:
    (tmp_path / NLST).mkdir(parents=True)
    (tmp_path / NLST / "CT_1").symlink_to(phantom_ct)
    series = write_series(tmp_path / "ct", 30, tmp_path)
    assert series.words == f"NLST chest, 30 × {SIZE}²"
    seen = []
    for run in (1, 2):
        uid = series.renew(run)
        images = [pydicom.dcmread(path) for path in series.paths]
        assert {str(image.SeriesInstanceUID) for image in images} == {uid}
        assert all(image.SOPInstanceUID == image.file_meta.MediaStorageSOPInstanceUID for image in images)
        [item] = assemble(series.paths, 1).items
        assert item.image.array.shape == (30, SIZE, SIZE)
        seen.append(({str(image.SOPInstanceUID) for image in images}, images[0].FrameOfReferenceUID, item.image.array))
    (first, frame, array), (second, other_frame, other_array) = seen
    assert not first & second
    assert frame != other_frame
    assert np.count_nonzero(array != other_array) == 1


def ended(stage: str, model: str, at: float, seconds: float) -> Job:
    return Job(stage, model, "done", "", at, seconds)


JOBS = [
    ended(RECEIVE, "", 100.3, 0.0),
    ended(ASSEMBLE, "", 100.5, 0.1),
    *(ended(stage, "quick", 101.0 + at, 0.2) for at, stage in enumerate((INFER, ENCODE, DELIVER, COMMIT))),
    ended(INFER, "slow", 103.5, 2.0),
    ended(ENCODE, "slow", 106.5, 1.0),
    ended(DELIVER, "slow", 107.0, 0.4),
    ended(COMMIT, "slow", 107.2, 0.2),
]


def test_the_stages_are_those_of_the_model_that_came_last_and_make_up_the_turnaround(tmp_path: Path) -> None:
    one = taken("wetread", 100.0, JOBS, 7)
    expected = dict(zip(WAY, (0.3, 0.2, 3.0, 3.0, 0.5, 0.2), strict=True))
    assert one.stages == pytest.approx(expected)
    assert one.turnaround == pytest.approx(7.2)
    assert one.work[INFER] == pytest.approx(2.2)
    assert one.first == pytest.approx(4.0)
    assert one.waited[ENCODE] == pytest.approx(2.0)
    assert one.waited[COMPLETE] == pytest.approx(0.3)
    assert one.with_gpu(10) == pytest.approx(7.2 - 2.7)
    keep(tmp_path / "kept", one)
    keep(tmp_path / "kept", one)
    assert kept(tmp_path / "kept") == [one, one]
    rows, ratios = summary(kept(tmp_path / "kept"))
    assert next(row.median for row in rows if row.subject == "turnaround") == pytest.approx(7.2)
    assert next(row.median for row in rows if row.subject == "computed: infer × inf") == pytest.approx(4.2)
    assert not ratios


def test_what_was_not_committed_has_no_turnaround() -> None:
    with pytest.raises(ValueError, match="no results"):
        taken("wetread", 100.0, [job for job in JOBS if job.stage != COMMIT], 7)
