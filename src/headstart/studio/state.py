"""The state of a studio, shared by its pages."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any

from fastapi import Depends, HTTPException, Request

from headstart.comparisons import Comparison
from headstart.errors import RunError
from headstart.explanations import Explainer
from headstart.heads.tasks import only_single_label
from headstart.runs import Run
from headstart.runs.callbacks import Range
from headstart.studio.datasets import Collection, Collections
from headstart.studio.run_list import RunList
from headstart.studio.run_names import RunNames
from headstart.studio.servings import Servings
from headstart.web.jobs import Job, Jobs
from headstart.web.recent import Recent
from headstart.web.site import Site

OWNER = "studio"
"""Whose jobs these are in the queue that the lesson shares."""

_ANSWERS_KEPT = 32
_EXPLAINERS_KEPT = 2
_COMPARISONS_SHOWN = 50


@dataclass
class Live:
    """Progress of a running job, in memory.

    ``phases`` maps a phase's name to (done, total), in the order in which they began.
    """

    begun: float = field(default_factory=time.monotonic)
    expected: Range | None = None
    phases: dict[str, tuple[int, int]] = field(default_factory=dict)
    epochs: list[dict[str, Any]] = field(default_factory=list)
    stopping: bool = False


@dataclass(frozen=True, kw_only=True)
class Studio(Site):
    """One studio, served.

    Attributes:
        root: what may be chosen lies below it.
        folder: the working directory: runs and comparisons made here lie in it.
        collections: the data sets that were opened.
        work: plans, trainings, comparisons and exports, one at a time.
        looks: checks, which need not wait for a training.
    """

    root: Path
    folder: Path
    collections: Collections
    work: Jobs
    looks: Jobs
    live: dict[str, Live] = field(default_factory=dict)
    servings: Servings = field(default_factory=Servings)
    recent: Recent[Any] = field(default_factory=lambda: Recent(_ANSWERS_KEPT))
    explainers: Recent[Explainer] = field(default_factory=lambda: Recent(_EXPLAINERS_KEPT))

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
    def run_names(self) -> RunNames:
        """What runs are called and which are pinned."""
        return RunNames(self.home / "studio" / "runs.json")

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


def _run(studio: StudioOf, identity: str) -> Run:
    found = studio.run(identity)
    only_single_label(found.config.task, "this page of the studio", instead=f"headstart predict {found.id}")
    return found


def _any_run(studio: StudioOf, identity: str) -> Run:
    return studio.run(identity)


def _collection(studio: StudioOf, identity: str) -> Collection:
    return studio.collection(identity)


def _job(studio: StudioOf, identity: str) -> Job:
    return studio.job(identity)


# What a page's address names by its id.
RunOf = Annotated[Run, Depends(_run)]
AnyRunOf = Annotated[Run, Depends(_any_run)]  # also of several labels, or of numbers
CollectionOf = Annotated[Collection, Depends(_collection)]
JobOf = Annotated[Job, Depends(_job)]
