"""What happens to an instance that the node is given, however it came: stored, told of, and only then acknowledged."""

import itertools
from collections.abc import Callable
from typing import Protocol

import structlog

from service.commitment import Report, read_report_file
from service.errors import OutOfResources, Quarantined
from service.header import HeaderFacts, manufacturer_of, read_facts
from service.receive.contexts import PROCESSED
from service.received import Received
from service.results.uids import MANUFACTURER
from service.spill import Spill
from service.spool import Spool, key_of
from service.versions import BESIDE_REASON, CORRECTED_REASON, Stored

log = structlog.get_logger()

SUCCESS = 0x0000
PROCESSING_FAILURE, INVALID_ARGUMENT = 0x0110, 0x0115  # of N-EVENT-REPORT (PS3.7 10.1.1.1.8)
DATA_SET_DOES_NOT_MATCH = 0xA900  # PS3.4 B.2.3
OTHER_CONTENT_IS_THERE = 0xC111
"""An instance that is not taken because of ``spool.duplicates = "reject"``.

0x0111, duplicate SOP instance, is a status of N-CREATE only (PS3.7 C.5). Of the failures that C-STORE has
(PS3.4 B.2.3), a sender tries again after 0xA7xx, and 0xA9xx would be wrong; so it is one of 0xCxxx, whose last three
digits are ours.
"""


_REASONS = {Stored.CORRECTED: CORRECTED_REASON, Stored.BESIDE: BESIDE_REASON}
_REJECTED = (
    "another instance is here under the same SOP Instance UID, and spool.duplicates = 'reject'; "
    "give the new one a UID of its own at its source"
)


new_association: Callable[[], int] = itertools.count(1).__next__
"""A number for an association, or for what comes in place of one: none had it before, since this process began."""


class Arrivals(Protocol):
    """Who wants to know what arrives (`service.series.completeness`, `service.series.streaming`)."""

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        """Whether an instance can be told of after it was acknowledged, since that cannot fail: its series is known.

        Then it is waited for until it is told of, or the association ends.
        """

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """An instance is stored. An error here keeps it from being acknowledged, where it was not expected."""

    def released(self, association: int) -> None:
        """The sender has released an association."""

    def aborted(self, association: int) -> None:
        """An association was aborted, or its connection lost."""


class Results(Protocol):
    """Who knows what was made here, and who waits for archives to commit to it (`service.deliver.commitment`)."""

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether it is an instance that was made here."""

    def reported(self, report: Report, archive: str) -> bool:
        """Keep what an archive (AE title) reports; return whether anybody had asked."""


class Intake:
    """Takes instances into the spool.

    Parameters
    ----------
    count
        Called once for each instance with what became of it (a value of `service.versions.Stored`, ``quarantined``,
        ``returned`` or ``refused``).
    results
        Of this node; None where there are none.
    """

    def __init__(self, spool: Spool, count: Callable[[str], None], results: Results | None = None) -> None:
        self._spool = spool
        self._count = count
        self._results = results
        self._listeners: tuple[Arrivals, ...] = ()
        self._stopped = False

    def tell(self, *listeners: Arrivals) -> None:
        """From now on, tell these of every instance and association, in this order."""
        self._listeners += listeners

    def stop(self) -> None:
        """Take nothing more: whoever still sends or fetches is refused, so that it ends."""
        self._stopped = True

    def take(
        self,
        received: Received,
        sender: str,
        association: int,
        named: tuple[str, str] | None = None,
        acknowledge: Callable[[], object] | None = None,
    ) -> int:
        """Keep one instance; return the status of C-STORE (PS3.4 B.2.3).

        Parameters
        ----------
        sender
            Its calling AE title.
        association
            Which association it came over, or which fetch: any number that no other one has at the time.
        named
            SOP class and instance by which the sender has announced it, where it has.
        acknowledge
            Called before this returns, where it is certain already that it would survive a power cut, and that the
            status is 0x0000: its sender need not wait for the rest.

        Raises
        ------
        OutOfResources, sqlalchemy.exc.DBAPIError
            It cannot be kept now, or a listener cannot be told. It may lie in the spool all the same; sent again, it
            is told again. Where it was acknowledged, the next start of the node gives it its place.
        """
        if self._stopped:
            raise OutOfResources("the node is stopping")
        try:
            facts = read_facts(received)
        except Quarantined as error:
            self._quarantine(key_of(named[1] if named else str(received.length)), received, str(error))
            return SUCCESS
        if named is not None and (facts.sop_class_uid, facts.sop_instance_uid) != named:
            self.refuse(sender, "SOP class or instance differ from the command's")
            return DATA_SET_DOES_NOT_MATCH
        if self._returns(facts, received):
            self._count("returned")
            log.info("instance.returned", sender=sender, reason="a result of this node, or of another one like it")
            return SUCCESS
        series = key_of(facts.study_uid, facts.series_uid)
        durable = acknowledge if acknowledge is not None and self.expects(association, facts) else None
        outcome = self._spool.store(series, key_of(facts.sop_instance_uid), received, durable=durable)
        if outcome is Stored.REJECTED:
            self._count(outcome.value)
            log.warning("instance.rejected", series=series, sender=sender, reason=_REJECTED)
            return OTHER_CONTENT_IS_THERE
        if outcome in _REASONS:
            log.warning(f"instance.{outcome.value}", series=series, sender=sender, reason=_REASONS[outcome])
        self.arrived(association, facts, sender)
        self._count(outcome.value)
        return SUCCESS

    def _returns(self, facts: HeaderFacts, received: Received) -> bool:
        """Whether it is a result that comes back with its study: of no use here, and nothing may be made of it.

        No image that models run on is one, so those are not looked at.
        """
        if facts.sop_class_uid in PROCESSED:
            return False
        return manufacturer_of(received) == MANUFACTURER or self.is_result(facts.sop_instance_uid)

    def is_result(self, sop_instance_uid: str) -> bool:
        """Whether it is an instance that was made here."""
        return self._results is not None and self._results.is_result(sop_instance_uid)

    def report(self, received: Received, sender: str) -> int:
        """Take an archive's report on storage commitment, a whole file; return the status of N-EVENT-REPORT.

        Raises
        ------
        OutOfResources, sqlalchemy.exc.DBAPIError
            It cannot be kept now.
        """
        try:
            report = read_report_file(received.whole())
        except ValueError as error:
            log.warning("commitment.not_understood", archive=sender, reason=str(error))
            return PROCESSING_FAILURE
        return SUCCESS if self.reported(report, sender) else INVALID_ARGUMENT

    def reported(self, report: Report, archive: str) -> bool:
        """Keep what an archive reports; return whether anybody had asked."""
        return self._results is not None and self._results.reported(report, archive)

    def spool_file(self) -> Spill:
        """Open a file for an instance that is too large for memory. Raises `OutOfResources`."""
        return self._spool.spill()

    def refuse(self, sender: str, reason: str) -> None:
        """Note that an instance was not taken."""
        self._count("refused")
        log.warning("instance.refused", sender=sender, reason=reason)

    def expects(self, association: int, facts: HeaderFacts) -> bool:
        """Whether all can be told of an instance after it was acknowledged."""
        return all(listener.expects(association, facts) for listener in self._listeners)

    def arrived(self, association: int, facts: HeaderFacts, sender: str) -> None:
        """An instance is stored. Raises as a listener may."""
        for listener in self._listeners:
            listener.arrived(association, facts, sender)

    def released(self, association: int) -> None:
        """The sender has released an association."""
        for listener in self._listeners:
            listener.released(association)

    def aborted(self, association: int) -> None:
        """An association was aborted, or its connection lost."""
        for listener in self._listeners:
            listener.aborted(association)

    def _quarantine(self, series: str, received: Received, reason: str) -> None:
        self._spool.quarantine(series, received, reason)
        self._count("quarantined")
        log.warning("instance.quarantined", series=series, reason=reason)
