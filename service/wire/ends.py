"""How an association ends.

::

    End
    ├── ReleaseRequested   the peer asks for its release
    ├── PeerAborted        the peer has sent an A-ABORT
    ├── ProtocolError      what the peer sent ends it by an A-ABORT of ours
    ├── ConnectionLost     the peer, the network or a stop of the node has ended the connection
    └── TimedOut           the peer has not sent in time what it had to
"""

SERVICE_USER, SERVICE_PROVIDER = 0, 2
"""Sources of an A-ABORT (PS3.8 9.3.8): the DIMSE messages are wrong, or the PDUs."""
NOT_SPECIFIED, UNRECOGNIZED_PDU, UNEXPECTED_PDU, INVALID_PARAMETER = 0, 1, 2, 6
"""Reasons of an A-ABORT (PS3.8 9.3.8)."""


class End(Exception):
    """Why an association ends."""


class ReleaseRequested(End):
    """The peer asks to release the association."""


class PeerAborted(End):
    """The peer has aborted the association."""


class ProtocolError(End):
    """What the peer sent ends the association by an A-ABORT of ours.

    Attributes
    ----------
    source, reason
        Of the A-ABORT.
    """

    def __init__(self, words: str, reason: int = INVALID_PARAMETER, source: int = SERVICE_PROVIDER) -> None:
        super().__init__(words)
        self.source, self.reason = source, reason


class ConnectionLost(End):
    """The peer, or the network, has ended the connection; or the node does."""


class TimedOut(End):
    """The peer has not sent in time what it had to."""
