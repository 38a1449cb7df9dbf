"""Bounds: what decoding a file may cost, told from its header before a pixel is decoded.

A small file costs little: the bytes that its decoder really holds (not the file's, not the picture's) and the
passes that it makes are counted, and a file that wants much more than it brings is refused.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from headstart.errors import ImageError

MAX_PIXELS = 120_000_000
"""Larger images are refused as decompression bombs: a 108-megapixel phone picture passes."""

MAX_SIDE = 65_500
"""Pixels; libjpeg's own limit. A longer side is a damaged header."""

MAX_BYTES = 2**30
"""That decoding one image may hold, and all threads of a process together."""

_FREE_BYTES = 256 * 2**20
"""That any file may take, however small it is: 15 to 50 megapixels."""

_BYTES_FOR_A_BYTE = 256
"""That every further byte of a file allows: photographs take 5 to 100 times their files."""

_MODE_BYTES = {"1": 6, "L": 6, "P": 10, "I;16": 8, "I;16B": 8, "RGB": 5, "I": 12, "F": 12, "LA": 13, "PA": 13}
_OTHER_MODES_BYTES = 9
"""Bytes a pixel, measured: the file's pixels, their RGB, what lies between, and the grey of the hash."""

_FORMAT_BYTES = {"WEBP": 12, "AVIF": 6, "HEIF": 5, "PPM": 3, "SGI": 2}
"""Bytes a pixel that a format's decoder holds beside Pillow's image, measured."""

_JPEG2000_SAMPLE_BYTES = 5
_COEFFICIENT_BYTES = 2
"""Of each sample: OpenJPEG works on 32 bits; libjpeg keeps what comes in several scans until the last."""

MOST_COPIED = 4_000_000
"""Pixels of a JPEG, as it is decoded, up to which it may be decoded into an array beside Pillow's image."""

_COPY_BYTES = 4

_SLOW = {"QOI": 2_000_000, "DDS": 2_000_000}
"""Pixels of formats whose readers are written in Python and take a microsecond for each."""

_MOST_SCANS = 100
_MOST_SCANNED = 2_500_000_000
"""Scans of a JPEG, and pixels that they go over together, at about 0.3 ns each. Photographs have 1 to 15."""

_SCAN = 0xDA
_SEQUENTIAL = (0xC0, 0xC1)
_OTHER_FRAMES = (0xC2, 0xC3, 0xC5, 0xC6, 0xC7, 0xC9, 0xCA, 0xCB, 0xCD, 0xCE, 0xCF)
"""Markers of a JPEG: the start of a scan, and of frames by how they are coded."""

_MOST_LAYERS = 256
_TILE_BYTES = 16_384
"""JPEG 2000: quality layers, and what OpenJPEG sets aside for each tile, however small."""


def refuse_bombs(width: int, height: int, most: int = MAX_PIXELS) -> None:
    """ImageError for a picture without pixels, or with more than `most`."""
    if width < 1 or height < 1:
        raise ImageError(f"damaged: the header says {width} x {height} pixels")
    if width * height > most or max(width, height) > MAX_SIDE:
        limit = f"the limit is {most / 1e6:g} megapixels, {MAX_SIDE} a side"
        raise ImageError(f"too large: {width} x {height} pixels; {limit}")


def bytes_needed(image: Any, data: bytes, *, file_format: str, scale: int, turned: bool) -> int:
    """Bytes that decoding takes, and refuses what would take too many, or too long.

    Args:
        image: Pillow's, opened and not loaded.
        data: The file.
        file_format: As `formats` names it.
        scale: The power of two that a JPEG is reduced by.
        turned: Whether it will be turned upright.
    """
    width, height = image.size
    pixels, extra = width * height, 0
    refuse_bombs(width, height, _SLOW.get(file_format, MAX_PIXELS))
    if file_format == "JPEG":
        extra = _scans_bytes(data, pixels * scale**2, len(image.getbands()))
        extra += _COPY_BYTES * pixels * (pixels <= MOST_COPIED)
    elif file_format == "JPEG2000":
        extra = _codestream_bytes(data) + _JPEG2000_SAMPLE_BYTES * len(image.getbands()) * pixels
    each = _MODE_BYTES.get(image.mode, _OTHER_MODES_BYTES) + _FORMAT_BYTES.get(file_format, 0) + 4 * turned
    needed: int = pixels * each + extra
    allowed = min(MAX_BYTES, _FREE_BYTES + _BYTES_FOR_A_BYTE * len(data))
    if needed > allowed:
        raise ImageError(
            f"too large: decoding {width} x {height} pixels takes {needed >> 20} MiB; "
            f"a file of {len(data):,} bytes may take {allowed >> 20}"
        )
    return needed


def _scans_bytes(data: bytes, pixels: int, channels: int) -> int:
    """What libjpeg keeps between the scans of a JPEG."""
    if _has_one_scan(data):  # nearly all; counting would go through the whole file
        return 0
    scans = data.count(b"\xff\xda")  # never inside a scan; thumbnails and profiles may hold some
    if scans > _MOST_SCANS or scans * pixels > _MOST_SCANNED:
        scans = sum(marker == _SCAN for marker, _ in _markers(data))
    if scans > _MOST_SCANS or scans * pixels > _MOST_SCANNED:
        raise ImageError(
            f"damaged: {scans} scans over {pixels / 1e6:.1f} megapixels; photographs have 1 to 15"
        )
    return _COEFFICIENT_BYTES * channels * pixels


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan of a sequential JPEG has all components: libjpeg reads no further one then."""
    components = 0
    for marker, segment in _markers(data):
        if marker in _SEQUENTIAL:
            components = segment[7]
        elif marker == _SCAN or marker in _OTHER_FRAMES:
            return marker == _SCAN and segment[2] == components
    return False


def _markers(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Markers up to the end of the image with the first bytes of their segments, length included.

    Those of thumbnails, which lie inside segments, are left out.
    """
    place = 2
    while (place := data.find(b"\xff", place)) >= 0 and place + 12 <= len(data):
        marker = data[place + 1]
        if marker == 0xD9:
            break
        if marker in (0x00, 0x01, 0xFF) or 0xD0 <= marker <= 0xD8:
            place += 1 if marker == 0xFF else 2
            continue
        yield marker, data[place + 2 : place + 12]
        place += 2 + int.from_bytes(data[place + 2 : place + 4])


def _codestream_bytes(data: bytes) -> int:
    """What OpenJPEG sets aside for the tiles of a JPEG 2000; the codestream's size counts, not the box's."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0 or len(data) < start + 42:
        raise ImageError("damaged: no codestream in it")
    right, bottom, left, top, tile_width, tile_height, tile_left, tile_top = struct.unpack_from(
        ">8I", data, start + 8
    )
    refuse_bombs(right - left, bottom - top)
    if not tile_width or not tile_height:
        raise ImageError("damaged: tiles without pixels")
    tiles = -(-(right - tile_left) // tile_width) * -(-(bottom - tile_top) // tile_height)
    place = start + 2
    while place + 8 <= len(data) and data[place] == 0xFF and data[place + 1] not in (0x90, 0xD9):
        if data[place + 1] == 0x52 and int.from_bytes(data[place + 6 : place + 8]) > _MOST_LAYERS:
            raise ImageError(f"damaged: more than {_MOST_LAYERS} layers")
        place += 2 + int.from_bytes(data[place + 2 : place + 4])
    return int(tiles) * _TILE_BYTES


class Room:
    """Bytes that the decoders of one process hold together; who would be too many waits."""

    small = 32 * 2**20
    """Who takes less needs no permission: a photograph of 12 megapixels that is decoded at a half."""

    def __init__(self, total: int = MAX_BYTES) -> None:
        self._total, self._held = total, 0
        self._changed = threading.Condition()

    @contextmanager
    def taken(self, count: int) -> Iterator[None]:
        """Hold so many bytes meanwhile. One alone is always let in: `bytes_needed` has bounded it."""
        if count < self.small:
            yield
            return
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + count <= self._total)
            self._held += count
        try:
            yield
        finally:
            with self._changed:
                self._held -= count
                self._changed.notify_all()

    def forget(self) -> None:
        """Begin anew, in a forked process whose other threads are gone."""
        self.__init__(self._total)  # type: ignore[misc]


ROOM = Room()
"""This process's."""

if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=ROOM.forget)
