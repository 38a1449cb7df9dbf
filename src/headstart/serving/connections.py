"""Connections whose requests' heads are bounded in bytes and time: endless or dripping headers end them."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

LARGEST_HEAD = 65_536
"""Bytes of a request's line and headers; browsers send a few thousand."""

HEAD_SECONDS = 10.0
"""For a request's line and headers to have come, from the connection's or the request's first byte."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's protocol over httptools, which by itself keeps headers of any length for any time."""

    _head_bytes, _field_bytes = 0, 0
    _in_head = True
    _deadline: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the clock."""
        super().connection_made(transport)
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_clock()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Count what belongs to a head; a body is counted by whoever reads it."""
        super().data_received(data)
        if self._in_head:
            self._head_bytes += len(data)
            if self._head_bytes > LARGEST_HEAD:
                self._give_up()

    def on_message_begin(self) -> None:
        """A request's line follows."""
        self._in_head = True
        self._start_clock()
        super().on_message_begin()

    def on_url(self, url: bytes) -> None:
        """A piece of the request's line: a head that comes at once is never counted as it arrives."""
        self._field_bytes += len(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header."""
        self._field_bytes += len(name) + len(value)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is there."""
        size, self._field_bytes = self._field_bytes, 0
        self._in_head, self._head_bytes = False, 0
        self._stop_clock()
        if size > LARGEST_HEAD:
            raise ValueError(f"the head has {size} bytes")  # the parser ends the connection with 400
        super().on_headers_complete()

    def _start_clock(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(HEAD_SECONDS, self._give_up)

    def _stop_clock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _give_up(self) -> None:
        self._stop_clock()
        if not self.transport.is_closing():
            self.transport.close()
