"""A Storage SCP as in pynetdicom's documentation: port and folder are its arguments."""

import sys
from pathlib import Path

from pynetdicom import AE, AllStoragePresentationContexts, evt
from pynetdicom.sop_class import Verification


def handle_store(event: evt.Event) -> int:
    data_set = event.dataset
    data_set.file_meta = event.file_meta
    data_set.save_as(Path(sys.argv[2]) / str(data_set.SOPInstanceUID), enforce_file_format=True)
    return 0x0000


ae = AE()
ae.supported_contexts = AllStoragePresentationContexts
ae.add_supported_context(Verification)
ae.start_server(("127.0.0.1", int(sys.argv[1])), block=True, evt_handlers=[(evt.EVT_C_STORE, handle_store)])
