"""The files of a MONAI bundle: a folder, or the folder zipped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from tempfile import TemporaryDirectory
from zipfile import BadZipFile, ZipFile

from build_engines.importers.choices import licence_in
from engines.errors import ModelPackageError

METADATA = "configs/metadata.json"
TAKEN = ("configs/", "models/", "docs/", "LICENSE", "LICENCE")
LARGEST_ARCHIVE = 16 << 30
"""Bytes that an unpacked bundle may have: a small archive can be made to fill any disk."""


@contextmanager
def unpacked(source: Path) -> Iterator[Path]:
    """Give the folder that holds ``configs``; of an archive, only what is needed is unpacked."""
    if source.is_dir():
        yield _bundle_root(source, source)
        return
    try:
        with ZipFile(source) as archive, TemporaryDirectory(prefix="wetread-bundle-") as folder:
            wanted = [entry for entry in archive.infolist() if _is_wanted(entry.filename)]
            if sum(entry.file_size for entry in wanted) > LARGEST_ARCHIVE:
                raise ModelPackageError(
                    f"{source} unpacks to more than {LARGEST_ARCHIVE >> 30} GiB; unpack it yourself"
                )
            for entry in wanted:
                archive.extract(entry, folder)
            yield _bundle_root(Path(folder), source)
    except (OSError, BadZipFile) as error:
        raise ModelPackageError(f"{source} is neither a folder nor a zip archive: {error}") from error


def _is_wanted(name: str) -> bool:
    parts = PurePosixPath(name).parts
    inside = ["/".join(parts[start:]) for start in (0, 1)]
    return ".." not in parts and not name.startswith("/") and any(each.startswith(TAKEN) for each in inside)


def _bundle_root(folder: Path, source: Path) -> Path:
    for root in (folder, *sorted(path for path in folder.iterdir() if path.is_dir())):
        if (root / METADATA).is_file():
            return root
    raise ModelPackageError(f"{source} has no {METADATA}; it is no MONAI bundle")


def licence_of(root: Path) -> str | None:
    """Recognise the licence that a bundle has a file of."""
    files = [path for name in ("LICENSE*", "LICENCE*", "docs/*icense*") for path in sorted(root.glob(name))]
    return next((found for path in files if (found := licence_in(path.read_text(errors="replace")))), None)
