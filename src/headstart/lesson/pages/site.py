"""The state of a served lesson, shared by its pages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import Depends, Request

from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.progress import Progress
from headstart.lesson.pages.catalogue import Catalogue
from headstart.runs.formatting import human_seconds
from headstart.web.jobs import Job, Jobs
from headstart.web.recent import Recent
from headstart.web.site import Site

TOURS_KEPT = 64
"""Learners whose tour is remembered."""


def now() -> datetime:
    """The server's time, the only one that counts."""
    return datetime.now(UTC)


@dataclass(frozen=True, kw_only=True)
class LessonSite(Site):
    """One lesson, served.

    Attributes:
        pack: the lesson.
        store: where the log is kept.
        jobs: the queue of whatever takes longer than a page.
        catalogue: what is known of experiments.
        clock: the current time, with time zone.
        tours: the latest `tour.Tour` of each learner.
    """

    pack: Pack
    store: Progress
    jobs: Jobs
    catalogue: Catalogue = field(default_factory=Catalogue)
    clock: Callable[[], datetime] = now
    tours: Recent[Any] = field(default_factory=lambda: Recent(TOURS_KEPT), repr=False)

    def place(self, job: Job) -> str:
        """What a job that waits waits for, and about how long: what stands before it, and its seconds."""
        ahead = self.jobs.ahead(job)
        if not ahead:
            return "Its turn is next"
        about = [self.catalogue.about(each.name, parameters=each.body.get("parameters")) for each in ahead]
        seconds = sum(sum(one.predicted_range) / 2 for one in about if one is not None)
        known = f"{seconds:.0f} s" if seconds < 60 else human_seconds(seconds)
        return f"Waiting: {len(ahead)} before it" + (f", about {known}" if all(about) else "")

    def may_stop(self, job: Job, learner: str) -> bool:
        """Whether a learner may end a job: their own, not one that others wait for too."""
        return self.learner is not None or learner in (job.learner, job.asker)

    @property
    def trouble(self) -> str:
        """Why work cannot be queued just now; empty where it can."""
        return self.jobs.trouble


# FastAPI hands a plain function to a thread, which costs more than this takes.
async def _site(request: Request) -> LessonSite:
    site: LessonSite = request.app.state.site
    return site


SiteOf = Annotated[LessonSite, Depends(_site)]
