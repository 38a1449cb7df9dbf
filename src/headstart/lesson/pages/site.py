"""The state of a served lesson, shared by its pages."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import Annotated, Any

from fastapi import Depends, Request

from headstart.lesson.engine.classes import Class, Classes, Member, Rules
from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.progress import Progress
from headstart.lesson.engine.rosters import MOST_MEMBERS
from headstart.lesson.pages.catalogue import Catalogue
from headstart.lesson.pages.waiting import Waiting
from headstart.web.guesses import Guesses
from headstart.web.jobs import Job, Jobs
from headstart.web.recent import Recent
from headstart.web.site import Site

LESSONS = "/lessons"
"""Lessons beside the first begin below it."""

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
        guesses: the wrong codes that came from each address.
        codes: personal codes that were made since the server started, by learner; the store has hashes.
        others: lessons that are served beside this one, each below `at`.
        at: where the pages of one of these begin; empty for the first.
    """

    pack: Pack
    store: Progress
    jobs: Jobs
    catalogue: Catalogue = field(default_factory=Catalogue)
    clock: Callable[[], datetime] = now
    tours: Recent[Any] = field(default_factory=lambda: Recent(TOURS_KEPT), repr=False)
    guesses: Guesses = field(default_factory=Guesses, repr=False)
    codes: Recent[str] = field(default_factory=lambda: Recent(MOST_MEMBERS), repr=False)
    others: tuple[Pack, ...] = ()
    at: str = ""

    def beside(self) -> list[LessonSite]:
        """The sites of the other lessons; all share one log, one queue and one catalogue."""
        return [
            replace(
                self,
                pack=pack,
                others=(self.pack, *(each for each in self.others if each is not pack)),
                at=f"{LESSONS}/{pack.slug}",
            )
            for pack in self.others
        ]

    @cached_property
    def classes(self) -> Classes:
        """The classes of the store."""
        return Classes(self.store, self.secret)

    def grants(self, sent: str, *, browser: str = "") -> Mapping[str, str] | None:
        """As for any site; where classes are served, a class's token makes its teacher of who brings it."""
        found = super().grants(sent, browser=browser)
        if found is None and self.door and (one := self.classes.by_token(sent)) is not None:
            return {"teaches": self.classes.proof(one)}
        return found

    def welcomes(self, learner: str, teaches: str) -> bool:
        """Members of this lesson's classes and their teachers, where classes are served."""
        if not self.door:
            return False
        return self.standing(learner) is not None or bool(teaches and self.taught(teaches))

    def standing(self, learner: str) -> tuple[Class, Member] | None:
        """A learner's class of this lesson and their membership, or None."""
        found = self.classes.standing(learner)
        return found if found is not None and found[0].pack == self.pack.slug else None

    def rules_of(self, learner: str) -> Rules:
        """What a learner's teacher has decided; nothing where there is none."""
        found = self.standing(learner)
        return found[0].rules if found is not None else Rules()

    def reviews(self, learner: str) -> bool:
        """Whether what is right and why is shown to a learner yet."""
        opens = self.rules_of(learner).reviews_from
        return opens is None or self.clock() >= opens

    def may_run(self, learner: str) -> bool:
        """Whether a learner may run experiments; else their teacher does, once for all."""
        return not self.rules_of(learner).experiments_by_teacher

    def taught(self, teaches: str) -> list[Class]:
        """The classes of which a session is the teacher's; on a machine of one's own all of them."""
        proofs = teaches.split()
        return [
            one
            for one in self.classes.all(pack=self.pack.slug)
            if self.learner is not None
            or any(hmac.compare_digest(each, self.classes.proof(one)) for each in proofs)
        ]

    @cached_property
    def waiting(self) -> Waiting:
        """How long jobs wait."""
        return Waiting(self.jobs.unfinished, self._predicted, self.clock)

    def _predicted(self, job: Job) -> float | None:
        """The seconds that an experiment or a task will take."""
        tasks = [task for pack in (self.pack, *self.others) for task in (*pack.tasks, pack.project) if task]
        experiment = next((task.experiment for task in tasks if task.slug == job.name), job.name)
        about = self.catalogue.about(experiment, parameters=job.body.get("parameters"))
        return None if about is None else sum(about.predicted_range) / 2

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
