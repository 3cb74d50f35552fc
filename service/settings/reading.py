"""A file of settings, read; and what is wrong with it, in words."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

from pydantic import BaseModel, ValidationError

from service.errors import ConfigurationError
from service.settings.tree import Settings

_PASSCODES = (
    ("node", "users"),
    ("stow", "tokens"),
    ("ledger", "url"),
    ("http", "password"),
    ("spool", "url"),
    ("spool", "endpoint"),
)
_ARCHIVE_PASSCODES = (("dicomweb_token",), ("dicomweb_password",))


def load(path: Path) -> Settings:
    """Read the settings of one file.

    Raises
    ------
    ConfigurationError
        The file cannot be read, is not TOML, or has a wrong key or value; one line for each, with the fix.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigurationError(f"{path}: no such file; `wetread init {path}` writes one") from None
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path}: not valid TOML: {error}") from None
    return parse(content, str(path))


def parse(content: dict[str, Any], origin: str) -> Settings:
    """Settings from a parsed document; ``origin`` names it in errors. Raises `ConfigurationError`."""
    try:
        return Settings(**content)
    except ValidationError as error:
        raise ConfigurationError("\n".join(_lines(error, origin))) from None


def _lines(error: ValidationError, origin: str) -> Iterator[str]:
    for entry in error.errors(include_url=False):
        key = ".".join(str(part) for part in entry["loc"])
        if entry["type"] == "extra_forbidden":
            known = ", ".join(_known_keys(entry["loc"]))
            yield f"{origin}: {key} = {entry['input']!r}: no such key; remove it or use one of: {known}"
        elif entry["loc"][:2] in _PASSCODES or entry["loc"][-1:] in _ARCHIVE_PASSCODES:  # which are not shown
            yield f"{origin}: {key}: {entry['msg']}"
        elif entry["loc"] and (entry["type"] != "value_error" or not isinstance(entry["input"], dict)):
            yield f"{origin}: {key} = {entry['input']!r}: {entry['msg']}"
        else:  # of a table as a whole, which may hold passcodes
            words = entry["msg"].removeprefix("Value error, ")
            yield f"{origin}: {words}" if words.startswith(key) else f"{origin}: {key}: {words}"


def _known_keys(location: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed where ``location`` (its last part unknown) points."""
    model: type[BaseModel] = Settings
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if field is None:  # the name of a sender or archive: the table's entries all have one type
            continue
        annotation: Any = field.annotation
        model = cast(type[BaseModel], annotation.__args__[1] if hasattr(annotation, "__args__") else annotation)
    return sorted(model.model_fields)
