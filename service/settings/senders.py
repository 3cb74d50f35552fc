"""``[senders.AETITLE]``: who may send."""

from typing import Literal

from pydantic import IPvAnyNetwork

from service.settings.section import CertificateName, Section


class SenderSettings(Section):
    """``[senders.AETITLE]``: a known calling AE title and the archive that its results go to."""

    archive: str
    priority: Literal["header", "routine", "stat"] = "header"
    """stat: its series come before those of all others, at each stage and on the GPU; header: those whose images say so
    (`service.urgency`); routine: none."""
    addresses: tuple[IPvAnyNetwork, ...] = ()
    """Addresses and networks that it sends from; empty for any."""
    certificates: tuple[CertificateName, ...] = ()
    """TLS client certificates that it sends with, any of these; empty for none or any that ``[tls]`` lets in."""
