"""What both ends of an association share: connections, PDUs and messages; and how this node asks for an association."""

from service.wire.requestor import VERIFICATION, Patience, affected, association, rejection, without_delay

__all__ = ["VERIFICATION", "Patience", "affected", "association", "rejection", "without_delay"]
