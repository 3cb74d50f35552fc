"""What a process holds, as the kernel tells it."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

_ESTABLISHED = "01"


@dataclass(frozen=True)
class Held:
    """Threads of a process, its sockets that are connected to a port, and its open files."""

    threads: int
    sockets: int
    files: int

    def as_json(self) -> dict[str, int]:
        """For the line of a run."""
        return asdict(self)


def held(pid: int, port: int) -> Held:
    """What a process holds now; ``port`` is that of a server on the loopback interface."""
    process = Path("/proc") / str(pid)
    files = list((process / "fd").iterdir())
    own = set()
    for file in files:
        with suppress(FileNotFoundError):  # closed meanwhile
            own.add(str(file.readlink()))
    lines = [line.split() for line in (process / "net" / "tcp").read_text().splitlines()[1:]]
    there = [f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}") and line[3] == _ESTABLISHED]
    return Held(len(list((process / "task").iterdir())), len(own.intersection(there)), len(files))
