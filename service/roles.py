"""What one process of a node does, where several share the work (``wetread serve --role``)."""

from enum import StrEnum


class Role(StrEnum):
    """A part of the work. What one leaves in ledger and spool, another takes up."""

    ALL = "all"
    RECEIVE = "receive"
    """Takes instances, finds series complete, and forgets what is old."""
    WORK = "work"
    """Assembles, runs models, encodes."""
    DELIVER = "deliver"
    """Sends results, and asks what has become of them."""

    @property
    def receives(self) -> bool:
        """Whether it listens for instances."""
        return self in (Role.ALL, Role.RECEIVE)

    @property
    def works(self) -> bool:
        """Whether it runs models."""
        return self in (Role.ALL, Role.WORK)

    @property
    def delivers(self) -> bool:
        """Whether it sends results."""
        return self in (Role.ALL, Role.DELIVER)
