"""What independent checkers say against sound objects, and why it is let pass. Nothing else is.

`tests.conformance.test_matrix` fails where an entry is not needed any more.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from tests.conformance.checkers import Complaint


@dataclass(frozen=True)
class Waiver:
    """One known false or harmless complaint.

    Attributes
    ----------
    checker
        A key of `tests.conformance.checkers.CHECKERS`.
    pattern
        A regular expression, found in the complaint.
    reason
        Why it is let pass.
    kinds, cases
        Regular expressions for the whole kind of object and for the whole name of the case, ``SUBJECT FORM``.
    """

    checker: str
    pattern: str
    reason: str
    kinds: str = ".*"
    cases: str = ".*"

    def covers(self, checker: str, case: str, complaint: Complaint) -> bool:
        """Whether it is about this complaint."""
        return (
            checker == self.checker
            and re.fullmatch(self.cases, case) is not None
            and re.fullmatch(self.kinds, complaint.kind) is not None
            and re.search(self.pattern, complaint.text) is not None
        )


LABEL_MAP = r".* (labelmap|rle|jpeg-ls|jpeg-2000)"
"""Cases whose SEG is of a SOP class of 2024."""

WAIVERS: Sequence[Waiver] = (
    Waiver(
        "dciodvfy",
        "Information Object Not found|SegmentNumber not monotonically increasing from one by one - .* of 0",
        "dicom3tools of 2022 does not know Label Map Segmentation, whose background is segment 0 (PS3.3 C.8.20.4)",
        kinds="SEG",
        cases=LABEL_MAP,
    ),
    Waiver(
        "dciodvfy",
        "ReferencedSegmentNumber.* - Shall not be present for Referenced SOP Class that is not segmentation",
        "dicom3tools of 2022 does not know that a Label Map Segmentation is one",
        kinds="SR",
        cases=LABEL_MAP,
    ),
    Waiver(
        "dsrdump, dsr2html",
        "Invalid Value",
        "DCMTK 3.6.7 of 2022 lets references name a segment in a Segmentation only, not in a Label Map Segmentation",
        kinds="SR",
        cases=LABEL_MAP,
    ),
    Waiver(
        "segimage2itkimage",
        "not read: Fatal error",
        "dcmqi 1.5.7 decodes neither JPEG-LS nor JPEG 2000; highdicom does",
        cases=r".* jpeg-(ls|2000)",
    ),
    Waiver(
        "segimage2itkimage",
        "not read: .* does not exist",
        "an ITK image has no room for tilted, uneven slices; dcmqi gives up on them (docs/results.md)",
        cases="tilted-ct .*",
    ),
    Waiver(
        "PixelMed",
        "Template 141[01] (Planar|Volumetric)ROIMeasurements/.*(Image Region|Volume Surface|Referenced Segment)",
        "it takes all groups of a report for the template of the first one, and so misses in TID 1410 (an outline to "
        "be drawn) what TID 1411 (a segment) must have, or the other way round",
        kinds="SR",
    ),
    *(
        Waiver(
            checker,
            "DeidentificationMethod.*[Ee]mpty",
            "the source says that it was de-identified and leaves the method empty; results say what the source says",
            cases="tilted-ct .*",
        )
        for checker in ("dciodvfy", "dicom-validator")
    ),
    Waiver(
        "dciodvfy",
        r"/Laterality\(0020,0060\)> - Missing",
        "wanted of presentation states only, and whatever the body part; a chest is not paired (PS3.3 C.7.3.1)",
        kinds="GSPS",
    ),
    Waiver(
        "dciodvfy",
        "ModalityLUTSequence.* - LookupTableData bad",
        "the table is the source's own, whose values need fewer bits than it has",
        kinds="GSPS",
        cases="dx all",
    ),
    Waiver(
        "dicom-validator",
        "OtherPatientIDs is unexpected",
        "retired since 2017, and copied from the source all the same: archives know patients by it",
        cases="ct .*",
    ),
    Waiver(
        "dicom-validator",
        "RT ROI Observations: RTROIObservationsSequence / .* is unexpected",
        "dicom-standard 0.1.0 has lost that these attributes are within the sequence (PS3.3 C.8.8.8)",
        kinds="RTSTRUCT",
    ),
)
