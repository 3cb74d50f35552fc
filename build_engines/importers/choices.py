"""What whoever imports a model says beyond what its source says: keys of ``model.toml``, which go before the source's.

They come from ``--answers FILE.toml`` and from ``--set KEY=VALUE``, which goes before the file.
"""

import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from build_engines.importers.draft import NOT_STATED, Remark
from engines.errors import ModelPackageError

INTENSITY_KEYS = ("window", "range", "mean", "deviation", "standardise", "percentiles")
SELECTION_KEYS = ("body_part", "view", "plane", "minimum_slices")
LISTS = frozenset({"mean", "deviation", "labels", "body_part", "view", "plane"})
OUTPUT_KEYS = frozenset({
    "task", "labels", "overlapping", "keep_largest", "exclusive", "format", "order", "least_score",
})  # fmt: skip
INPUT_KEYS = frozenset({
    "modality", "body_part", "view", "plane", "minimum_slices", "axes", "spacing_mm", "patch", "size", "overlap",
    "blend", "resize", *INTENSITY_KEYS,
})  # fmt: skip
IDENTITY_KEYS = frozenset({"name", "version", "licence", "intended_use"})
KNOWN = IDENTITY_KEYS | INPUT_KEYS | OUTPUT_KEYS | {"outputs"}

LICENCES = {
    "Apache License": "Apache-2.0",
    "MIT License": "MIT",
    "BSD 3-Clause": "BSD-3-Clause",
    "Attribution-NonCommercial-ShareAlike 4.0": "CC-BY-NC-SA-4.0",
    "Attribution-NonCommercial 4.0": "CC-BY-NC-4.0",
    "Attribution-ShareAlike 4.0": "CC-BY-SA-4.0",
    "Attribution 4.0": "CC-BY-4.0",
}


class Choices(BaseModel):
    """What importers of described models are told, key by key of ``model.toml``; None where nothing was said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str | None = None
    version: str | None = None
    licence: str | None = None
    intended_use: str | None = None
    axes: str | None = None
    spacing_mm: tuple[float, float, float] | None = None
    window: tuple[float, float] | None = None
    range: tuple[float, float] | None = None
    mean: tuple[float, ...] | None = None
    deviation: tuple[float, ...] | None = None
    standardise: bool | None = None
    percentiles: tuple[float, float] | None = None
    patch: tuple[int, int, int] | None = None
    body_part: tuple[str, ...] | None = None
    view: tuple[str, ...] | None = None
    plane: tuple[str, ...] | None = None
    minimum_slices: int | None = None
    labels: tuple[str, ...] | None = None
    trust: bool = False

    @property
    def selection(self) -> Mapping[str, Any]:
        """The keys of ``[input]`` that say which images the model gets."""
        said = {key: getattr(self, key) for key in SELECTION_KEYS if getattr(self, key) is not None}
        return {key: value if isinstance(value, int) else list(value) for key, value in said.items()}

    @property
    def intensities(self) -> Mapping[str, Any]:
        """The keys of ``[input]`` that say how values are scaled; empty if nothing was said of it."""
        said = {key: getattr(self, key) for key in INTENSITY_KEYS if getattr(self, key) is not None}
        return {key: value if isinstance(value, bool) else list(value) for key, value in said.items()}

    def intended(self, source: object) -> str:
        """The intended use, which is research in any case."""
        use = " ".join(str(self.intended_use or source or "not stated").split())
        return use if use.lower().startswith("research use only") else f"Research use only: {use}"

    def licensed(self, source: str | None) -> str:
        """The licence of the weights."""
        return self.licence or source or NOT_STATED


def choose(answers: Mapping[str, Any], *, trust: bool = False) -> Choices:
    """Check the answers for an importer of described models.

    Raises
    ------
    ModelPackageError
        A key is not for such models, or a value is wrong.
    """
    # one thing alone is a list of one
    listed = {key: [value] if key in LISTS and not isinstance(value, list) else value for key, value in answers.items()}
    try:
        return Choices.model_validate({**listed, "trust": trust})
    except ValidationError as error:
        told = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors())
        raise ModelPackageError(f"what you say of the model is wrong: {told}; correct --set or --answers") from error


def read_answers(path: Path | None, pairs: Sequence[str] = ()) -> dict[str, Any]:
    """Read a file of answers, and pairs ``KEY=VALUE`` that go before it.

    Raises
    ------
    ModelPackageError
        The file is not valid, or a key is not known.
    """
    answers: dict[str, Any] = {}
    if path is not None:
        try:
            answers = tomllib.loads(path.read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as error:
            raise ModelPackageError(f"{path} cannot be read as TOML: {error}; correct that place") from error
    for pair in pairs:
        key, equals, text = pair.partition("=")
        if not equals:
            raise ModelPackageError(f"--set {pair!r} should be KEY=VALUE")
        table, last = answers, key.strip()
        if last.startswith("outputs."):
            name, _, last = last.removeprefix("outputs.").rpartition(".")
            table = answers.setdefault("outputs", {}).setdefault(name, {})
        table[last] = read_answer(text)
    outputs = answers.get("outputs", {})
    wrong = [key for key in answers if key not in KNOWN]
    wrong += [f"outputs.{name}.{key}" for name, table in outputs.items() for key in table if key not in OUTPUT_KEYS]
    if wrong:
        known = ", ".join(sorted(KNOWN - {"outputs"}))
        raise ModelPackageError(f"{', '.join(wrong)}: not a key that is asked for; those are {known}")
    return answers


def read_answer(text: str) -> Any:
    """Read what somebody typed: a number, true or false, a list with commas, or a text."""
    if "," in text:
        return [_scalar(each) for each in text.split(",") if each.strip()]
    return _scalar(text)


def licence_in(text: str) -> str | None:
    """Recognise a licence by its text."""
    plain = " ".join(text.split()).lower()
    return next((name for words, name in LICENCES.items() if words.lower() in plain), None)


def terms_remark(licence: str) -> tuple[Remark, ...]:
    """Ask for the licence where nobody said it."""
    if licence != NOT_STATED:
        return ()
    return (Remark("to check", "licence", "the source states none; ask whose model it is, and set identity.licence"),)


def _scalar(text: str) -> Any:
    text = text.strip()
    if text.lower() in ("true", "yes", "y"):
        return True
    if text.lower() in ("false", "no", "n"):
        return False
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
