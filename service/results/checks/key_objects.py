"""Does this Key Object Selection Document point to the images that matter, and to nothing else?"""

from collections.abc import Iterable, Mapping, Sequence

from pydicom import Dataset

from engines.types import Volume
from service.results.analysis import Analysis
from service.results.checks.mismatch import only, require
from service.results.checks.places import Place, places_of, planes_of
from service.results.writers.key_objects import PICTURES, description
from service.types import ResultObject

OF_INTEREST, DESCRIPTION = "113000", "113012"

Known = Mapping[str, tuple[str, str]]
"""SOP class and series of each instance that may be referred to."""


def check_key_objects(datasets: Iterable[Dataset], analysis: Analysis, made: Sequence[ResultObject]) -> None:
    """Compare a decoded document with findings, source and other results (`service.results.kinds.Check`)."""
    dataset = only(datasets, "KO")
    _require(dataset.ConceptNameCodeSequence[0].CodeValue == OF_INTEREST, "its title is not Of Interest")
    template = dataset.ContentTemplateSequence[0].TemplateIdentifier
    _require(template == "2010", "the root template is not TID 2010")
    items = dataset.ContentSequence
    texts = [item.TextValue for item in items if item.ConceptNameCodeSequence[0].CodeValue == DESCRIPTION]
    _require(texts == [description(analysis)], "it does not say that it is for research only, or why these images")
    known = _known(analysis, made)
    images = [item.ReferencedSOPSequence[0] for item in items if item.ValueType in ("IMAGE", "COMPOSITE")]
    pictures = [(entry.sop_instance_uid, None) for entry in made if entry.kind in PICTURES]
    places = [place for image in images for place in places_of(image)]
    expected = [*sorted(_key_places(analysis), key=planes_of(analysis.source).index), *pictures]
    _require(places == expected, "it refers to other images than those that matter")
    states = [state for image in images for state in image.get("ReferencedSOPSequence") or []]
    made_states = {entry.sop_instance_uid for entry in made if entry.kind == "GSPS"}
    _require(
        {state.ReferencedSOPInstanceUID for state in states} <= made_states, "it refers to an unknown presentation"
    )
    for reference in (*images, *states):
        sop_class, _ = known.get(reference.ReferencedSOPInstanceUID, ("", ""))
        _require(reference.ReferencedSOPClassUID == sop_class, "it refers to an object of another class")
    referred_to = {reference.ReferencedSOPInstanceUID for reference in (*images, *states)} | made_states
    _check_evidence(dataset, {uid: known[uid] for uid in referred_to}, analysis)


def _require(holds: bool, difference: str) -> None:
    require(holds, "KO", difference)


def _known(analysis: Analysis, made: Sequence[ResultObject]) -> Known:
    known = {entry.sop_instance_uid: (entry.sop_class_uid, entry.series_uid) for entry in made}
    for header in analysis.source.headers:
        known[str(header.SOPInstanceUID)] = (str(header.SOPClassUID), str(header.SeriesInstanceUID))
    return known


def _key_places(analysis: Analysis) -> set[Place]:
    """Where each segment has most voxels, diameters end, and detections lie; the image, where it is one."""
    planes = planes_of(analysis.source)
    if not isinstance(analysis.image, Volume):
        return {planes[0]}
    slices = {round(point[0]) for entry in analysis.findings.measurements for point in entry.points}
    slices |= {found.middle for found in analysis.detected}
    for label_map in analysis.label_maps:
        slices |= {int(label_map.counts[:, segment.number].argmax()) for segment in label_map.present}
    return {planes[index] for index in slices}


def _check_evidence(dataset: Dataset, expected: Known, analysis: Analysis) -> None:
    """Every object that is referred to is listed, in its class and series, of the same study."""
    listed = {}
    for study in dataset.CurrentRequestedProcedureEvidenceSequence:
        _require(study.StudyInstanceUID == analysis.source.first.StudyInstanceUID, "its evidence is of another study")
        for series in study.ReferencedSeriesSequence:
            for item in series.ReferencedSOPSequence:
                place = (str(item.ReferencedSOPClassUID), str(series.SeriesInstanceUID))
                listed[str(item.ReferencedSOPInstanceUID)] = place
    _require(listed == dict(expected), "its evidence is not what it refers to")
