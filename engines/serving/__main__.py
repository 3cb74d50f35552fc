"""``python -m engines.serving``: an engines' process; started by `engines.serving.process` and by nothing else."""

import os
import signal
import sys
from contextlib import suppress
from multiprocessing.connection import Connection

from engines.serving.server import Server


def main() -> None:
    """Serve the connection whose file descriptor is named on the command line, until its other end closes."""
    # The node decides when to end, also where a terminal or systemd tells all of its processes to.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    with suppress(EOFError, OSError):
        Server(Connection(int(sys.argv[1]))).serve()
    # Not by way of the interpreter's own end: a thread that hangs in a driver would hold it up for ever.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
