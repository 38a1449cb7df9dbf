"""The application: `POST /predict`, `GET /health`, `/ready` and `/metrics`, and the documentation of all."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator
from contextlib import asynccontextmanager, contextmanager
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from headstart.serving.access_log import AccessLog
from headstart.serving.auth import AuthMiddleware, refusal
from headstart.serving.limits import Limits
from headstart.serving.models import Models
from headstart.serving.openapi import CONTENT_POLICY, docs_page, openapi_document
from headstart.serving.predict import PredictEndpoint
from headstart.serving.watcher import Watcher
from headstart.web.addresses import Names


def create_app(
    models: Models,
    *,
    limits: Limits | None = None,
    names: Names | None = None,
    token: str | None = None,
    watch_seconds: float = 2.0,
    origins: Collection[str] = (),
    access_log: bool = False,
) -> Starlette:
    """The application that serves one classifier.

    Args:
        models: holds the classifier.
        limits: what is taken on.
        names: what the Host header may say.
        token: what a client must bring, or None.
        watch_seconds: between looks for a newer classifier; 0 looks only when SIGHUP says so.
        origins: of other sites whose pages may ask.
        access_log: whether a line for each request is written to stderr.
    """
    predict = PredictEndpoint(models, limits or Limits())
    watcher = Watcher(models, predict.metrics, seconds=watch_seconds)
    document = openapi_document(secured=token is not None)

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        predict.batcher.start()
        await asyncio.to_thread(predict.batcher.await_start)
        watcher.start()
        with _on_hangup(watcher.look_now):
            yield
        await watcher.stop()
        await asyncio.to_thread(predict.batcher.close)

    def troubles() -> list[str]:
        ended = [] if predict.batcher.is_whole else ["a thread that answers has ended"]
        return [*ended, *watcher.troubles()]

    async def health(request: Request) -> Response:
        found = troubles()
        if not predict.batcher.is_whole:
            return JSONResponse({"status": "down", "trouble": found}, 503)
        return JSONResponse({"status": "degraded", "trouble": found} if found else {"status": "ok"})

    async def ready(request: Request) -> Response:
        served = models.current
        if not predict.batcher.is_whole:
            return refusal(503, "a thread that answers has ended")
        return JSONResponse({"run": served.run, "since": served.since, "task": served.classifier.task})

    async def metrics(request: Request) -> Response:
        predict.metrics.troubles.set(len(troubles()))
        return Response(predict.metrics.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    async def openapi(request: Request) -> Response:
        return JSONResponse(document)

    async def docs(request: Request) -> Response:
        served = models.current.classifier
        page = docs_page(document, address=str(request.base_url), classes=served.classes, task=served.task)
        return HTMLResponse(page, headers={"content-security-policy": CONTENT_POLICY})

    app = Starlette(
        routes=[
            Route("/predict", predict, methods=["POST"]),
            Route("/health", health),
            Route("/ready", ready),
            Route("/metrics", metrics),
            Route("/openapi.json", openapi),
            Route("/docs", docs),
        ],
        middleware=[
            *([Middleware(AccessLog)] if access_log else []),
            Middleware(AuthMiddleware, names=names or Names(), token=token, origins=origins),
        ],
        exception_handlers={HTTPException: _on_http_error, Exception: _on_failure},
        lifespan=lifespan,
    )
    app.state.predict, app.state.watcher = predict, watcher
    return app


@contextmanager
def _on_hangup(do: Callable[[], None]) -> Iterator[None]:
    """Do something on SIGHUP, where the system has it and the event loop is the process's own."""
    loop, number = asyncio.get_running_loop(), getattr(signal, "SIGHUP", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(number, lambda *_: loop.call_soon_threadsafe(do))
    try:
        yield
    finally:
        signal.signal(number, before)


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    answer = refusal(status, HTTPStatus(status).phrase.lower())
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def _on_failure(request: Request, error: Exception) -> Response:
    return refusal(500, "internal error; see the server's log")
