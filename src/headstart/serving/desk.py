"""The desk: takes a request for predictions and answers it.

`Desk` is an ASGI application of its own, because FastAPI's way to a function (dependencies, exit stacks, form
and answer models) costs the same two cores more than everything that is done here.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any
from urllib.parse import parse_qs

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from headstart.errors import ImageError
from headstart.serving.batching import Batcher, Overloaded, Result
from headstart.serving.guard import heads_of, refusal
from headstart.serving.intake import (
    BODY_SCHEMA,
    PredictBody,
    Refused,
    Upload,
    length_of,
    read_images,
)
from headstart.serving.limits import Limits
from headstart.serving.measures import Measures
from headstart.serving.models import LOAD_SECONDS, Models, Served

MOST_LABELS = 1000
"""Of the likeliest labels in an answer."""

LABELS = 5
"""As many as an answer has where the request does not say."""


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


class ErrorAnswer(BaseModel):
    """What went wrong, in one line."""

    error: str


REFUSALS = {
    400: "the body is not readable",
    408: "the request took too long to arrive",
    413: "the request is too large",
    415: "neither multipart/form-data nor application/json nor an image",
    422: "a value is not usable, or an image cannot be decoded",
    503: "too busy; Retry-After says when to come back",
    504: "accepted, but not answered in time",
}


class Desk:
    """Answers `POST /predict`; one server's parts, and the memory that requests under way hold."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.measures = Measures()
        self.batcher = Batcher(limits, self.measures)
        self.bytes_held = 0
        self._watcher: asyncio.Task[None] | None = None
        self._looked, self._patience = 0.0, 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, from its head to its answer."""
        started = time.perf_counter()
        answer = await self._answer(scope, receive)
        self.measures.requests.labels(answer.status_code).inc()
        if answer.status_code == 200:
            self.measures.seconds.observe(time.perf_counter() - started)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        try:
            return await self._predictions(scope, receive)
        except Refused as error:
            return refusal(error.status, str(error))
        except Overloaded as error:
            return refusal(503, str(error), retry_after=error.retry_after)
        except TimeoutError:
            return refusal(504, f"not answered within {self.limits.answer_seconds:g} s; try fewer images")

    async def _predictions(self, scope: Scope, receive: Receive) -> Response:
        """The answer to a request that can be answered.

        Raises:
            Refused: the request cannot be taken.
            Overloaded: there is no room for it.
            TimeoutError: it was accepted and not answered in time.
        """
        top = _labels_asked(scope["query_string"])
        heads = heads_of(scope)
        length = length_of(heads, self.limits)
        self.batcher.check_room()  # before the body is read: shedding must be cheap
        if self.bytes_held + length > self.limits.memory_bytes:
            raise Overloaded(self.batcher.retry_after())
        self.bytes_held += length
        try:
            uploads = await read_images(heads, receive, limits=self.limits)
            served = self.models.current
            results = await self.batcher.predict(served, [upload.data for upload in uploads])
        finally:
            self.bytes_held -= length
        return JSONResponse(_content(served, uploads, results, top=top))

    def start_watching(self, seconds: float) -> None:
        """Look for a newer classifier every so many seconds; 0 never looks."""
        if seconds:
            self._looked, self._patience = time.monotonic(), seconds + 2 * LOAD_SECONDS
            self._watcher = asyncio.create_task(self._watch(seconds))

    async def stop_watching(self) -> None:
        """Look no more."""
        if self._watcher is not None:
            self._watcher.cancel()
            with suppress(asyncio.CancelledError):
                await self._watcher

    async def _watch(self, seconds: float) -> None:
        while True:
            await asyncio.sleep(seconds)
            exchanged = await asyncio.to_thread(self.models.refresh)  # which raises nothing
            self._looked = time.monotonic()
            if exchanged is not None:
                self.measures.reloads.labels("done" if exchanged else "failed").inc()

    def troubles(self) -> list[str]:
        """What is not well, each in a line that tells strangers nothing of the machine."""
        found = []
        if not self.batcher.is_whole:
            found.append("a thread that answers has ended")
        if self._watcher is not None:
            silent = time.monotonic() - self._looked
            if self._watcher.done():
                found.append("the watcher for newer classifiers has ended")
            elif silent > self._patience:
                found.append(f"the watcher for newer classifiers has been silent for {silent:.0f} s")
        if self.models.trouble:
            found.append("a newer classifier cannot be loaded; the log says why")
        return found


def _labels_asked(query: bytes) -> int:
    """The query's ``top``.

    Raises:
        Refused: it is no number, or not one that an answer can have.
    """
    if not query:
        return LABELS
    text = parse_qs(query.decode("latin-1"), keep_blank_values=True).get("top", [str(LABELS)])[-1]
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST_LABELS)) else 0
    if not 1 <= number <= MOST_LABELS:
        raise Refused(422, f"top: expected a whole number from 1 to {MOST_LABELS}")
    return number


def _content(served: Served, uploads: list[Upload], results: list[Result], *, top: int) -> dict[str, Any]:
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


def operation(refusals: Mapping[int, str]) -> dict[str, Any]:
    """What OpenAPI says of `POST /predict`; ``refusals`` are those of whoever stands before the desk."""
    statuses = sorted({**REFUSALS, **refusals}.items())
    refused = {str(status): _answered(text, "ErrorAnswer") for status, text in statuses}
    return {
        "summary": "Label one or many images.",
        "description": "One image is the body itself; several come as files in the field `images`, or as "
        "base64 in JSON. All are labelled or none is.",
        "operationId": "predict",
        "parameters": [
            {
                "name": "top",
                "in": "query",
                "description": "how many labels to give",
                "schema": {"type": "integer", "minimum": 1, "maximum": MOST_LABELS, "default": LABELS},
            }
        ],
        "requestBody": BODY_SCHEMA,
        "responses": {"200": _answered("the labels", "PredictAnswer"), **refused},
    }


def schemas() -> dict[str, Any]:
    """The schemas that `operation` refers to, by name."""
    found = models_json_schema(
        [(PredictBody, "validation"), (PredictAnswer, "serialization"), (ErrorAnswer, "serialization")],
        ref_template="#/components/schemas/{model}",
    )[1]
    return dict(found["$defs"])


def _answered(text: str, model: str) -> dict[str, Any]:
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"description": text, "content": {"application/json": {"schema": schema}}}
