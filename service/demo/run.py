"""``wetread demo``: the whole job on one machine, with nothing to install.

An archive and a node run as processes of their own. The archive's study goes to the node over real DICOM associations,
as a PACS would forward it, and the results come back into the archive.
"""

import json
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from service.deliver.folder import send_folder
from service.deliver.scu import echo
from service.demo.archive import file_in
from service.demo.phantom import write_chest_ct, write_chest_xray
from service.demo.show import SHOWN, Arrived, Shown, show, summary
from service.errors import WetreadError
from service.handover import load_findings, load_item
from service.ledger.ledger import Ledger, open_ledger
from service.ledger.records import ASSEMBLE, DEAD, DELIVER, DONE, INFER, READY, RUNNING
from service.quarantine import QuarantineEntry
from service.results.analysis import Analysis
from service.results.pictures.overlay import overlay_png
from service.results.self_check import self_check
from service.spool import Spool
from service.types import Destination

ARCHIVE, NODE = "DEMO_PACS", "WETREAD"


class DemoFailed(WetreadError):
    """The demo could not be carried out; the message says where to look."""


def run_demo(study: Path | None, out: Path, timeout: float, as_json: bool) -> bool:
    """Run it; return whether every expected result arrived and passed the self-check.

    Parameters
    ----------
    study
        A folder of DICOM, or None for the phantoms.
    out
        A new folder is made in it for this run.
    timeout
        Seconds to wait for the results.
    as_json
        End with one line of JSON on standard output; everything else then goes to standard error.

    Raises
    ------
    DemoFailed
        The archive or the node did not start, or the study could not be sent.
    """
    console = Console(stderr=as_json)
    folder = (out / datetime.now().strftime("run-%Y%m%d-%H%M%S")).resolve()
    folder.mkdir(parents=True)
    console.print("[bold]Wetread[/] demo. For research use only.")
    with ExitStack() as stack:
        if study is None:
            with console.status("Making a chest phantom: a CT series and an X-ray"):
                study = folder / "phantom"
                write_chest_ct(study / "ct")
                write_chest_xray(study / "xray")
            console.print("The study is a phantom; what a classifier says of it means nothing.")
        archive, node, ports = _configure(folder)
        with console.status("Starting the archive and the node (models are loaded and verified)"):
            stack.enter_context(
                _process("archive", folder, "service.demo.archive", str(folder / "archive"), ARCHIVE, str(archive.port))
            )
            serving = stack.enter_context(
                _process("node", folder, "service.cli", "serve", "--config", str(folder / "wetread.toml"))
            )
            _wait_until_up(archive, serving, folder, f"http://127.0.0.1:{ports['http']}/health")
        report = send_folder(study, archive, "MODALITY", console)
        if not report.sent:
            why = "; ".join(dict.fromkeys(reason for _, reason in report.skipped))
            raise DemoFailed(f"{study}: no DICOM file in it or below it that can be sent; name another folder. {why}")
        console.print(f"{report.sent} instances lie in the archive; it forwards them to the node")
        send_folder(study, node, ARCHIVE, console)
        spool = Spool(folder / "spool")
        ledger = stack.enter_context(closing(open_ledger(spool.root)))
        ended = _watch(ledger, console, serving, folder, timeout)
        arrived = list(_arrivals(ledger, spool, folder / "archive"))
        pictures = list(_pictures(ledger, spool, folder / "overlays"))
        jobs = ledger.list_jobs()
    unusable = [
        QuarantineEntry(job.series.key, job.note, "") for job in jobs if job.state == DEAD and job.stage == ASSEMBLE
    ]
    quarantined = [*spool.quarantined(), *unusable]
    # what could not be assembled can have no result; everything else must have come back
    unfinished = [job for job in jobs if job.state != DONE and job.stage != ASSEMBLE]
    ok = ended and bool(arrived) and not unfinished and not any(one.problem for one in arrived)
    shown = Shown(jobs, arrived, quarantined, pictures, report.skipped, folder, ok)
    show(console, shown)
    if as_json:
        print(json.dumps(summary(shown)), flush=True)
    return ok


def _configure(folder: Path) -> tuple[Destination, Destination, dict[str, int]]:
    """Write the node's configuration, on ports that are free now."""
    with ExitStack() as stack:
        probes = {name: stack.enter_context(socket.socket()) for name in ("archive", "node", "http")}
        for probe in probes.values():
            probe.bind(("127.0.0.1", 0))
        ports = {name: int(probe.getsockname()[1]) for name, probe in probes.items()}
    (folder / "wetread.toml").write_text(f"""\
[node]
ae_title = "{NODE}"
port = {ports["node"]}

[senders.{ARCHIVE}]
archive = "demo"

[archives.demo]
ae_title = "{ARCHIVE}"
host = "127.0.0.1"
port = {ports["archive"]}
count = "no"
commitment = "no"

[spool]
path = {json.dumps(str(folder / "spool"))}

[series]
quiet_seconds = 0.5
quiet_ceiling_seconds = 5

[http]
port = {ports["http"]}
""")
    return (
        Destination("archive", ARCHIVE, "127.0.0.1", ports["archive"]),
        Destination("node", NODE, "127.0.0.1", ports["node"]),
        ports,
    )


@contextmanager
def _process(name: str, folder: Path, module: str, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process with its log in the demo's folder, ended at the end."""
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([sys.executable, "-m", module, *arguments], stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(40)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_up(archive: Destination, node: subprocess.Popen[bytes], folder: Path, health: str) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if node.poll() is not None:
            raise DemoFailed(f"the node ended; {folder / 'node.log'} says why")
        try:
            urllib.request.urlopen(health, timeout=5).close()
            echo(archive, NODE)
        except (urllib.error.URLError, WetreadError, OSError):
            time.sleep(0.2)
        else:
            return
    raise DemoFailed(f"the node did not come up; {folder / 'node.log'} and {folder / 'archive.log'} say why")


def _watch(ledger: Ledger, console: Console, node: subprocess.Popen[bytes], folder: Path, timeout: float) -> bool:
    """Show a bar for each series and model until nothing is left to do; return whether that came in time."""
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[stage]}"),
        TimeElapsedColumn(),
    )
    deadline = time.monotonic() + timeout
    with Progress(*columns, console=console) as progress:
        bars: dict[tuple[str, str, str], Any] = {}
        while time.monotonic() < deadline:
            jobs = ledger.list_jobs()
            for job in jobs:
                whole_series = job.item == ""
                if whole_series and any(other.series == job.series and other.item for other in jobs):
                    continue
                name = (job.series.key, job.item, job.model)
                if name not in bars:
                    for old in [key for key in bars if key[0] == name[0] and key[1] == "" and name[1]]:
                        progress.remove_task(bars.pop(old))
                    label = f"{job.series.modality} {job.series.key[:6]} {job.model or 'series'}"
                    bars[name] = progress.add_task(label, total=len(SHOWN), stage="")
                mark = {DONE: " ✓", DEAD: " ✗"}.get(job.state, "")
                step = SHOWN.index(job.stage) + (job.state == DONE)
                progress.update(bars[name], completed=step, stage=job.stage + mark)
            if jobs and not any(job.state in (READY, RUNNING) for job in jobs):
                for bar in bars.values():
                    progress.update(bar, completed=len(SHOWN))
                return True
            if node.poll() is not None:
                raise DemoFailed(f"the node ended; {folder / 'node.log'} says why")
            time.sleep(0.2)
    return False


def _arrivals(ledger: Ledger, spool: Spool, archive: Path) -> Iterator[Arrived]:
    """Every encoded result, looked for in the archive and compared again with what it was made from."""
    for job in ledger.list_jobs():
        if job.stage != DELIVER:
            continue
        key, item, model = job.series.key, job.item, job.model
        records = [record for record in ledger.results(key) if (record.item, record.model) == (item, model)]
        kept = [replace(record.result, path=file_in(archive, record.result.sop_instance_uid)) for record in records]
        problem = ""
        if all(result.path.exists() for result in kept):
            source = load_item(spool.work(key, item), spool.instance_folder(key))
            analysis = Analysis(load_findings(spool.work(key, item, model)), source.image, source.headers())
            try:
                self_check(kept, analysis)
            except WetreadError as error:
                problem = str(error)
        for record, result in zip(records, kept, strict=True):
            yield Arrived(record, job, result.path, problem if result.path.exists() else "not in the archive")


def _pictures(ledger: Ledger, spool: Spool, folder: Path) -> Iterator[Path]:
    folder.mkdir(exist_ok=True)
    for job in ledger.list_jobs():
        if job.stage == INFER and job.state == DONE:
            item = load_item(spool.work(job.series.key, job.item), spool.instance_folder(job.series.key))
            findings = load_findings(spool.work(job.series.key, job.item, job.model))
            path = folder / f"{job.series.key[:6]}-{job.model}.png"
            overlay_png(path, item.image, findings)
            yield path
