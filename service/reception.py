"""All of a node that receives: ports, processes, the intake, and who finds series complete."""

from contextlib import ExitStack

from service.archive.client import archives_of
from service.deliver.commitment import Reports
from service.ledger.ledger import Ledger
from service.operate.metrics import Metrics
from service.receive.intake import Arrivals, Intake
from service.receive.listener import listeners
from service.receive.missing import MissingInstances
from service.receive.policy import AssociationPolicy, Seats
from service.receive.port import Port
from service.receive.receivers import Receivers
from service.receive.stow import stow_servers
from service.series.completeness import Completeness
from service.settings import Settings
from service.spool import Spool
from service.urgency import Urgency


class Reception:
    """Built and started in one: what has begun ends where what follows fails.

    Parameters
    ----------
    also
        Who is told of every instance and association, beside the one that finds series complete.

    Raises
    ------
    WetreadError
        A port cannot be had, a receiver cannot be started, or a certificate is not as it must be.
    """

    def __init__(self, settings: Settings, spool: Spool, ledger: Ledger, metrics: Metrics, *also: Arrivals) -> None:
        self._ledger, self._shared = ledger, bool(settings.shared)
        with ExitStack() as begun:
            reports = Reports(ledger, settings.node.ae_title)
            self._intake = Intake(spool, metrics.count_instance, reports)
            missing = MissingInstances(archives_of(settings), spool, self._intake)
            self._completeness = Completeness(
                settings.series,
                spool,
                ledger,
                counts=missing.count,
                fetch=missing.fetch,
                urgent=Urgency(settings, spool),
            )
            begun.callback(self._completeness.close)
            self._completeness.resume(interrupted=True)
            self._intake.tell(self._completeness, *also)
            seats = Seats.of(settings.node)
            self._receivers = Receivers(settings, spool, seats, self._intake, metrics.count_instance)
            begun.callback(self._receivers.stop)
            self._receivers.start()
            self._listeners: tuple[Port, ...] = self._receivers.ports()
            if not self._listeners:
                self._listeners = listeners(settings, AssociationPolicy(settings, seats), self._intake)
            for listener in self._listeners:
                listener.start()
                begun.callback(listener.stop)
            self._stow = stow_servers(settings, self._intake, seats)
            for server in self._stow:
                server.start()
                begun.callback(server.stop)
            begun.pop_all()

    def drain(self) -> None:
        """Take nothing more; what is being stored is stored first."""
        for listener in self._listeners:
            listener.stop()
        self._receivers.stop()
        self._intake.stop()
        for server in self._stow:
            server.stop()

    def close(self) -> None:
        """Decide nothing more."""
        self._completeness.close()

    def decide(self) -> None:
        """Complete what is whole, and end receivers that hang. Call it several times a second."""
        self._receivers.ask()
        self._completeness.decide()

    def beat(self) -> None:
        """Go on receiving what is being received here, and take up what a node has left that is no more."""
        if not self._ledger.still_receiving:
            self._completeness.reopen()
        self._ledger.keep_receiving()
        self._completeness.resume(interrupted=self._shared)

    @property
    def port(self) -> int:
        """The DICOM port it listens on: the plain one where there is one."""
        return self._listeners[0].port

    @property
    def listening(self) -> bool:
        """Whether senders find it."""
        return self._receivers.serving and all(listener.listening for listener in self._listeners)

    @property
    def lost(self) -> int:
        """How many of its processes do not serve just now."""
        return self._receivers.lost
