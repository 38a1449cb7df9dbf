"""Small pictures for a page: read where the image lies now, checked, shrunk, embedded."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from PIL.Image import Image

    from headstart.explanations import Explainer

SIDE = 112
"""Pixels a side of an embedded picture."""

_QUALITY = 72
MOST = 160
"""Pictures on one page, about 4 kB each."""


def thumbnail(image: Mapping[str, Any]) -> str | None:
    """A square JPEG as a data URI; None where the image is gone, has changed or was an array.

    Args:
        image: with ``file`` (and ``member`` of a zip) and ``content``, its hash when it was trained on.
    """
    from PIL import Image, ImageOps

    from headstart.errors import ImageError
    from headstart.images import open_image

    data = _unchanged(image)
    if data is None:
        return None
    try:
        picture, _ = open_image(data, shortest_side=SIDE)
    except ImageError:
        return None
    return _embedded(ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BICUBIC))


def _embedded(picture: "Image") -> str:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _unchanged(image: Mapping[str, Any]) -> bytes | None:
    """An image's bytes where they are still those that were trained on."""
    from headstart.dataset import content_hash
    from headstart.errors import ImageError
    from headstart.sources import source_at

    if "file" not in image:
        return None
    try:
        data = bytes(source_at(str(image["file"]), image.get("member")).read())
    except ImageError:
        return None
    return data if content_hash(data).hex() == image.get("content") else None


class Album:
    """Hands out pictures until a page has enough of them; the same image costs once."""

    def __init__(self, *, most: int = MOST) -> None:
        self._made: dict[str, str | None] = {}
        self._most = most

    def picture(self, image: Mapping[str, Any]) -> str | None:
        """A data URI, or None where there is none or the page is full."""
        key = str(image.get("content") or image["path"])
        if key not in self._made:
            full = sum(uri is not None for uri in self._made.values()) >= self._most
            self._made[key] = None if full else thumbnail(image)
        return self._made[key]


class HeatAlbum:
    """Heat maps of mistakes: why was an image called so? Empty where there is no classifier."""

    def __init__(self, folder: Path | None) -> None:
        self._explainer = _explainer(folder)

    def picture(self, image: Mapping[str, Any]) -> str | None:
        """The heat of the label that was called, as a data URI; None where it cannot be had."""
        data = _unchanged(image) if self._explainer is not None else None
        if self._explainer is None or data is None:
            return None
        from headstart.errors import HeadstartError
        from headstart.explanations import overlay

        try:
            heat = self._explainer.heat_map(data, label=image["predicted"])
        except HeadstartError:  # a report is worth having without it
            return None
        return _embedded(overlay(heat, side=SIDE, legend=False))


def _explainer(folder: Path | None) -> "Explainer | None":
    from headstart.classifier import load
    from headstart.errors import RunError
    from headstart.explanations import Explainer
    from headstart.runs import CLASSIFIER_FILE

    if folder is None or not (folder / CLASSIFIER_FILE).exists():
        return None
    try:
        return Explainer(load(folder))
    except RunError:
        return None
