"""Who sends by STOW-RS: the bearer of a token (RFC 6750) or of a certificate."""

import hmac

from service.receive.peer import Peer
from service.receive.policy import against
from service.settings import Settings


class Bearers:
    """The senders of the settings, and how they are told."""

    def __init__(self, settings: Settings) -> None:
        self._senders = settings.senders
        self._tokens = {name: token.get_secret_value().encode() for name, token in settings.stow.tokens.items()}

    def sender(self, peer: Peer, authorization: str) -> str | None:
        """The AE title that a request is sent by.

        Parameters
        ----------
        peer
            Where it comes from, and with what certificate.
        authorization
            Its header Authorization; empty where it has none, and then its certificate says who it is.

        Returns
        -------
        str or None
            None where that is unknown, or the settings do not let that sender send from there.
        """
        scheme, _, token = authorization.partition(" ")
        if scheme.lower() == "bearer":
            given = token.strip().encode()
            found = [name for name, known in self._tokens.items() if hmac.compare_digest(known, given)]
        else:
            found = [name for name in self._senders if self._certified(name, peer)]
        return next((name for name in found if self._may_send(name, peer)), None)

    def _certified(self, name: str, peer: Peer) -> bool:
        shown = peer.certificate
        return shown is not None and any(shown.matches(wanted) for wanted in self._senders[name].certificates)

    def _may_send(self, name: str, peer: Peer) -> bool:
        """Whether its table lets it, as over C-STORE; one that has no table is unknown, and the settings take those."""
        sender = self._senders.get(name)
        return sender is None or against(name, sender, peer) is None
