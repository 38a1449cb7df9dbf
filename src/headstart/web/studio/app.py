"""Puts the studio's pages together."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http import HTTPStatus

from fastapi import Depends, FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse, Response
from starlette.staticfiles import StaticFiles

from headstart.errors import HeadstartError, InternalError
from headstart.web.app import STATIC
from headstart.web.security import LARGEST_FORM, Doorkeeper, check_csrf
from headstart.web.studio import (
    correcting,
    delivering,
    looking,
    planning,
    results,
    start,
    trying,
    uploads,
    watching,
    work,
)
from headstart.web.studio.pages import page
from headstart.web.studio.workbench import Studio

ROOMS = (start, looking, planning, watching, results, trying, correcting, delivering)
_FORM_BYTES = 1 << 20
"""Forms without files: a page of labels, a table of rows."""


def create_studio(studio: Studio) -> FastAPI:
    """The application that serves one studio; its queues begin to work."""
    work.serve(studio, {"rank": correcting.rank, "export": delivering.export_job})

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield
        studio.servings.stop_all()

    app = FastAPI(
        title="Headstart studio",
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        dependencies=[Depends(check_csrf)],
        lifespan=lifespan,
    )
    app.state.site = studio
    app.add_middleware(Doorkeeper, site=studio, largest=largest)
    for room in ROOMS:
        app.include_router(room.router)
    app.mount("/static", StaticFiles(directory=STATIC), name="static")
    app.add_exception_handler(HTTPException, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_malformed)
    app.add_exception_handler(HeadstartError, _on_error)
    return app


def largest(path: str) -> int:
    """How many bytes a form sent to a path may have."""
    if path == "/send" or (path.startswith("/runs/") and path.endswith("/label")):
        return uploads.LARGEST_UPLOAD
    if path.startswith("/runs/") and path.endswith("/try"):
        return uploads.LARGEST_PICTURE
    return _FORM_BYTES if path.startswith("/runs/") else LARGEST_FORM


def _message(request: Request, status: int, text: str) -> Response:
    if request.headers.get("accept") == "application/json":
        return JSONResponse({"error": text}, status)
    title = HTTPStatus(status).phrase if status >= 500 or status == 404 else "That did not work"
    return page(request, "message.html", status=status, title=title, text=text)


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
