"""The texts of a shipped package, which are written by hand: ``model.toml``, and ``CARD.md`` but for its figures."""

import re
from collections.abc import Mapping
from math import isfinite

from engines.packages.package import SHIPPED_MODELS
from evaluation.estimate import Estimate

FIGURES = re.compile(r"(?<=<!-- figures -->\n).*?(?=<!-- /figures -->)", re.DOTALL)
"""What lies between the two marks of a card is written by `with_figures`."""


def package_texts(name: str) -> tuple[str, str]:
    """Give ``model.toml`` and ``CARD.md`` of a shipped model.

    A recipe prepares images as its ``model.toml`` says, so training and serving cannot differ.
    """
    folder = SHIPPED_MODELS / name
    return (folder / "model.toml").read_text(encoding="utf-8"), (folder / "CARD.md").read_text(encoding="utf-8")


def with_figures(card: str, figures: Mapping[str, Estimate]) -> str:
    """Put a table of figures between the marks of a card.

    Raises
    ------
    ValueError
        The card has no place for figures.
    """
    if not FIGURES.search(card):
        raise ValueError("the card has no <!-- figures --> and <!-- /figures -->; put them where the figures belong")
    return FIGURES.sub(lambda _: table(figures) + "\n", card)


def table(figures: Mapping[str, Estimate]) -> str:
    """Write figures as a Markdown table."""
    return "\n".join(
        [
            "| figure | value | 95 % interval |",
            "|---|---|---|",
            *(f"| {name} | {each.value:.3f} | {interval(each)} |" for name, each in figures.items()),
        ]
    )


def interval(figure: Estimate) -> str:
    """Write an interval, or that there is none: of one patient, say."""
    return f"{figure.low:.3f}–{figure.high:.3f}" if isfinite(figure.low) else "none"
