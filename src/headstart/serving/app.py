"""The application: `POST /predict`, `GET /health`, `GET /metrics`, and the documentation of all three."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from http import HTTPStatus
from typing import Any, Literal

from fastapi import FastAPI, Request
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response
from starlette.routing import Route

import headstart
from headstart.serving.desk import Desk, ErrorAnswer, operation, schemas
from headstart.serving.guard import GUARDED, Guard, refusal
from headstart.serving.limits import Limits
from headstart.serving.manual import CONTENT_POLICY, manual
from headstart.serving.models import Models
from headstart.web.addresses import Names


class HealthAnswer(BaseModel):
    """That the server is there, and what of it is not well."""

    status: Literal["ok", "degraded", "down"]
    trouble: list[str] | None = None


def _responses(statuses: Mapping[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer, "description": text} for status, text in statuses.items()}


def create_app(
    models: Models,
    *,
    limits: Limits | None = None,
    names: Names | None = None,
    token: str | None = None,
    watch_seconds: float = 2.0,
) -> FastAPI:
    """The application that serves one classifier.

    Args:
        models: holds the classifier.
        limits: what is taken on.
        names: what the Host header may say.
        token: what a client must bring, or None.
        watch_seconds: between looks for a newer classifier; 0 never looks.
    """
    desk = Desk(models, limits or Limits())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        desk.batcher.start()
        await asyncio.to_thread(desk.batcher.await_start)
        desk.start_watching(watch_seconds)
        yield
        await desk.stop_watching()
        await asyncio.to_thread(desk.batcher.close)

    app = FastAPI(
        title="Headstart",
        version=headstart.__version__,
        summary="Labels for images.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_responses(GUARDED),
    )
    app.state.desk = desk
    app.add_middleware(Guard, names=names or Names(), token=token)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(Exception, _on_failure)
    app.router.routes.append(Route("/predict", desk, methods=["POST"]))
    _add_others(app, desk)
    _describe(app, secured=token is not None)
    return app


def _add_others(app: FastAPI, desk: Desk) -> None:
    async def health(response: Response) -> HealthAnswer:
        """Answers while the server takes requests; needs no token. 503 where it cannot classify any more."""
        found = desk.troubles()
        if not desk.batcher.is_whole:
            response.status_code = 503
            return HealthAnswer(status="down", trouble=found)
        return HealthAnswer(status="degraded" if found else "ok", trouble=found or None)

    for method in ("GET", "HEAD"):
        app.add_api_route(
            "/health",
            health,
            methods=[method],
            summary="Is the server there?",
            response_model_exclude_none=True,
            responses={503: {"model": HealthAnswer, "description": "it cannot classify any more"}},
            include_in_schema=method == "GET",
        )

    @app.get(
        "/metrics",
        summary="Counters for Prometheus.",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        desk.measures.troubles.set(len(desk.troubles()))
        return Response(desk.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs(request: Request) -> Response:
        classes = desk.models.current.classifier.classes
        page = manual(app.openapi(), address=str(request.base_url), classes=classes)
        return HTMLResponse(page, headers={"content-security-policy": CONTENT_POLICY})


def _describe(app: FastAPI, *, secured: bool) -> None:
    """Complete the OpenAPI document with what FastAPI cannot see: the desk, and the token."""
    document = app.openapi()
    document["paths"] = {"/predict": {"post": operation(GUARDED)}, **document["paths"]}
    document["components"]["schemas"].update(schemas())
    if secured:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if path != "/health":
                for each in operations.values():
                    each["security"] = [{"token": []}]


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    answer = refusal(status, HTTPStatus(status).phrase.lower())
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def _on_failure(request: Request, error: Exception) -> Response:
    return refusal(500, "our failure; the server's log has more")
