"""Creates the studio's application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from headstart.files import held_below
from headstart.studio import (
    data,
    export,
    groups,
    home,
    jobs,
    labels,
    learning_amounts,
    plan,
    predict,
    predictions,
    runs,
    workers,
)
from headstart.studio.state import Studio
from headstart.studio.templating import page
from headstart.web import uploads
from headstart.web.app import new_app
from headstart.web.security import LARGEST_FORM

MODULES = (home, data, groups, plan, jobs, runs, predict, predictions, labels, learning_amounts, export)

_FORM_BYTES = 1 << 20
"""Forms without files: a page of labels, a table of rows."""


def create_studio(studio: Studio) -> FastAPI:
    """Creates the application of one studio and starts its job queues."""
    workers.serve(
        studio,
        {
            "rank": labels.rank,
            "export": export.export_job,
            "predict": predictions.predict_job,
            "group": groups.group_job,
            "amounts": learning_amounts.amounts_job,
        },
    )

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        with uploads.passing_through(studio.home / "studio" / "passing"):
            yield
        studio.servings.stop_all()

    app = new_app(
        studio,
        name="studio",
        package="headstart.studio",
        routers=[module.router for module in MODULES],
        page=page,
        lifespan=lifespan,
        largest=lambda path: largest(path, studio.home),
    )
    app.add_middleware(_Held, roots=studio.roots)
    return app


class _Held:
    """Middleware: images, tables and archives are opened below the roots alone."""

    def __init__(self, app: ASGIApp, roots: tuple[Path, ...]) -> None:
        self._app, self._roots = app, roots

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with held_below(*self._roots):
            await self._app(scope, receive, send)


def largest(path: str, home: Path) -> int:
    """The largest form, in bytes, that a path accepts; uploads are kept in ``home``."""
    if path == "/send" or (path.startswith("/runs/") and path.endswith(("/label", "/predict"))):
        return uploads.room(home)
    return _FORM_BYTES if path.startswith("/runs/") else LARGEST_FORM
