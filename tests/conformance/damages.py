"""Result objects spoiled on purpose, one thing at a time, each of which somebody must notice before it is sent.

Those of SEG and SR are known to slip through single validators. UIDs stay as they are wherever they are not the damage,
so that nothing gives it away by its name.
"""

from collections.abc import Callable, Iterator, Mapping

from pydicom import Dataset

Damage = Callable[[Dataset], None]
ELSEWHERE = "1.2.3.9"
"""A UID that nothing has."""


def at(path: str, value: object) -> Damage:
    """Set an attribute of the first items of sequences: ``Sequence.Sequence.Attribute``."""

    def damage(dataset: Dataset) -> None:
        *sequences, keyword = path.split(".")
        for sequence in sequences:
            dataset = dataset[sequence].value[0]
        setattr(dataset, keyword, value)

    return damage


def without(path: str) -> Damage:
    """Remove an attribute of the first items of sequences."""

    def damage(dataset: Dataset) -> None:
        *sequences, keyword = path.split(".")
        for sequence in sequences:
            dataset = dataset[sequence].value[0]
        delattr(dataset, keyword)

    return damage


def halved(keyword: str) -> Damage:
    """Cut off the second half of a bulk attribute."""

    def damage(dataset: Dataset) -> None:
        value = dataset[keyword].value
        dataset[keyword].value = value[: len(value) // 4 * 2]

    return damage


def one_byte(keyword: str) -> Damage:
    """Change a byte in the middle of a bulk attribute, where it is not of one value all around."""

    def damage(dataset: Dataset) -> None:
        value = bytearray(dataset[keyword].value)
        middle = len(value) // 2
        place = next((index for index in range(middle, len(value)) if value[index] not in (0, 255)), middle)
        value[place] ^= 0xFF
        dataset[keyword].value = bytes(value)

    return damage


def frames(dataset: Dataset) -> list[Dataset]:
    return list(dataset.PerFrameFunctionalGroupsSequence)


def upside_down(dataset: Dataset) -> None:
    positions = [frame.PlanePositionSequence[0].ImagePositionPatient for frame in frames(dataset)]
    ordered = sorted({tuple(position) for position in positions}, key=lambda position: float(position[2]))
    mirrored = dict(zip(ordered, reversed(ordered), strict=True))
    for frame, position in zip(frames(dataset), positions, strict=True):
        frame.PlanePositionSequence[0].ImagePositionPatient = list(mirrored[tuple(position)])


def dangling_sources(dataset: Dataset) -> None:
    for frame in frames(dataset):
        frame.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID = ELSEWHERE


def more_frames(dataset: Dataset) -> None:
    dataset.NumberOfFrames = int(dataset.NumberOfFrames) + 5


def one_voxel_less(dataset: Dataset) -> None:
    pixels = bytearray(dataset.PixelData)
    place = next(index for index, value in enumerate(pixels) if value)
    pixels[place] &= pixels[place] - 1
    dataset.PixelData = bytes(pixels)


def items(item: Dataset) -> Iterator[Dataset]:
    for child in item.get("ContentSequence") or []:
        yield child
        yield from items(child)


def concept(item: Dataset) -> str:
    return str((item.get("ConceptNameCodeSequence") or [Dataset()])[0].get("CodeValue"))


def number(dataset: Dataset) -> Dataset:
    """The first measured number of a report."""
    return next(item for item in items(dataset) if item.ValueType == "NUM")


def segment_reference(dataset: Dataset) -> Dataset:
    """The first reference to a segment of a report."""
    return next(
        reference
        for item in items(dataset)
        for reference in item.get("ReferencedSOPSequence") or []
        if "ReferencedSegmentNumber" in reference
    )


def without_items(unwanted: Callable[[Dataset], bool]) -> Damage:
    """Remove content items wherever they are."""

    def damage(item: Dataset) -> None:
        if "ContentSequence" in item:
            item.ContentSequence = [child for child in item.ContentSequence if not unwanted(child)]
            for child in item.ContentSequence:
                damage(child)

    return damage


def in_apples(dataset: Dataset) -> None:
    unit = number(dataset).MeasuredValueSequence[0].MeasurementUnitsCodeSequence[0]
    unit.CodeValue, unit.CodeMeaning = "apples", "apples"


def ninth_segment(dataset: Dataset) -> None:
    segment_reference(dataset).ReferencedSegmentNumber = 9


def dangling_segmentation(dataset: Dataset) -> None:
    segment_reference(dataset).ReferencedSOPInstanceUID = ELSEWHERE


def beyond_measure(dataset: Dataset) -> None:
    number(dataset).MeasuredValueSequence[0].NumericValue = "1e99"
    number(dataset).ConceptNameCodeSequence[0].CodeMeaning = ""


def other_number(dataset: Dataset) -> None:
    number(dataset).MeasuredValueSequence[0].NumericValue = "1234.5"


def first_text(code: str, value: str) -> Damage:
    """Change the first text item of a concept."""

    def damage(dataset: Dataset) -> None:
        next(item for item in items(dataset) if item.ValueType == "TEXT" and concept(item) == code).TextValue = value

    return damage


def refers_to_segment(item: Dataset) -> bool:
    return any("ReferencedSegmentNumber" in reference for reference in item.get("ReferencedSOPSequence") or [])


def contour(dataset: Dataset) -> Dataset:
    found: Dataset = dataset.ROIContourSequence[0].ContourSequence[0]
    return found


def moved_contour(dataset: Dataset) -> None:
    values = [float(value) for value in contour(dataset).ContourData]
    contour(dataset).ContourData = [f"{value + 6 * (index % 3 == 0):.3f}" for index, value in enumerate(values)]


def one_contour_less(dataset: Dataset) -> None:
    dataset.ROIContourSequence[0].ContourSequence = list(dataset.ROIContourSequence[0].ContourSequence)[1:]


def moved_graphic(dataset: Dataset) -> None:
    graphic = next(
        each for layer in dataset.GraphicAnnotationSequence for each in layer.get("GraphicObjectSequence", [])
    )
    graphic.GraphicData = [float(value) + 3 for value in graphic.GraphicData]


def other_graphic_image(dataset: Dataset) -> None:
    # what is on no image in particular is on all of them
    placed = next(each for each in dataset.GraphicAnnotationSequence if "ReferencedImageSequence" in each)
    placed.ReferencedImageSequence[0].ReferencedSOPInstanceUID = ELSEWHERE


def dangling_document_image(dataset: Dataset) -> None:
    next(item for item in items(dataset) if item.ValueType == "IMAGE").ReferencedSOPSequence[
        0
    ].ReferencedSOPInstanceUID = ELSEWHERE


def one_item_less(dataset: Dataset) -> None:
    dataset.ContentSequence = list(dataset.ContentSequence)[:-1]


WRONG_PLACE: Mapping[str, Damage] = {
    "another patient": at("PatientID", "OTHER"),
    "another study": at("StudyInstanceUID", ELSEWHERE),
    "no modality": without("Modality"),
    "another maker": at("Manufacturer", "Somebody"),
    "another moment": at("InstanceCreationTime", "010203"),
}
CAPTURE: Mapping[str, Damage] = {
    **WRONG_PLACE,
    "another byte of the picture": one_byte("PixelData"),
    "half the picture": halved("PixelData"),
    "another description": at("SeriesDescription", "lungs"),
}
SEGMENTATION: Mapping[str, Damage] = {
    "positions upside down": upside_down,
    "a foreign frame of reference": at("FrameOfReferenceUID", ELSEWHERE),
    "dangling sources": dangling_sources,
    "no SegmentAlgorithmType": without("SegmentSequence.SegmentAlgorithmType"),
    "half the pixel data": halved("PixelData"),
    "five frames more said than there are": more_frames,
    "another patient, other name": lambda dataset: dataset.update(
        {"PatientID": "OTHER", "PatientName": "Someone^Else"}
    ),
    "another study": at("StudyInstanceUID", ELSEWHERE),
    "segment number 9": at("PerFrameFunctionalGroupsSequence.SegmentIdentificationSequence.ReferencedSegmentNumber", 9),
    "a date that is none": at("ContentDate", "2026-01-10"),
    "other pixel spacing": at("SharedFunctionalGroupsSequence.PixelMeasuresSequence.PixelSpacing", [0.75, 0.75]),
    "an unknown coding scheme": at(
        "SegmentSequence.SegmentedPropertyTypeCodeSequence.CodingSchemeDesignator", "XYZ_UNKNOWN_LONG"
    ),
    "a label in lower case": at("ContentLabel", "lower case label!"),
}
REPORT: Mapping[str, Damage] = {
    "no tracking UID": without_items(lambda item: concept(item) == "112040"),
    "a value in apples": in_apples,
    "segment 9": ninth_segment,
    "a dangling segmentation": dangling_segmentation,
    "another study": at("StudyInstanceUID", ELSEWHERE),
    "another patient": at("PatientID", "OTHER"),
    "no CompletionFlag": without("CompletionFlag"),
    "another template": at("ContentTemplateSequence.TemplateIdentifier", "9999"),
    "no reference to any segment": without_items(refers_to_segment),
    "no procedure": without_items(lambda item: concept(item) == "121058"),
    "a value beyond measure, a concept without meaning": beyond_measure,
    "a root that is no container": at("ValueType", "TEXT"),
    "empty evidence": at("CurrentRequestedProcedureEvidenceSequence", []),
}
DAMAGES: Mapping[str, Mapping[str, Damage]] = {
    "SEG": {**SEGMENTATION, "one voxel less": one_voxel_less},
    "SR": {
        **REPORT,
        "another value": other_number,
        "another remark": first_text("121106", "For clinical use"),
        "another observer": first_text("121013", "Somebody"),
        "another tracking identifier": first_text("112039", "Another finding"),
    },
    "HEATMAP-SEG": {
        **WRONG_PLACE,
        "another byte of a frame": one_byte("PixelData"),
        "half the pixel data": halved("PixelData"),
        "dangling sources": dangling_sources,
        "a foreign frame of reference": at("FrameOfReferenceUID", ELSEWHERE),
    },
    "SC": CAPTURE,
    "HEATMAP": CAPTURE,
    "PDF": {
        **WRONG_PLACE,
        "another byte of the document": one_byte("EncapsulatedDocument"),
        "half the document": halved("EncapsulatedDocument"),
        "another type of document": at("MIMETypeOfEncapsulatedDocument", "text/plain"),
        "another title": at("DocumentTitle", "Report"),
    },
    "RTSTRUCT": {
        **WRONG_PLACE,
        "a contour moved by a pixel": moved_contour,
        "one contour less": one_contour_less,
        "a dangling image": at(
            "ROIContourSequence.ContourSequence.ContourImageSequence.ReferencedSOPInstanceUID", ELSEWHERE
        ),
        "a foreign frame of reference": at("FrameOfReferenceUID", ELSEWHERE),
        "another region number": at("StructureSetROISequence.ROINumber", 7),
        "no name": without("StructureSetROISequence.ROIName"),
    },
    "GSPS": {
        **WRONG_PLACE,
        "a moved outline": moved_graphic,
        "an outline on another image": other_graphic_image,
        "another source series": at("ReferencedSeriesSequence.SeriesInstanceUID", ELSEWHERE),
        "another label": at("ContentLabel", "CLINICAL"),
    },
    "KO": {
        **WRONG_PLACE,
        "a dangling image": dangling_document_image,
        "an image less": one_item_less,
        "empty evidence": at("CurrentRequestedProcedureEvidenceSequence", []),
        "another title": at("ConceptNameCodeSequence.CodeValue", "113002"),
    },
}
"""By kind of object, then by name."""
