"""Checks that plain data from a file is what it is declared to be: types from Python's own annotations.

check = checker(Mapping[str, tuple[int, ...]])
check({"a": [1, 2]})            # {"a": (1, 2)}
check({"a": [1, "2"]})          # Mistyped: a, entry 2: expected a whole number, got text
"""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Callable, Collection, Mapping
from functools import cache
from typing import Any

Check = Callable[[Any], Any]


class Mistyped(Exception):
    """Data that is not as declared; the message says where, what was expected and what came."""

    def __init__(self, expected: str, got: Any) -> None:
        super().__init__(expected)
        self.place: list[str] = []
        self.expected, self.got = expected, got

    def __str__(self) -> str:
        where = ", ".join(reversed(self.place))
        return f"{where}: expected {self.expected}, got {_kind(self.got)}".removeprefix(": ")


def _kind(value: Any) -> str:
    if value is _MISSING:
        return "nothing"
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return next((name for kind, name in _NAMES.items() if type(value) is kind), type(value).__name__)


_MISSING = object()
_NAMES: dict[Any, str] = {
    str: "text",
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    types.NoneType: "null",
    list: "a list",
    dict: "an object",
}


@cache
def checker(hint: Any) -> Check:
    """A function that gives a value of that type, or raises Mistyped; lists become `tuple[X, ...]`.

    Known are text, chosen text, truth, whole and finite numbers, None, unions, tuples, lists, mappings by
    text, and `typing.TypedDict`, of which other keys than the declared ones may be there.
    """
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is Any:
        return lambda value: value
    if typing.is_typeddict(hint):
        return record(typing.get_type_hints(hint), optional=hint.__optional_keys__)
    if hint in _NAMES:
        return _plain(hint)
    if origin in (typing.Union, types.UnionType):
        return _either(tuple(map(checker, arguments)))
    if origin is typing.Literal:
        return _one_of(arguments)
    if origin is tuple and arguments[-1] is not Ellipsis:
        return _row(tuple(map(checker, arguments)))
    if origin in (tuple, list):
        return _many(checker(arguments[0]), origin)
    if origin is Mapping or origin is dict:
        return _mapping(checker(arguments[1]))
    raise TypeError(f"{hint} cannot be checked")


def _plain(kind: Any) -> Check:
    def check(value: Any) -> Any:
        fits = type(value) is kind or (kind is float and type(value) is int)
        if not fits or (kind is float and not math.isfinite(value)):
            raise Mistyped(_NAMES[kind], value)
        return value

    return check


def _one_of(values: tuple[Any, ...]) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, str) or value not in values:
            raise Mistyped(f"one of {', '.join(map(str, values))}", value)
        return value

    return check


def _either(checks: tuple[Check, ...]) -> Check:
    def check(value: Any) -> Any:
        found = None
        for each in checks:
            try:
                return each(value)
            except Mistyped as error:
                found = found or error
        raise found or Mistyped("something else", value)

    return check


def _row(checks: tuple[Check, ...]) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple) or len(value) != len(checks):
            raise Mistyped(f"a list of {len(checks)}", value)
        found = [_at(f"entry {n}", each, v) for n, (each, v) in enumerate(zip(checks, value, strict=True), 1)]
        return found if isinstance(value, list) else tuple(found)

    return check


def _many(inner: Check, kind: Any) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, list | tuple):
            raise Mistyped("a list", value)
        number = 0
        found = []
        try:
            for number, each in enumerate(value, 1):  # noqa: B007 (the last one names the place)
                found.append(inner(each))
        except Mistyped as error:
            error.place.append(f"entry {number}")
            raise
        return kind(found)

    return check


def _mapping(inner: Check) -> Check:
    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Mistyped("an object", value)
        return {key: _at(key, inner, each) for key, each in value.items()}

    return check


def record(hints: Mapping[str, Any], *, optional: Collection[str] = ()) -> Check:
    """The same for the entries of an object, each of its own type; others may be there too."""
    checks = {name: checker(hint) for name, hint in hints.items()}

    def check(value: Any) -> Any:
        if not isinstance(value, dict):
            raise Mistyped("an object", value)
        found = dict(value)
        for name, inner in checks.items():
            if name in value:
                found[name] = _at(name, inner, value[name])
            elif name not in optional:
                _at(name, _nothing, _MISSING)
        return found

    return check


def _nothing(value: Any) -> Any:
    raise Mistyped("something", value)


def _at(place: str, check: Check, value: Any) -> Any:
    try:
        return check(value)
    except Mistyped as error:
        error.place.append(place)
        raise
