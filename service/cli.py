"""The ``wetread`` command: reads its arguments, calls a room, shows what came back."""

import json
import signal
import subprocess
import sys
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from build_engines.cli import app as engines_app
from evaluation.cli import evaluate
from service import __version__
from service.cli_engines import reload_engines
from service.cli_fetch import fetch
from service.cli_ledger import app as ledger_app
from service.cli_ledger import prioritise, rerun
from service.cli_options import DEFAULT_CONFIG, AsJson, Config, console, existing_ledger
from service.cli_quarantine import app as quarantine_app
from service.errors import ConfigurationError, WetreadError
from service.ledger.records import STAGES, STATES
from service.logs import configure, silence_libraries
from service.operate import jobs_view
from service.roles import Role
from service.settings import TEMPLATE, LogSettings, Settings, load

app = typer.Typer(
    name="wetread",
    help="A DICOM node that runs AI models on CT series and X-rays and sends SEG and SR back. For research use only.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
jobs_app = typer.Typer(help="Look at the ledger: what was done, what waits, what failed and why.", no_args_is_help=True)
jobs_app.command()(rerun)
jobs_app.command()(prioritise)
app.add_typer(jobs_app, name="jobs")
app.add_typer(ledger_app, name="ledger")
app.add_typer(quarantine_app, name="quarantine")
engines_app.command("reload")(reload_engines)
app.add_typer(engines_app, name="engines")
app.command()(evaluate)
app.command()(fetch)


@app.command()
def version() -> None:
    """Show the version."""
    console.print(f"wetread {__version__}, for research use only")


@app.command()
def init(
    path: Annotated[Path, typer.Argument(help="Where to write it.")] = DEFAULT_CONFIG,
    spool: Annotated[Path, typer.Option(help="The spool folder to put into it.")] = Path("/var/lib/wetread"),
) -> None:
    """Write a commented configuration with safe defaults. An existing file is left alone."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(TEMPLATE.replace("{spool}", spool.as_posix()))
    except FileExistsError:
        raise ConfigurationError(f"{path} exists and is left alone; remove it or name another file") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be written ({error.strerror})") from None
    console.print(f"Wrote {path}. Next: name your archive in it, then `wetread check --config {path}`.", soft_wrap=True)


@app.command()
def check(config: Config = DEFAULT_CONFIG, as_json: AsJson = False) -> None:
    """Say in one screen what is right and what is wrong: configuration, spool, archives, models, ports."""
    from service.operate.inspection import inspect  # all of the node, which no other command waits for

    configure(LogSettings(format="console", level="error"))
    lines = list(inspect(config))
    if as_json:
        print(json.dumps({"ok": all(line.ok for line in lines), "lines": [vars(line) for line in lines]}))
    else:
        table = Table("", "what", "how it is", box=None, pad_edge=False)
        for line in lines:
            table.add_row("[green]✓[/]" if line.ok else "[red]✗[/]", escape(line.what), escape(line.finding))
        console.print(table)
    raise typer.Exit(0 if all(line.ok for line in lines) else 1)


@app.command()
def serve(
    config: Config = DEFAULT_CONFIG,
    role: Annotated[Role, typer.Option(help="A part of the work, where several share ledger and spool.")] = Role.ALL,
) -> None:
    """Run the node until SIGTERM or SIGINT, then drain it."""
    from service.encoding import Encoders, encode_files
    from service.node import Node, notify_systemd

    settings = load(config)
    configure(settings.log)
    stop = threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with ExitStack() as begun:
        encode = encode_files
        if role.works:
            encoders = Encoders(settings.node.encoders)
            begun.callback(encoders.close)
            encode = encoders.encode
        node = Node(settings, role, encode)
        begun.callback(node.stop)
        node.start()
        notify_systemd("READY=1")
        stop.wait()
        notify_systemd("STOPPING=1")


@app.command()
def send(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder of them.", exists=True)],
    host: str,
    port: int,
    ae_title: Annotated[str, typer.Argument(help="The called AE title.")],
    calling: Annotated[str, typer.Option(help="The calling AE title.")] = "WETREAD",
) -> None:
    """Send a folder of DICOM files to a node by C-STORE, each in its own transfer syntax."""
    from service.deliver.folder import send_folder
    from service.types import Destination

    report = send_folder(path, Destination(ae_title, ae_title, host, port), calling, console)
    console.print(f"{report.sent} sent, {len(report.skipped)} skipped")
    for file, reason in report.skipped:
        console.print(f"  skipped {file}: {reason}", soft_wrap=True)
    raise typer.Exit(0 if report.sent else 1)


@app.command()
def route(
    path: Annotated[Path, typer.Argument(help="A DICOM file, or a folder of them.", exists=True)],
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="WETREAD_CONFIG", help="The configuration; without one: shipped models."),
    ] = None,
    sender: Annotated[str, typer.Option(help="The calling AE title; default: the first one configured.")] = "",
    as_json: AsJson = False,
) -> None:
    """Show what would run on these images, where results would go, and why not. Nothing is stored, nothing runs."""
    from service.operate.progress import progress
    from service.routing.dry_run import dry_run
    from service.routing.dry_run_view import as_object, view
    from service.served import served_packages

    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    settings = load(config) if config else None
    packages = served_packages(settings or Settings())
    with progress(quiet=as_json) as watch:
        found = dry_run(path, packages, settings, sender, watch)
    if as_json:
        print(json.dumps(as_object(found)))
    else:
        for line in view(found):
            console.print(line)


@jobs_app.command("list")
def jobs_list(
    config: Config = DEFAULT_CONFIG,
    state: Annotated[str | None, typer.Option(help=f"Only jobs in this state: {', '.join(STATES)}.")] = None,
    series: Annotated[str | None, typer.Option(help="Only jobs of this series (its key, or the beginning).")] = None,
    as_json: AsJson = False,
) -> None:
    """List the jobs, in the order in which they came."""
    found = existing_ledger(config).list_jobs(state, series)
    if as_json:
        print(json.dumps([jobs_view.as_json(job) for job in found]))
    else:
        for line in jobs_view.jobs_view(found):
            console.print(line)


@jobs_app.command("show")
def jobs_show(
    series: Annotated[str, typer.Argument(help="A series' key, or the beginning of one.")],
    config: Config = DEFAULT_CONFIG,
    as_json: AsJson = False,
) -> None:
    """Show all that is known of one series: its jobs, why it started, and its results, with their UIDs."""
    ledger = existing_ledger(config)
    found, results, decisions = ledger.list_jobs(series_key=series), ledger.results(series), ledger.decisions(series)
    if not found:
        raise ConfigurationError(f"no series {series!r} in the ledger; `wetread jobs list` shows all")
    if as_json:
        print(json.dumps({"jobs": [jobs_view.as_json(job) for job in found],
                          "decisions": [jobs_view.decision_as_json(decision) for decision in decisions],
                          "results": [jobs_view.result_as_json(result) for result in results]}))  # fmt: skip
    else:
        for line in jobs_view.series_view(found, results, decisions):
            console.print(line, soft_wrap=isinstance(line, str))


@jobs_app.command("retry")
def jobs_retry(
    job: Annotated[int | None, typer.Argument(help="The job's number.", show_default=False)] = None,
    dead: Annotated[bool, typer.Option("--dead", help="All dead jobs instead.")] = False,
    stage: Annotated[str | None, typer.Option(help=f"With --dead: of this stage: {', '.join(STAGES)}.")] = None,
    config: Config = DEFAULT_CONFIG,
) -> None:
    """Run a dead or cancelled job again, or all that are dead."""
    if (job is None) != dead or (stage is not None and (not dead or stage not in STAGES)):
        raise ConfigurationError(f"name a job's number, or --dead, perhaps with --stage: {', '.join(STAGES)}")
    if job is None:
        count = existing_ledger(config).retry_dead(stage)
        console.print(f"{count} {'job is' if count == 1 else 'jobs are'} ready again")
        return
    _operate(existing_ledger(config).operator_retry(job), job, "is ready again", "neither dead nor cancelled")


@jobs_app.command("cancel")
def jobs_cancel(job: Annotated[int, typer.Argument(help="The job's number.")], config: Config = DEFAULT_CONFIG) -> None:
    """Cancel a job that has not ended."""
    _operate(existing_ledger(config).operator_cancel(job), job, "is cancelled", "ended already")


def _operate(done: bool, job: int, success: str, failure: str) -> None:
    if not done:
        raise ConfigurationError(f"job {job}: there is none, or it is {failure}; `wetread jobs list` shows all")
    console.print(f"job {job} {success}")


NOTHING: dict[str, object] = {"studies": [], "results": [], "quarantined": [], "seconds": {}}
"""What a demo that could not be carried out has come to."""


@app.command()
def demo(
    study: Annotated[
        Path | None, typer.Option(help="A folder of DICOM instead of the phantoms.", exists=True, file_okay=False)
    ] = None,
    out: Annotated[Path, typer.Option(help="Where everything goes.")] = Path("demo-out"),
    timeout: Annotated[float, typer.Option(help="Seconds to wait for the results.")] = 600.0,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON, for programs.")] = False,
) -> None:
    """Show the whole job on this machine: an archive forwards a study, the node sends results back."""
    from service.demo.run import run_demo

    try:
        ok = run_demo(study, out, timeout, as_json)
    except WetreadError as error:
        if as_json:
            print(json.dumps({"ok": False, "error": str(error)} | NOTHING))
        raise
    raise typer.Exit(0 if ok else 1)


@app.command(context_settings={"allow_extra_args": True, "ignore_unknown_options": True})
def bench(context: typer.Context, name: Annotated[str, typer.Argument(help="A module of benchmarks/.")]) -> None:
    """Measure speed and memory; --json ends with one line for programs. Needs a checkout of the repository."""
    checkout = Path(__file__).resolve().parents[1]
    known = sorted(path.stem for path in (checkout / "benchmarks").glob("*.py") if path.stem not in _NO_BENCHMARK)
    if name not in known:
        raise ConfigurationError(
            f"no benchmark {name!r}; there are: {', '.join(known) or 'none outside of a checkout'}"
        )
    command = [sys.executable, "-m", f"benchmarks.{name}", *context.args]
    raise typer.Exit(subprocess.run(command, cwd=checkout, check=False).returncode)


_NO_BENCHMARK = ("__init__", "report")
"""Modules of ``benchmarks`` that are parts of others."""


def main() -> None:
    """Run the command; an expected error ends it with a message instead of a traceback."""
    silence_libraries()
    try:
        app()
    except WetreadError as error:
        Console(stderr=True).print("error:", str(error), style="red", soft_wrap=True, highlight=False, markup=False)
        raise SystemExit(1) from None
    except OSError as error:  # a full disk, a folder that is not ours
        said = f"error: {error.filename or 'a file'}: {error.strerror or type(error).__name__}"
        Console(stderr=True).print(said, style="red", soft_wrap=True, highlight=False, markup=False)
        raise SystemExit(1) from None


if __name__ == "__main__":
    main()
