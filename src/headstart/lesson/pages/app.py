"""Creates the lesson's application.

Pages that read the log and compute, for a few milliseconds, are coroutines: they are made one after the other
in the server's own thread. Python computes one thing at a time anyway. In threads each of them would be
interrupted again and again for the others, and all are late when a whole class asks (docs/benchmarks.md).
Forms, which wait for the disk, and pages that read many files or compute for long are made in threads.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI
from starlette.responses import RedirectResponse, Response

from headstart.errors import HeadstartError
from headstart.lesson.pages import (
    challenges,
    classes,
    experiments,
    flashcards,
    home,
    joining,
    marks,
    runs,
    tasks,
    tour,
)
from headstart.lesson.pages.launches import Launches
from headstart.lesson.pages.site import LESSONS, LessonSite
from headstart.lesson.pages.templating import compile_templates, page
from headstart.web.app import new_app
from headstart.web.security import LARGEST_FORM

# Home comes last: it shows every mode that no other module shows in its own way.
MODULES = (joining, classes, marks, challenges, flashcards, tasks, experiments, tour, runs, home)

THREADS = 12
"""How many forms are taken at once."""


@asynccontextmanager
async def _with_few_threads(app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    compile_templates()
    with suppress(HeadstartError):  # results that cannot be read: the pages say so
        experiments.missing(app.state.site)  # which imports for a quarter of a second
    if app.state.site.learner is None:
        yield  # a class sends no photographs
        return
    from headstart.web import uploads

    with uploads.passing_through(app.state.site.home / "lesson" / "passing"):
        yield


def serve_jobs(site: LessonSite) -> None:
    """Registers the work of every module with the job queue."""
    for module in (experiments, tasks, runs):
        module.serve(site)


def _largest(path: str, site: LessonSite) -> int:
    """Bytes of a form: one that runs an experiment may bring photographs, on a machine of one's own."""
    if site.learner is None or not re.fullmatch(rf"({LESSONS}/[a-z0-9-]+)?/experiments/[a-z0-9-]+/run", path):
        return LARGEST_FORM
    from headstart.web import uploads

    return uploads.room(site.home)


def create_app(site: LessonSite, *, before: Sequence[Callable[..., Any]] = ()) -> FastAPI:
    """The application that serves a lesson, and those beside it below `LESSONS`.

    Args:
        site: what it serves.
        before: asked before every page, as FastAPI's dependencies are.
    """
    app = _pages(site, before=before)
    for other in site.beside():
        app.mount(other.at, _pages(other, before=before, mounted=True))
    if site.door:
        app.add_middleware(Launches, site=site)
    app.add_api_route(f"{LESSONS}/{site.pack.slug}/", _to_the_first)
    return app


async def _to_the_first() -> Response:
    """The first lesson by its name, for those beside it."""
    return RedirectResponse("/", 303)


def _pages(site: LessonSite, *, before: Sequence[Callable[..., Any]], mounted: bool = False) -> FastAPI:
    serve_jobs(site)
    return new_app(
        site,
        name="lesson",
        package="headstart.lesson.pages",
        routers=[module.router for module in MODULES],
        page=page,
        lifespan=_with_few_threads,
        largest=lambda path: _largest(path, site),
        before=before,
        mounted=mounted,
    )
