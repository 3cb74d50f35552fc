import pytest
from pydicom import Dataset

from service.series.detector import orientation, pixel_aspect, spacing


def header(**attributes: object) -> Dataset:
    data_set = Dataset()
    for name, value in attributes.items():
        setattr(data_set, name, value)
    return data_set


@pytest.mark.parametrize(
    ("attributes", "expected", "note"),
    [
        ({}, None, "not known"),
        ({"ImagerPixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "at the detector, larger"),
        ({"PixelSpacing": [0.2, 0.1]}, (0.2, 0.1), "uncalibrated"),
        ({"PixelSpacing": [0.2, 0.2], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "at the detector, larger"),
        ({"PixelSpacing": [0.18, 0.18], "ImagerPixelSpacing": [0.2, 0.2]}, (0.18, 0.18), "does not say how"),
        ({"PixelSpacing": [0.18, 0.18], "PixelSpacingCalibrationType": "FIDUCIAL"}, (0.18, 0.18), "FIDUCIAL"),
        (
            {
                "PixelSpacing": [0.18, 0.18],
                "ImagerPixelSpacing": [0.2, 0.2],
                "PixelSpacingCalibrationType": "GEOMETRY",
                "EstimatedRadiographicMagnificationFactor": 1.25,
            },
            (0.18, 0.18),
            "calibrated (GEOMETRY)",
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.1], "EstimatedRadiographicMagnificationFactor": 1.25},
            (0.16, 0.08),
            "divided by the estimated magnification, 1.25",
        ),
        (
            {
                "PixelSpacing": [0.2, 0.2],
                "ImagerPixelSpacing": [0.2, 0.2],
                "EstimatedRadiographicMagnificationFactor": 2,
            },
            (0.1, 0.1),
            "magnification, 2",
        ),
        (
            {"ImagerPixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 0.8},
            (0.2, 0.2),
            "at the detector, larger",
        ),
        (
            {"PixelSpacing": [0.2, 0.2], "EstimatedRadiographicMagnificationFactor": 1.25},
            (0.2, 0.2),
            "uncalibrated",
        ),
        ({"PixelSpacing": [0, 0], "ImagerPixelSpacing": [0.2, 0.2]}, (0.2, 0.2), "at the detector, larger"),
        ({"PixelSpacing": [0, 0]}, None, "not known"),
        ({"PixelSpacing": [0.1, -0.1]}, None, "not known"),
        ({"PixelSpacing": 0.1}, None, "not known"),
        ({"PixelSpacing": [0.1, float("inf")]}, None, "not known"),
        ({"PixelSpacing": None}, None, "not known"),
    ],
)
def test_the_spacing_is_the_one_nearest_to_the_patient_and_the_note_says_which(
    attributes: dict[str, object], expected: tuple[float, float] | None, note: str
) -> None:
    found, notes = spacing(header(**attributes))
    assert found == (None if expected is None else pytest.approx(expected))
    assert len(notes) == 1
    assert note in notes[0]


@pytest.mark.parametrize(
    ("ratio", "aspect"), [([2, 1], 2.0), ([1, 4], 0.25), (None, 1.0), (1, 1.0), ([0, 1], 1.0), ([1, 2, 3], 1.0)]
)
def test_the_aspect_is_height_over_width(ratio: object, aspect: float) -> None:
    assert pixel_aspect(header(PixelAspectRatio=ratio)) == aspect
    assert pixel_aspect(Dataset()) == 1.0


@pytest.mark.parametrize(
    ("value", "expected", "noted"),
    [
        (["L", "F"], ("L", "F"), False),
        (["R", "F"], ("R", "F"), False),
        (["F", "R"], ("F", "R"), False),
        (["A", "F"], ("A", "F"), False),
        (["LPH", "FA"], ("L", "F"), False),
        (None, ("L", "F"), False),
        ("", ("L", "F"), False),
        (["L", "R"], ("L", "F"), True),
        (["L", "L"], ("L", "F"), True),
        (["L", ""], ("L", "F"), True),
        (["X", "F"], ("L", "F"), True),
        ("L", ("L", "F"), True),
        (["L", "F", "H"], ("L", "F"), True),
    ],
)
def test_the_orientation_is_two_perpendicular_directions_or_upright(
    value: object, expected: tuple[str, str], noted: bool
) -> None:
    found, notes = orientation(header(PatientOrientation=value))
    assert found == expected
    assert bool(notes) == noted
    assert orientation(Dataset()) == (("L", "F"), ())
