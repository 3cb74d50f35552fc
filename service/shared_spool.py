"""A spool that nodes share by an object store instead of a folder (`service.sharing`), and which of the two it is."""

import shutil
from dataclasses import replace
from pathlib import Path

from service.instances import Instances
from service.ledger.catalogue import open_catalogue
from service.local_copies import LocalCopies
from service.settings import Settings, SpoolSettings
from service.shared_instances import SharedInstances
from service.shared_quarantine import SharedQuarantine
from service.sharing import Sharing
from service.spool import Spool, key_of
from service.store import open_store, require_store
from service.types import ResultObject


class SharedSpool(Spool):
    """The folder of one node, in which copies lie of what all nodes have.

    Its methods raise `StoreUnavailable` while the store is away, and `sqlalchemy.exc.DBAPIError` while the ledger is.

    Parameters
    ----------
    settings, sharing
        Of this spool.
    ready_mb, receiver, node
        As for `Spool`.
    """

    def __init__(
        self, settings: SpoolSettings, sharing: Sharing, *, ready_mb: int = 0, receiver: int = 0, node: str = ""
    ) -> None:
        super().__init__(
            settings.path,
            settings.duplicates,
            ready_mb=ready_mb,
            reserve_mb=settings.reserve_mb,
            receiver=receiver,
            node=node,
        )
        self._sharing = sharing
        self._quarantine = SharedQuarantine(self.root, sharing)
        self._shared = SharedInstances(self.root, settings.duplicates, self._room, self._quarantine, self._own, sharing)
        self._instances: Instances = self._shared
        self._copies = LocalCopies(self.root, settings.cache_mb << 20, self._drop)

    def fetch(self, series: str) -> None:
        """See `Spool.fetch`."""
        self._shared.fetch(series)
        self._copies.used(series)

    def fetch_file(self, path: Path) -> None:
        """See `Spool.fetch_file`."""
        self._sharing.fetch(self._sharing.name_of(path))

    def fetch_folder(self, folder: Path) -> None:
        """See `Spool.fetch_folder`."""
        self._sharing.fetch_folder(folder)

    def result_here(self, result: ResultObject) -> ResultObject:
        """See `Spool.result_here`."""
        *_, area, series, item, model, name = result.path.parts
        path = self.root / area / series / item / model / name
        self.fetch_file(path)
        return replace(result, path=path)

    def publish_folder(self, folder: Path) -> None:
        """See `Spool.publish_folder`."""
        self._sharing.publish_folder(folder)

    def publish_files(self, *files: Path) -> None:
        """See `Spool.publish_files`."""
        self._sharing.publish(*files)

    def state(self, series: str) -> str:
        """See `Spool.state`."""
        return key_of(*self._shared.state(series))

    def tidy(self) -> None:
        """See `Spool.tidy`."""
        self._copies.tidy(self._sharing.moved, lambda beginning: bool(self._sharing.listed(beginning)))

    def clear_away(self) -> None:
        """See `Spool.clear_away`."""
        self._sharing.clear_away()

    def unlock(self) -> None:
        """Let another node work on this spool; nothing is shared any more."""
        super().unlock()
        self._sharing.close()

    def writable(self) -> bool:
        """Whether folder and store take a file just now."""
        return super().writable() and self._sharing.reachable

    def _drop(self, series: str) -> None:
        """Remove what is here of a series, and can be had or made again."""
        for area in ("work", "results"):
            shutil.rmtree(self.root / area / series, ignore_errors=True)
        self._shared.drop(series)


def open_spool(settings: Settings, *, ready_mb: int = 0, receiver: int = 0, node: str = "") -> Spool:
    """The spool that the settings name: a folder, or one that is shared by an object store.

    Parameters
    ----------
    ready_mb, receiver, node
        As for `Spool`.

    Raises
    ------
    ConfigurationError
        The folder cannot be written, or another node works on it; the store is not there, or we may not use it.
    StoreUnavailable, LedgerUnavailable
        The store cannot be reached, or the ledger that lists what is in it.
    """
    spool = settings.spool
    if spool.url:
        store = open_store(spool.url, spool.endpoint)
        require_store(store, spool.url)
        sharing = Sharing(spool.path, store, open_catalogue(settings.ledger))
        return SharedSpool(spool, sharing, ready_mb=ready_mb, receiver=receiver, node=node)
    return Spool(
        spool.path,
        spool.duplicates,
        sync=spool.sync,
        ready_mb=ready_mb,
        reserve_mb=spool.reserve_mb,
        receiver=receiver,
        node=node,
    )
