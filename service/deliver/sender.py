"""An archive is served by one sender: so many at a time, at its times and its rate, learning what it does not take."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from datetime import datetime

import structlog
from pydicom.uid import UID

from service.deliver.association import Sendable
from service.deliver.base import Way
from service.deliver.capabilities import Capabilities
from service.deliver.cstore import CStore
from service.deliver.pace import Pace
from service.deliver.scu import Answer
from service.deliver.stow import StowRs
from service.deliver.windows import Windows
from service.errors import ArchiveUnavailable, Postponed
from service.settings import ArchiveSettings, Settings
from service.types import Destination
from service.wire.requestor import Patience

log = structlog.get_logger()

AWAY_SECONDS = 60.0
"""An archive that has taken nothing for so long has been away: retries of what it did not take are far apart by now."""


class Sender:
    """Sends objects to one archive; any number of threads may use it.

    Parameters
    ----------
    settings
        Of the archive.
    """

    def __init__(
        self, to: Destination, calling_ae_title: str, settings: ArchiveSettings, capabilities: Capabilities
    ) -> None:
        self._to = to
        self._capabilities = capabilities
        self._failing_since: float | None = None
        self._windows = Windows.of(settings.windows)
        self._seats = threading.BoundedSemaphore(settings.parallel)
        self._pace = Pace(settings.objects_per_second, settings.megabytes_per_second)
        patience = Patience(answer=settings.answer_seconds)
        self._way: Way
        if to.web is not None:
            self._way = StowRs(to.name, to.web, to.tls, patience)
        else:
            self._way = CStore(to, calling_ae_title, patience, lambda *known: capabilities.learn(to, *known))

    def require_open(self, now: float) -> None:
        """Raise `Postponed` where the archive is not to be sent to at this time (seconds since the epoch)."""
        opens_at = self._windows.opens_at(now)
        if opens_at > now:
            told = datetime.fromtimestamp(opens_at).strftime("%Y-%m-%d %H:%M")
            raise Postponed(f"archives.{self._to.name}.windows: {self._to.name} is sent to from {told} on", opens_at)

    def send(self, files: Sequence[Sendable]) -> Iterator[Answer]:
        """Send files that belong together, as `Way.send`; where others do, wait for them.

        What the archive takes in no case is remembered, and encoded in another form the next time.
        """
        with self._seats, closing(self._way.send(files, self._pace.wait)) as answers:
            try:
                for answer in answers:
                    if answer.unsupported:
                        self._capabilities.refused(self._to, answer.file.storage, answer.refusal)
                    if answer.warning:
                        kind = UID(answer.file.sop_class_uid).name
                        log.warning("result.warned_of", archive=self._to.name, kind=kind, reason=answer.warning)
                    yield answer
            except ArchiveUnavailable:
                if self._failing_since is None:
                    self._failing_since = time.monotonic()
                raise

    def came_back(self) -> bool:
        """Whether it has been away for long until now. To be asked each time when it has taken something.

        One that takes some objects and others not has not been away: those others wait as they are to.
        """
        since, self._failing_since = self._failing_since, None
        return since is not None and time.monotonic() - since >= AWAY_SECONDS

    def close(self) -> None:
        """Close what is kept open."""
        self._way.close()


class Senders:
    """The senders of a node, one for each archive of its settings."""

    def __init__(self, settings: Settings, capabilities: Capabilities) -> None:
        ours = settings.node.ae_title
        self._senders: Mapping[str, Sender] = {
            name: Sender(settings.destination(name), ours, archive, capabilities)
            for name, archive in settings.archives.items()
        }

    def require_open(self, archive: str) -> None:
        """Raise `Postponed` where an archive is not to be sent to now."""
        self._senders[archive].require_open(time.time())

    def send(self, archive: str, files: Sequence[Sendable]) -> Iterator[Answer]:
        """As `Sender.send`."""
        return self._senders[archive].send(files)

    def came_back(self, archive: str) -> bool:
        """As `Sender.came_back`."""
        return self._senders[archive].came_back()

    def close(self) -> None:
        """Close what is kept open."""
        for sender in self._senders.values():
            sender.close()
