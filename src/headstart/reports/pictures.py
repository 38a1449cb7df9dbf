"""Small pictures for a page: read where the image lies now, checked, shrunk, embedded."""

import base64
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

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

    from headstart.dataset import content_hash
    from headstart.errors import ImageError
    from headstart.images import open_image

    data = _read(image)
    if data is None or content_hash(data).hex() != image.get("content"):
        return None
    try:
        picture, _ = open_image(data, shortest_side=SIDE)
    except ImageError:
        return None
    buffer = io.BytesIO()
    square = ImageOps.fit(picture, (SIDE, SIDE), Image.Resampling.BICUBIC)
    square.save(buffer, "JPEG", quality=_QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")


def _read(image: Mapping[str, Any]) -> bytes | None:
    if "file" not in image:
        return None
    try:
        if "member" in image:
            with zipfile.ZipFile(image["file"]) as archive:
                return archive.read(image["member"])
        return Path(image["file"]).read_bytes()
    except (OSError, KeyError, zipfile.BadZipFile):
        return None


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
