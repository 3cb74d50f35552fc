"""What an importer has read of a model, before anything is written."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from build_engines.terminology.labels import PRIVATE, Concept, code_labels

MEASURED = ("volume", "mean_intensity")
"""What is measured of an imported segment of a CT; docs/model-package.md has more."""

UNCLIPPED = (-32768.0, 32767.0)
"""A window that clips nothing which a CT can hold: for sources that do not clip."""

NOT_STATED = "not stated by the source"

TENSOR = "image"
"""The network's input, in every imported package."""

Activation = Literal["none", "softmax", "sigmoid", "guess"]
"""What is appended to an output; ``guess`` looks at what the network answers."""

RemarkKind = Literal["taken over", "assumed", "left out", "to check"]


@dataclass(frozen=True)
class Remark:
    """Something that whoever imports a model should know."""

    kind: RemarkKind
    what: str
    text: str


@dataclass(frozen=True)
class Output:
    """How an output of a package comes from one of the source's network.

    Attributes
    ----------
    source
        Name in the source; "" for its only one.
    name
        In the package.
    channels
        Classes, segments or numbers of a place: the length of its axis 1 (of scores and places: the last axis).
    kind
        ``map`` is ``[1, channel, …grid]``, ``vector`` ``[1, channel]``, ``list`` ``[1, n, channel]``.
    activation
        What is appended; ``guess`` looks at what the network answers.
    without_first
        Whether its first channel is left out.
    """

    source: str
    name: str
    channels: int
    kind: Literal["map", "vector", "list"]
    activation: Activation = "guess"
    without_first: bool = False


@dataclass(frozen=True)
class Segmentation:
    """A ``[segmentation]`` table to be."""

    labels: Sequence[str]
    source: str = ""
    overlapping: bool = False
    keep_largest: bool = False
    activation: Activation = "guess"
    drops_background: bool = False
    """Whether an overlapping output has a channel for background, first, which is left out."""

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the network must answer."""
        channels = len(self.labels) + (self.drops_background if self.overlapping else 1)
        return (Output(self.source, "probabilities", channels, "map", self.activation, self.drops_background),)


@dataclass(frozen=True)
class Classification:
    """A ``[classification]`` table to be."""

    labels: Sequence[str]
    source: str = ""
    exclusive: bool = True
    activation: Activation = "guess"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the network must answer."""
        return (Output(self.source, "classes", len(self.labels), "vector", self.activation),)


@dataclass(frozen=True)
class Detection:
    """A ``[detection]`` table to be."""

    labels: Sequence[str]
    places: str
    scores: str
    dimensions: int
    format: Literal["corners", "centre_size", "points"] = "corners"
    order: Literal["axes", "reversed"] = "axes"
    least_score: float = 0.5
    activation: Activation = "guess"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What the network must answer."""
        numbers = self.dimensions * (1 if self.format == "points" else 2)
        return (
            Output(self.places, "places", numbers, "list", "none"),
            Output(self.scores, "scores", len(self.labels), "list", self.activation),
        )


Head = Segmentation | Classification | Detection


@dataclass(frozen=True)
class Draft:
    """A model package to be.

    Attributes
    ----------
    source
        What it is made from, for the card: ``MONAI bundle spleen_ct_segmentation 0.5.9``.
    networks
        The network's graphs by file name; several are an ensemble.
    input
        ``[input]`` of ``model.toml``, without ``tensor``.
    heads
        What it answers.
    axes_swapped
        Whether the source gives its X-rays column by column.
    training
        ``[training.ranges]`` as far as the source tells.
    card
        What the source says of itself, by heading of ``CARD.md``.
    """

    name: str
    version: str
    licence: str
    intended_use: str
    source: str
    networks: Mapping[str, Any]
    input: Mapping[str, Any]
    heads: tuple[Head, ...]
    remarks: tuple[Remark, ...] = ()
    axes_swapped: bool = False
    training: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    card: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_volume(self) -> bool:
        """Whether it takes CT series, not X-rays."""
        return "patch" in self.input

    @property
    def grid(self) -> tuple[int, ...]:
        """Grid of the network's input."""
        return tuple(self.input["patch"] if self.is_volume else self.input["size"])

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the network's input."""
        return (1, int(self.input.get("channels", 1)), *self.grid)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """All outputs of the network."""
        return tuple(output for head in self.heads for output in head.outputs)

    def remarked(self, *remarks: Remark) -> "Draft":
        """Give the same with more remarks."""
        return replace(self, remarks=(*self.remarks, *remarks))


def concepts(draft: Draft) -> Mapping[str, tuple[Concept, ...]]:
    """Give the coded labels of each head, by the name of its table."""
    return {type(head).__name__.lower(): code_labels(head.labels) for head in draft.heads}


def label_remarks(draft: Draft) -> tuple[Remark, ...]:
    """Name the labels that have a placeholder instead of a code."""
    unknown = [concept.label for coded in concepts(draft).values() for concept in coded if not concept.known]
    if not unknown:
        return ()
    return (
        Remark(
            "to check",
            "codes",
            f"none is known for {', '.join(unknown)}: placeholders of the scheme {PRIVATE} stand in model.toml; put "
            "the right codes there before results leave this machine",
        ),
    )
