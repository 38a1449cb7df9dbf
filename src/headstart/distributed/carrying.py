"""Values that name a file, sent to machines that may not have it: the file's bytes travel along."""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar

from headstart.files import write_whole

_T = TypeVar("_T")

_KEPT = 4
"""Values that a process keeps ready: networks, above all."""


@dataclass(frozen=True)
class Carried(Generic[_T]):
    """A frozen dataclass one of whose attributes is the path of a file; in this process as it is."""

    value: _T

    @property
    def here(self) -> _T:
        """The value, whose file is on this machine."""
        return self.value


@dataclass(frozen=True)
class Sent(Carried[_T]):
    """One that comes from elsewhere.

    Attributes:
        attribute: the path's name in it.
        content: of the file.
        digest: of the content.
    """

    attribute: str
    content: bytes
    digest: str

    @classmethod
    def of(cls, value: Any, attribute: str) -> Sent[Any]:
        """With the file as it is now; what the value has made ready in memory stays behind."""
        content = Path(getattr(value, attribute)).read_bytes()
        return cls(replace(value), attribute, content, hashlib.blake2b(content, digest_size=16).hexdigest())

    @property
    def here(self) -> _T:
        """The value with a file of this machine; the same object as long as it is among the last few."""
        value: _T = _unpacked(_Key(self))
        return value


class _Key:
    """Values are the same where the contents of their files and all other attributes are."""

    def __init__(self, sent: Sent[Any]) -> None:
        self.sent = sent
        values = [(each.name, getattr(sent.value, each.name)) for each in fields(sent.value)]
        self._text = repr((sent.digest, type(sent.value), values))  # its own `repr` is short, for people

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and self._text == other._text

    def __hash__(self) -> int:
        return hash(self._text)


@lru_cache(maxsize=1)
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="headstart-")


@lru_cache(maxsize=_KEPT)
def _unpacked(key: _Key) -> Any:
    sent = key.sent
    target = Path(_folder().name) / f"{sent.digest}{Path(getattr(sent.value, sent.attribute)).suffix}"
    if not target.exists():
        write_whole(target, sent.content)
    return replace(sent.value, **{sent.attribute: target})
