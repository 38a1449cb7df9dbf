"""Puts the pages together."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.staticfiles import StaticFiles

from headstart.errors import HeadstartError, InternalError
from headstart.web import challenges, home, journey, laboratory, revision, stored, tasks
from headstart.web.rendering import compile_templates, page
from headstart.web.security import Doorkeeper, check_csrf
from headstart.web.site import Site

STATIC = Path(__file__).parent / "static"


THREADS = 12
"""How many pages are made at once. Python computes one at a time anyway, and more threads only wait."""


@asynccontextmanager
async def _with_few_threads(app: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    compile_templates()
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
    app.add_middleware(Doorkeeper, site=site)
    # Home comes last: it shows every mode that no other room shows in its own way.
    for room in (challenges, revision, tasks, laboratory, journey, stored, home):
        app.include_router(room.router)
    serve_jobs(site)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HeadstartError, _on_error)
    return app


def _message(request: Request, status: int, text: str) -> Response:
    return page(request, "message.html", status=status, title=HTTPStatus(status).phrase, text=text)


async def _on_refusal(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    detail = error.detail if isinstance(error, HTTPException) else ""
    plain = detail == HTTPStatus(status).phrase
    return _message(request, status, "There is nothing at this address." if plain else detail)


async def _on_malformed(request: Request, error: Exception) -> Response:
    return _message(
        request, 400, "This form or address is malformed. Go back, reload the page and try again."
    )


async def _on_error(request: Request, error: Exception) -> Response:
    return _message(request, 500 if isinstance(error, InternalError) else 400, f"{error}.")
