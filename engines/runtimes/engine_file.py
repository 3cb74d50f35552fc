"""Engine files: named after all that an engine depends on, and never loaded when half-written.

A file is a header of magic and SHA-256, of its name and its engine, then the engine as its runtime wrote it. One that
was renamed to that of another model is refused as damaged.
"""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from tempfile import NamedTemporaryFile

from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import ENGINE_REVISION

MAGIC = b"WETREAD2"
HEADER = len(MAGIC) + hashlib.sha256().digest_size


def engine_file_name(
    package: ModelPackage,
    network: Path,
    *,
    runtime: str,
    device: str,
    precision: str,
    grids: Sequence[tuple[int, ...]],
    batch: int = 1,
) -> str:
    """Name the engine file of a network: everything that an engine depends on is in it.

    Parameters
    ----------
    package, network
        The model, and the file that is compiled (`ModelPackage.network_for`); its digest ties the engine to it.
    runtime
        Runtime with its version, for example ``rtx-1.7.1.116``.
    device
        Compute capability (``sm89``), ``ampere+`` for the portable engine of TensorRT for RTX, or that of the CPU.
    precision
        ``fp32``, ``fp16``, ``bf16`` or ``int8``.
    grids, batch
        The shapes that it was compiled for.
    """
    digest = hashlib.sha256(network.read_bytes()).hexdigest()[:12]
    shapes = "+".join("x".join(str(length) for length in grid) for grid in grids)
    return f"{package.name}-{digest}-{runtime}-{device}-{precision}-{batch}x{shapes}-r{ENGINE_REVISION}.engine"


def write_engine(path: Path, engine: bytes) -> None:
    """Write an engine file as `write_whole` does."""
    write_whole(path, MAGIC + _checksum(path.name, engine), engine)


def _checksum(name: str, engine: bytes) -> bytes:
    return hashlib.sha256(hashlib.sha256(name.encode()).digest() + hashlib.sha256(engine).digest()).digest()


def write_whole(path: Path, *parts: bytes) -> None:
    """Write a file; it is there whole or not at all, also after a crash of the machine."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:100]}.", delete=False) as file:
        try:
            file.writelines(parts)
            file.flush()
            os.fsync(file.fileno())
            Path(file.name).chmod(0o644)
            Path(file.name).replace(path)
        except BaseException:
            Path(file.name).unlink(missing_ok=True)
            raise


def read_engine(path: Path) -> bytes:
    """Read an engine file.

    Raises
    ------
    RuntimeUnavailable
        It is not there, cannot be read, or is not what was written.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RuntimeUnavailable(f"{path} cannot be read ({error.strerror}); build the engine again") from error
    engine = content[HEADER:]
    if content[: len(MAGIC)] != MAGIC or _checksum(path.name, engine) != content[len(MAGIC) : HEADER]:
        raise RuntimeUnavailable(f"{path} is damaged or was cut short; remove it and build the engine again")
    return engine
