"""Listens for DICOM peers, and gives each connection a thread of this process."""

from service.receive.connections import Connections
from service.receive.conversation import Takes
from service.receive.policy import AssociationPolicy
from service.receive.port import Port
from service.receive.tls import Tls
from service.settings import Settings


class Listener(Port):
    """The Storage and Verification SCP (PS3.4 B, A) on one port: that of ``[node]``, or with TLS that of ``[tls]``."""

    def __init__(self, settings: Settings, policy: AssociationPolicy, intake: Takes, tls: Tls | None = None) -> None:
        self._connections = Connections(settings, policy, intake, tls)
        super().__init__(settings, tls is not None, self._connections.begin)

    def stop(self) -> None:
        """Take no new connections, and end those that are open when what they are storing is stored."""
        super().stop()
        self._connections.stop()


def listeners(settings: Settings, policy: AssociationPolicy, intake: Takes) -> tuple[Listener, ...]:
    """Those that the settings ask for: plain, with TLS, or both. Raises `ConfigurationError` for wrong certificates."""
    plain = () if settings.tls.only else (Listener(settings, policy, intake),)
    return (*plain, Listener(settings, policy, intake, Tls(settings.tls))) if settings.tls.on else plain
