"""``wetread evaluate``: how good a model is on anybody's data."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from service import __version__
from service.cli_options import DEFAULT_CONFIG, console
from service.operate.progress import progress

if TYPE_CHECKING:
    from engines.packages.package import ModelPackage
    from evaluation.collection import Choice, Collection
    from evaluation.dicom_headers import Watch
    from evaluation.judgement import Judgement

SHOWN_PROBLEMS = 10


def evaluate(
    model: Annotated[str, typer.Argument(help="A model's name, or the folder of its package.")],
    data: Annotated[Path, typer.Argument(help="A manifest (CSV), a folder with manifest.csv, or a folder of DICOM.")],
    split: Annotated[
        str | None, typer.Option(help="Rows to judge on: a value of the column, or all; default: test if there is one.")
    ] = None,
    split_column: Annotated[str, typer.Option(help="The manifest's column of the splits.")] = "split",
    by: Annotated[list[str] | None, typer.Option(help="A further column of subgroups; may be given again.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="At most so many images, spread evenly.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for report.html, report.json and predictions.csv.")] = None,
    rounds: Annotated[int, typer.Option(min=1, max=100_000, help="Samples of the bootstrap.")] = 1000,
    seed: Annotated[int, typer.Option(min=0, help="Of the bootstrap.")] = 1,
    threads: Annotated[int, typer.Option(min=0, help="CPU threads for inference; 0 for all.")] = 0,
    precision: Annotated[str, typer.Option(help="In which the network computes; auto as a node does.")] = "auto",
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", envvar="WETREAD_CONFIG", help="A node's configuration, for its models."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="End with one line of JSON, for programs.")] = False,
) -> None:
    """Judge a model on labelled images: figures with 95 % intervals, subgroups, and a report."""
    from engines.runtimes.base import RuntimeSettings
    from engines.serving.engine_set import open_engines
    from evaluation.collection import Choice
    from evaluation.errors import DataError
    from evaluation.judge import judge
    from evaluation.noticing import Noticing
    from evaluation.outputs import as_line
    from evaluation.report import Circumstances
    from evaluation.report_files import write_files
    from service.logs import configure
    from service.settings import LogSettings

    configure(LogSettings(format="console", level="error"))
    packages = packages_for(model, config)
    package = next(iter(packages.values()))
    if precision not in ("auto", "fp32", "bf16", "int8"):
        raise DataError(f"--precision {precision}: choose of auto, fp32, bf16, int8")
    choice = Choice(split, split_column, limit, tuple(name.lower() for name in by or ()))
    if out is not None:
        prepare(out)
    settings = RuntimeSettings(precision=precision, threads=threads)  # type: ignore[arg-type]
    with progress() as watch:
        collection = collected(data, package, choice, watch)
        with open_engines(packages, settings) as engines:
            noticing = Noticing(engines)
            judgement = judge(
                package, noticing, collection.cases, collection.words, validation=collection.validation,
                rounds=rounds, seed=seed, progress=lambda done, total: watch("judging", done, total),
            )  # fmt: skip
            judgement = completed(judgement, collection, noticing.notes)
            if out is not None:
                watch("writing the report", 0, 1)
                identity = engines.models[package.name].engine.identity
                engine = f"{identity.runtime}, {identity.precision}, {identity.device}"
                circumstances = Circumstances(engine, rounds, seed, __version__, package.identity.intended_use)
                write_files(out, judgement, circumstances, collection.cases, engines, package)
    if as_json:
        tell(judgement)
        print(as_line(judgement))
        return
    show(judgement)
    tell(judgement)
    if out is not None:
        console.print(f"\nThe report is {out / 'report.html'}", soft_wrap=True, highlight=False, markup=False)


def packages_for(model: str, config: Path | None) -> "dict[str, ModelPackage]":
    """Give the package of a model, which comes first, and of the one that it is cropped to.

    Parameters
    ----------
    model
        The name of a shipped or configured model, or a package's folder, which may be cropped to one beside it.

    Raises
    ------
    ModelPackageError
        There is no such model, or its package is wrong.
    """
    from engines.errors import ModelPackageError
    from engines.packages.package import SHIPPED_MODELS, check_crops, load_package, load_packages
    from service.served import served_packages
    from service.settings import load

    if config is None and DEFAULT_CONFIG.exists():
        config = DEFAULT_CONFIG
    folder = Path(model)
    if (folder / "model.toml").is_file():
        package = load_package(folder)
        known = load_packages(SHIPPED_MODELS)
    else:
        known = served_packages(load(config)) if config else load_packages(SHIPPED_MODELS)
        if model not in known:
            raise ModelPackageError(
                f"there is no model {model!r}; choose of {', '.join(sorted(known))}, or name a package's folder"
            )
        package = known[model]
    packages = {package.name: package}
    crop = package.input.crop_to
    if crop is not None:
        beside = package.folder.parent / crop
        if (beside / "model.toml").is_file():
            packages[crop] = load_package(beside)
        elif crop in known:
            packages[crop] = known[crop]
    check_crops(packages)
    return packages


def prepare(out: Path) -> None:
    """Make the folder of a report, before anybody waits for it.

    Raises
    ------
    RuntimeUnavailable
        What writes it is not installed.
    """
    from importlib.util import find_spec

    from engines.errors import RuntimeUnavailable

    if missing := [name for name in ("jinja2", "matplotlib") if find_spec(name) is None]:
        raise RuntimeUnavailable(f"{missing[0]} is not installed; pip install 'wetread[evaluate]', or leave out --out")
    out.mkdir(parents=True, exist_ok=True)


def collected(data: Path, package: "ModelPackage", choice: "Choice", watch: "Watch") -> "Collection":
    """Make cases of a manifest or of a folder of DICOM.

    Raises
    ------
    DataError
        There is no such data, or nothing that the model can be judged by.
    """
    from evaluation.collection import EVERYTHING
    from evaluation.dicom import read_folder
    from evaluation.errors import DataError
    from evaluation.manifest import read_manifest

    if not data.exists():
        raise DataError(f"{data} does not exist; name a manifest, or a folder with manifest.csv or DICOM files")
    if data.is_dir() and not (data / "manifest.csv").is_file():
        if choice.split not in (None, EVERYTHING):
            raise DataError(
                f"--split {choice.split}: a folder of DICOM has no splits; leave it out or write a manifest"
            )
        return read_folder(data, package, choice, watch)
    return read_manifest(data, package, choice)


def completed(judgement: "Judgement", collection: "Collection", noticed: tuple[str, ...]) -> "Judgement":
    """Add what never became a case, and what was noticed of those that did.

    Raises
    ------
    DataError
        Nothing could be judged.
    """
    from dataclasses import replace

    from evaluation.errors import DataError

    unusable, notes = collection.unusable, (*collection.notes, *noticed)
    if unusable:
        notes = (*notes, f"Of the data, {len(unusable)} could not be used; the first: {unusable[0].problem}.")
    cases = (*judgement.cases, *unusable)
    if not judgement.n:
        first = next((case for case in cases if case.problem), None)
        reason = f"; {first.name}: {first.problem}" if first else ""
        raise DataError(f"none of the {len(cases)} images of {judgement.data} could be judged{reason}")
    return replace(judgement, cases=cases, notes=(*judgement.notes, *notes))


def show(judgement: "Judgement") -> None:
    """Print the figures."""
    from evaluation.words import in_words, interval, number

    console.print(f"{judgement.model} on {judgement.n} cases of {judgement.data}", highlight=False, markup=False)
    table = Table("figure", "value", "95 % interval", box=None, pad_edge=False)
    for name, estimate in judgement.metrics.items():
        table.add_row(escape(in_words(name)), number(estimate.value), interval(estimate))
    console.print(table)


def tell(judgement: "Judgement") -> None:
    """Say on standard error what a reader has to know."""
    told = Console(stderr=True)
    for note in judgement.notes:
        told.print(note, soft_wrap=True, highlight=False, markup=False)
    problems = [case for case in judgement.cases if case.problem]
    for case in problems[:SHOWN_PROBLEMS]:
        told.print(f"  {case.name}: {case.problem}", soft_wrap=True, highlight=False, markup=False)
    if len(problems) > SHOWN_PROBLEMS:
        told.print(f"  and {len(problems) - SHOWN_PROBLEMS} more")
