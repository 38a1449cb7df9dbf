"""What every page of the studio needs, handed to the application once."""

from __future__ import annotations

import secrets
import threading
import time
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from headstart.comparisons import Comparison
from headstart.costs.estimates import Range
from headstart.errors import RunError
from headstart.runs import Run
from headstart.studio.collections import Collection, Collections
from headstart.studio.run_list import RunList
from headstart.studio.servings import Servings
from headstart.web.addresses import Names
from headstart.web.jobs import Job, Jobs
from headstart.web.site import Tickets

OWNER = "studio"
"""Whose jobs these are in the queue that the lesson shares."""

_KEPT_ANSWERS = 32
_COMPARISONS_SHOWN = 50


@dataclass
class Live:
    """What a running job has said that the queue does not keep; its run keeps it in the end.

    ``phases`` maps a phase's name to (done, total), in the order in which they began.
    """

    begun: float = field(default_factory=time.monotonic)
    expected: Range | None = None
    phases: dict[str, tuple[int, int]] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    stopping: bool = False


class Recent:
    """Values made for one page and shown by the next, the oldest dropped; gone with the server."""

    def __init__(self, most: int = _KEPT_ANSWERS) -> None:
        self._most = most
        self._kept: OrderedDict[str, Any] = OrderedDict()
        self._turn = threading.Lock()

    def keep(self, value: Any) -> str:
        """Keeps a value; gives its unguessable name."""
        name = secrets.token_hex(12)
        with self._turn:
            self._kept[name] = value
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        return name

    def peek(self, name: str) -> Any:
        """What was kept, or None."""
        with self._turn:
            return self._kept.get(name)

    def get(self, name: str) -> Any:
        """What was kept, or 404."""
        found = self.peek(name)
        if found is None:
            raise HTTPException(404, "This is no longer kept. Go back and do it again.")
        return found


@dataclass(frozen=True)
class Studio:
    """One studio, served.

    Attributes:
        home: HEADSTART_HOME.
        root: what may be chosen lies below it.
        folder: the working directory: runs and comparisons made here lie in it.
        secret: signs session cookies.
        collections: the data sets that were opened.
        work: plans, trainings, comparisons and exports, one at a time.
        looks: checks, which need not wait for a training.
        learner: None gives every browser a session of its own; what they see is the same.
        names: what a Host header may say.
        token: what a browser must bring once, or None where no token is needed.
        tickets: what it may bring instead.
    """

    home: Path
    root: Path
    folder: Path
    secret: bytes = field(repr=False)
    collections: Collections
    work: Jobs
    looks: Jobs
    learner: str | None = None
    names: Names = field(default_factory=Names)
    token: str | None = field(default=None, repr=False)
    tickets: Tickets = field(default_factory=Tickets, repr=False)
    live: dict[str, Live] = field(default_factory=dict)
    servings: Servings = field(default_factory=Servings)
    recent: Recent = field(default_factory=Recent)
    turn: threading.Lock = field(default_factory=threading.Lock)  # models and plots, one at a time

    @property
    def roots(self) -> tuple[Path, ...]:
        """The folders below which images, tables and archives may be opened: the root, and what was sent."""
        return self.root, self.collections.folder

    @property
    def trouble(self) -> str:
        """Why the queue cannot be written just now; empty where it can."""
        return self.work.trouble or self.looks.trouble

    def collection(self, identity: str) -> Collection:
        """One of them, or 404."""
        found = self.collections.get(identity)
        if found is None:
            raise HTTPException(404, "This data set is not open here.")
        return found

    def queue(self, kind: str) -> Jobs:
        """Which of the two queues does a kind of work."""
        return self.looks if kind == "check" else self.work

    def add(self, kind: str, *, name: str, body: Mapping[str, Any]) -> Job:
        """Queues work; it is on disk when this returns."""
        return self.queue(kind).add(kind, name=name, learner=OWNER, body=body)

    def job(self, identity: str) -> Job:
        """A job, or 404."""
        found = self.work.get(identity) or self.looks.get(identity)
        if found is None or found.learner != OWNER:
            raise HTTPException(404, "There is no such job.")
        return found

    @cached_property
    def runs(self) -> RunList:
        """Every run that still lies where it was saved."""
        return RunList(self.folder / "runs")

    def run(self, identity: str) -> Run:
        """A run by its whole id, or 404; RunError where it cannot be read."""
        found = self.runs.get(identity)
        if found is None:
            raise HTTPException(404, "There is no such run.")
        return found

    def comparisons(self) -> list[Comparison]:
        """The newest saved comparisons that can be read, the newest first."""
        from headstart.comparisons import find_comparison

        found = []
        for name in self._compared()[:_COMPARISONS_SHOWN]:
            try:
                found.append(find_comparison(name))
            except (RunError, OSError):
                continue
        return found

    def comparison(self, identity: str) -> Comparison:
        """A saved comparison by its whole id, or 404; RunError where it cannot be read."""
        from headstart.comparisons import find_comparison

        if identity not in self._compared():
            raise HTTPException(404, "There is no such comparison.")
        return find_comparison(identity)

    def _compared(self) -> list[str]:
        pointers = self.home / "comparisons"
        return sorted((each.name for each in pointers.glob("*")), reverse=True) if pointers.is_dir() else []


def studio_of(request: Request) -> Studio:
    """The studio that the application serves."""
    studio: Studio = request.app.state.site
    return studio


StudioOf = Annotated[Studio, Depends(studio_of)]
