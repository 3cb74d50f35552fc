"""``wetread engines quantise``: a network in INT8, calibrated with images."""

import json
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from build_engines.cli_models import Json, Models, known_packages, named
from engines.errors import RuntimeUnavailable
from engines.packages.package import ModelPackage
from engines.runtimes.base import RuntimeSettings, create_engine
from engines.verify import Verification, verify

app = typer.Typer()


@app.command("quantise")
def quantise_model(
    name: Annotated[str, typer.Argument(help="The model.", metavar="MODEL")],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE",
            help="Images like those that it was trained on: files, or folders of files or DICOM series.",
        ),
    ],
    most: Annotated[int, typer.Option(min=1, help="Of more images, so many are taken, spread evenly.")] = 100,
    models: Models = None,
    as_json: Json = False,
) -> None:
    """Write NAME.int8.onnx into a model's folder; exit code 1 if it is beyond the model's limits for INT8.

    The images stay here; only the ranges of what the network makes of them go into the file.
    """
    try:
        from build_engines.calibration import record_inputs
        from build_engines.images import find_images
        from build_engines.quantise import load_nncf, quantise
    except ImportError as error:
        raise RuntimeUnavailable(f"{error.name} is not installed; pip install 'wetread[quantise]'") from error
    packages = known_packages(models)
    package, found = named(packages, name), find_images(images)
    chosen = [found[number * len(found) // min(most, len(found))] for number in range(min(most, len(found)))]
    columns = TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"), TimeElapsedColumn()
    with Progress(*columns, console=Console(stderr=True)) as display:
        reading = display.add_task(f"{len(chosen)} images through {name}", total=len(chosen))
        calibrating = display.add_task("calibrating", total=1.0)
        load_nncf()
        inputs = record_inputs(package, packages, chosen, lambda done: display.update(reading, completed=done))
        paths = quantise(package, inputs, lambda done: display.update(calibrating, completed=done))
    verification = _verify(package)
    if as_json:
        print(
            json.dumps(
                {
                    "model": name,
                    "images": len(chosen),
                    "inputs": len(inputs),
                    "files": [str(path) for path in paths],
                    "probability_error": verification.probability_error,
                    "dice": dict(verification.dice),
                    "activation_error": verification.activation_error,
                    "place_error": verification.place_error,
                    "ok": verification.ok,
                    "beyond": list(verification.beyond),
                }
            )
        )
    else:
        print(*paths, sep="\n")
        print(_told(verification))
    if not verification.ok:
        raise typer.Exit(1)


def _verify(package: ModelPackage) -> Verification:
    with create_engine(package, RuntimeSettings(precision="int8")) as engine:
        return verify(package, engine)


def _told(verification: Verification) -> str:
    if verification.ok:
        return f"within the limits of INT8 (probability error {verification.probability_error:.3f})"
    return (
        f"beyond the limits of INT8, so no node will serve it: {', '.join(verification.beyond)}. "
        "Name more images, or judge it and give model.toml a table [verify.int8]"
    )
