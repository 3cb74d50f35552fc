"""How fast an archive is sent to."""

import threading
import time


class Pace:
    """Lets objects go at a limited rate, for all threads that send to one archive together.

    A large object is not slowed down itself; what follows it waits for as long as it should have taken.

    Parameters
    ----------
    objects, megabytes
        Per second; 0 for no limit.
    """

    def __init__(self, objects: float = 0.0, megabytes: float = 0.0) -> None:
        self._per_object = 1 / objects if objects else 0.0
        self._per_byte = 1e-6 / megabytes if megabytes else 0.0
        self._lock = threading.Lock()
        self._free_at = 0.0

    def reserve(self, now: float, size: int) -> float:
        """Take the next turn, for an object of so many bytes; return how many seconds there are to wait for it."""
        with self._lock:
            turn = max(now, self._free_at)
            self._free_at = turn + max(self._per_object, size * self._per_byte)
            return turn - now

    def wait(self, size: int) -> None:
        """Wait until an object of so many bytes may be sent."""
        if (seconds := self.reserve(time.monotonic(), size)) > 0:
            time.sleep(seconds)
