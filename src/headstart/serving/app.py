"""The application: `POST /predict`, `GET /health`, `GET /metrics`, and the documentation of all three."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, JSONResponse, Response

import headstart
from headstart.errors import ImageError
from headstart.hosts import Names
from headstart.serving.batching import Batcher, Overloaded, Result
from headstart.serving.guard import Guard, refusal
from headstart.serving.intake import BODY_SCHEMA, PredictBody, Refused, Upload, length_of, read_images
from headstart.serving.limits import Limits
from headstart.serving.manual import CONTENT_POLICY, manual
from headstart.serving.measures import Measures
from headstart.serving.models import Models, Served

MOST_LABELS = 1000
"""Of the likeliest labels in an answer."""


class PredictionAnswer(BaseModel):
    """What the classifier says of one image."""

    name: str
    label: str
    probability: float
    top: list[tuple[str, float]]


class PredictAnswer(BaseModel):
    """One prediction for each image, in their order."""

    run: str
    predictions: list[PredictionAnswer]


class HealthAnswer(BaseModel):
    """That the server is there."""

    status: str


class ErrorAnswer(BaseModel):
    """What went wrong, in one line."""

    error: str


_REFUSALS = {
    400: "the body is not readable",
    408: "the request took too long to arrive",
    413: "the request is too large",
    415: "neither multipart/form-data nor application/json",
    422: "a value is not usable, or an image cannot be decoded",
    503: "too busy; Retry-After says when to come back",
    504: "accepted, but not answered in time",
}
_GUARDED = {
    401: "the token is missing or wrong",
    403: "a request from another site's page",
    421: "the Host header is not one of ours",
}


def _responses(statuses: dict[int, str]) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": ErrorAnswer, "description": text} for status, text in statuses.items()}


class Desk:
    """One server's parts, and the memory that requests under way hold."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.measures = Measures()
        self.batcher = Batcher(limits, self.measures)
        self.bytes_held = 0

    async def answer(self, request: Request, *, top: int) -> JSONResponse:
        """The answer to one request for predictions.

        Raises:
            Refused: the request cannot be taken.
            Overloaded: there is no room for it.
            TimeoutError: it was accepted and not answered in time.
        """
        length = length_of(request, self.limits)
        self.batcher.check_room()  # before the body is read: shedding must be cheap
        if self.bytes_held + length > self.limits.memory_bytes:
            raise Overloaded(self.batcher.retry_after())
        self.bytes_held += length
        try:
            uploads = await read_images(request, self.limits)
            served = self.models.current
            results = await self.batcher.predict(served, [upload.data for upload in uploads])
        finally:
            self.bytes_held -= length
        return JSONResponse(_answer(served, uploads, results, top=top))

    async def watch(self, seconds: float) -> None:
        """Look for a newer classifier, for ever."""
        while True:
            await asyncio.sleep(seconds)
            exchanged = await asyncio.to_thread(self.models.refresh)
            if exchanged is not None:
                self.measures.reloads.labels("done" if exchanged else "failed").inc()


def _answer(served: Served, uploads: list[Upload], results: list[Result], *, top: int) -> dict[str, Any]:
    predictions = []
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, ImageError):
            raise Refused(422, f"{upload.name}: {result}")
        found = served.classifier.prediction(upload.name, result, top=top)
        predictions.append(
            {
                "name": found.path,
                "label": found.label,
                "probability": found.probability,
                "top": found.top,
            }
        )
    return {"run": served.run, "predictions": predictions}


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
        watcher = asyncio.create_task(desk.watch(watch_seconds)) if watch_seconds else None
        yield
        if watcher:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        await asyncio.to_thread(desk.batcher.close)

    app = FastAPI(
        title="Headstart",
        version=headstart.__version__,
        summary="Labels for images.",
        docs_url=None,
        redoc_url=None,
        lifespan=lifespan,
        responses=_responses(_GUARDED),
    )
    app.state.desk = desk
    app.add_middleware(Guard, names=names or Names(), token=token)
    app.add_exception_handler(HTTPException, _on_http_error)
    app.add_exception_handler(RequestValidationError, _on_bad_value)
    app.add_exception_handler(Exception, _on_failure)
    _add_predict(app, desk)
    _add_others(app, desk)
    _describe(app, secured=token is not None)
    return app


def _add_predict(app: FastAPI, desk: Desk) -> None:
    @app.post(
        "/predict",
        summary="Label one or many images.",
        response_model=PredictAnswer,
        responses=_responses(_REFUSALS),
        openapi_extra={"requestBody": BODY_SCHEMA},
    )
    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, le=MOST_LABELS, description="how many labels to give")] = 5,
    ) -> Response:
        """Images come as files in the field `images`, or as base64 in JSON; all are labelled or none is."""
        started = time.perf_counter()
        try:
            answer = await desk.answer(request, top=top)
        except Refused as error:
            answer = refusal(error.status, str(error))
        except Overloaded as error:
            answer = refusal(503, str(error), retry_after=error.retry_after)
        except TimeoutError:
            answer = refusal(504, f"not answered within {desk.limits.answer_seconds:g} s; try fewer images")
        desk.measures.requests.labels(answer.status_code).inc()
        if answer.status_code == HTTPStatus.OK:
            desk.measures.seconds.observe(time.perf_counter() - started)
        return answer


def _add_others(app: FastAPI, desk: Desk) -> None:
    @app.get("/health", summary="Is the server there?")
    async def health() -> HealthAnswer:
        """Answers while the server takes requests; needs no token."""
        return HealthAnswer(status="ok")

    @app.get(
        "/metrics",
        summary="Counters for Prometheus.",
        response_class=Response,
        responses={200: {"content": {"text/plain": {"schema": {"type": "string"}}}}},
    )
    async def metrics() -> Response:
        return Response(desk.measures.text(), media_type="text/plain; version=0.0.4; charset=utf-8")

    @app.get("/docs", include_in_schema=False)
    async def docs() -> Response:
        page = manual(app.openapi(), classes=desk.models.current.classifier.classes)
        return HTMLResponse(page, headers={"content-security-policy": CONTENT_POLICY})


def _describe(app: FastAPI, *, secured: bool) -> None:
    """Complete the OpenAPI document with what FastAPI cannot see: our body's schema, and the token."""
    document = app.openapi()
    schemas = document["components"]["schemas"]
    schemas["PredictBody"] = PredictBody.model_json_schema()
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    if secured:
        document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, operations in document["paths"].items():
            if path != "/health":
                for operation in operations.values():
                    operation["security"] = [{"token": []}]


async def _on_http_error(request: Request, error: Exception) -> Response:
    status = error.status_code if isinstance(error, HTTPException) else 500
    answer = refusal(status, HTTPStatus(status).phrase.lower())
    if isinstance(error, HTTPException) and error.headers:
        answer.headers.update(error.headers)
    return answer


async def _on_bad_value(request: Request, error: Exception) -> Response:
    if not isinstance(error, RequestValidationError):
        return refusal(422, "a value is not usable")
    first = error.errors()[0]
    return refusal(422, f"{first['loc'][-1]}: {first['msg']}")


async def _on_failure(request: Request, error: Exception) -> Response:
    return refusal(500, "our failure; the server's log has more")
