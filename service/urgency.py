"""Which series come before all others because their images say so."""

import pydicom

from service.ledger.records import SeriesRecord
from service.settings import Settings
from service.spool import Spool

KEYWORDS = ("RequestedProcedurePriority", "StudyPriorityID")
"""(0040,1003) of the Requested Procedure Module (PS3.3 C.4.11), and (0032,000C), retired, which older systems send."""
URGENT = ("STAT", "HIGH")


class Urgency:
    """Tells of a series whether it is urgent, as far as the settings of its sender let its images say so."""

    def __init__(self, settings: Settings, spool: Spool) -> None:
        self._settings = settings
        self._spool = spool

    def __call__(self, series: SeriesRecord) -> bool:
        """Look into one image of a series; one that cannot be read says nothing."""
        sender = self._settings.senders.get(series.sender)
        if sender is not None and sender.priority != "header":
            return False  # the ledger knows those whose sender is urgent
        first = next(iter(self._spool.instances(series.key)), None)
        if first is None:
            return False
        try:
            header = pydicom.dcmread(first, stop_before_pixels=True, specific_tags=list(KEYWORDS))
            said = [str(header.get(keyword, "")).strip().upper() for keyword in KEYWORDS]
        except Exception:  # a parser can fail in many ways; assembly says what is wrong
            return False
        return any(word in URGENT for word in said)
