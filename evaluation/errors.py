"""The branch of the error tree that is about the data of an evaluation."""

from engines.errors import PermanentError


class DataError(PermanentError):
    """The data cannot be evaluated on; the message names the file or column and the fix, nothing of a patient."""
