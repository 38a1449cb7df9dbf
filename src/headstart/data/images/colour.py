"""Colour: whatever a file's pixels mean, they become 8-bit RGB.

Transparency is composited on white. 16-bit grey is scaled to 8 bits, and a picture whose zero is white is
turned round. 32-bit integer and floating-point grey has no agreed white: it is stretched from the image's own
minimum to its own maximum.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.errors import ImageError

_PIXELS_AT_ONCE = 1 << 17
"""Deep grey is converted in strips of so many pixels: eight bytes each are nothing then."""


@dataclass(frozen=True)
class Grey:
    """What deep grey values mean, as far as the file says: which is white, and whether 0 is."""

    white: int = 65_535
    zero_is_white: bool = False
    unsigned: bool = False  # of 32 bits, which Pillow gives as signed


def to_rgb(image: Image.Image, grey: Grey | None = None) -> Image.Image:
    """The picture in Pillow's mode RGB; `grey` is for the modes I and F, and 16 bits."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _deep_grey(image, grey or Grey())
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layer.size, (255, 255, 255))
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _deep_grey(image: Image.Image, grey: Grey) -> Image.Image:
    """Scale deep grey to 8 bits; Pillow's own conversion clips everything above 255 to white."""
    scaled = Image.new("L", image.size)
    short = image.mode.startswith("I;16")
    low, high = (0.0, float(grey.white)) if short else _range(image, grey)
    span = (high - low) or 1.0
    clear = image.info.get("transparency") if short else None
    for top, values in _strips(image, grey):
        if short:
            levels = np.minimum((values.astype(np.uint32) * 255 + grey.white // 2) // grey.white, 255)
        else:
            finite = np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low)
            levels = np.rint((finite - low) * (255 / span))
        if grey.zero_is_white:
            levels = 255 - levels
        if isinstance(clear, int):
            levels[values == clear] = 255
        scaled.paste(Image.fromarray(levels.astype(np.uint8)), (0, top))
    return scaled.convert("RGB")


def _range(image: Image.Image, grey: Grey) -> tuple[float, float]:
    low, high = np.inf, -np.inf
    for _, values in _strips(image, grey):
        finite = values[np.isfinite(values)]
        if finite.size:
            low, high = min(low, float(finite.min())), max(high, float(finite.max()))
    if low > high:
        raise ImageError("damaged: no finite pixel value")
    return low, high


def _strips(image: Image.Image, grey: Grey) -> Iterator[tuple[int, npt.NDArray[Any]]]:
    rows = max(1, _PIXELS_AT_ONCE // image.width)
    for top in range(0, image.height, rows):
        values = np.asarray(image.crop((0, top, image.width, min(top + rows, image.height))))
        yield top, values.view(np.uint32) if grey.unsigned else values
