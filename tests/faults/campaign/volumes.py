"""Small volumes, to be filled."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.validators import require_tool

MB = 1 << 20


@contextmanager
def volume(folder: Path, megabytes: int, name: str = "volume") -> Iterator[Path]:
    """An empty ext4 of its own, mounted below a folder. Needs root."""
    make = require_tool(shutil.which("mkfs.ext4", path=f"{os.environ.get('PATH', '')}:/sbin:/usr/sbin") or "mkfs.ext4")
    image, target = folder / f"{name}.img", folder / name
    target.mkdir(parents=True)
    with image.open("wb") as file:
        file.truncate(megabytes * MB)
    subprocess.run([make, "-q", "-m", "0", str(image)], check=True)
    subprocess.run(["mount", "-o", "loop", str(image), str(target)], check=True)
    try:
        yield target
    finally:
        subprocess.run(["umount", "--lazy", str(target)], check=True)


def fill(folder: Path, left: int = 0) -> Path:
    """Leave not a byte free, or so many; remove the file to free it."""
    ballast = folder / "something else"
    with ballast.open("ab", buffering=0) as file:
        for piece in (MB, 1 << 12, 1):
            try:
                while file.write(bytes(piece)) == piece:
                    pass
            except OSError:  # no space left for so much
                continue
        file.truncate(max(0, file.tell() - left))
    return ballast
