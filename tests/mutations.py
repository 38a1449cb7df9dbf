"""What may become of a JSON file on its way: values of other kinds, missing parts, damage in the bytes."""

from __future__ import annotations

import copy
import json
from typing import Any

from hypothesis import strategies as st

ODD: list[Any] = [
    None,
    True,
    -1,
    0,
    10**18,
    10**400,
    1e308,
    float("nan"),
    float("inf"),
    "",
    "x" * 300,
    "a\n\x1b[31m\u202e",
    "../../etc/passwd",
    "\udcff",
    [],
    {},
    [[]],
    {"": {}},
    [None, "a", 1, {}],
]


def places(value: Any, *, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The way to every part of a value, of long lists to the first parts alone."""
    inner: list[Any] = []
    if isinstance(value, dict):
        inner = list(value.items())
    elif isinstance(value, list):
        inner = list(enumerate(value[:3]))
    return [path, *(place for key, each in inner for place in places(each, path=(*path, key)))]


def changed(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """A copy with one part replaced; removed where the new one is Ellipsis."""
    if not place:
        return {} if new is ... else new
    found = copy.deepcopy(value)
    inner = found
    for key in place[:-1]:
        inner = inner[key]
    if new is ...:
        del inner[place[-1]]
    else:
        inner[place[-1]] = new
    return found


def mutations(text: str) -> st.SearchStrategy[bytes]:
    """Bytes that were once the file."""
    value = json.loads(text)
    parts = st.tuples(st.sampled_from(places(value)), st.sampled_from([..., *ODD]))
    data = text.encode()
    cuts = st.integers(0, len(data) - 1).map(lambda at: data[:at])
    flips = st.tuples(st.integers(0, len(data) - 1), st.integers(1, 255)).map(
        lambda flip: data[: flip[0]] + bytes([data[flip[0]] ^ flip[1]]) + data[flip[0] + 1 :]
    )
    return st.one_of(parts.map(lambda part: json.dumps(changed(value, *part)).encode()), cuts, flips)
