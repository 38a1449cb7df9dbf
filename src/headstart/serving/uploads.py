"""Takes a request's images in: an image as the body, multipart files, or base64 in JSON.

Everything stays in memory. Nothing is fetched or put on a disk.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated
from urllib.parse import unquote

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.types import Receive

from headstart.errors import printable
from headstart.serving.limits import MEBI, Limits
from headstart.serving.multipart import FormError, TooManyParts, read_form

_LONGEST_NAME = 200
"""Characters of a file's name that an answer repeats."""

_LONGEST_NUMBER = 20
"""Digits of a length; Python takes quadratic time over thousands of them."""

_SPARE = 16
"""Commas and strings of a JSON body beside those of its images, so that few unknown fields are named."""

_SMALL_BODY = 262_144
"""Bytes; a larger body is parsed in a thread, because parsing it would hold up all other requests."""


class UploadRefused(Exception):
    """A request that cannot be taken; the status says whose fault it is."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


@dataclass(frozen=True, slots=True)
class Upload:
    """One image as it came."""

    name: str
    data: bytes


class PredictBody(BaseModel):
    """Images as base64; URLs are not fetched."""

    model_config = ConfigDict(extra="forbid")
    images: Annotated[
        list[Annotated[str, StringConstraints(min_length=1)]],
        Field(min_length=1, description="image files, each as base64 (RFC 4648) or as a data: URI"),
    ]


async def read_images(heads: Mapping[bytes, bytes], receive: Receive, *, limits: Limits) -> list[Upload]:
    """The images of a request, within the limits.

    Args:
        heads: the request's headers.
        receive: gives its body.
        limits: what is taken.

    Raises:
        UploadRefused: it is too large, too slow, of another form, or has no image.
    """
    sent_as = heads.get(b"content-type", b"").decode("latin-1")
    parse = _parser_of(sent_as.partition(";")[0].strip().lower())
    try:
        async with asyncio.timeout(limits.body_seconds):
            body = await _body(receive, limits)
    except TimeoutError:
        raise UploadRefused(408, f"the request did not arrive within {limits.body_seconds:g} s") from None
    uploads = (
        parse(body, sent_as, limits)
        if len(body) <= _SMALL_BODY
        else await asyncio.to_thread(parse, body, sent_as, limits)
    )
    if not uploads:
        raise UploadRefused(422, "no image in the request; send files in the field images")
    return uploads


def length_of(heads: Mapping[bytes, bytes], limits: Limits) -> int:
    """Bytes that a request announces; where it does not, as many as it may have.

    Raises:
        UploadRefused: they are too many.
    """
    text = heads.get(b"content-length", b"")
    length = int(text) if text.isdigit() and len(text) < _LONGEST_NUMBER else limits.body_bytes
    if length > limits.body_bytes or len(text) >= _LONGEST_NUMBER:
        raise _too_large(limits)
    return length


def _too_large(limits: Limits) -> UploadRefused:
    return UploadRefused(
        413, f"the request is larger than {limits.body_bytes / MEBI:g} MiB; send fewer images at once"
    )


def _too_many(limits: Limits) -> UploadRefused:
    return UploadRefused(413, f"more than {limits.images} images in one request; send several requests")


async def _body(receive: Receive, limits: Limits) -> bytes:
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise UploadRefused(400, "the connection ended before the request did")
        piece = message.get("body", b"")
        size += len(piece)
        if size > limits.body_bytes:
            raise _too_large(limits)
        pieces.append(piece)
        if not message.get("more_body", False):
            return pieces[0] if len(pieces) == 1 else b"".join(pieces)


_Parse = Callable[[bytes, str, Limits], list[Upload]]


def _parser_of(kind: str) -> _Parse:
    if kind == "multipart/form-data":
        return _from_form
    if kind == "application/json":
        return _from_json
    if kind.startswith("image/") or kind == "application/octet-stream":
        return _from_image
    raise UploadRefused(
        415, "expected multipart/form-data with files, application/json with base64, or one image as image/…"
    )


def _from_image(body: bytes, sent_as: str, limits: Limits) -> list[Upload]:
    return [Upload("image 1", body)] if body else []


def _from_form(body: bytes, sent_as: str, limits: Limits) -> list[Upload]:
    try:
        parts = read_form(body, sent_as, most=limits.images)
    except TooManyParts:
        raise _too_many(limits) from None
    except FormError as error:
        raise UploadRefused(400, f"not readable as multipart/form-data: {error}") from None
    uploads = []
    for number, part in enumerate(parts, 1):
        if part.filename is None:
            raise UploadRefused(422, "a field without a file; send image files in the field images")
        if part.field != "images":
            raise UploadRefused(
                422, f"the field {_short(part.field)!r} is not known; send image files as images"
            )
        uploads.append(Upload(_short(part.filename or f"image {number}"), part.data))
    return uploads


def _from_json(text: bytes, sent_as: str, limits: Limits) -> list[Upload]:
    # Millions of keys or values cost a hundred times their bytes, so they are counted before they are read:
    # an image is one string, which may hold a comma as a data URI does.
    if text.count(b",") > 2 * limits.images + _SPARE or text.count(b'"') > 2 * (limits.images + _SPARE):
        raise UploadRefused(
            413, f'more values than {limits.images} images take; expected {{"images": [base64, …]}}'
        )
    try:
        body = PredictBody.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        status = 400 if first["type"] == "json_invalid" else 422
        raise UploadRefused(status, f"{_short(place)}: {printable(first['msg'])}") from None
    if len(body.images) > limits.images:
        raise _too_many(limits)
    uploads = []
    for number, image in enumerate(body.images):
        try:
            uploads.append(Upload(f"image {number + 1}", _file_of(image)))
        except ValueError as error:
            raise UploadRefused(422, f"images.{number}: {error}") from None
    return uploads


_LINE_ENDS = str.maketrans("-_", "+/", " \t\r\n")
"""Both alphabets of RFC 4648 are one, and base64 may be wrapped, as by mail and the command `base64`."""


def _file_of(text: str) -> bytes:
    """The file that base64 or a `data:` URI holds (RFC 2397); ValueError in a few words for anything else."""
    if text[:5].lower() == "data:":
        kind, comma, text = text.partition(",")
        if not comma or not kind.lower().rstrip().endswith(";base64"):
            raise ValueError("a data: URI that is not base64")
        text = unquote(text) if "%" in text else text
    elif text[:8].lower().startswith(("http://", "https://", "file://")):
        raise ValueError("an address, which is not fetched; send the file itself as base64")
    digits = text.translate(_LINE_ENDS).rstrip("=")
    try:
        return base64.b64decode(digits + "=" * (-len(digits) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ValueError("not base64") from None


def _short(name: str) -> str:
    return printable(name[:_LONGEST_NAME])
