"""Looks for a newer classifier while the server runs."""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

from headstart.serving.metrics import Metrics
from headstart.serving.models import LOAD_SECONDS, Models


class Watcher:
    """Calls `Models.refresh` every so many seconds, and when it is told to."""

    def __init__(self, models: Models, metrics: Metrics, *, seconds: float) -> None:
        """``seconds`` between two looks; 0 never looks."""
        self._models, self._metrics, self._seconds = models, metrics, seconds
        self._task: asyncio.Task[None] | None = None
        self._looked = 0.0
        self._told = asyncio.Event()

    def start(self) -> None:
        """Begin; called by the event loop."""
        self._looked = time.monotonic()
        self._task = asyncio.create_task(self._watch())

    def look_now(self) -> None:
        """Look at once, and take what is there for complete: whoever says so has put it there."""
        self._told.set()

    async def stop(self) -> None:
        """Look no more."""
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    def troubles(self) -> list[str]:
        """What is not well, each in a line that tells strangers nothing of the machine."""
        found = []
        if self._task is not None:
            silent = time.monotonic() - self._looked
            if self._task.done():
                found.append("the watcher for newer classifiers has ended")
            elif self._seconds and silent > self._seconds + 2 * LOAD_SECONDS:
                found.append(f"the watcher for newer classifiers has been silent for {silent:.0f} s")
        if self._models.trouble:
            found.append("a newer classifier cannot be loaded; the log says why")
        return found

    async def _watch(self) -> None:
        while True:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), self._seconds or None)
            told = self._told.is_set()
            self._told.clear()
            exchanged = await asyncio.to_thread(self._models.refresh, at_once=told)  # which raises nothing
            self._looked = time.monotonic()
            if exchanged is not None:
                self._metrics.reloads.labels("done" if exchanged else "failed").inc()
