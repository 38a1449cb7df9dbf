"""Small pictures for a page: read where the image lies now, checked, shrunk, embedded."""

import base64
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import HeadstartError, ImageError
from headstart.runs import thumbnails

if TYPE_CHECKING:
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
    data = thumbnails.unchanged(image)
    try:
        return _embedded(thumbnails.thumbnail(data, side=SIDE, quality=_QUALITY)) if data else None
    except ImageError:
        return None


def _embedded(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


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
        data = thumbnails.unchanged(image) if self._explainer is not None else None
        if self._explainer is None or data is None:
            return None
        from headstart.explanations import overlay

        try:
            heat = self._explainer.heat_map(data, label=image["predicted"])
        except HeadstartError:  # a report is worth having without it
            return None
        return _embedded(thumbnails.jpeg(overlay(heat, side=SIDE, legend=False), quality=_QUALITY))


def _explainer(folder: Path | None) -> "Explainer | None":
    from headstart.classifier import load
    from headstart.errors import RunError
    from headstart.explanations import Explainer
    from headstart.heads import SINGLE_LABEL
    from headstart.runs import CLASSIFIER_FILE

    if folder is None or not (folder / CLASSIFIER_FILE).exists():
        return None
    try:
        classifier = load(folder)
        return Explainer(classifier) if classifier.task == SINGLE_LABEL else None
    except RunError:
        return None
