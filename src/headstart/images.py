"""Images: bytes become an oriented RGB picture, a picture becomes the pixels that a backbone wants.

Two steps, so that one decoding serves several renderings:

1. `open_image` decodes JPEG, PNG, WebP, GIF (first frame), BMP, TIFF and AVIF with Pillow, applies the EXIF
   orientation and gathers `ImageFacts`. A JPEG is decoded at a half, a quarter or an eighth of its size where
   the caller says how few pixels it needs (libjpeg's DCT scaling).
2. `render` resizes and crops in one step, on the sampling grid of timm's evaluation transform.

Colour rules: alpha is composited on white; 16-bit grey is scaled to 8 bits; 32-bit integer and floating-point
grey has no agreed white, so it is stretched from the image's own minimum to its own maximum.

Everything here is safe to call from many threads, and Pillow releases the interpreter lock while it works.
"""

from __future__ import annotations

import importlib
import io
import math
import re
import struct
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.errors import ImageError
from headstart.preprocess import CENTRE, FLIP, Preprocess, View, crop_place, parse_views, shortest_side_needed

__all__ = [
    "CENTRE",
    "FLIP",
    "MAX_PIXELS",
    "NO_HASH",
    "ImageFacts",
    "Preprocess",
    "View",
    "looks_like_an_image",
    "open_image",
    "parse_views",
    "render",
    "shortest_side_needed",
]

MAX_PIXELS = 120_000_000
"""Larger images are refused as decompression bombs: a 108-megapixel phone picture passes, and Pillow's four
bytes a pixel stay under half a gigabyte a thread."""

MAX_SIDE = 65_500
"""Pixels; libjpeg's own limit. A longer side is a damaged header."""

HASH_SIDE = 16
"""Rows and columns of the difference hash: 16 x 16 = 256 bits."""

NO_HASH = bytes(HASH_SIDE * HASH_SIDE // 8)
"""The perceptual hash of a picture with too little in it to recognise (tiny, or nearly flat)."""

SMALLEST_HASHED_SIDE = 32
"""Pixels; below twice the hash's grid the bits describe the enlargement, not the picture."""

FLATTEST_HASHED_RANGE = 16
"""Grey levels between the darkest and the brightest cell of the grid; below, the bits are noise."""

_INTERPOLATIONS = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "hamming": Image.Resampling.HAMMING,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}

_REACH = {"nearest": 1, "box": 1, "bilinear": 1, "hamming": 1, "bicubic": 2, "lanczos": 3}
"""Pixels that each filter reaches to either side of its centre."""

_LONGEST_PLAIN_ASPECT = 8
"""Longer strips are never resized whole: one of 1 x 65,000 pixels would become gigabytes."""

_Box = tuple[float, float, float, float]


# ---------------------------------------------------------------------------------------------------------
# Facts
# ---------------------------------------------------------------------------------------------------------


_FACTS = struct.Struct("<IIB32s")


@dataclass(frozen=True, slots=True)
class ImageFacts:
    """What the checks need to know of an image, gathered while it is decoded."""

    width: int  # pixels of the file (not of a reduced decode), after orientation
    height: int
    format: str  # "JPEG", "PNG", …, or "array"
    mode: str  # Pillow's name of the file's pixel mode
    frames: int  # 1, or 2 for two and more: counting them all would walk through the whole file
    perceptual_hash: bytes  # 32 bytes, a difference hash; NO_HASH where there is too little to recognise

    def to_bytes(self) -> bytes:
        """A short binary form, for the feature cache."""
        head = _FACTS.pack(self.width, self.height, self.frames, self.perceptual_hash)
        return head + f"{self.format}\0{self.mode}".encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> ImageFacts:
        """The inverse of `to_bytes`; a ValueError or struct.error means damaged data."""
        width, height, frames, digest = _FACTS.unpack_from(data)
        file_format, mode = map(sys.intern, data[_FACTS.size :].decode().split("\0"))
        return cls(width, height, file_format, mode, frames, digest)


# ---------------------------------------------------------------------------------------------------------
# Decoding
# ---------------------------------------------------------------------------------------------------------


_FULL_SIZE = "headstart full size"
"""Key in `Image.info`: width and height of the undrafted, oriented image, and the power of two between."""


def open_image(
    data: bytes | npt.NDArray[np.uint8], *, shortest_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, ImageFacts]:
    """Decode an image file's bytes, or take an array, as an oriented RGB picture.

    Args:
        data: A file's content, or a uint8 array of shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
        shortest_side: Where given, a JPEG may be decoded at a reduced scale that leaves both sides at least
            this many pixels (or at full scale, if the file has fewer). None decodes every pixel.
        max_pixels: Larger files are refused before they are decoded; at most `MAX_PIXELS`.

    Raises:
        ImageError: The reason in a few words: empty, truncated, not an image, too large, damaged.
    """
    if isinstance(data, np.ndarray):
        return _from_array(data)
    _hush_pillow()
    try:
        return _decode(data, shortest_side, min(max_pixels, MAX_PIXELS))
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode it") from None
    except Exception as error:  # on damaged files Pillow raises nearly every built-in exception
        raise ImageError(_reason(error)) from error


def _decode(data: bytes, shortest_side: int | None, most: int) -> tuple[Image.Image, ImageFacts]:
    file_format = _sniff(data)
    image = _plugin(file_format)(io.BytesIO(data))
    width, height = image.size
    _refuse_bombs(width, height, most)
    mode, frames = image.mode, _frames(image, data)
    scale = _draft(image, shortest_side) if file_format == "JPEG" else 1
    image.load()
    _refuse_bombs(image.width, image.height, most)  # a GIF's first frame may be larger than its header says
    picture = _to_rgb(image)
    if file_format == "GIF":
        width, height = picture.size
    # Pillow's TIFF plugin turns the picture itself and reports the turned size.
    turn = None if file_format == "TIFF" else _orientation(image)
    if turn is not None:
        picture = picture.transpose(turn)
        if turn in _SIDEWAYS:
            width, height = height, width
    picture.info = {_FULL_SIZE: (width, height, scale)}
    facts = ImageFacts(
        width, height, file_format, mode, frames, _difference_hash(picture, width, height, scale=scale)
    )
    return picture, facts


def _from_array(array: npt.NDArray[Any]) -> tuple[Image.Image, ImageFacts]:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3, 4))
    ):
        raise ImageError(f"expected a uint8 array [H, W] or [H, W, 1|3|4], got {array.dtype} {array.shape}")
    if array.size == 0:
        raise ImageError("the array is empty")
    height, width = array.shape[:2]
    _refuse_bombs(width, height)
    pixels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    image = Image.fromarray(np.ascontiguousarray(pixels))
    picture = _to_rgb(image)
    facts = ImageFacts(width, height, "array", image.mode, 1, _difference_hash(picture, width, height))
    return picture, facts


_MAGIC: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    ("JPEG", lambda d: d.startswith(b"\xff\xd8\xff")),
    ("PNG", lambda d: d.startswith(b"\x89PNG\r\n\x1a\n")),
    ("WEBP", lambda d: d.startswith(b"RIFF") and d[8:12] == b"WEBP"),
    ("GIF", lambda d: d.startswith((b"GIF87a", b"GIF89a"))),
    ("BMP", lambda d: d.startswith(b"BM")),
    ("TIFF", lambda d: d.startswith((b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"))),
    ("AVIF", lambda d: d[4:8] == b"ftyp" and b"avi" in d[8:64]),
)

_UNSUPPORTED: tuple[tuple[str, Callable[[bytes], bool]], ...] = (
    (
        "HEIC",
        lambda d: d[4:8] == b"ftyp" and d[8:12] in (b"heic", b"heix", b"hevc", b"heim", b"mif1", b"msf1"),
    ),
    ("PDF", lambda d: d.startswith(b"%PDF")),
    ("SVG", lambda d: b"<svg" in d[:512]),
    ("Photoshop", lambda d: d.startswith(b"8BPS")),
    ("JPEG 2000", lambda d: d[4:12] == b"jP  \r\n\x87\n"),
    ("JPEG XL", lambda d: d.startswith((b"\xff\x0a", b"\0\0\0\x0cJXL "))),
)

_PLUGINS = {
    "JPEG": ("JpegImagePlugin", "JpegImageFile"),
    "PNG": ("PngImagePlugin", "PngImageFile"),
    "WEBP": ("WebPImagePlugin", "WebPImageFile"),
    "GIF": ("GifImagePlugin", "GifImageFile"),
    "BMP": ("BmpImagePlugin", "BmpImageFile"),
    "TIFF": ("TiffImagePlugin", "TiffImageFile"),
    "AVIF": ("AvifImagePlugin", "AvifImageFile"),
}


def _sniff(data: bytes) -> str:
    """The file's format by its first bytes: names and extensions lie."""
    if not data:
        raise ImageError("the file is empty")
    head = data[:512]
    for name, matches in _MAGIC:
        if matches(head):
            return name
    for name, matches in _UNSUPPORTED:
        if matches(head):
            raise ImageError(f"{name} files are not supported; convert to JPEG or PNG")
    raise ImageError("not an image (no JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF)")


def looks_like_an_image(head: bytes) -> bool:
    """Whether a file that starts with these bytes (64 suffice) is of a format that `open_image` reads."""
    return any(matches(head) for _, matches in _MAGIC)


@lru_cache(maxsize=16)
def _plugin(file_format: str) -> Callable[[io.BytesIO], Any]:
    """Pillow's reader of one format: `Image.open` would import all forty plugins to find it."""
    module, name = _PLUGINS[file_format]
    reader: Callable[[io.BytesIO], Any] = getattr(importlib.import_module(f"PIL.{module}"), name)
    return reader


def _refuse_bombs(width: int, height: int, most: int = MAX_PIXELS) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"damaged: the header says {width} x {height} pixels")
    if width * height > most or max(width, height) > MAX_SIDE:
        limit = f"the limit is {most / 1e6:g} megapixels, {MAX_SIDE} a side"
        raise ImageError(f"too large: {width} x {height} pixels; {limit}")


def _frames(image: Any, data: bytes) -> int:
    """1 or 2; see `ImageFacts.frames`. A damaged second frame does not count."""
    if image.format != "GIF":
        return 2 if getattr(image, "is_animated", False) else 1
    try:  # on a second reader, because looking ahead moves the first one
        return 2 if _plugin("GIF")(io.BytesIO(data)).is_animated else 1
    except Exception:
        return 1


def _draft(image: Any, shortest_side: int | None) -> int:
    """Ask libjpeg for the smallest scale that serves; returns the power of two it divides by."""
    if shortest_side is None or min(image.size) < 2 * shortest_side:
        return 1
    image.draft(None, (shortest_side, shortest_side))
    return int(image.decoderconfig[0])


_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = {_TURNS[code] for code in (5, 6, 7, 8)}
_WHERE_ORIENTATION_HIDES = ("exif", "xmp", "XML:com.adobe.xmp", "Raw profile type exif")


def _orientation(image: Any) -> Image.Transpose | None:
    """How the camera was held, from EXIF tag 274; unreadable EXIF leaves the picture as it is."""
    if not any(key in image.info for key in _WHERE_ORIENTATION_HIDES):
        return None
    try:
        return _TURNS.get(image.getexif().get(274, 1))
    except Exception:
        return None


def _reason(error: Exception) -> str:
    text = " ".join(str(error).split()) or type(error).__name__
    if "truncated" in text.lower() or "unexpected end" in text.lower():
        return "the file is truncated"
    return f"damaged: {text[:120]}"


_QUIET = ("ignore", None, Warning, re.compile(r"PIL\.(Image|\w+Plugin)$"), 0)


def _hush_pillow() -> None:
    """Keep Pillow's remarks about odd files to itself: what is wrong with a file is said by `ImageError`.

    `warnings.catch_warnings` swaps process-wide state and so cannot be used from threads; one filter that
    names Pillow's readers can. It is put in front again where somebody else's filter (a test's, `-W error`)
    came before it.
    """
    if warnings.filters[:1] != [_QUIET]:
        warnings.filterwarnings("ignore", module=r"PIL\.(Image|\w+Plugin)$")


# ---------------------------------------------------------------------------------------------------------
# Colour
# ---------------------------------------------------------------------------------------------------------


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode == "I" or image.mode == "F" or image.mode.startswith("I;16"):
        return _grey_to_8_bits(image).convert("RGB")
    if image.has_transparency_data:
        return _on_white(image)
    return image.convert("RGB")


def _on_white(image: Image.Image) -> Image.Image:
    layer = image if image.mode == "RGBA" else image.convert("RGBA")
    white = Image.new("RGB", layer.size, (255, 255, 255))
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _grey_to_8_bits(image: Image.Image) -> Image.Image:
    """Scale deep grey to 8 bits; Pillow's own conversion clips everything above 255 to white."""
    values = np.asarray(image)
    if values.dtype.itemsize == 2:
        return Image.fromarray(((values.astype(np.uint32) * 255 + 32767) // 65535).astype(np.uint8))
    finite = np.isfinite(values)
    if not finite.any():
        raise ImageError("damaged: no finite pixel value")
    low, high = float(values[finite].min()), float(values[finite].max())
    span = (high - low) or 1.0
    scaled = (np.nan_to_num(values.astype(np.float64), nan=low, posinf=high, neginf=low) - low) * (255 / span)
    return Image.fromarray(np.rint(scaled).astype(np.uint8))


# ---------------------------------------------------------------------------------------------------------
# The perceptual hash
# ---------------------------------------------------------------------------------------------------------


def _difference_hash(picture: Image.Image, width: int, height: int, *, scale: int = 1) -> bytes:
    """256-bit horizontal difference hash (`imagehash.dhash`) of the whole picture, packed into 32 bytes.

    The picture is shrunk to the hash's grid here, because Pillow's two-step reduction takes less than half
    the time of the library's single step, and because a reduced decode needs its last, partly filled column
    cut off to hash like the full one (1,000 photographs: 3 to 4 of 256 bits differ on average, 23 at most).
    """
    import imagehash

    if min(width, height) < SMALLEST_HASHED_SIDE:
        return NO_HASH
    box = (0.0, 0.0, width / scale, height / scale)
    grid = picture.convert("L").resize(
        (HASH_SIDE + 1, HASH_SIDE), Image.Resampling.LANCZOS, box=box, reducing_gap=3.0
    )
    darkest, brightest = grid.getextrema()
    if brightest - darkest < FLATTEST_HASHED_RANGE:  # type: ignore[operator]
        return NO_HASH
    return np.packbits(imagehash.dhash(grid, hash_size=HASH_SIDE).hash).tobytes()


# ---------------------------------------------------------------------------------------------------------
# Rendering
# ---------------------------------------------------------------------------------------------------------


def render(image: Image.Image, preprocess: Preprocess, view: View = CENTRE) -> npt.NDArray[np.uint8]:
    """The pixels that a backbone sees, uint8 [S, S, 3], not yet normalised; possibly read-only.

    For the centre view these are the pixels of timm's evaluation transform (resize, then centre crop). Only
    the cropped region is resampled, at the places where the resized image would have its pixels; that saves
    the work on everything that the crop would throw away. `image` comes from `open_image`, or is any
    picture. Resized sides round as in torchvision's `Resize` and `CenterCrop`.
    """
    if image.mode != "RGB":
        image = _to_rgb(image)
    width, height, scale = _full_size(image)
    if view.crop:
        small = _resample(image, _crop_box(width, height, preprocess, view), scale, preprocess)
    elif _wants_the_plain_way(width, height, preprocess):
        small = _resize_then_crop(image, _resized(width, height, preprocess), preprocess)
    else:
        small = _resample(image, _centre_box(width, height, preprocess), scale, preprocess)
    pixels = np.asarray(small)
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


def _resize_then_crop(image: Image.Image, resized: tuple[int, int], preprocess: Preprocess) -> Image.Image:
    whole = image.resize(resized, _INTERPOLATIONS[preprocess.interpolation])
    return whole.crop(_crop_corners(*resized, preprocess.size))


def _resample(image: Image.Image, box: _Box, scale: int, preprocess: Preprocess) -> Image.Image:
    """Resize the region `box`, in pixels of the undrafted image, to the backbone's square.

    The horizontal pass comes first, as it does when Pillow resizes a whole image to scale. Given a region,
    some versions of Pillow choose the other order, and the clipping in between then changes pixels.
    """
    left, top, right, bottom = (edge / scale for edge in box)
    right, bottom = min(right, image.width), min(bottom, image.height)
    filter_, size = _INTERPOLATIONS[preprocess.interpolation], preprocess.size
    reach = _REACH[preprocess.interpolation] * max(1.0, (bottom - top) / size) + 1
    first, last = max(0, math.floor(top - reach)), min(image.height, math.ceil(bottom + reach))
    # Cropped first: a box that starts below the top would make Pillow add an idle vertical pass.
    rows = image if last - first == image.height else image.crop((0, first, image.width, last))
    rows = rows.resize((size, last - first), filter_, box=(left, 0, right, last - first))
    return rows.resize((size, size), filter_, box=(0, top - first, size, bottom - first))


def _full_size(image: Image.Image) -> tuple[int, int, int]:
    """Width and height of the grid to sample on, and how much smaller the decoded picture is."""
    width, height, scale = image.info.get(_FULL_SIZE, (*image.size, 1))
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


def _centre_box(width: int, height: int, preprocess: Preprocess) -> _Box:
    """The region, in the image's pixels, that the centre crop of the resized image covers."""
    new_width, new_height = _resized(width, height, preprocess)
    left, top, right, bottom = _crop_corners(new_width, new_height, preprocess.size)
    x, y = width / new_width, height / new_height
    return left * x, top * y, min(right * x, width), min(bottom * y, height)


def _crop_box(width: int, height: int, preprocess: Preprocess, view: View) -> _Box:
    side, across, down = crop_place(view.crop)
    if preprocess.crop_mode == "squash":
        crop_width, crop_height = side * width, side * height
    else:
        crop_width = crop_height = side * min(width, height)
    left, top = across * (width - crop_width), down * (height - crop_height)
    return left, top, min(left + crop_width, width), min(top + crop_height, height)
