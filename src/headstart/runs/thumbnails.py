"""Small pictures of a run's images, for reports and for the browser."""

import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from headstart.data.dataset import content_hash
from headstart.data.sources import source_at
from headstart.errors import ImageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image


def unchanged(image: Mapping[str, Any]) -> bytes | None:
    """The bytes of an image that a run noted; None where it is gone, is another one by now, or was an array.

    Args:
        image: with ``file`` (and ``member`` of a zip) and ``content``, its hash in hex.
    """
    if not image.get("file"):
        return None
    try:
        data = bytes(source_at(str(image["file"]), image.get("member")).read())
    except ImageError:
        return None
    return data if content_hash(data).hex() == image.get("content") else None


def thumbnail(data: "bytes | NDArray[np.uint8]", *, side: int, quality: int = 80) -> bytes:
    """A square JPEG of an image file or array, ``side`` pixels wide; ImageError where it is none."""
    from PIL import Image, ImageOps

    from headstart.data.images import decode

    picture = decode(data, shortest_side=side).picture
    return jpeg(ImageOps.fit(picture, (side, side), Image.Resampling.BICUBIC), quality=quality)


def jpeg(picture: "Image", *, quality: int = 80) -> bytes:
    """A picture as a file."""
    file = io.BytesIO()
    picture.convert("RGB").save(file, "JPEG", quality=quality)
    return file.getvalue()
