"""Configuration files of MONAI bundles: references and simple expressions resolved, and no code of the bundle's run.

A bundle's configuration may hold any Python (``"$import os"``). It comes from strangers, so an expression is read as a
tree of which only literals, references, arithmetic, comparisons and choices are understood; whatever else is
`Unresolved`, and only an error where its value is needed
(https://docs.monai.io/en/stable/config_syntax.html).
"""

import ast
import json
import operator
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engines.errors import ModelPackageError, RuntimeUnavailable

REFERENCE = re.compile(r"@(\w+(?:(?:#|::)\w+)*)")

ARITHMETIC: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
COMPARISONS: Mapping[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
CONVERSIONS: Mapping[str, Callable[[Any], Any]] = {
    "bool": bool,
    "float": float,
    "int": int,
    "len": len,
    "list": list,
    "tuple": tuple,
}

DEEPEST = 40
"""References deeper than this go round in circles."""

MOST_STEPS = 200_000
"""A few lines of references to references can grow to more than any memory holds."""


@dataclass(frozen=True)
class Unresolved:
    """An expression that is not understood."""

    text: str


class _NotUnderstood(Exception):
    """Part of an expression is not understood."""


class BundleConfig:
    """A bundle's configuration.

    Parameters
    ----------
    content
        As read from the file.
    name
        Of the file, for errors.
    """

    def __init__(self, content: Mapping[str, Any], name: str) -> None:
        self._content = content
        self._steps = 0
        self.name = name

    def get(self, key: str, default: Any = None) -> Any:
        """Give a value with everything in it resolved, or `Unresolved` in the places that are not understood."""
        return self._resolve(self._content[key]) if key in self._content else default

    def resolve(self, value: Any) -> Any:
        """Resolve what is inside of a value."""
        return self._resolve(value)

    def _resolve(self, value: Any, depth: int = 0) -> Any:
        self._steps += 1
        if depth > DEEPEST or self._steps > MOST_STEPS:
            raise ModelPackageError(f"{self.name}: {str(value)[:80]!r} refers to itself, or to too much; correct it")
        match value:
            case str() if value.startswith("$"):
                return self._expression(value[1:], depth)
            case str() if value.startswith("%"):
                return Unresolved(value)
            case str() if (match := REFERENCE.fullmatch(value)) is not None:
                return self._referenced(match[1], depth)
            case list():
                return [self._resolve(each, depth + 1) for each in value]
            case dict():
                return {key: self._resolve(each, depth + 1) for key, each in value.items()}
        return value

    def _referenced(self, path: str, depth: int) -> Any:
        found: Any = self._content
        for part in re.split("#|::", path):
            if isinstance(found, str):
                found = self._resolve(found, depth + 1)
            if isinstance(found, Mapping) and part in found:
                found = found[part]
            elif isinstance(found, list) and part.isdigit() and int(part) < len(found):
                found = found[int(part)]
            else:
                return Unresolved(f"@{path}")
        return self._resolve(found, depth + 1)

    def _expression(self, text: str, depth: int) -> Any:
        paths: list[str] = []

        def named(match: re.Match[str]) -> str:
            paths.append(match[1])
            return f"_reference_{len(paths) - 1}"

        def name_value(name: str) -> Any:
            prefix, _, number = name.rpartition("_")
            if prefix != "_reference":
                raise _NotUnderstood
            value = self._referenced(paths[int(number)], depth + 1)
            if _holds_unresolved(value):
                raise _NotUnderstood
            return value

        try:
            return _value(ast.parse(REFERENCE.sub(named, text).strip(), mode="eval").body, name_value)
        except (_NotUnderstood, SyntaxError, ValueError, TypeError, ArithmeticError, LookupError, RecursionError):
            return Unresolved(f"${text}")


def read_config(path: Path) -> Any:
    """Read a JSON or YAML file.

    Raises
    ------
    ModelPackageError
        It is not valid.
    """
    text = path.read_text(encoding="utf-8")
    try:
        if path.suffix == ".json":
            return json.loads(text)
        try:
            import yaml
        except ImportError as error:
            raise RuntimeUnavailable("PyYAML is not installed; pip install 'wetread[import]'") from error
        try:
            return yaml.safe_load(text)
        except yaml.YAMLError as error:
            raise ModelPackageError(f"{path} is not valid YAML: {error}; correct that place") from error
    except (json.JSONDecodeError, RecursionError) as error:
        raise ModelPackageError(f"{path} is not valid JSON: {error}; correct that place") from error


def _holds_unresolved(value: Any) -> bool:
    match value:
        case Unresolved():
            return True
        case list() | tuple():
            return any(_holds_unresolved(each) for each in value)
        case dict():
            return any(_holds_unresolved(each) for each in value.values())
    return False


def _value(node: ast.expr, name_value: Callable[[str], Any]) -> Any:
    def value(part: ast.expr) -> Any:
        return _value(part, name_value)

    match node:
        case ast.Constant():
            return node.value
        case ast.Name():
            return name_value(node.id)
        case ast.List() | ast.Tuple():
            return [value(each) for each in node.elts]
        case ast.Dict():
            return {
                value(key): value(each) for key, each in zip(node.keys, node.values, strict=True) if key is not None
            }
        case ast.UnaryOp(op=ast.USub()):
            return -value(node.operand)
        case ast.UnaryOp(op=ast.Not()):
            return not value(node.operand)
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            left, right = value(node.left), value(node.right)
            # text times a number could fill the memory
            if not isinstance(node.op, ast.Add) and not all(isinstance(each, int | float) for each in (left, right)):
                raise _NotUnderstood
            return ARITHMETIC[type(node.op)](left, right)
        case ast.BoolOp():
            values = [value(each) for each in node.values]
            return all(values) if isinstance(node.op, ast.And) else any(values)
        case ast.Compare(ops=[op]) if type(op) in COMPARISONS:
            return COMPARISONS[type(op)](value(node.left), value(node.comparators[0]))
        case ast.IfExp():
            return value(node.body) if value(node.test) else value(node.orelse)
        case ast.Subscript():
            return value(node.value)[value(node.slice)]
        case ast.Call(func=ast.Name(id=name), args=[argument], keywords=[]) if name in CONVERSIONS:
            return CONVERSIONS[name](value(argument))
    raise _NotUnderstood
