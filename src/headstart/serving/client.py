"""A client of `headstart serve`, with the types of `Classifier.predict`; it needs the base install alone."""

import json
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from http.client import HTTPException
from pathlib import Path
from typing import Any, NotRequired, TypedDict
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

from headstart.classifier import Prediction, Predictions
from headstart.errors import OptionError, ServerError, reason_of
from headstart.files import Mistyped, Unreadable, checker, parse_json

_LARGEST = 64 * 2**20
"""Bytes of an answer."""

_LARGEST_REQUEST = 16 * 2**20
"""Bytes of images in a request: half of what a server takes by default."""


class _Said(TypedDict):
    name: str
    label: NotRequired[str]
    probability: NotRequired[float]
    top: NotRequired[list[tuple[str, float]]]
    familiarity: NotRequired[float]
    known: NotRequired[bool]
    labels: NotRequired[list[str]]
    value: NotRequired[float]
    interval: NotRequired[tuple[float, float]]


class _Answer(TypedDict):
    run: str
    predictions: list[_Said]


class Client:
    """Asks a prediction server.

    Args:
        address: such as ``http://127.0.0.1:8422``.
        token: what the server expects, where it expects one.
        timeout: seconds for one request.
        patience: seconds for which a server that is too busy is asked again.
    """

    def __init__(
        self, address: str, *, token: str | None = None, timeout: float = 60.0, patience: float = 60.0
    ) -> None:
        self._address = address.rstrip("/")
        self._token, self._timeout, self._patience = token, timeout, patience

    def predict(
        self,
        images: str | Path | bytes | Iterable[str | Path | bytes],
        *,
        top: int = 5,
        reject: float | None = None,
        coverage: float | None = None,
        batch: int = 32,
    ) -> Predictions:
        """Label image files, or the bytes of some; see `headstart.classifier.PredictOptions`.

        Args:
            images: a file or several, as paths or as bytes.
            top: how many of the likeliest labels to give.
            reject: the share of known images that may be taken for unknown.
            coverage: the share of images whose labels shall hold the right one.
            batch: images of one request, at most; fewer where they are large.

        Raises:
            OptionError: a batch of less than one image.
            ServerError: the server cannot be reached, or refuses; the message has its reason.
            OSError: a file cannot be read.
        """
        given = [images] if isinstance(images, str | Path | bytes) else list(images)
        asked = {"top": top, "reject": reject, "coverage": coverage}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        if batch < 1:
            raise OptionError(f"batch={batch}: expected at least 1")
        found = Predictions()
        for images_at_once in _batches(given, batch):
            found += self._predicted(images_at_once, query=query)
        return found

    def ready(self) -> str:
        """The name of the run that is served; ServerError where the server does not take requests."""
        return str(self._json("/ready").get("run", ""))

    def _predicted(self, images: Sequence[str | Path | bytes], *, query: str) -> list[Prediction]:
        border = secrets.token_hex(16)
        parts = []
        for number, image in enumerate(images):
            data = image if isinstance(image, bytes) else Path(image).read_bytes()
            head = f'--{border}\r\ncontent-disposition: form-data; name="images"; filename="{number}"\r\n\r\n'
            parts += [head.encode(), data, b"\r\n"]
        body = b"".join([*parts, f"--{border}--\r\n".encode()])
        kind = f"multipart/form-data; boundary={border}"
        answer = self._json(f"/predict?{query}", body=body, kind=kind, images=images)
        try:
            said = _ANSWER(answer)["predictions"]
        except Mistyped as error:
            raise ServerError(f"{self._address}: no answer of headstart serve: {error}") from None
        if len(said) != len(images):
            raise ServerError(f"{self._address}: {len(said)} predictions for {len(images)} images")
        return [_prediction(each, name=_name(image)) for each, image in zip(said, images, strict=True)]

    def _json(
        self, path: str, *, body: bytes | None = None, kind: str = "", images: Sequence[Any] = ()
    ) -> dict[str, Any]:
        headers = {"content-type": kind} if kind else {}
        if self._token:
            headers["authorization"] = f"Bearer {self._token}"
        until = time.monotonic() + self._patience
        while True:
            request = Request(self._address + path, data=body, headers=headers)
            try:
                with urlopen(request, timeout=self._timeout) as answer:
                    found = parse_json(answer.read(_LARGEST))
                if not isinstance(found, dict):
                    raise ServerError(f"{self._address}: no answer of headstart serve")
                return found
            except HTTPError as error:
                wait = float(error.headers.get("retry-after") or 0)
                if error.code != 503 or not wait or time.monotonic() + wait > until:
                    raise ServerError(
                        f"{self._address}: {_reason(error, images)}", status=error.code
                    ) from None
                time.sleep(wait)
            except (OSError, HTTPException, Unreadable) as error:
                raise ServerError(f"{self._address}: {reason_of(getattr(error, 'reason', error))}") from None


_ANSWER = checker(_Answer)


def _batches(images: Sequence[str | Path | bytes], most: int) -> Iterator[list[str | Path | bytes]]:
    """Images of one request each: so many, and of no more bytes than a server takes, but at least one."""
    found: list[str | Path | bytes] = []
    taken = 0
    for image in images:
        size = len(image) if isinstance(image, bytes) else Path(image).stat().st_size
        if found and (len(found) == most or taken + size > _LARGEST_REQUEST):
            yield found
            found, taken = [], 0
        found.append(image)
        taken += size
    if found:
        yield found


def _reason(error: HTTPError, images: Sequence[Any]) -> str:
    """The server's own line, with the image's name in place of the number that it was sent under."""
    try:
        said = str(json.loads(error.read(_LARGEST))["error"])
    except (ValueError, KeyError, TypeError, OSError):
        return f"{error.code} {error.reason}"
    number, colon, rest = said.partition(": ")
    if colon and number.isdecimal() and int(number) < len(images):
        return f"{_name(images[int(number)])}: {rest}"
    return said


def _name(image: str | Path | bytes) -> str:
    return "bytes" if isinstance(image, bytes) else str(image)


def _prediction(said: _Said, *, name: str) -> Prediction:
    value, labels = said.get("value"), said.get("labels")
    return Prediction(
        path=name,
        label=said.get("label", "" if value is None else f"{value:.4g}"),
        probability=said.get("probability", float("nan")),
        top=tuple((label, share) for label, share in said.get("top", [])),
        familiarity=said.get("familiarity"),
        known=said.get("known"),
        labels=None if labels is None else tuple(labels),
        value=value,
        interval=said.get("interval"),
    )
