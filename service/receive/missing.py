"""Asks the archive of a series' sender how many instances there are, and has those sent that are missing here."""

from collections.abc import Mapping

from service.archive.base import Archive
from service.ledger.records import SeriesRecord
from service.receive.intake import Intake, new_association
from service.received import Received
from service.spool import Spool, key_of
from service.versions import instance_of


class MissingInstances:
    """What is here, held against what the archives have.

    Parameters
    ----------
    archives
        By the calling AE title of those whose results they get.
    """

    def __init__(self, archives: Mapping[str, Archive], spool: Spool, intake: Intake) -> None:
        self._archives = archives
        self._spool = spool
        self._intake = intake

    def count(self, record: SeriesRecord) -> int | None:
        """How many instances the archive has of a series; None where it cannot be asked. Raises as `Archive`."""
        archive = self._archives.get(record.sender)
        return None if archive is None else archive.count(record.study_uid, record.series_uid)

    def fetch(self, record: SeriesRecord) -> None:
        """Have the archive send what is missing, where the settings say that it may be asked. Raises as `Archive`."""
        archive = self._archives.get(record.sender)
        if archive is None or not archive.fetches:
            return
        here = {instance_of(path) for path in self._spool.instances(record.key)}
        missing = [uid for uid in archive.instances(record.study_uid, record.series_uid) if key_of(uid) not in here]
        if not missing:
            return
        association = new_association()

        def keep(content: bytes) -> None:
            self._intake.take(Received.of(content), record.sender, association)

        try:
            archive.fetch(record.study_uid, record.series_uid, missing, keep)
        finally:  # not as aborted, which would count as a habit of the sender
            self._intake.released(association)
