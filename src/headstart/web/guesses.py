"""Slows down who guesses short codes."""

from __future__ import annotations

import ipaddress
import threading
import time
from collections import OrderedDict

from fastapi import Request

WRONG_CODES, WRONG_SECONDS = 20, 60.0
"""So many wrong codes one address may send in so many seconds: at that pace 64 million codes take six years.

A class behind one address mistypes less often than that.
"""

ADDRESSES_KEPT = 10_000


class Guesses:
    """Counts the wrong codes of each address. Safe to share between threads."""

    def __init__(self) -> None:
        self._wrong: OrderedDict[str, tuple[float, int]] = OrderedDict()
        self._turn = threading.Lock()

    def too_many(self, request: Request) -> bool:
        """Whether the address that a request comes from has to wait."""
        with self._turn:
            began, count = self._wrong.get(_address_of(request), (0.0, 0))
            return count >= WRONG_CODES and time.monotonic() - began < WRONG_SECONDS

    def note(self, request: Request) -> None:
        """Counts a wrong one."""
        address = _address_of(request)
        with self._turn:
            began, count = self._wrong.pop(address, (time.monotonic(), 0))
            if time.monotonic() - began >= WRONG_SECONDS:
                began, count = time.monotonic(), 0
            self._wrong[address] = began, count + 1
            while len(self._wrong) > ADDRESSES_KEPT:
                self._wrong.popitem(last=False)


def _address_of(request: Request) -> str:
    """Whom guesses are counted for: an IPv4 address, the 64 bits of a network of IPv6."""
    host = request.client.host if request.client else ""
    try:
        number = ipaddress.ip_address(host)
    except ValueError:
        return host
    return host if number.version == 4 else str(ipaddress.ip_network((number, 64), strict=False))
