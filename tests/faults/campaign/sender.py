"""A modality that sends its series whatever becomes of the node, and writes down what was acknowledged."""

import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from tests.faults.campaign.scans import Slice, slices
from tests.raw_peer import RawPeer, stored

LATER = 0xA700
"""Out of resources: it is sent again."""


class Sender(threading.Thread):
    """Sends series after series, an association each, every image until it is acknowledged.

    What was acknowledged before a connection was lost is not sent again: that could hide that it was lost, too. One
    image in ten is sent twice.

    Parameters
    ----------
    ports
        Of the nodes; where one does not answer, the next is tried.
    log
        A line for each acknowledgement: SOP Instance UID, series, SHA-256 of the data set.
    pause
        Seconds between two images, so that there is time for harm.
    """

    def __init__(
        self, title: str, ports: Sequence[int], series: Sequence[int], log: Path, random: Random, pause: float = 0.0
    ) -> None:
        super().__init__(name=title, daemon=True)
        self._ports, self._series, self._log, self._random, self._pause = list(ports), series, log, random, pause
        self._ended = threading.Event()
        self.acknowledged = 0
        self.lost_associations = 0
        self.told_later = 0
        self.refusal = 0

    @property
    def wanted(self) -> int:
        """How many images it has."""
        return sum(len(slices(number)) for number in self._series)

    def end(self) -> None:
        """Send no more."""
        self._ended.set()
        self.join(30)

    def run(self) -> None:
        """Send."""
        for number in self._series:
            left = list(slices(number))
            while left and not self._ended.is_set():
                try:
                    with RawPeer(self._ports[0], calling=self.name, called="WETREAD") as peer:
                        peer.associate()
                        self._send(peer, left)
                        peer.release()
                except (OSError, AssertionError):  # the node is gone, or not yet there
                    self.lost_associations += 1
                    self._ports.append(self._ports.pop(0))
                    self._ended.wait(0.05)

    def _send(self, peer: RawPeer, left: list[Slice]) -> None:
        while left and not self._ended.is_set():
            image = left[0]
            for _ in range(2 if self._random.random() < 0.1 else 1):
                for pdu in stored(image.uid, image.data_set, 4096):
                    peer.send(pdu)
                status = peer.status()
            if status == LATER:
                self.told_later += 1
                self._ended.wait(0.3)
                continue
            if status:
                self.refusal = status
                raise AssertionError(f"refused with 0x{status:04X}")
            self._write_down(image)
            left.pop(0)
            self.acknowledged += 1
            if self._pause:
                time.sleep(self._random.uniform(0, 2 * self._pause))

    def _write_down(self, image: Slice) -> None:
        line = {"instance": image.uid, "series": image.series_uid, "sha256": image.digest}
        with self._log.open("a") as file:
            file.write(json.dumps(line) + "\n")
