import time

from pynetdicom import AE
from pynetdicom.dimse_primitives import C_ECHO
from pynetdicom.presentation import build_context

from service.types import Destination
from service.wire import VERIFICATION, Patience, association


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
