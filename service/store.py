"""Where several machines keep files without a shared folder: an object store, named by a URL.

S3 by s3fs (the extra ``wetread[s3]``); whatever else fsspec knows where its library is installed; and ``file://`` for a
folder. A store knows nothing of what lies in it: what is there, and what it should be, the ledger knows
(`service.ledger.catalogue`). Nothing is ever written over, so an object is there whole or not at all, and the same for
all who read it.
"""

import shutil
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from service.durable import make_folder, replace_file
from service.errors import ConfigurationError, StoreUnavailable

CONNECT_SECONDS, READ_SECONDS = 3.0, 15.0
"""How long a connection may take, and how long a store may say nothing: senders wait meanwhile."""
ATTEMPTS = 3
"""So often is tried what fails in a way that passes (a connection that broke, "slow down"), with growing waits."""
_PROBE = b"wetread"


class ObjectStore(Protocol):
    """Files under keys (words with slashes).

    Every method raises `StoreUnavailable` where the store cannot be reached or refuses; it works again afterwards.
    """

    def put(self, file: Path, key: str) -> None:
        """Keep a copy of a file under a key that nobody has used; it is durable when this returns."""
        ...

    def get(self, key: str, target: Path) -> None:
        """Write what lies under a key to a file. Raises `FileNotFoundError` where nothing does."""
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Remove what lies under these keys; what is not there is no error."""
        ...


def open_store(url: str, endpoint: str = "") -> ObjectStore:
    """The store at a URL; nothing is asked of it yet.

    Parameters
    ----------
    endpoint
        ``https://HOST:PORT`` of an S3 that is not Amazon's; empty for what the environment says.

    Raises
    ------
    ConfigurationError
        Nothing is known of such URLs, or a library is not installed.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        return FolderStore(Path(unquote(parts.path)))
    return FsspecStore(parts.scheme, f"{parts.netloc}{parts.path}".rstrip("/"), url, endpoint)


def require_store(store: ObjectStore, url: str) -> None:
    """Put something into a store, read it and remove it.

    Raises
    ------
    ConfigurationError
        There is no such bucket or folder, or who we are may not do that there.
    StoreUnavailable
        It does not answer, or not as it should.
    """
    key = f"probe/{uuid.uuid4().hex}"
    with TemporaryDirectory() as folder:
        file, back = Path(folder, "put"), Path(folder, "got")
        file.write_bytes(_PROBE)
        try:
            store.put(file, key)
            store.get(key, back)
            store.remove([key])
        except FileNotFoundError:
            raise StoreUnavailable(f"spool.url = {url!r}: what was just put there is not there") from None
        except StoreUnavailable as error:
            cause = error.__cause__
            if isinstance(cause, (PermissionError, FileNotFoundError)) or type(cause).__name__ in _NOBODY:
                raise ConfigurationError(
                    f"{error}; name a bucket that is there, and say who we are by AWS_ACCESS_KEY_ID and "
                    "AWS_SECRET_ACCESS_KEY, AWS_PROFILE, or a role that may get, put and delete objects in it"
                ) from cause
            raise
        if back.read_bytes() != _PROBE:
            raise StoreUnavailable(f"spool.url = {url!r}: what was just put there is something else")


_NOBODY = ("NoCredentialsError", "PartialCredentialsError", "ProfileNotFound", "CredentialRetrievalError")
"""What botocore raises where nothing says who we are."""


class FolderStore:
    """A folder that all see, on a file system whose renames are atomic and whose syncs tell the truth."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def put(self, file: Path, key: str) -> None:
        """See `ObjectStore.put`."""
        target = self._root / key
        with self._told(), file.open("rb") as source:
            make_folder(target.parent)
            replace_file(target, lambda copy: shutil.copyfileobj(source, copy, 1 << 20))

    def get(self, key: str, target: Path) -> None:
        """See `ObjectStore.get`."""
        with self._told(missing=True):
            shutil.copyfile(self._root / key, target)

    def remove(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.remove`."""
        with self._told():
            for key in keys:
                (self._root / key).unlink(missing_ok=True)

    @contextmanager
    def _told(self, missing: bool = False) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            if missing and isinstance(error, FileNotFoundError):
                raise
            raise StoreUnavailable(f"spool.url = {self._root.as_uri()!r}: {error.strerror}") from error


class FsspecStore:
    """What fsspec knows. Connections are kept; all threads share them."""

    def __init__(self, scheme: str, prefix: str, url: str, endpoint: str = "") -> None:
        self._prefix = prefix
        self._url = url
        try:
            import fsspec  # it is an extra

            self._files: Any = fsspec.filesystem(
                scheme, skip_instance_cache=True, use_listings_cache=False, **_options(scheme, endpoint)
            )
        except (ImportError, ValueError) as error:
            extra = "; install wetread[s3]" if scheme == "s3" else ""
            raise ConfigurationError(f"spool.url = {url!r}: {error}{extra}") from None
        if scheme == "s3":
            self._files.retries = ATTEMPTS

    def put(self, file: Path, key: str) -> None:
        """See `ObjectStore.put`. Small ones in one request, large ones in parts that become one object at the end."""
        self._told(partial(self._files.put_file, str(file), self._at(key)))

    def get(self, key: str, target: Path) -> None:
        """See `ObjectStore.get`."""
        self._told(partial(self._files.get_file, self._at(key), str(target)), missing=True)

    def remove(self, keys: Sequence[str]) -> None:
        """See `ObjectStore.remove`."""
        for key in keys:
            with suppress(FileNotFoundError):
                self._told(partial(self._files.rm_file, self._at(key)), missing=True)

    def _at(self, key: str) -> str:
        return f"{self._prefix}/{key}"

    def _told(self, act: Callable[[], object], missing: bool = False) -> None:
        try:
            act()
        except Exception as error:  # each library below has errors of its own
            if missing and isinstance(error, FileNotFoundError):
                raise
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            raise StoreUnavailable(f"spool.url = {self._url!r}: {words}") from error


def _options(scheme: str, endpoint: str) -> dict[str, Any]:
    if scheme != "s3":
        return {}
    config = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"total_max_attempts": 1},  # s3fs does that
        "tcp_keepalive": True,
        "max_pool_connections": 64,
    }
    return {"endpoint_url": endpoint or None, "config_kwargs": config}
