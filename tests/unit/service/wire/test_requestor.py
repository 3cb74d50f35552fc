import time
from pathlib import Path

import pytest
from pynetdicom import AE, evt
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.presentation import build_context

from service.errors import Rejected
from service.types import Destination
from service.wire import VERIFICATION, Patience, association
from tests.receiving import listening


def test_a_message_waits_for_the_thread_that_asked_for_it() -> None:
    entity = AE("PEER")
    entity.add_supported_context(VERIFICATION)
    server = entity.start_server(("127.0.0.1", 0), block=False)
    peer = Destination("peer", "PEER", "127.0.0.1", server.server_address[1])
    try:
        with association(peer, "TEST", [build_context(VERIFICATION)], patience=Patience(5, 5)) as opened:
            message = C_ECHO()
            opened.dimse.msg_queue.put((1, message))
            time.sleep(0.2)  # pynetdicom's reactor looks every millisecond
            assert opened.dimse.get_msg(block=True) == (1, message)
            assert opened.send_c_echo().Status == 0x0000
    finally:
        server.shutdown()


@pytest.mark.parametrize("seconds", [0.0, 0.3])
def test_a_rejection_is_told_as_one_however_late_pynetdicom_looks_for_it(seconds: float, tmp_path: Path) -> None:
    with listening(tmp_path) as node:
        peer = Destination("peer", "OTHER", "127.0.0.1", node.port)
        late = evt.EVT_REQUESTED, lambda _: time.sleep(seconds)  # after this it asks whether there is a connection
        with (
            pytest.raises(Rejected, match="rejects the association: Called AE title not recognised"),
            association(peer, "TEST", [build_context(VERIFICATION)], handlers=[late]),
        ):
            pass
