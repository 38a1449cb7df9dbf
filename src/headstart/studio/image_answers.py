"""Thumbnails, re-encoded from the pixels: a browser never gets the file itself."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from headstart.data.dataset import Source
from headstart.data.sources import BytesSource
from headstart.errors import ImageError, RunError
from headstart.runs import Run, read_images, read_predictions
from headstart.runs.thumbnails import thumbnail, unchanged

SIDES = (128, 256, 512)


def answer(source: Source | None, *, side: int) -> Response:
    """The response with a picture, or one that says that there is none."""
    if source is None:
        return Response("There is no such picture.", 404, media_type="text/plain")
    try:
        data = thumbnail(source.read(), side=side if side in SIDES else SIDES[1])
        return Response(data, media_type="image/jpeg")
    except ImageError as error:
        return Response(str(error), 404, media_type="text/plain")


def remembered(image: Mapping[str, Any]) -> Source | None:
    """An image that a run noted; None where it is gone or is another one by now."""
    data = unchanged(image)
    return None if data is None else BytesSource(data)


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
