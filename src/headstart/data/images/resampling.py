"""Resampling of RGB pictures: Pillow's filters, with SIMD where the wheel of `cykooz-resizer` is installed.

Both compute the same sums. The library (fast_image_resize) takes a quarter of Pillow's time; three values of
a thousand differ from Pillow's, by one level. Where it has no wheel Pillow does the work.
"""

from __future__ import annotations

import threading
from functools import cache
from typing import Any

from PIL import Image

from headstart.data.preprocess import INTERPOLATIONS

Box = tuple[float, float, float, float]
"""Left, top, right and bottom, in pixels."""

_PILLOW = {name: Image.Resampling[name.upper()] for name in INTERPOLATIONS}
_SIMD = {"bilinear": "bilinear", "bicubic": "catmull_rom", "lanczos": "lanczos3"}
"""Names of the filters that are the same in both. "nearest" and "box" round places differently."""

_SHORTEST = 1e-9
"""Pixels that a box is shortened by where its rounded end lies behind the picture's."""


class _AsRgb:
    """An RGBX picture as the library knows it: Pillow lays RGB out alike."""

    mode = "RGB"

    def __init__(self, image: Image.Image) -> None:
        self.load, self.getim, self.size = image.load, image.getim, image.size


class _Resizer(threading.local):
    """One for each thread: it keeps buffers, and two threads that share one wait for each other."""

    def __init__(self) -> None:
        self.resize = library().Resizer().resize_pil


@cache
def library() -> Any:
    """`cykooz_resizer`, or None where there is no wheel of it."""
    try:
        import cykooz_resizer
    except ImportError:
        return None
    return cykooz_resizer


def pixels_version() -> str:
    """Names the way from a file to pixels; it changes whenever a value of them may."""
    return f"2 {'pillow' if library() is None else 'simd'}"


@cache
def _algorithm(interpolation: str) -> Any:
    return library().ResizeAlg.convolution(library().FilterType[_SIMD[interpolation]])


@cache
def _resizer() -> _Resizer:
    return _Resizer()


def resample(image: Image.Image, size: tuple[int, int], interpolation: str, *, box: Box) -> Image.Image:
    """The region `box` of an RGB or RGBX picture at `size`; filters reach beyond it, as far as the picture.

    Where both sides change, the order of the two passes is the library's, and so is the clipping between.
    """
    left, top, right, bottom = box
    if library() is None or interpolation not in _SIMD:
        if bottom - top == size[1] and (top, bottom) != (0, image.height):
            # Cropped first: a box that starts below the top would make Pillow add an idle vertical pass.
            image = image.crop((0, int(top), image.width, int(bottom)))
            box = (left, 0, right, image.height)
        return image.resize(size, _PILLOW[interpolation], box=box)
    width, height = right - left, bottom - top
    if left + width > image.width:
        width -= _SHORTEST
    if top + height > image.height:
        height -= _SHORTEST
    resized = Image.new("RGB", size)
    crop = library().CropBox(left, top, width, height)
    options = library().ResizeOptions(resize_alg=_algorithm(interpolation), crop_box=crop)
    _resizer().resize(_AsRgb(image) if image.mode == "RGBX" else image, resized, options)
    return resized
