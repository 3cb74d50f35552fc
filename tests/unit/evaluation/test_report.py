"""What an evaluation leaves behind: a page that holds everything and trusts nothing, JSON, and a table."""

import csv
import io
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engines.packages.package import SHIPPED_MODELS, load_package
from engines.types import (
    Classification,
    ClassProbability,
    Code,
    Detection,
    Detections,
    LabelMap,
    Radiograph,
    Segment,
    Volume,
)
from evaluation.cases import Case, Lesion
from evaluation.estimate import Estimate
from evaluation.judgement import CaseResult, Curve, Judgement
from evaluation.outputs import as_line, write_json, write_predictions
from evaluation.overlays import picture, view_of
from evaluation.plots import kinds
from evaluation.report import Circumstances, Pictured, confusion, headlines_of, ranked, write_report
from evaluation.words import in_words, told
from tests.unit.service.results.examples import findings

CIRCUMSTANCES = Circumstances("openvino, fp32, CPU", 100, 1, "0.1.0", "Research use only: a test.")
SCRIPT = "<script>alert(1)</script>"
NODULE = Code("27925004", "SCT", "Nodule")


def result(name: str, expected: str, answer: str, probability: float, problem: str = "") -> CaseResult:
    return CaseResult(name, {"source": "here"}, {f"probability_{expected}": probability}, expected, answer, problem)


JUDGEMENT = Judgement(
    model="tiny 0.1.0",
    data="data/manifest.csv, all rows",
    n=3,
    metrics={
        "accuracy": Estimate(2 / 3, 0.0, 1.0),
        "auc_viral_vs_normal": Estimate(0.912, 0.88, 0.941),
        "hausdorff95_mm": Estimate(12.5, np.nan, np.nan),
        "sensitivity": Estimate(np.nan, np.nan, np.nan),
    },
    subgroups={"source = here": (3, {"accuracy": Estimate(0.5, 0.25, 0.75)})},
    curves=(
        Curve(
            "ROC, viral vs normal", "1 − specificity", "sensitivity", ((0, 0), (0.5, 1), (1, 1)), {"at 0.5": (0.5, 1)}
        ),
        Curve("FROC", "false positives per scan", "sensitivity", ((0, 0), (0.5, 0.8), (3, 0.9))),
    ),
    thresholds={"viral": 0.25},
    cases=(
        result("a.png", "normal", "normal", 0.9),
        result("b.png", "viral", "normal", 0.1),
        result("c.png", "viral", "viral", 0.6),
        CaseResult("d.png", {}, problem="d.png is missing"),
    ),
    notes=("Thresholds were chosen on the validation cases.",),
)


def page(judgement: Judgement, folder: Path, *worst: Pictured) -> str:
    return write_report(folder, judgement, CIRCUMSTANCES, worst).read_text(encoding="utf-8")


def test_a_page_says_what_came_out_and_needs_nothing_but_itself(tmp_path: Path) -> None:
    html = page(JUDGEMENT, tmp_path, Pictured(JUDGEMENT.cases[1], b"png"))
    for words in (
        "tiny 0.1.0", "3 cases", "For research use only", "AUC viral vs normal", "0.912", "0.880 to 0.941",
        "source = here", "0.500 (0.250 to 0.750)", "Thresholds were chosen", "d.png is missing", "Viral", "0.250",
        "expected viral · answer normal",
    ):  # fmt: skip
        assert words in html, words
    assert not re.search(r"https?://|<script|<link|@import|url\(", html)
    assert all(source.startswith("data:image/") for source in re.findall(r'src="([^"]*)"', html))
    assert "nan" not in html


def test_the_same_judgement_gives_the_same_page(tmp_path: Path) -> None:
    assert page(JUDGEMENT, tmp_path) == page(JUDGEMENT, tmp_path)


def test_no_name_in_the_data_is_markup_or_a_formula(tmp_path: Path) -> None:
    hostile = replace(
        JUDGEMENT,
        model=SCRIPT,
        data=f'"><img src=x onerror=alert(1)>{SCRIPT}',
        notes=(SCRIPT,),
        metrics={f"auc_{SCRIPT}": Estimate(0.5, 0.4, 0.6), "auc_$x^{2}$": Estimate(0.5, 0.4, 0.6)},
        subgroups={SCRIPT: (9, {})},
        curves=(Curve(f"$\\frac{{}}{{$ {SCRIPT}", "x", "$y_$", ((0, 0), (1, 1)), {"$": (0, 0)}),),
        thresholds={SCRIPT: 0.5},
        cases=(
            result(SCRIPT, SCRIPT, SCRIPT, 0.5),
            CaseResult("=HYPERLINK(1)", {"@x": "+1"}, {"-f": 1.0}, expected="\t=1", problem=SCRIPT),
        ),
    )
    html = page(hostile, tmp_path, Pictured(hostile.cases[0], b"png"))
    assert "<script" not in html
    assert "<img src=x" not in html
    assert html.count("&lt;script&gt;") > 5
    write_predictions(tmp_path / "p.csv", hostile)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as text:
        cells = [cell for row in csv.reader(text) for cell in row]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]
    assert "'=HYPERLINK(1)" in cells


def test_the_last_line_is_json_in_which_what_has_no_value_is_null(tmp_path: Path) -> None:
    line = as_line(JUDGEMENT)
    assert "\n" not in line
    assert json.loads(line, parse_constant=pytest.fail) == {
        "model": "tiny 0.1.0",
        "data": "data/manifest.csv, all rows",
        "n": 3,
        "metrics": {
            "accuracy": {"value": 2 / 3, "low": 0.0, "high": 1.0},
            "auc_viral_vs_normal": {"value": 0.912, "low": 0.88, "high": 0.941},
            "hausdorff95_mm": {"value": 12.5, "low": None, "high": None},
            "sensitivity": {"value": None, "low": None, "high": None},
        },
    }
    write_json(tmp_path / "r.json", JUDGEMENT)
    document = json.loads((tmp_path / "r.json").read_text(), parse_constant=pytest.fail)
    assert document["subgroups"]["source = here"]["n"] == 3
    assert document["problems"] == {"d.png": "d.png is missing"}


def test_a_table_has_every_case_with_its_answer_or_its_problem(tmp_path: Path) -> None:
    write_predictions(tmp_path / "p.csv", JUDGEMENT)
    with (tmp_path / "p.csv").open(newline="", encoding="utf-8") as text:
        rows = list(csv.DictReader(text))
    assert [row["case"] for row in rows] == ["a.png", "b.png", "c.png", "d.png"]
    assert rows[1] | {"problem": ""} == {
        "case": "b.png", "source": "here", "expected": "viral", "answer": "normal", "probability_normal": "",
        "probability_viral": "0.1", "problem": "",
    }  # fmt: skip
    assert rows[3]["problem"] == "d.png is missing"


def test_answers_are_counted_by_what_was_expected() -> None:
    names, rows = confusion(JUDGEMENT.cases) or ([], [])
    assert names == ["normal", "viral"]
    assert rows == [("normal", [1, 0], 1), ("viral", [1, 1], 2)]
    assert confusion([CaseResult("a", {}, {"dice": 0.9}, "lung", "lung")]) is None


def test_the_worst_case_is_the_one_whose_truth_is_least_probable() -> None:
    assert [case.name for case in ranked(JUDGEMENT.cases)] == ["b.png", "c.png", "a.png"]
    by_dice = [CaseResult("good", {}, {"dice": 0.9}), CaseResult("bad", {}, {"dice": 0.2}), CaseResult("?", {})]
    assert [case.name for case in ranked(by_dice)] == ["bad", "good"]
    scans = [
        CaseResult(name, {}, {"lesions": 2.0, "lesions_found": found, "false_positives": false})
        for name, found, false in (("all", 2.0, 1.0), ("one", 1.0, 0.0), ("all, many false", 2.0, 4.0))
    ]
    assert [case.name for case in ranked(scans)] == ["one", "all, many false", "all"]


def test_metrics_are_said_in_words() -> None:
    assert in_words("auc_viral_vs_normal") == "AUC viral vs normal"
    assert in_words("hausdorff95_mm_left_lung") == "Hausdorff 95 % (mm) left lung"
    assert in_words("froc_mean_below_8_mm") == "FROC mean, below 8 mm"
    assert told(Estimate(0.5, np.nan, np.nan)) == "0.500"
    assert list(headlines_of(JUDGEMENT.metrics))[:2] == ["auc_viral_vs_normal", "accuracy"]
    assert list(headlines_of({"odd": Estimate(1, 1, 1)})) == ["odd"]


def test_curves_that_share_their_axes_share_a_picture() -> None:
    roc, froc = JUDGEMENT.curves
    against = replace(roc, title="ROC, viral vs rest")
    empty = replace(roc, points=())
    assert [len(group) for group in kinds((roc, against, roc, froc, empty))] == [2, 1, 1]


LUNG = Segment(1, "Lung", Code("1", "SCT", "x"), Code("2", "SCT", "y"), (9, 9, 9))


def pixels_of(png: bytes) -> np.ndarray:
    """The pixels of a PNG."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"), np.int16)


def where(pixels: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    """Row and column, as parts of the picture, of the middle of what has about this colour."""
    near = np.abs(pixels - np.array(colour)).max(axis=-1) < 60
    assert near.any()
    return np.argwhere(near).mean(axis=0) / pixels.shape[:2]


def test_a_picture_shows_the_reference_and_the_answer_where_they_are() -> None:
    package = load_package(SHIPPED_MODELS / "cxr-lung")
    known, labels = np.zeros((80, 100), np.bool_), np.zeros((80, 100), np.uint8)
    known[10:20, 70:90], labels[50:70, 10:30] = True, 1
    image = Radiograph(np.zeros((80, 100), np.float32), None, "x")
    case = Case("x", "x", lambda: image, masks=lambda: {"Lung": known})
    shown = pixels_of(picture(case, findings(label_map=LabelMap(labels, (LUNG,))), package))
    assert where(shown, (0x39, 0xD9, 0x8A)) == pytest.approx((15 / 80, 80 / 100), abs=0.02)
    assert where(shown, (0xFF, 0x9F, 0x1C)) == pytest.approx((60 / 80, 20 / 100), abs=0.02)


def test_an_xray_on_its_side_is_shown_upright_with_all_that_is_on_it() -> None:
    array = np.zeros((60, 40), np.float32)
    array[5, 30] = 9
    image = Radiograph(array, None, "x", ("F", "L"))  # columns and rows have changed places
    mask = array > 0
    found = Detections((Detection("N", NODULE, 0.9, (4.0, 29.0), (6.0, 31.0)),), (("N", NODULE),))
    case = Case("x", "x", lambda: image, masks=lambda: {"Lung": mask}, lesions=(Lesion((4.0, 29.0), (6.0, 31.0)),))
    view = view_of(case, findings(detections=found))
    assert np.argwhere(view.pixels == 9).tolist() == [[30, 5]]
    assert view.known is not None
    assert np.argwhere(view.known).tolist() == [[30, 5]]
    assert view.known_boxes == view.found_boxes == ((29.0, 4.0, 31.0, 6.0),)


def test_a_volume_is_shown_on_the_slice_of_its_lesion_head_first_and_left_on_the_right() -> None:
    affine = np.diag([2.0, -1.0, -1.0, 1.0])[[2, 1, 0, 3]]  # rows to the anterior, columns to the right
    array = np.zeros((9, 20, 30), np.int16)
    array[7, 4, 6] = 100
    volume = Volume(array, affine, tuple("abcdefghi"))
    centre = (affine @ (7, 4, 6, 1))[:3]
    case = Case("x", "x", lambda: volume, lesions=(Lesion(tuple(centre - 1.0), tuple(centre + 1.0)),))
    view = view_of(case, findings(detections=Detections((), ())))
    assert np.argwhere(view.pixels == 100).tolist() == [[20 - 1 - 4, 30 - 1 - 6]]
    assert view.known_boxes == ((14.0, 22.0, 16.0, 24.0),)


def test_a_volume_is_shown_on_the_slice_where_the_answer_is_worst() -> None:
    known, labels = np.zeros((5, 8, 8), np.bool_), np.zeros((5, 8, 8), np.uint8)
    known[1], labels[1], known[3, :4, :4] = True, 1, True
    volume = Volume(
        np.arange(5, dtype=np.int16)[:, None, None] * np.ones((5, 8, 8), np.int16), np.eye(4), tuple("abcde")
    )
    case = Case("x", "x", lambda: volume, masks=lambda: {"Lung": known})
    view = view_of(case, findings(label_map=LabelMap(labels, (LUNG,))))
    assert view.pixels[0, 0] == 3


def test_where_a_classifier_looked_lies_beside_the_image() -> None:
    package = load_package(SHIPPED_MODELS / "cxr-pneumonia")
    image = Radiograph(np.zeros((50, 50), np.float32), None, "x")
    activation = np.zeros((50, 50), np.uint8)
    activation[40, 10] = 255
    answer = Classification((ClassProbability("Normal", NODULE, 0.9, activation),))
    case = Case("x", "x", lambda: image, label="normal")
    plain = pixels_of(picture(case, findings(), package))
    both = pixels_of(picture(case, findings(classification=answer), package))
    assert both.shape[1] == pytest.approx(2 * plain.shape[1], abs=2)
    half = both.shape[1] // 2
    assert not both[:, :half].any()
    assert np.argwhere(both[:, half:].sum(axis=-1) > 100).mean(axis=0) / half == pytest.approx((0.81, 0.21), abs=0.03)
