"""The pixels of a JPEG from libjpeg-turbo itself: those that Pillow gives, without its buffers in between."""

from __future__ import annotations

from functools import cache
from typing import Any

from PIL import Image

from headstart.data.images.bounds import MOST_COPIED


@cache
def library() -> Any:
    """`simplejpeg`, or None where there is no wheel of it."""
    try:
        import simplejpeg
    except ImportError:
        return None
    return simplejpeg


def load(image: Any, data: bytes, *, scale: int) -> Image.Image:
    """The picture in a file that Pillow has opened; `scale` is the power of two that it will be reduced by.

    Its mode is RGBX, which needs no copy, or what Pillow makes of it: what is damaged, in CMYK or very large
    is left to Pillow, which decides alone what is refused.
    """
    width, height = image.size
    if library() is not None and image.mode in ("RGB", "L") and width * height <= MOST_COPIED:
        try:
            pixels = library().decode_jpeg(data, "RGBX", min_width=width, min_height=height, min_factor=scale)
        except ValueError:  # also of a mere warning
            pixels = None
        if pixels is not None and pixels.shape[:2] == (height, width):
            return Image.frombuffer("RGBX", image.size, pixels, "raw", "RGBX", 0, 1)
    image.load()
    loaded: Image.Image = image
    return loaded
