"""What can go wrong when a model becomes an engine."""

from engines.errors import PermanentError


class BuildError(PermanentError):
    """A network cannot be compiled; the message holds the compiler's reason."""
