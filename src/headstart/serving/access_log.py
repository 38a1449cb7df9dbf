"""One line for each request: when, whom, what, with which status, how long."""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from headstart.errors import printable

_LONGEST = 200
"""Characters of a path."""


class AccessLog:
    """Middleware that writes to stderr; neither queries, headers nor names of files are in it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Passes a request on, and writes its line once it is answered; 499 where nobody took the answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), 499

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self.app(scope, receive, note)
        finally:
            now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
            who = (scope.get("client") or ("-",))[0]
            what = printable(scope["path"]).replace('"', "%22")[:_LONGEST]
            spent = 1000 * (time.perf_counter() - began)
            sys.stderr.write(f'{now} {who} "{scope["method"]} {what}" {status} {spent:.1f} ms\n')
            sys.stderr.flush()
