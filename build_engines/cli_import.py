"""``wetread engines import``: a model package from a MONAI bundle, an nnU-Net training or a bare ONNX file."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table

from build_engines.cli_models import Json
from engines.errors import RuntimeUnavailable

if TYPE_CHECKING:
    from build_engines.importers.draft import Draft
    from build_engines.importers.package_writer import Imported

app = typer.Typer(help="Make a model package of somebody else's model.", no_args_is_help=True)

Out = Annotated[Path, typer.Option(help="Folder of model packages; the package becomes a folder in it.")]
Name = Annotated[str | None, typer.Option(help="The package's name; else the source's.")]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of model.toml, before the source's: window=-1000,400"),
]
Answers = Annotated[Path | None, typer.Option(help="TOML file with such keys.")]
Golden = Annotated[
    Path | None,
    typer.Option(help="An image to verify engines with; it becomes part of the package, so never a patient's."),
]
UidRoot = Annotated[str | None, typer.Option(help="Number for derived UIDs; else a free one.")]
Force = Annotated[bool, typer.Option("--force", help="Replace a package of this name.")]
Trust = Annotated[bool, typer.Option("--trust", help="Run code that the source may hold (pickle, TorchScript).")]


@app.command("bundle")
def import_bundle(
    source: Annotated[
        Path, typer.Argument(metavar="BUNDLE", help="A MONAI bundle: its folder, or that zipped.", exists=True)
    ],
    out: Out,
    name: Name = None,
    pairs: Set = None,
    answers: Answers = None,
    golden: Golden = None,
    uid_root: UidRoot = None,
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Import a MONAI bundle (metadata.json, inference.json, and a network as ONNX or TorchScript)."""
    with _libraries():
        from build_engines.importers.choices import choose
        from build_engines.importers.monai import read_bundle
    choices = choose(_answers(name, pairs, answers), trust=trust)
    _write(lambda: read_bundle(source, choices), out, golden, uid_root, force, as_json)


@app.command("nnunet")
def import_nnunet(
    source: Annotated[
        Path, typer.Argument(metavar="FOLDER", help="Folder with plans.json, dataset.json and fold_*.", exists=True)
    ],
    out: Out,
    configuration: Annotated[str | None, typer.Option(help="Of plans.json; else as the folder is named.")] = None,
    checkpoint: Annotated[str, typer.Option(help="Name of the file in each fold.")] = "checkpoint_final.pth",
    name: Name = None,
    pairs: Set = None,
    answers: Answers = None,
    golden: Golden = None,
    uid_root: UidRoot = None,
    force: Force = False,
    trust: Trust = False,
    as_json: Json = False,
) -> None:
    """Import an nnU-Net v2 training; its folds become an ensemble. Needs PyTorch (the extra train)."""
    with _libraries():
        from build_engines.importers.choices import choose
        from build_engines.importers.nnunet import read_nnunet
    choices = choose(_answers(name, pairs, answers), trust=trust)
    _write(lambda: read_nnunet(source, choices, configuration, checkpoint), out, golden, uid_root, force, as_json)


@app.command("onnx")
def import_onnx(
    source: Annotated[Path, typer.Argument(metavar="FILE", help="The ONNX file.", exists=True, dir_okay=False)],
    out: Out,
    name: Name = None,
    pairs: Set = None,
    answers: Answers = None,
    golden: Golden = None,
    uid_root: UidRoot = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Import a bare ONNX file; what neither it nor --set nor --answers says is asked."""
    with _libraries():
        from build_engines.importers.bare import read_bare
    ask = _ask if sys.stdin.isatty() and not as_json else None
    draft = read_bare(source, _answers(name, pairs, answers), ask)
    _write(lambda: draft, out, golden, uid_root, force, as_json)


def _answers(name: str | None, pairs: list[str] | None, file: Path | None) -> dict[str, Any]:
    from build_engines.importers.choices import read_answers

    answers = read_answers(file, pairs or ())
    return answers if name is None else {**answers, "name": name}


def _ask(question: str, default: str | None) -> str:
    return str(typer.prompt(question, default=default, err=True))


@contextmanager
def _libraries() -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise RuntimeUnavailable(f"{error.name} is not installed; pip install 'wetread[import]'") from error


def _write(
    read: Callable[[], "Draft"], out: Path, golden: Path | None, uid_root: str | None, force: bool, as_json: bool
) -> None:
    from build_engines.importers.package_writer import write_package

    columns = SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True), transient=True) as display:
        task = display.add_task("reading")
        imported = write_package(
            read(),
            out,
            golden=golden,
            uid_root=uid_root,
            force=force,
            progress=lambda phase: display.update(task, description=phase),
        )
    if as_json:
        print(json.dumps(_as_json(imported)))
    else:
        _show(imported)


def _as_json(imported: "Imported") -> dict[str, Any]:
    package, verification = imported.package, imported.verification
    return {
        "name": package.name,
        "folder": str(package.folder),
        "tasks": list(package.description.tasks),
        "uid_root": package.identity.uid_root,
        "remarks": [asdict(remark) for remark in imported.remarks],
        "verification": {
            "probability_error": verification.probability_error,
            "dice": dict(verification.dice),
            "place_error": verification.place_error,
            "ok": verification.ok,
        },
    }


COLOURS = {"taken over": "green", "assumed": "yellow", "left out": "yellow", "to check": "red"}


def _show(imported: "Imported") -> None:
    package, verification = imported.package, imported.verification
    console = Console(highlight=False)
    table = Table(box=None, pad_edge=False, show_header=False)
    for kind, colour in COLOURS.items():
        for remark in imported.remarks:
            if remark.kind == kind:
                table.add_row(f"[{colour}]{kind}[/]", escape(remark.what), escape(remark.text))
    console.print(table)
    lowest = f", lowest Dice {min(verification.dice.values()):.4f}" if verification.dice else ""
    engine = f"{verification.engine.runtime} {verification.engine.precision}"
    console.print(f"\nVerified on {engine}: probability error {verification.probability_error:.2g}{lowest}")
    console.print(f"Wrote {package.folder}", soft_wrap=True, markup=False)
    console.print(
        "Next: read model.toml and CARD.md there, correct what is marked, then name the folder in engines.folders of "
        "the node's configuration, or try it with 'wetread engines verify --models'.",
    )
