"""Wakes the threads of this process that wait for work."""

import threading


class Bell:
    """Counts its strokes, so that a thread which was about to wait misses none."""

    def __init__(self) -> None:
        self._struck = threading.Condition()
        self._strokes = 0

    def ring(self) -> None:
        """Wake all who wait."""
        with self._struck:
            self._strokes += 1
            self._struck.notify_all()

    @property
    def strokes(self) -> int:
        """How often it has rung."""
        return self._strokes

    def wait(self, since: int, seconds: float) -> None:
        """Sleep until it has rung more often than ``since``, or for so long."""
        with self._struck:
            self._struck.wait_for(lambda: self._strokes != since, seconds)
