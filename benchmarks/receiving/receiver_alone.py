"""What of a node receives, and nothing else: no engines, and no slice is read. The configuration is its argument."""

import signal
import sys
import threading
from pathlib import Path

from service.ledger.ledger import open_ledger
from service.logs import configure
from service.receive.intake import Intake
from service.receive.listener import listeners
from service.receive.policy import AssociationPolicy
from service.series.completeness import Completeness
from service.settings import load
from service.spool import Spool


def main() -> None:
    settings = load(Path(sys.argv[1]))
    configure(settings.log)
    kept = settings.spool
    spool = Spool(kept.path, kept.duplicates, sync=kept.sync, ready_mb=kept.ready_mb, reserve_mb=kept.reserve_mb)
    spool.lock()
    intake = Intake(spool, lambda outcome: None)
    intake.tell(Completeness(settings.series, spool, open_ledger(kept.path)))
    for listener in listeners(settings, AssociationPolicy(settings), intake):
        listener.start()
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    stop.wait()


if __name__ == "__main__":
    main()
