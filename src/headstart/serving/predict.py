"""`POST /predict`: takes a request, has its images classified, answers.

`PredictEndpoint` is an ASGI application of its own: reading the body under limits of its own, and answering
without a framework's way to a function, whose dependencies and form models cost the same cores more than
everything that is done here.
"""

from __future__ import annotations

import time
from typing import Any
from urllib.parse import parse_qs

from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from headstart.classifier import PredictOptions
from headstart.errors import ImageError, OptionError
from headstart.serving.auth import headers_of, refusal
from headstart.serving.batching import Batcher, Overloaded, Result
from headstart.serving.limits import Limits
from headstart.serving.metrics import Metrics
from headstart.serving.models import LoadedModel, Models
from headstart.serving.openapi import LABELS, MOST_LABELS
from headstart.serving.uploads import Upload, UploadRefused, length_of, read_images

_LONGEST_NUMBER = 32
"""Characters of a share."""


class PredictEndpoint:
    """Answers `POST /predict`, and counts the bytes that requests under way hold."""

    def __init__(self, models: Models, limits: Limits) -> None:
        self.models, self.limits = models, limits
        self.metrics = Metrics()
        self.batcher = Batcher(limits, self.metrics)
        self.bytes_held = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request, from its head to its answer."""
        started = time.perf_counter()
        answer = await self._answer(scope, receive)
        self.metrics.requests.labels(answer.status_code).inc()
        if answer.status_code == 200:
            self.metrics.seconds.observe(time.perf_counter() - started)
        await answer(scope, receive, send)

    async def _answer(self, scope: Scope, receive: Receive) -> Response:
        try:
            return await self._predictions(scope, receive)
        except UploadRefused as error:
            return refusal(error.status, str(error))
        except Overloaded as error:
            return refusal(503, str(error), retry_after=error.retry_after)
        except TimeoutError:
            return refusal(504, f"not answered within {self.limits.answer_seconds:g} s; try fewer images")

    async def _predictions(self, scope: Scope, receive: Receive) -> Response:
        """The answer to a request that can be answered.

        Raises:
            UploadRefused: the request cannot be taken.
            Overloaded: there is no room for it.
            TimeoutError: it was accepted and not answered in time.
        """
        options = _asked(scope["query_string"])
        _refuse(self.models.current, options)
        heads = headers_of(scope)
        length = length_of(heads, self.limits)
        self.batcher.check_room()  # before the body is read: shedding must be cheap
        if self.bytes_held + length > self.limits.memory_bytes:
            raise Overloaded(self.batcher.retry_after())
        self.bytes_held += length
        try:
            uploads = await read_images(heads, receive, limits=self.limits)
            model = self.models.current
            results = await self.batcher.predict(model, [upload.data for upload in uploads])
        finally:
            self.bytes_held -= length
        return JSONResponse(_content(model, uploads, results, options))


def _asked(query: bytes) -> PredictOptions:
    """What the query asks for.

    Raises:
        UploadRefused: a value is no number, or not one that an answer can have.
    """
    if not query:
        return PredictOptions(LABELS)
    given = parse_qs(query.decode("latin-1"), keep_blank_values=True)
    text = given.get("top", [str(LABELS)])[-1]
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= len(str(MOST_LABELS)) else 0
    if not 1 <= number <= MOST_LABELS:
        raise UploadRefused(422, f"top: expected a whole number from 1 to {MOST_LABELS}")
    return PredictOptions(number, _share(given, "reject"), _share(given, "coverage"))


def _share(given: dict[str, list[str]], name: str) -> float | None:
    if name not in given:
        return None
    try:
        return float(given[name][-1][:_LONGEST_NUMBER])
    except ValueError:
        raise UploadRefused(422, f"{name}: expected a share between 0 and 1") from None


def _refuse(model: LoadedModel, options: PredictOptions) -> None:
    try:
        model.classifier.refuse(options)
    except OptionError as error:
        raise UploadRefused(422, str(error).removeprefix(f"{model.classifier.model.parent}: ")) from None


def _content(
    model: LoadedModel, uploads: list[Upload], results: list[Result], options: PredictOptions
) -> dict[str, Any]:
    predictions = []
    for upload, result in zip(uploads, results, strict=True):
        if isinstance(result, ImageError):
            raise UploadRefused(422, f"{upload.name}: {result}")
        found = model.classifier.prediction(upload.name, result, options).to_dict()
        predictions.append({"name": found.pop("path"), **found})
    return {"run": model.run, "predictions": predictions}
