"""Files of strangers may hold anything anywhere: what goes wrong in reading them is the file's mistake, and is told."""

from collections.abc import Iterator
from contextlib import contextmanager

from engines.errors import ModelPackageError


@contextmanager
def told_as(what: str) -> Iterator[None]:
    """Turn what a wrong value leads to into an error that names the place.

    Raises
    ------
    ModelPackageError
        A value is missing, or of another kind than it should be.
    """
    try:
        yield
    except KeyError as error:
        raise ModelPackageError(f"{what} lacks {error.args[0]!r}; write it") from error
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as error:
        raise ModelPackageError(f"{what} holds a value that it should not: {error}; correct it") from error
