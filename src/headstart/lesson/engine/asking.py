"""Asks other servers: HTTPS, bounded in time and bytes, and never where an answer sends us."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPException
from time import monotonic
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from headstart.errors import LessonError, printable, reason_of
from headstart.web.addresses import is_loopback

SECONDS = 15.0
"""For which an answer is waited: until it begins, for each piece, and for all of its body."""

LARGEST = 2_000_000
"""Bytes of an answer."""


class Refused(LessonError):
    """A server says that it did not do what was asked; ``status`` is HTTP's."""

    def __init__(self, message: str, *, status: int) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """What a server said."""

    status: int
    headers: Message
    body: bytes


def is_safe(address: str) -> bool:
    """Whether an address is of HTTPS, or of this machine."""
    try:
        parts = urlsplit(address)
        host, _ = parts.hostname or "", parts.port
    except ValueError:
        return False
    plain = address.isascii() and address.isprintable() and " " not in address and parts.username is None
    secure = parts.scheme == "https" or (parts.scheme == "http" and is_loopback(host))
    return plain and secure and re.fullmatch(r"[a-z0-9.-]+|[0-9a-f:.]+", host) is not None


def is_local(address: str) -> bool:
    """Whether a safe address is of this machine."""
    return is_loopback(urlsplit(address).hostname or "")


class _Stay(HTTPRedirectHandler):
    """An answer that sends us elsewhere is an answer: what we carry is for the address that was named."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """No other request is made."""
        return None


def ask(
    address: str, *, method: str = "GET", headers: Mapping[str, str] | None = None, body: bytes | None = None
) -> Answer:
    """What a server answers.

    Args:
        address: of HTTPS, or of this machine; the caller has looked.
        method: of HTTP.
        headers: sent along.
        body: likewise.

    Raises LessonError where nothing comes or too much, Refused where the server says that it was not done.
    """
    place, until = printable(address.partition("?")[0])[:200], monotonic() + SECONDS
    try:
        wanted = Request(address, data=body, headers=dict(headers or {}), method=method)
        with build_opener(_Stay).open(wanted, timeout=SECONDS) as answer:
            found = Answer(answer.status, answer.headers, _taken(answer, LARGEST + 1, until=until))
    except HTTPError as error:
        raise Refused(f"{place} answered {error.code}: {_said(error, until)}", status=error.code) from None
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise LessonError(f"{place}: {reason_of(error)}") from None
    if len(found.body) > LARGEST:
        raise LessonError(f"{place} answered more than {LARGEST:,} bytes")
    return found


def _taken(answer: Any, most: int, *, until: float) -> bytes:
    """The first bytes of an answer, which may come drop by drop: the socket's own timeout is for each."""
    found = bytearray()
    while len(found) < most and (piece := answer.read1(min(65_536, most - len(found)))):
        found += piece
        if monotonic() > until:
            raise TimeoutError(f"the answer took longer than {SECONDS:g} s")
    return bytes(found)


def _said(error: HTTPError, until: float) -> str:
    """What a refusal says for itself."""
    try:
        with error:
            said = printable(_taken(error, 300, until=until).decode("utf-8", "replace"))
    except (HTTPException, OSError, ValueError):
        said = ""
    return said or printable(str(error.reason))
