"""Puts the pages together.

Pages that read the log and compute, for a few milliseconds, are coroutines: they are made one after the other
in the server's own thread. Python computes one thing at a time anyway. In threads each of them would be
interrupted again and again for the others, and all are late when a whole class asks (docs/benchmarks.md).
Forms, which wait for the disk, and pages that read many files or compute for long are made in threads.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Request
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from headstart.errors import HeadstartError
from headstart.web import challenges, home, journey, laboratory, revision, stored, tasks
from headstart.web.refusals import answer_errors
from headstart.web.rendering import compile_templates, page
from headstart.web.security import Doorkeeper, check_csrf
from headstart.web.site import Site

STATIC = Path(__file__).parent / "static"

THREADS = 12
"""How many forms are taken at once."""


@asynccontextmanager
async def _with_few_threads(app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    compile_templates()
    with suppress(HeadstartError):  # results that cannot be read: the pages say so
        laboratory.missing(app.state.site)  # which imports for a quarter of a second
    yield


def serve_jobs(site: Site) -> None:
    """Lets the queue do what each room has for it."""
    for room in (laboratory, tasks, stored):
        room.serve(site)


def create_app(site: Site, *, before: Sequence[Callable[..., Any]] = ()) -> FastAPI:
    """The application that serves one lesson.

    Args:
        site: what it serves.
        before: asked before every page, as FastAPI's dependencies are.
    """
    app = FastAPI(
        title="Headstart",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(check_csrf), *map(Depends, before)],
        lifespan=_with_few_threads,
    )
    app.state.site = site
    app.add_middleware(Doorkeeper, site=site, name="lesson")
    # Home comes last: it shows every mode that no other room shows in its own way.
    for room in (challenges, revision, tasks, laboratory, journey, stored, home):
        app.include_router(room.router)
    serve_jobs(site)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    answer_errors(app, _message)
    return app


def _message(request: Request, status: int, text: str) -> Response:
    return page(request, "message.html", status=status, title=HTTPStatus(status).phrase, text=text)
