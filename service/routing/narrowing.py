"""Whether ``[routing.MODEL]`` of the configuration fits the models and senders that are there."""

from collections.abc import Iterator, Mapping

from engines.packages.package import ModelPackage
from engines.packages.selection import RadiographSelection, VolumeSelection
from service.errors import ConfigurationError
from service.routing.triage import labels_of
from service.settings import RoutingSettings, Settings

SELECTION_KEYS = VolumeSelection.model_fields.keys() | RadiographSelection.model_fields.keys()
"""The keys that ask something of an image; whether a model has one depends on the kind of its input."""


def check_narrowing(settings: Settings, packages: Mapping[str, ModelPackage]) -> None:
    """Check names, keys and senders; what is misspelt would otherwise narrow nothing, or everything.

    Raises
    ------
    ConfigurationError
        All that is wrong, one line for each, with the fix.
    """
    if wrong := list(_wrong(settings, packages)):
        raise ConfigurationError("\n".join(wrong))


def _wrong(settings: Settings, packages: Mapping[str, ModelPackage]) -> Iterator[str]:
    for name, narrowing in settings.routing.items():
        if name not in packages:
            yield f"routing.{name}: no such model; there are {', '.join(sorted(packages))}"
            continue
        for key in sorted(_foreign_keys(narrowing, packages[name])):
            yield f"routing.{name}.{key}: {name} does not take images that have this; remove the key"
        could = labels_of(packages[name])
        for label in sorted(narrowing.stat):
            if label.casefold() not in {each.casefold() for each in could}:
                yield f"routing.{name}.stat: {name} finds no {label!r}; it tells of {', '.join(could) or 'none'}"
        if not settings.node.accept_unknown_senders:
            for sender in sorted(set(narrowing.senders) - set(settings.senders)):
                known = ", ".join(sorted(settings.senders)) or "none"
                yield f"routing.{name}.senders: {sender} is no sender (known: {known}); add [senders.{sender}]"


def _foreign_keys(narrowing: RoutingSettings, package: ModelPackage) -> set[str]:
    """Selection keys that were given, although the model's own input cannot have them."""
    return (narrowing.model_fields_set & SELECTION_KEYS) - type(package.input).model_fields.keys()
