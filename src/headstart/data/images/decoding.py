"""Decodes a file or an array to an oriented RGB picture and its facts; what is damaged is an ImageError."""

from __future__ import annotations

import re
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from headstart.data.images import jpeg
from headstart.data.images.bounds import MAX_PIXELS, ROOM, Room, bytes_needed, refuse_bombs
from headstart.data.images.colour import to_rgb
from headstart.data.images.facts import ImageFacts, difference_hash
from headstart.data.images.formats import opened, sniff
from headstart.data.images.rendering import FULL_SIZE, render
from headstart.data.preprocess import CENTRE, Preprocess, View, shortest_side_needed
from headstart.errors import ImageError


@dataclass(frozen=True, slots=True)
class Decoded:
    """A decoded image, oriented; what is asked of it is made then."""

    pixels: Image.Image  # RGB, or RGBX as `jpeg` decodes: for `rendering` and `difference_hash`
    source: Any  # Pillow's of the file
    data: bytes  # of the file, empty for an array
    format: str
    mode: str

    @property
    def picture(self) -> Image.Image:
        """The picture in Pillow's mode RGB."""
        return self.pixels if self.pixels.mode == "RGB" else self.pixels.convert("RGB")

    @property
    def facts(self) -> ImageFacts:
        """What the checks need to know."""
        width, height, scale = self.pixels.info[FULL_SIZE]
        digest = difference_hash(self.pixels, width, height, scale=scale)
        frames = _frames(self.source, self.data)
        return ImageFacts(width, height, self.format, self.mode, frames, digest)

    def render(self, preprocess: Preprocess, view: View = CENTRE) -> npt.NDArray[np.uint8]:
        """What `rendering.render` makes of it."""
        return render(self.pixels, preprocess, view)


def decode(
    data: bytes | npt.NDArray[np.uint8],
    *,
    shortest_side: int | None = None,
    max_pixels: int = MAX_PIXELS,
    room: Room = ROOM,
) -> Decoded:
    """Decode an image file's bytes, or take an array.

    Args:
        data: A file's content, or a uint8 array of shape [H, W], [H, W, 1], [H, W, 3] or [H, W, 4].
        shortest_side: Where given, a JPEG may be decoded at a reduced scale that leaves both sides at least
            this many pixels (or at full scale, if the file has fewer). None decodes every pixel.
        max_pixels: Larger files are refused before they are decoded; at most `MAX_PIXELS`.
        room: Where its bytes are counted.

    Raises:
        ImageError: The reason in a few words: empty, truncated, not an image, too large, damaged.
    """
    if isinstance(data, np.ndarray):
        return _from_array(data)
    _hush_pillow()
    try:
        return _decode(data, shortest_side, min(max_pixels, MAX_PIXELS), room)
    except ImageError:
        raise
    except MemoryError:
        raise ImageError("not enough memory to decode it") from None
    except Exception as error:  # on damaged files Pillow raises nearly every built-in exception
        raise ImageError(_reason(error)) from error


def open_image(
    data: bytes | npt.NDArray[np.uint8], *, shortest_side: int | None = None, max_pixels: int = MAX_PIXELS
) -> tuple[Image.Image, ImageFacts]:
    """An oriented RGB picture and its facts; arguments and errors are those of `decode`."""
    found = decode(data, shortest_side=shortest_side, max_pixels=max_pixels)
    return found.picture, found.facts


def load_pixels(
    data: bytes | npt.NDArray[np.uint8],
    preprocess: Preprocess,
    *,
    max_pixels: int = MAX_PIXELS,
    room: Room = ROOM,
) -> npt.NDArray[np.uint8]:
    """An image's centre view, uint8 [S, S, 3]; arguments and errors are those of `decode`."""
    side = shortest_side_needed(preprocess)
    return decode(data, shortest_side=side, max_pixels=max_pixels, room=room).render(preprocess)


def _decode(data: bytes, shortest_side: int | None, most: int, room: Room) -> Decoded:
    file_format = sniff(data)
    image = opened(file_format, data)
    width, height = image.size
    refuse_bombs(width, height, most)
    mode = image.mode
    scale = _draft(image, shortest_side) if file_format == "JPEG" else 1
    _settle_transparency(image, data, file_format)
    # Pillow's TIFF plugin turns the picture itself and reports the turned size.
    turn = None if file_format == "TIFF" else _orientation(image)
    needed = bytes_needed(image, data, file_format=file_format, scale=scale, turned=turn is not None)
    with room.taken(needed):
        loaded = jpeg.load(image, data, scale=scale) if file_format == "JPEG" else image
        loaded.load()
        if (
            image.size != (width, height) and scale == 1
        ):  # a GIF's first frame may be larger than its header says
            refuse_bombs(image.width, image.height, most)
            width, height = image.size
        picture = loaded if loaded.mode == "RGBX" else to_rgb(loaded, getattr(image, "grey", None))
        if turn is None and file_format == "PNG":  # it may follow the pixels
            turn = _orientation(image)
        if turn is not None:
            picture = picture.transpose(turn)
            if turn in _SIDEWAYS:
                width, height = height, width
    picture.info = {FULL_SIZE: (width, height, scale)}
    return Decoded(picture, image, data, file_format, mode)


def _from_array(array: npt.NDArray[Any]) -> Decoded:
    if (
        array.dtype != np.uint8
        or array.ndim not in (2, 3)
        or (array.ndim == 3 and array.shape[2] not in (1, 3, 4))
    ):
        raise ImageError(f"expected a uint8 array [H, W] or [H, W, 1|3|4], got {array.dtype} {array.shape}")
    if array.size == 0:
        raise ImageError("the array is empty")
    height, width = array.shape[:2]
    refuse_bombs(width, height)
    pixels = array[:, :, 0] if array.ndim == 3 and array.shape[2] == 1 else array
    image = Image.fromarray(np.ascontiguousarray(pixels))
    picture = to_rgb(image)
    picture.info = {FULL_SIZE: (width, height, 1)}
    return Decoded(picture, image, b"", "array", image.mode)


def _settle_transparency(image: Any, data: bytes, file_format: str) -> None:
    """What Pillow leaves as the file has it: colour keys at the file's depth, alpha that means nothing."""
    if file_format == "PNG" and "transparency" in image.info and image.tile:
        key, raw = image.info["transparency"], str(image.tile[0].args)
        if image.mode == "L" and raw in ("L;2", "L;4"):
            image.info["transparency"] = key * (85 if raw == "L;2" else 17)
        elif raw == "RGB;16B":
            image.info["transparency"] = tuple(value >> 8 for value in key)
    elif file_format == "TGA" and image.mode == "RGBA" and data[17] & 15 == 0:
        # No bit of the header's attributes is alpha: the fourth byte is padding, and mostly 0.
        rawmode = {16: "BGR;15", 32: "BGRX"}[data[16]]
        image._mode = "RGB"
        image.tile = [tile._replace(args=(rawmode, *tile.args[1:])) for tile in image.tile]


def _frames(image: Any, data: bytes) -> int:
    """1 or 2; see `ImageFacts.frames`. A damaged second frame does not count."""
    if image.format != "GIF":
        return 2 if getattr(image, "is_animated", False) else 1
    try:  # on a second reader, because looking ahead moves the first one
        return 2 if opened("GIF", data).is_animated else 1
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
