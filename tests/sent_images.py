"""CT images that follow from their numbers, and a sender that sends them whatever becomes of the node."""

import random
import struct
import threading
from dataclasses import dataclass
from functools import cache
from typing import Self

from pydicom.filebase import DicomBytesIO
from pydicom.filewriter import write_dataset
from pydicom.uid import CTImageStorage

from tests.raw_peer import RawPeer, stored
from tests.synthetic_ct import Scan

SIDES = (16,) * 80 + (64,) * 60 + (128,) * 40 + (256,) * 12 + (512,) * 7 + (3000,)
"""Rows and columns: up to 500 KB mostly, and now and then 18 MB, which is more than is kept in memory."""
SERIES = 40
"""Images of a series."""
FIRST, TEMPLATE = 4_000_000, 9_999_999
"""Numbers, all of the same length."""
_ROOT = "1.2.826.0.1.3680043.10.1999"


@dataclass(frozen=True)
class SentImage:
    """One image of a sender: from these numbers follows all of it."""

    seed: int
    sender: int
    number: int

    @classmethod
    def of(cls, uid: str) -> Self:
        """The one with this SOP Instance UID. Raises `ValueError` where there is none."""
        image = cls(*(int(number) for number in uid.split(".")[-3:]))
        if image.uid != uid:
            raise ValueError(f"never sent: {uid}")
        return image

    @property
    def uid(self) -> str:
        return f"{_ROOT}.{self.seed}.{self.sender}.{self.number}"

    @property
    def series_uid(self) -> str:
        return f"{_ROOT}.{self.seed}.{self.sender}.0.{self.number // SERIES}"

    @property
    def data_set(self) -> bytes:
        """As it is sent, explicit VR little endian."""
        rng = random.Random(self.uid)
        side = rng.choice(SIDES)
        template = SentImage(self.seed, self.sender, TEMPLATE)
        header = _header(template, side).replace(template.uid.encode(), self.uid.encode())
        header = header.replace(template.series_uid.encode(), self.series_uid.encode())
        return header + struct.pack("<HH2sHI", 0x7FE0, 0x10, b"OW", 0, 2 * side**2) + rng.randbytes(2 * side**2)


@cache
def _header(image: SentImage, side: int) -> bytes:
    """All but the pixels."""
    header = Scan(places=(0.0,), shape=(side, side)).header(image.series_uid.rpartition(".")[0], image.series_uid)
    header.SOPClassUID, header.SOPInstanceUID = CTImageStorage, image.uid
    encoded = DicomBytesIO()
    encoded.is_little_endian, encoded.is_implicit_VR = True, False
    write_dataset(encoded, header)
    return encoded.getvalue()


class Sender(threading.Thread):
    """Sends one image after the other, each until it is acknowledged, over association after association.

    One in ten is sent twice. What was acknowledged before a connection was lost is not sent again: that could hide that
    it was lost, too.

    Attributes
    ----------
    acknowledged
        How many were: those from `FIRST` on.
    sent
        How many were sent at least in part.
    refusal
        A status that is no success, or nothing; it ends the sender.
    """

    def __init__(self, port: int, title: str, seed: int, number: int, fragment: int) -> None:
        super().__init__(name=f"sender-{number}", daemon=True)
        self.acknowledged = self.sent = self.refusal = 0
        self._port, self._title, self._fragment = port, title, fragment
        self._seed, self._number = seed, number
        self._ended = threading.Event()

    def image(self, index: int) -> SentImage:
        """One of those that it sends."""
        return SentImage(self._seed, self._number, FIRST + index)

    def end(self) -> None:
        """Send no more."""
        self._ended.set()
        self.join()

    def run(self) -> None:
        """Send."""
        while not self._ended.is_set() and not self.refusal:
            try:
                with RawPeer(self._port, calling=self._title, called="WETREAD") as peer:
                    peer.associate()
                    self._send(peer)
            except (OSError, AssertionError):  # the node is gone, or not yet there
                self._ended.wait(0.02)

    def _send(self, peer: RawPeer) -> None:
        while not self._ended.is_set() and not self.refusal:
            image = self.image(self.acknowledged)
            pdus = b"".join(stored(image.uid, image.data_set, self._fragment))
            self.sent = self.acknowledged + 1
            for _ in range(2 if image.number % 10 == 9 else 1):
                peer.send(pdus)
                self.refusal = self.refusal or peer.status()
            if not self.refusal:
                self.acknowledged += 1
        peer.release()
