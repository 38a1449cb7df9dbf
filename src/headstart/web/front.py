"""The HTTP front of all three servers: checks of Host and Origin, limits in bytes and seconds, shutdown.

`serve`, `learn` and `studio` run behind `run`. uvicorn over httptools by itself keeps heads and trailers of
any length for any time, and waits for ever for a thread that does not end.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import NamedTuple

import uvicorn
from starlette.types import ASGIApp, Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from headstart.web.addresses import Names, is_same_origin

LARGEST_HEAD = 65_536
"""Bytes of a request's line and headers, and of whatever else comes between two pieces of a body.

Browsers send a few thousand."""

HEAD_SECONDS = 10.0
"""For a request's line and headers to have come, from the connection's or the request's first byte."""

BODY_SECONDS = 60.0
"""For a body to have come, and a second more for every `SLOWEST` bytes that were announced."""

SLOWEST = 131_072
"""Bytes a second: 1 Mbit/s."""

LINGER_SECONDS = 5.0
"""For the rest of a body to come after its request was answered: who still sends reads no answer."""

WRITE_SECONDS = 60.0
"""Without a byte of an answer being taken by whoever asked for it."""

MOST_CONNECTIONS = 2000
"""At once; beyond them one that waits for a request is closed. A class of learners opens some hundreds."""

FORCE_SECONDS = 5.0
"""After the time for a graceful stop: whatever still hangs is cut off."""

_log = logging.getLogger(__name__)


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol with limits; a connection that exceeds one is closed."""

    _most = MOST_CONNECTIONS
    _uncounted = _fields = _length = 0
    _reading = "head"
    _deadline: asyncio.TimerHandle | None = None
    _unsent: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock, and make room where there is none."""
        super().connection_made(transport)
        self._set_deadline(HEAD_SECONDS)
        if len(self.connections) > self._most:
            others = (each for each in self.connections if isinstance(each, BoundedProtocol))
            next((each for each in others if each is not self and each._is_idle()), self)._give_up()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clocks."""
        self._set_deadline(None)
        self.resume_writing()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to no body: a body is counted by whoever reads it."""
        self._uncounted += len(data)
        super().data_received(data)
        if self._uncounted > LARGEST_HEAD:
            self._give_up()
        elif self._deadline is None and self._is_idle():
            self._set_deadline(HEAD_SECONDS)  # blank lines between requests, which begin none

    def on_message_begin(self) -> None:
        """A request's line follows."""
        self._reading, self._fields, self._length = "head", 0, 0
        self._set_deadline(HEAD_SECONDS)
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's line: a head that comes at once is never counted as it arrives."""
        self._fields += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header.

        Raises:
            ValueError: it is a trailer, which uvicorn would add to the headers; the parser answers 400.
        """
        if self._reading != "head":
            raise ValueError("a header after the body")
        self._fields += len(name) + len(value)
        if name.lower() == b"content-length" and value.isdigit() and len(value) < 20:
            self._length = int(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there.

        Raises:
            ValueError: it is too large; the parser answers 400.
        """
        if self._fields > LARGEST_HEAD:
            raise ValueError(f"the head has {self._fields} bytes")
        self._reading, self._uncounted = "body", 0
        self._set_deadline(BODY_SECONDS + self._length / SLOWEST)
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """A piece of the body; what is between the pieces, and after the last, is counted anew."""
        self._uncounted = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """All of the request is there; answering it has bounds of its own."""
        self._reading, self._uncounted = "", 0
        self._set_deadline(None)
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is sent, perhaps before the request was read to its end."""
        super().on_response_complete()
        if self._reading == "body":
            self._set_deadline(LINGER_SECONDS)

    def pause_writing(self) -> None:
        """Whoever asked does not take the answer."""
        super().pause_writing()
        self._unsent = self.loop.call_later(WRITE_SECONDS, self._abort)

    def resume_writing(self) -> None:
        """It is being taken."""
        if self._unsent is not None:
            self._unsent.cancel()
            self._unsent = None
        super().resume_writing()

    def _is_idle(self) -> bool:
        return self._reading != "body" and (self.cycle is None or self.cycle.response_complete)

    def _set_deadline(self, seconds: float | None) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None if seconds is None else self.loop.call_later(seconds, self._give_up)

    def _give_up(self) -> None:
        self._set_deadline(None)
        if not self.transport.is_closing():
            self.transport.close()

    def _abort(self) -> None:
        self.transport.abort()


class Refusal(NamedTuple):
    """Why a request is not answered: the status and one line."""

    status: int
    text: str


def check_host_and_origin(scope: Scope, names: Names, *, origins: Collection[str] = ()) -> Refusal | None:
    """Why a request is refused: a foreign Host, or a page of another site; None where it is fine.

    Args:
        scope: the request's.
        names: what its Host header may say.
        origins: of other sites whose pages may ask, such as ``https://flowers.example``.
    """
    heads = scope["headers"]
    hosts = [value.decode("latin-1") for name, value in heads if name == b"host"]
    if len(hosts) != 1 or not names.admit(hosts[0]):
        return Refusal(421, "this server does not answer to that name")
    found = [value.decode("latin-1").lower() for name, value in heads if name == b"origin"]
    if len(found) == 1 and found[0] in origins:
        return None
    if not all(is_same_origin(origin, hosts[0]) for origin in found) or is_cross_site(scope):
        return Refusal(403, "a request from another site's page")
    return None


def is_cross_site(scope: Scope) -> bool:
    """Whether the browser says that another site's page caused the request."""
    return (b"sec-fetch-site", b"cross-site") in scope["headers"]


def take_cookie(scope: Scope, name: str) -> str:
    """The value of one cookie, "" where there is none; whoever comes later sees no cookies at all.

    Frameworks read every cookie of every request with the standard library, which takes 17 s for 60 kB of
    quoted backslashes.
    """
    found = ""
    for header, value in scope["headers"]:
        if header == b"cookie":
            pairs = (pair.strip().partition("=") for pair in value.decode("latin-1").split(";"))
            found = next((content for key, _, content in pairs if key == name), found)
    scope["headers"] = [pair for pair in scope["headers"] if pair[0] != b"cookie"]
    return found


def run(
    app: ASGIApp,
    *,
    listener: socket.socket,
    stop_seconds: float,
    keep_alive_seconds: int,
    finish: Callable[[], None] = lambda: None,
    finish_seconds: float = 0.0,
) -> None:
    """Serve an application until SIGTERM or Ctrl-C.

    Args:
        app: the application.
        listener: takes the connections; closed by the caller.
        stop_seconds: for requests under way to be answered.
        keep_alive_seconds: a connection is kept for another request.
        finish: called in the end.
        finish_seconds: that it takes; `FORCE_SECONDS` later the process ends, whatever still hangs.
    """
    logging.basicConfig(format="headstart: %(message)s", level=logging.WARNING)
    config = uvicorn.Config(
        app,
        http=_protocol_with_room(),
        ws="none",
        log_config=None,
        log_level="error",  # what is wrong with a request is told to whoever sent it
        access_log=False,
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=max(1, round(stop_seconds)),
        timeout_keep_alive=keep_alive_seconds,
    )
    with suppress(KeyboardInterrupt), _ending_on(signal.SIGTERM):
        try:
            server = _Server(config)
            server.bound = stop_seconds + finish_seconds + FORCE_SECONDS
            server.run(sockets=[listener])
        finally:
            finish()


class _Server(uvicorn.Server):
    """uvicorn's server, which also stops where a thread never ends."""

    bound = 2 * FORCE_SECONDS

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Stop gracefully, and by force if that takes too long."""
        if not self.should_exit:
            end_within(self.bound)
        super().handle_exit(sig, frame)


def end_within(seconds: float) -> None:
    """End the process with exit code 1 after so many seconds, unless it has ended by then."""

    def force() -> None:
        _log.error("did not stop within %g s and was ended; a model or a job hangs", seconds)
        os._exit(1)

    timer = threading.Timer(seconds, force)
    timer.daemon = True
    timer.start()


def _protocol_with_room() -> type[BoundedProtocol]:
    """The protocol, with as many connections as the system lets this process have."""
    try:
        import resource
    except ImportError:  # Windows has no such bound
        return BoundedProtocol
    wanted = 2 * MOST_CONNECTIONS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    most = MOST_CONNECTIONS if soft == resource.RLIM_INFINITY else min(MOST_CONNECTIONS, soft // 2)
    return type("RoomyProtocol", (BoundedProtocol,), {"_most": most})


@contextmanager
def _ending_on(number: signal.Signals) -> Iterator[None]:
    """End with exit code 0: once it has stopped, uvicorn raises the signal that stopped it again."""
    before = signal.signal(number, lambda *_: sys.exit(0))
    try:
        yield
    finally:
        signal.signal(number, before)
