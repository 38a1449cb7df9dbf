"""The last few values that a server keeps in memory."""

from __future__ import annotations

import secrets
import threading
from collections import OrderedDict
from typing import Generic, TypeVar

from fastapi import HTTPException

Value = TypeVar("Value")


class Recent(Generic[Value]):
    """The last few values by name; the oldest are dropped. Safe to share between threads."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: OrderedDict[str, Value] = OrderedDict()
        self._turn = threading.Lock()

    def keep(self, value: Value, *, name: str = "") -> str:
        """Keeps a value, in place of the one of that name; gives its name, an unguessable one by itself."""
        name = name or secrets.token_hex(12)
        with self._turn:
            self._kept.pop(name, None)
            self._kept[name] = value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return name

    def drop(self, name: str) -> None:
        """Forgets a value, where it is kept."""
        with self._turn:
            self._kept.pop(name, None)

    def peek(self, name: str) -> Value | None:
        """What was kept, or None."""
        with self._turn:
            return self._kept.get(name)

    def get(self, name: str) -> Value:
        """What was kept, or 404."""
        found = self.peek(name)
        if found is None:
            raise HTTPException(404, "This is no longer kept. Go back and do it again.")
        return found
