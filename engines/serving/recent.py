"""What was found in the images that were analysed last, so that no model analyses an image twice.

A node runs ``ct-lung`` on a CT for itself, and ``ct-nodule``, which is cropped to the lungs, needs the same lungs.
"""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from dataclasses import fields
from threading import Lock

import numpy as np

from engines.types import Findings, Image

KEPT = 4
"""Findings; those of a CT hold a label map, 80 MB for 300 slices."""


class Recent:
    """Keeps the last findings; several threads may ask at the same time, and one of them does the work."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, Future[Findings]] = OrderedDict()

    def find(self, key: Hashable, analyse: Callable[[], Findings]) -> Findings:
        """Give what is kept under a key, or what is being found at this moment, or else analyse.

        What fails is not kept, but fails for all who wait for it.
        """
        with self._lock:
            found = self._kept.get(key)
            mine = Future[Findings]() if found is None else None
            if mine is not None:
                self._kept[key] = mine
            self._kept.move_to_end(key)
            while len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        if mine is None:
            assert found is not None
            return found.result()
        try:
            findings = analyse()
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is mine:
                    del self._kept[key]
            mine.set_exception(error)
            raise
        mine.set_result(findings)
        return findings


def digest(image: Image) -> bytes:
    """Tell an image from all others: by its pixels, and by what says where they lie."""
    array = np.ascontiguousarray(image.array)
    hashed = hashlib.sha256(array.data)
    rest = [getattr(image, each.name) for each in fields(image) if each.name != "array"]
    for value in (type(image).__name__, array.dtype.str, array.shape, *rest):
        hashed.update(value.tobytes() if isinstance(value, np.ndarray) else repr(value).encode())
        hashed.update(b"\0")
    return hashed.digest()
