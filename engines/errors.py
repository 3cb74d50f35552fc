"""The roots of the error tree.

::

    WetreadError
    ├── PermanentError            a retry cannot help
    │   ├── ModelPackageError     a model folder is wrong: file, key and fix in the message
    │   └── EngineMismatch        an engine does not reproduce its golden outputs
    ├── EngineFault               unforeseen, in an engines' process
    └── TransientError            a retry may help
        ├── RuntimeUnavailable    an inference runtime cannot be used on this machine now
        ├── OutOfMemory           an input is too large for the memory that is free now
        └── InferenceLost         an inference was ended by the watchdog, or died

``service.errors`` grows the branches that know DICOM and the network. Whether a stage is tried again is decided by the
branch and by nothing else.
"""


class WetreadError(Exception):
    """Something Wetread expects to go wrong, with a message for an operator."""


class PermanentError(WetreadError):
    """A retry cannot help: somebody has to change the input, the model or the configuration."""


class TransientError(WetreadError):
    """A retry may help: the same work is tried again later."""


class ModelPackageError(PermanentError):
    """A model package is wrong; the message names the file, the key and the fix."""


class EngineMismatch(PermanentError):
    """An engine's outputs differ from the golden outputs by more than the package allows."""


class RuntimeUnavailable(TransientError):
    """An inference runtime cannot be used on this machine now."""


class OutOfMemory(TransientError):
    """An input is too large for the memory that a runtime can get now; a smaller one may do."""


class InferenceLost(TransientError):
    """An inference hung and was ended, or its process died; the message says which.

    ``blamed`` tells whether it was this inference that did not end, and not another one in the same process.
    """

    def __init__(self, message: str, *, blamed: bool = False) -> None:
        super().__init__(message)
        self.blamed = blamed


class EngineFault(WetreadError):
    """An error that nobody has foreseen, inside an engines' process: kind and place, without its words."""
