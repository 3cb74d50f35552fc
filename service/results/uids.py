"""UIDs that follow from what a result is made of, so that a repeat makes the same object (PS3.5 B.2)."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID, uuid5

from pydicom.uid import UID

from engines.types import Findings, Image, ModelIdentity, Volume

NAMESPACE = UUID("ed26c229-5479-4d1a-bedb-8823b802ca3c")
"""Wetread's own name space for UUIDv5 (RFC 9562 5.5)."""
UUID_ROOT = "2.25"
LONGEST = 64


def derived_uid(*parts: str, root: str = UUID_ROOT) -> str:
    """A UID that is the same for the same parts, on every machine.

    Parameters
    ----------
    *parts
        What the UID stands for; their order counts.
    root
        ``2.25`` for a UUID; below any other root, as many digits of the UUID as 64 characters leave room for.

    Returns
    -------
    str
        At most 64 characters; 44 below ``2.25``.
    """
    number = uuid5(NAMESPACE, json.dumps(parts)).int
    if root != UUID_ROOT:
        number %= 10 ** (LONGEST - len(root) - 1)
    return f"{root}.{number}"


MANUFACTURER = "Wetread"
"""Of every result (PS3.3 C.7.5.1), and nothing else: what says so was made by a node like this one."""

IMPLEMENTATION_CLASS_UID = UID(derived_uid("implementation class"))
"""What has written files of ours, and associates for us (PS3.7 D.3.3.2)."""


def frame_of_reference_uid(*source_uids: str, root: str = UUID_ROOT) -> str:
    """The frame of reference of an image that has none: the same for every model that looks at that image."""
    return derived_uid("frame of reference", *source_uids, root=root)


@dataclass(frozen=True)
class ResultUIDs:
    """The UIDs of all that one model says about one series.

    Attributes
    ----------
    series_uid
        Series Instance UID of the source.
    instance_uids
        SOP Instance UIDs of the source, with the frame where it has several, sorted. A late slice gives other results,
        with other UIDs.
    model
        Name, version, digest and ``uid_root`` count.
    revision
        Which corrections of the source images it rests on (`service.versions.revision`), empty where there were none:
        corrected images have the same UIDs, and their results must not.
    notes
        What a reader is told of the input. The same images with another note give another report.
    profile
        The identity of the profile that the objects are made for: another archive gets other objects.
    root
        Of every UID.
    """

    series_uid: str
    instance_uids: tuple[str, ...]
    model: ModelIdentity
    revision: str = ""
    notes: tuple[str, ...] = ()
    profile: str = ""
    root: str = UUID_ROOT

    @classmethod
    def of(
        cls,
        series_uid: str,
        instance_uids: Sequence[str],
        model: ModelIdentity,
        revision: str = "",
        notes: tuple[str, ...] = (),
        profile: str = "",
        root: str = UUID_ROOT,
    ) -> "ResultUIDs":
        """For source instances in any order, repeated or not."""
        return cls(series_uid, tuple(sorted(set(instance_uids))), model, revision, notes, profile, root)

    @classmethod
    def about(
        cls,
        findings: Findings,
        image: Image,
        series_uid: str,
        revision: str = "",
        profile: str = "",
        root: str = UUID_ROOT,
    ) -> "ResultUIDs":
        """For the findings of one model about an image of a series."""
        sources = image.sources if isinstance(image, Volume) else (image.source,)
        if isinstance(image, Volume) and image.frames:  # a multi-frame image may hold several stacks
            sources = tuple(f"{uid} {frame}" for uid, frame in zip(image.sources, image.frames, strict=True))
        return cls.of(series_uid, sources, findings.model, revision, findings.notes, profile, root)

    def series(self, kind: str, part: int = 1) -> str:
        """Series Instance UID of the result objects of this kind (``SEG``, ``SR``); parts are series of their own."""
        return self._uid("series", kind, str(part))

    def instance(self, kind: str, number: int = 1) -> str:
        """SOP Instance UID of a result object of this kind, counted from 1."""
        return self._uid("instance", kind, str(number))

    def dimension_organization(self, kind: str, part: int = 1) -> str:
        """Dimension Organization UID of a segmentation of this kind."""
        return self._uid("dimension organization", kind, str(part))

    def tracking(self, finding: str) -> str:
        """Tracking Unique Identifier of one finding: a segment or a class, named by its label."""
        return self._uid("tracking", finding)

    def tracking_identifier(self, finding: str) -> str:
        """Tracking Identifier of one finding (UT, of any length): what a reader sees it followed under."""
        return f"{self.model.name} {finding}"

    def device(self) -> str:
        """Device Observer UID: the model itself, whatever it looks at."""
        model = self.model
        return derived_uid("device", model.name, model.version, model.digest, model.uid_root, root=self.root)

    def _uid(self, *what: str) -> str:
        model = self.model
        identity = (model.name, model.version, model.digest, model.uid_root)
        told = (self.profile, self.revision, *self.notes)
        return derived_uid(*what, *identity, self.series_uid, *self.instance_uids, *told, root=self.root)
