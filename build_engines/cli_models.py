"""Which models a command of ``wetread engines`` is about: the options that say it, and the packages that they mean."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from engines.errors import ModelPackageError
from engines.packages.package import SHIPPED_MODELS, ModelPackage, load_packages

Models = Annotated[list[Path] | None, typer.Option("--models", help="A further folder of model packages.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs.")]


def known_packages(folders: Sequence[Path] | None) -> dict[str, ModelPackage]:
    """Load the shipped packages and those in further folders."""
    return load_packages(SHIPPED_MODELS, *(folders or ()))


def named(packages: dict[str, ModelPackage], name: str) -> ModelPackage:
    """Give a package by its name.

    Raises
    ------
    ModelPackageError
        There is none.
    """
    if name not in packages:
        raise ModelPackageError(
            f"there is no model {name!r}; choose of {', '.join(packages)}, or name its folder with --models"
        )
    return packages[name]
