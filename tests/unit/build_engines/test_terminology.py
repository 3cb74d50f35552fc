import re

import pytest
from pydicom.sr._concepts_dict import concepts

from build_engines.terminology.labels import LEFT, PRIVATE, RIGHT, code_labels, find, readable, table

IN_DICOM: dict[str, set[str]] = {}
for entries in concepts["SCT"].values():
    for value, (meaning, _) in entries.items():
        IN_DICOM.setdefault(value, set()).add(meaning.lower())

RIBS = [f"rib_{side}_{number}" for side in ("left", "right") for number in range(1, 13)]
VERTEBRAE = [
    f"vertebrae_{name}"
    for name in ("S1", *(f"{part}{n}" for part, last in (("L", 5), ("T", 12), ("C", 7)) for n in range(1, last + 1)))
]
TOTAL = """
spleen kidney_right kidney_left gallbladder liver stomach pancreas adrenal_gland_right adrenal_gland_left
lung_upper_lobe_left lung_lower_lobe_left lung_upper_lobe_right lung_middle_lobe_right lung_lower_lobe_right esophagus
trachea thyroid_gland small_bowel duodenum colon urinary_bladder prostate kidney_cyst_left kidney_cyst_right sacrum
heart aorta pulmonary_vein brachiocephalic_trunk subclavian_artery_right subclavian_artery_left
common_carotid_artery_right common_carotid_artery_left brachiocephalic_vein_left brachiocephalic_vein_right
atrial_appendage_left superior_vena_cava inferior_vena_cava portal_vein_and_splenic_vein iliac_artery_left
iliac_artery_right iliac_vena_left iliac_vena_right humerus_left humerus_right scapula_left scapula_right clavicula_left
clavicula_right femur_left femur_right hip_left hip_right spinal_cord gluteus_maximus_left gluteus_maximus_right
gluteus_medius_left gluteus_medius_right gluteus_minimus_left gluteus_minimus_right autochthon_left autochthon_right
iliopsoas_left iliopsoas_right brain skull sternum costal_cartilages
"""
"""The classes of TotalSegmentator's task "total" (version 2), but for ribs and vertebrae."""


def test_every_code_is_what_dicom_says_it_is() -> None:
    for row in table():
        assert row.in_dicom == (row.code in IN_DICOM), row
        if row.in_dicom:
            assert row.meaning.lower() in IN_DICOM[row.code], (row, IN_DICOM[row.code])


def test_every_row_says_where_its_code_is_from() -> None:
    for row in table():
        assert re.fullmatch(r"\d{6,18}", row.code), row
        assert re.fullmatch(r"PS3\.16 CID \d+|TotalSegmentator|SNOMED CT|pydicom\.sr", row.source), row
        assert row.source.startswith("PS3.16") <= row.in_dicom, row
        assert re.fullmatch("#[0-9a-f]{6}", row.colour), row
        assert 1 <= len(row.meaning) <= 64, row


def test_every_class_of_totalsegmentator_has_a_code_of_its_own() -> None:
    classes = [*TOTAL.split(), *RIBS, *VERTEBRAE]
    assert len(set(classes)) == 117
    found = {label: find(label) for label in classes}
    assert not [label for label, concept in found.items() if concept is None]
    coded = {(concept.type, concept.laterality) for concept in found.values() if concept}
    # cysts of the two kidneys differ by laterality, as everything that is there twice
    assert len(coded) == 117


def test_the_side_of_a_label_becomes_its_laterality() -> None:
    for label in ("kidney_left", "Left kidney", "kidneys (L)", "leftKidney", "KIDNEY-LEFT"):
        concept = find(label)
        assert concept is not None
        assert (concept.type.value, concept.laterality) == ("64033007", LEFT), label
    right = find("kidney_right")
    assert right is not None
    assert right.laterality == RIGHT


def test_what_is_of_one_side_itself_gets_no_laterality() -> None:
    concept = find("heart_atrium_left")
    assert concept is not None
    assert (concept.type.meaning, concept.laterality) == ("Left atrium", None)


@pytest.mark.parametrize("label", ["subclavian_artery_left", "subclavian_artery_right"])
def test_the_subclavian_artery_is_of_no_side(label: str) -> None:
    # 29700009, which TotalSegmentator's table has for both sides, is the right one
    concept = find(label)
    assert concept is not None
    assert concept.type.value == "36765005"


def test_no_two_rows_answer_to_one_name() -> None:
    for row in table():
        for name in (row.label, *row.aliases):
            concept = find(name)
            assert concept is not None
            assert concept.type.value == row.code, name


def test_an_unknown_label_gets_a_placeholder_that_is_the_same_in_every_model() -> None:
    unknown, liver = code_labels(["frobnicated_region", "liver"])
    assert not unknown.known
    assert (unknown.type.scheme, unknown.type.meaning, unknown.label) == (PRIVATE, *["Frobnicated region"] * 2)
    assert code_labels(["spleen", "Frobnicated region"])[1].type.value == unknown.type.value
    assert len(unknown.type.value) <= 16
    assert liver.known
    assert code_labels(["other"])[0].type.value != unknown.type.value


def test_a_label_of_both_sides_is_not_guessed() -> None:
    assert find("left and right kidney") is None
    assert readable("left_and_right  kidney") == "Left and right kidney"
