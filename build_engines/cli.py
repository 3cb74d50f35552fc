"""``wetread engines``: list the models, build engine files, verify engines against the golden outputs."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from build_engines.cli_import import app as import_app
from build_engines.cli_models import Json, Models, known_packages, named
from build_engines.cli_quantise import app as quantise_app
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import RUNTIMES, Precision, RuntimeSettings, create_engine
from engines.runtimes.tensorrt_library import installed_gpu_runtime
from engines.verify import Verification, verify

app = typer.Typer(help="Models and their compiled engines.", no_args_is_help=True)
app.add_typer(import_app, name="import")
app.add_typer(quantise_app)

Names = Annotated[list[str] | None, typer.Argument(help="Models; all of them if none is named.", metavar="MODEL")]
Engines = Annotated[Path | None, typer.Option("--engines", help="Folder of engine files from 'engines build'.")]

DIGEST_LENGTH = 12


@app.command("list")
def list_models(models: Models = None, engines: Engines = None, as_json: Json = False) -> None:
    """Show every model, and on which runtimes it runs on this machine."""
    entries = [_entry(package, engines) for package in _select(None, models).values()]
    if as_json:
        print(json.dumps(entries))
        return
    table = Table("model", "version", "tasks", "MB", "digest", "runs on")
    for entry in entries:
        table.add_row(
            entry["name"],
            escape(entry["version"]),
            ", ".join(entry["tasks"]),
            f"{entry['bytes'] / 1e6:.1f}",
            entry["digest"][:DIGEST_LENGTH],
            ", ".join(entry["runs_on"]) or "nothing here",
        )
    Console().print(table)


@app.command("build")
def build_engines(
    out: Annotated[Path, typer.Option(help="Folder of the engine files.")],
    names: Names = None,
    target: Annotated[
        Literal["gpu", "rtx", "tensorrt", "openvino"],
        typer.Option(help="What to compile for; gpu is the one of TensorRT's two that suits this machine's."),
    ] = "rtx",
    precision: Annotated[Precision, typer.Option(help="In which the network computes.")] = "fp16",
    capability: Annotated[
        str | None, typer.Option(help="For rtx: one compute capability, for example sm89; else any from 8.0 on.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="How many inputs an engine takes at once.")] = 1,
    device: Annotated[int, typer.Option(min=0, help="For tensorrt: number of the GPU.")] = 0,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Compile models into engine files, where that was not done before. TensorRT for RTX needs no GPU for it."""
    try:
        from build_engines.compile import Target, build
    except ImportError as error:
        raise RuntimeUnavailable(f"{error.name} is not installed; pip install 'wetread[rtx]'") from error
    compiler: Target = installed_gpu_runtime(device) if target == "gpu" else target
    columns = TextColumn("{task.fields[model]}"), BarColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    built: dict[str, list[Path]] = {}
    with Progress(*columns, console=Console(stderr=True)) as display:
        for name, package in _select(names, models).items():
            task = display.add_task("reading", total=1.0, model=name)
            built[name] = build(
                package, compiler, precision, out,
                capability=capability, batch=batch, device=device, progress=_show(display, task),
            )  # fmt: skip
            size = sum(path.stat().st_size for path in built[name])
            display.update(task, description=f"{size / 1e6:.1f} MB", completed=1.0)
            display.stop_task(task)
    if as_json:
        print(json.dumps([{"model": name, "files": [str(path) for path in paths]} for name, paths in built.items()]))
    else:
        print(*(path for paths in built.values() for path in paths), sep="\n")


@app.command("verify")
def verify_engines(
    names: Names = None,
    runtime: Annotated[str, typer.Option(help=f"One of {', '.join(RUNTIMES)}.")] = "openvino",
    precision: Annotated[Precision, typer.Option(help="In which the network computes.")] = "fp32",
    models: Models = None,
    engines: Engines = None,
    as_json: Json = False,
) -> None:
    """Compare engines with the golden outputs; exit code 1 if one of them is beyond its limits."""
    settings = RuntimeSettings(runtime=runtime, precision=precision, engines=engines)
    results = [_verify(package, settings) for package in _select(names, models).values()]
    if as_json:
        print(
            json.dumps(
                [{**asdict(result), "limits": result.limits.model_dump(), "ok": result.ok} for result in results]
            )
        )
    else:
        Console().print(_verification_table(results))
    if not all(result.ok for result in results):
        raise typer.Exit(1)


def _select(names: list[str] | None, models: list[Path] | None) -> dict[str, ModelPackage]:
    packages = known_packages(models)
    return {name: named(packages, name) for name in names or packages}


def _entry(package: ModelPackage, engines: Path | None) -> dict[str, Any]:
    return {
        "name": package.name,
        "version": package.identity.version,
        "tasks": list(package.description.tasks),
        "bytes": sum(network.stat().st_size for network in package.networks),
        "digest": package.identity.digest,
        "runs_on": [runtime for runtime in RUNTIMES if _runs(package, runtime, engines)],
    }


def _runs(package: ModelPackage, runtime: str, engines: Path | None) -> bool:
    precisions: tuple[Precision, ...] = ("fp32",) if runtime == "openvino" else ("fp16", "fp32")
    for precision in precisions:
        try:
            with create_engine(package, RuntimeSettings(runtime=runtime, precision=precision, engines=engines)):
                return True
        except RuntimeUnavailable:
            continue
    return False


def _verify(package: ModelPackage, settings: RuntimeSettings) -> Verification:
    with create_engine(package, settings) as engine:
        return verify(package, engine)


def _verification_table(results: list[Verification]) -> Table:
    table = Table("model", "engine", "probability error", "lowest Dice", "activation error", "place error", "verdict")
    for result in results:
        engine, limits = result.engine, result.limits
        table.add_row(
            result.model,
            f"{engine.runtime} {engine.precision} {engine.device}",
            f"{result.probability_error:.2g} (≤ {limits.max_probability_error})",
            f"{min(result.dice.values()):.4f} (≥ {limits.min_dice})" if result.dice else "",
            _within(result.activation_error, limits.max_activation_error),
            _within(result.place_error, limits.max_place_error),
            "[green]ok[/]" if result.ok else "[red]refused[/]",
        )
    return table


def _within(error: float | None, limit: float | None) -> str:
    return "" if error is None else f"{error:.2g} (≤ {limit})"


def _show(display: Progress, task: TaskID) -> Callable[[Sequence[str], float], None]:
    def update(phases: Sequence[str], done: float) -> None:
        display.update(task, description=" › ".join(phases), completed=done)

    return update
