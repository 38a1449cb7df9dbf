"""Takes a request's images in: multipart files, or base64 in JSON. Nothing is fetched or put on a disk."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Request
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect

from headstart.serving.limits import MEBI, Limits
from headstart.sources import printable

_LONGEST_NAME = 200
"""Characters of a file's name that an answer repeats."""

_SMALL_JSON = 262_144
"""Bytes; a larger body is read in a thread, because reading it would hold up all other requests."""


class Refused(Exception):
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
        Field(min_length=1, description="image files, each as base64 (RFC 4648, with padding)"),
    ]


BODY_SCHEMA: dict[str, Any] = {
    "required": True,
    "content": {
        "multipart/form-data": {
            "schema": {
                "type": "object",
                "required": ["images"],
                "properties": {
                    "images": {
                        "type": "array",
                        "minItems": 1,
                        "items": {"type": "string", "format": "binary"},
                        "description": "image files; repeat the field for several",
                    }
                },
            }
        },
        "application/json": {"schema": {"$ref": "#/components/schemas/PredictBody"}},
    },
}


async def read_images(request: Request, limits: Limits) -> list[Upload]:
    """The images of a request, within the limits.

    Raises:
        Refused: it is too large, too slow, of another form, or has no image.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        async with asyncio.timeout(limits.body_seconds):
            if kind == "multipart/form-data":
                uploads = await _from_multipart(request, limits)
            elif kind == "application/json":
                uploads = await _from_json(request, limits)
            else:
                raise Refused(415, "expected multipart/form-data with files, or application/json with base64")
    except TimeoutError:
        raise Refused(408, f"the request did not arrive within {limits.body_seconds:g} s") from None
    except ClientDisconnect:
        raise Refused(400, "the connection ended before the request did") from None
    if not uploads:
        raise Refused(422, "no image in the request; send files in the field images")
    return uploads


def length_of(request: Request, limits: Limits) -> int:
    """Bytes that a request announces; where it does not, as many as it may have.

    Raises:
        Refused: they are too many.
    """
    text = request.headers.get("content-length", "")
    length = int(text) if text.isascii() and text.isdigit() else limits.body_bytes
    if length > limits.body_bytes:
        raise _too_large(limits)
    return length


def _too_large(limits: Limits) -> Refused:
    return Refused(
        413, f"the request is larger than {limits.body_bytes / MEBI:g} MiB; send fewer images at once"
    )


def _too_many(limits: Limits) -> Refused:
    return Refused(413, f"more than {limits.images} images in one request; send several requests")


async def _bounded(request: Request, limits: Limits) -> AsyncGenerator[bytes]:
    size = 0
    async for chunk in request.stream():
        size += len(chunk)
        if size > limits.body_bytes:
            raise _too_large(limits)
        yield chunk


async def _from_multipart(request: Request, limits: Limits) -> list[Upload]:
    parser = MultiPartParser(
        request.headers, _bounded(request, limits), max_files=limits.images, max_fields=0
    )
    parser.spool_max_size = limits.body_bytes + 1  # in memory: nothing is written outside our own folders
    try:
        form = await parser.parse()
    except MultiPartException as error:
        if "Too many files" in error.message:
            raise _too_many(limits) from None
        if "Too many fields" in error.message:
            raise Refused(422, "a field without a file; send image files in the field images") from None
        raise Refused(400, f"not readable as multipart/form-data: {error.message}") from None
    uploads = []
    try:
        for number, (field, value) in enumerate(form.multi_items(), 1):
            if field != "images" or not isinstance(value, UploadFile):
                raise Refused(422, f"the field {_short(field)!r} is not known; send image files as images")
            uploads.append(Upload(_short(value.filename or f"image {number}"), value.file.read()))
    finally:
        await form.close()
    return uploads


async def _from_json(request: Request, limits: Limits) -> list[Upload]:
    text = b"".join([chunk async for chunk in _bounded(request, limits)])
    if len(text) > _SMALL_JSON:
        return await asyncio.to_thread(_parse, text, limits)
    return _parse(text, limits)


def _parse(text: bytes, limits: Limits) -> list[Upload]:
    try:
        body = PredictBody.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or "the body"
        status = 400 if first["type"] == "json_invalid" else 422
        raise Refused(status, f"{_short(place)}: {printable(first['msg'])}") from None
    if len(body.images) > limits.images:
        raise _too_many(limits)
    uploads = []
    for number, image in enumerate(body.images):
        try:
            uploads.append(Upload(f"image {number + 1}", base64.b64decode(image, validate=True)))
        except (binascii.Error, ValueError):
            raise Refused(422, f"images.{number}: not base64") from None
    return uploads


def _short(name: str) -> str:
    return printable(name[:_LONGEST_NAME])
