"""A small archive for the demo: a Storage SCP that keeps what it is sent in a folder. Not for real use.

Run as ``python -m service.demo.archive FOLDER AE_TITLE PORT``.
"""

import hashlib
import signal
import sys
import threading
from pathlib import Path
from typing import Any

from pynetdicom import AE, evt

from service.receive.contexts import CARRIED_ALONG, DECODABLE, PROCESSED
from service.wire import VERIFICATION, affected, without_delay


def file_in(folder: Path, sop_instance_uid: str) -> Path:
    """Where the archive keeps an instance."""
    return folder / f"{hashlib.sha256(sop_instance_uid.encode()).hexdigest()[:16]}.dcm"


def serve(folder: Path, ae_title: str, port: int) -> None:
    """Take instances until SIGTERM."""
    folder.mkdir(parents=True, exist_ok=True)
    ae = AE(ae_title)
    ae.maximum_pdu_size = 131072
    ae.add_supported_context(VERIFICATION)
    for sop_class in (*PROCESSED, *CARRIED_ALONG):
        ae.add_supported_context(sop_class, list(DECODABLE))

    def store(event: evt.Event) -> int:
        target = file_in(folder, affected(event)[1])
        part = target.with_suffix(f".{threading.get_ident()}")
        part.write_bytes(event.encoded_dataset())
        part.replace(target)
        return 0x0000

    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    handlers: list[Any] = [(evt.EVT_CONN_OPEN, without_delay), (evt.EVT_C_STORE, store)]
    ae.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    stop.wait()
    ae.shutdown()


if __name__ == "__main__":
    serve(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
