"""Thumbnails, re-encoded from the pixels: a browser never gets the file itself."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

from PIL import Image, ImageOps
from starlette.responses import Response

from headstart.dataset import Source, content_hash
from headstart.errors import ImageError, RunError
from headstart.images import open_image
from headstart.runs import Run, read_images, read_predictions
from headstart.sources import source_at

SIDES = (128, 256, 512)
_QUALITY = 80


def thumbnail(source: Source, *, side: int) -> bytes:
    """A square JPEG of an image, ``side`` pixels wide; ImageError where it is none."""
    picture, _ = open_image(source.read(), shortest_side=side)
    return jpeg(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC))


def jpeg(picture: Image.Image) -> bytes:
    """An image as a file."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=_QUALITY)
    return file.getvalue()


def answer(source: Source | None, *, side: int) -> Response:
    """The response with a picture, or one that says that there is none."""
    if source is None:
        return Response("There is no such picture.", 404, media_type="text/plain")
    try:
        return Response(thumbnail(source, side=side if side in SIDES else SIDES[1]), media_type="image/jpeg")
    except ImageError as error:
        return Response(str(error), 404, media_type="text/plain")


def remembered(image: Mapping[str, Any]) -> Source | None:
    """Where an image that a run noted lies now; None where it is gone or is another one by now.

    Args:
        image: with ``file`` (and ``member`` of a zip) and ``content``, its hash in hex.
    """
    if not image.get("file"):
        return None
    try:
        data = source_at(str(image["file"]), image.get("member")).read()
    except ImageError:
        return None
    return Bytes(bytes(data)) if content_hash(data).hex() == image.get("content") else None


class Bytes:
    """An image file's bytes in memory."""

    def __init__(self, data: bytes) -> None:
        self.data = data

    def read(self) -> bytes:
        """The bytes."""
        return self.data


def image_of(run: Run, content: str) -> dict[str, Any] | None:
    """A run's record of an image, by its content hash; None where there is none."""
    try:
        images = read_images(run.path)
        found = next((each for each in images if content and each.get("content") == content), None)
        if found is None:  # runs of earlier versions noted the places of held-out images alone
            held_out = read_predictions(run.path)["images"]
            found = next((each for each in held_out if each.get("content") == content), None)
    except RunError:
        return None
    return found
