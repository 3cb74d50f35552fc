"""Our SCU, or pynetdicom's, as a process: it sends a folder, and says how much was answered, and its CPU time."""

import json
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from pynetdicom import AE, _config, evt
from pynetdicom.presentation import build_context

from service.deliver.scu import first_storages, send, sendable
from service.types import Destination
from service.wire import without_delay

CALLING, CALLED = "WETREAD", "SINK"


def main() -> None:
    subject, port, folder = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    began = time.process_time()
    answered = SUBJECTS[subject](port, sorted(folder.iterdir()))
    print(json.dumps({"answered": answered, "cpu_seconds": time.process_time() - began}))


def ours(port: int, files: list[Path]) -> int:
    """Our own; return how many were taken."""
    answers = send(Destination("sink", CALLED, "127.0.0.1", port), CALLING, [sendable(file) for file in files])
    return sum(not answer.refusal for answer in answers)


def pynetdicoms(port: int, files: list[Path], *handlers: object) -> int:
    """pynetdicom's, by path, so that nothing is encoded again; return how many were answered with success."""
    _config.STORE_SEND_CHUNKED_DATASET = True
    storages, _ = first_storages([sendable(file) for file in files])
    ae = AE(CALLING)
    ae.maximum_pdu_size = 131072
    contexts = [build_context(*storage) for storage in storages]
    opened = ae.associate("127.0.0.1", port, contexts, CALLED, evt_handlers=list(handlers))
    answered = 0
    for file in files:
        if not opened.is_established:
            break
        answered += opened.send_c_store(file).get("Status") == 0
    opened.release()
    return answered


def pynetdicoms_without_delay(port: int, files: list[Path]) -> int:
    """The same with Nagle's algorithm off."""
    return pynetdicoms(port, files, (evt.EVT_CONN_OPEN, without_delay))


SUBJECTS: Mapping[str, Callable[[int, list[Path]], int]] = {
    "wetread": ours,
    "pynetdicom": pynetdicoms,
    "pynetdicom, TCP_NODELAY": pynetdicoms_without_delay,
}

if __name__ == "__main__":
    main()
