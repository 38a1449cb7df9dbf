"""Server-sent events: a stream that ends when its news are over or its browser goes."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from typing import Any

from fastapi import Request
from starlette.responses import Response, StreamingResponse

LOOK_SECONDS = 0.2
"""How often a stream looks for news."""

QUIET_SECONDS = 15.0
"""After how long a silent stream says that it is alive, so that nobody between takes it for dead."""


def event(kind: str, data: Mapping[str, Any], *, number: int | None = None) -> str:
    """Formats one event; a browser that reconnects names the last ``number`` it has seen."""
    head = "" if number is None else f"id: {number}\n"
    return f"{head}event: {kind}\ndata: {json.dumps(data)}\n\n"


def stream(request: Request, news: Callable[[], tuple[str, bool]]) -> Response:
    """A response that sends events as they come.

    Args:
        request: ends the stream when its browser goes.
        news: gives the events since it was last asked, and whether they were the last.
    """

    async def events() -> AsyncIterator[str]:
        quiet = 0.0
        yield "retry: 1000\n\n"
        while not await request.is_disconnected():
            text, over = news()
            if text:
                yield text
            if over:
                return
            quiet = 0.0 if text else quiet + LOOK_SECONDS
            if quiet > QUIET_SECONDS:
                quiet = 0.0
                yield ": still here\n\n"
            await asyncio.sleep(LOOK_SECONDS)

    return StreamingResponse(events(), media_type="text/event-stream", headers={"x-accel-buffering": "no"})
