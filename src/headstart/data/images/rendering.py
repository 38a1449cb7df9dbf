"""Rendering: a picture becomes the pixels that a backbone sees."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.images.colour import to_rgb
from headstart.data.images.resampling import Box, resample
from headstart.data.preprocess import CENTRE, Preprocess, View, crop_place

FULL_SIZE = "headstart full size"
"""Key in `Image.info`: width and height of the undrafted, oriented image, and the power of two between."""

_REACH = {"nearest": 1, "box": 1, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}
"""Pixels that each filter reaches to either side of its centre."""

_LONGEST_PLAIN_ASPECT = 8
"""Longer strips are never resized whole: one of 1 x 65,000 pixels would become gigabytes."""


def render(image: Image.Image, preprocess: Preprocess, view: View = CENTRE) -> npt.NDArray[np.uint8]:
    """The pixels that a backbone sees, uint8 [S, S, 3], not yet normalised; possibly read-only.

    For the centre view these are the pixels of timm's evaluation transform (resize, then centre crop). Only
    the cropped region is resampled, at the places where the resized image would have its pixels; that saves
    the work on everything that the crop would throw away. `image` comes from `open_image`, or is any
    picture. Resized sides round as in torchvision's `Resize` and `CenterCrop`.
    """
    if image.mode not in ("RGB", "RGBX"):
        image = to_rgb(image)
    width, height, scale = _full_size(image)
    if view.crop:
        small = _resample(image, _crop_box(width, height, preprocess, view), scale, preprocess)
    elif _wants_the_plain_way(width, height, preprocess):
        resized = _resized(width, height, preprocess)
        whole = image.resize(resized, Image.Resampling[preprocess.interpolation.upper()])
        small = whole.crop(_crop_corners(*resized, preprocess.size))
    else:
        small = _resample(image, _centre_box(width, height, preprocess), scale, preprocess)
    pixels = np.asarray(small)
    if small.mode == "RGBX":
        pixels = np.ascontiguousarray(pixels[:, :, :3])
    return np.ascontiguousarray(pixels[:, ::-1]) if view.flipped else pixels


def _wants_the_plain_way(width: int, height: int, preprocess: Preprocess) -> bool:
    """Whether to resize the whole image and then crop, as timm does, because the pixels would differ.

    A squashed image loses little to the crop. The filters "nearest" and "box" jump at pixel borders, where
    a region's rounded corner may fall on the other side. Pillow 13 resizes tall images in the other order.
    """
    if preprocess.crop_mode == "squash":
        return True
    if max(width, height) > _LONGEST_PLAIN_ASPECT * min(width, height):
        return False
    return height > 1.9 * width or preprocess.interpolation in ("nearest", "box")


def _resample(image: Image.Image, box: Box, scale: int, preprocess: Preprocess) -> Image.Image:
    """Resize the region `box`, in pixels of the undrafted image, to the backbone's square.

    The horizontal pass comes first, as it does when Pillow resizes a whole image to scale. Given a region,
    some versions of Pillow choose the other order, and the clipping in between then changes pixels.
    """
    left, top, right, bottom = (edge / scale for edge in box)
    right, bottom = min(right, image.width), min(bottom, image.height)
    filter_, size = preprocess.interpolation, preprocess.size
    reach = _REACH[filter_] * max(1.0, (bottom - top) / size) + 1
    first, last = max(0, math.floor(top - reach)), min(image.height, math.ceil(bottom + reach))
    rows = resample(image, (size, last - first), filter_, box=(left, first, right, last))
    return resample(rows, (size, size), filter_, box=(0, top - first, size, bottom - first))


def _full_size(image: Image.Image) -> tuple[int, int, int]:
    """Width and height of the grid to sample on, and how much smaller the decoded picture is."""
    width, height, scale = image.info.get(FULL_SIZE, (*image.size, 1))
    if image.size != (-(-width // scale), -(-height // scale)):
        return (*image.size, 1)  # somebody has resized or cropped the picture since
    return width, height, scale


def _resized(width: int, height: int, preprocess: Preprocess) -> tuple[int, int]:
    side = preprocess.resized_side
    if preprocess.crop_mode == "squash":
        return side, side
    if width <= height:
        return side, int(side * height / width)
    return int(side * width / height), side


def _crop_corners(width: int, height: int, size: int) -> tuple[int, int, int, int]:
    left = round((width - size) / 2.0)  # half to even, as torchvision does
    top = round((height - size) / 2.0)
    return left, top, left + size, top + size


def _centre_box(width: int, height: int, preprocess: Preprocess) -> Box:
    """The region, in the image's pixels, that the centre crop of the resized image covers."""
    new_width, new_height = _resized(width, height, preprocess)
    left, top, right, bottom = _crop_corners(new_width, new_height, preprocess.size)
    x, y = width / new_width, height / new_height
    return left * x, top * y, min(right * x, width), min(bottom * y, height)


def _crop_box(width: int, height: int, preprocess: Preprocess, view: View) -> Box:
    side, across, down = crop_place(view.crop)
    if preprocess.crop_mode == "squash":
        crop_width, crop_height = side * width, side * height
    else:
        crop_width = crop_height = side * min(width, height)
    left, top = across * (width - crop_width), down * (height - crop_height)
    return left, top, min(left + crop_width, width), min(top + crop_height, height)
