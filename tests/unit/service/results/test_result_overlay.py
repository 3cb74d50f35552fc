from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from engines.types import LabelMap, Radiograph, Volume
from service.results.pictures.overlay import overlay_png
from service.results.pictures.views import fit, grey, in_patient_order, patient_axes, plane_picture
from tests.unit.service.results.examples import (
    LEFT_LUNG,
    RIGHT_LUNG,
    Example,
    findings,
    lung_findings,
    pneumonia_findings,
    small_ct,
    two_fields,
)

BLACK = np.zeros((20, 30), np.uint8)


def share_of(picture: Pillow.Image, colour: tuple[int, int, int]) -> float:
    """How much of a picture has exactly this colour."""
    return float((np.asarray(picture) == colour).all(axis=-1).mean())


@given(st.permutations(range(3)), st.tuples(*[st.booleans()] * 3))
def test_an_array_of_any_orientation_is_turned_to_head_posterior_and_left(
    order: list[int], flips: tuple[bool, ...]
) -> None:
    in_order = np.arange(24).reshape(2, 3, 4)
    affine = np.zeros((4, 4))
    # column k of an affine is the patient direction of array axis k; z, y and x are its rows 2, 1 and 0
    for axis, place in enumerate(order):
        affine[2 - place, axis] = -1.5 if flips[place] else 1.5
    flipped = np.flip(in_order, [place for place in range(3) if flips[place]])
    assert np.array_equal(in_patient_order(np.transpose(flipped, order), affine), in_order)
    assert [order[axis] for axis in patient_axes(affine)] == [0, 1, 2]


def test_a_slightly_oblique_array_stays_as_it_is() -> None:
    volume, _ = small_ct()
    tilt = np.deg2rad(20)
    rotation = np.eye(4)
    rotation[1:3, 1:3] = [[np.cos(tilt), -np.sin(tilt)], [np.sin(tilt), np.cos(tilt)]]
    assert np.array_equal(in_patient_order(volume.array, rotation @ volume.affine), volume.array)


def test_a_window_maps_its_limits_to_black_and_white() -> None:
    assert grey(np.array([-2000, -1350, -600, 150, 3000]), -1350, 150).tolist() == [0, 0, 127, 255, 255]


def test_a_plane_keeps_its_proportions() -> None:
    assert fit((100, 50), (1.0, 2.0), (300, 300)) == (300, 300)
    assert fit((100, 50), (2.0, 1.0), (300, 300)) == (75, 300)


def test_a_segment_is_outlined_in_its_colour_and_filled_faintly() -> None:
    labels = np.zeros(BLACK.shape, np.uint8)
    labels[5:15, 5:25] = LEFT_LUNG.number
    picture = plane_picture(BLACK, [(labels, [LEFT_LUNG, RIGHT_LUNG])], (300, 200))
    pixels = np.asarray(picture)
    assert 0 < share_of(picture, LEFT_LUNG.colour) < 0.1
    assert share_of(picture, RIGHT_LUNG.colour) == 0
    inside, outside = pixels[100, 150], pixels[10, 10]
    assert outside.tolist() == [0, 0, 0]
    assert 0 < inside[0] < LEFT_LUNG.colour[0] / 2


def test_the_patients_right_is_on_the_left_and_the_head_is_up(tmp_path: Path) -> None:
    # stored feet up and mirrored: index 0 is the head, column 0 the patient's left
    shape = (40, 30, 30)
    affine = np.diag([1.0, 1.0, 1.0, 1.0])[[2, 1, 0, 3]] * 3
    affine[3, 3] = 1
    affine[:3, 0] *= -1
    affine[:3, 2] *= -1
    volume = Volume(np.full(shape, -800, np.int16), affine, tuple(map(str, range(shape[0]))))
    labels = np.zeros(shape, np.uint8)
    labels[:8, :, 20:] = RIGHT_LUNG.number
    overlay_png(tmp_path / "sheet.png", volume, lung_findings(labels, volume))
    with Pillow.open(tmp_path / "sheet.png") as sheet:
        pixels = np.asarray(sheet.convert("RGB"))[:, :822]
    rows, columns = np.nonzero((pixels == RIGHT_LUNG.colour).all(axis=-1))
    # the coronal plane is the lowest panel, 24 pixels above the edge and about 520 high
    top = pixels.shape[0] - 24 - 520
    coronal = rows > top + 5
    assert coronal.any()
    assert columns[coronal].max() < 822 / 2
    assert rows.max() < top + 520 / 3


def test_the_sheet_of_a_real_ct_is_1200_pixels_wide_and_shows_both_lungs(nlst_ct: Example, tmp_path: Path) -> None:
    overlay_png(tmp_path / "sheet.png", nlst_ct.image, nlst_ct.findings)
    with Pillow.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width == 1200
        assert 700 < sheet.height < 1800
        for segment in (LEFT_LUNG, RIGHT_LUNG):
            assert share_of(sheet.convert("RGB"), segment.colour) > 0.002


def test_slices_that_are_not_evenly_spaced_are_drawn_where_they_lie(tmp_path: Path) -> None:
    volume, _ = small_ct((24, 30, 40))
    array, labels = np.full(volume.array.shape, -800, np.int16), np.zeros(volume.array.shape, np.uint8)
    array[8:14], labels[8:14, 5:20, 10:30] = -200, LEFT_LUNG.number  # the same from slice 8 to slice 13
    kept = [index for index in range(24) if index not in (3, 4, 10, 11)]
    whole = replace(volume, array=array)
    uneven = Volume(array[kept], volume.affine, tuple(map(str, kept)), at=tuple(map(float, kept)))
    overlay_png(tmp_path / "whole.png", whole, lung_findings(labels, whole))
    overlay_png(tmp_path / "uneven.png", uneven, lung_findings(labels[kept], uneven))
    with Pillow.open(tmp_path / "whole.png") as one, Pillow.open(tmp_path / "uneven.png") as other:
        assert np.array_equal(np.asarray(one)[:, :822], np.asarray(other)[:, :822])


@pytest.mark.parametrize("shape", [(2, 1, 1), (3, 700, 5), (300, 4, 4)])
def test_odd_volumes_and_empty_findings_can_be_drawn(shape: tuple[int, int, int], tmp_path: Path) -> None:
    volume, _ = small_ct(shape)
    overlay_png(tmp_path / "empty.png", volume, lung_findings(np.zeros(shape, np.uint8), volume))
    overlay_png(tmp_path / "none.png", volume, findings())
    assert (tmp_path / "empty.png").is_file()
    assert (tmp_path / "none.png").is_file()


def test_a_radiograph_is_drawn_with_its_lung_fields_and_probabilities(tmp_path: Path) -> None:
    shape = (300, 200)
    image = Radiograph(np.random.default_rng(0).random(shape, np.float32), (0.2, 0.4), "1.2.3")
    found = replace(pneumonia_findings(), label_map=LabelMap(two_fields(shape), (LEFT_LUNG, RIGHT_LUNG)))
    overlay_png(tmp_path / "both.png", image, found)
    overlay_png(tmp_path / "classes.png", image, pneumonia_findings())
    with Pillow.open(tmp_path / "both.png") as both, Pillow.open(tmp_path / "classes.png") as classes:
        assert share_of(both.convert("RGB"), LEFT_LUNG.colour) > 0.001
        assert share_of(classes.convert("RGB"), LEFT_LUNG.colour) == 0
        # the bars: amber for the most probable class
        assert share_of(classes.convert("RGB"), (255, 180, 84)) > 0.001


def test_the_same_findings_give_the_same_picture(tmp_path: Path) -> None:
    volume, _ = small_ct()
    for name in ("one.png", "two.png"):
        overlay_png(tmp_path / name, volume, lung_findings(np.ones(volume.array.shape, np.uint8), volume))
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()
