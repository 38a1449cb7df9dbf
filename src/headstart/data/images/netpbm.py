"""Netpbm: PBM, PGM, PPM, PAM and PFM, of any depth, as text or bytes.

Pillow's reader knows no PAM and no colour PFM, and takes a second for each two million values whose white is
neither 255 nor 65,535. Format: https://netpbm.sourceforge.net/doc/
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFile

from headstart.errors import ImageError

_LONGEST_HEADER = 65_536
"""Bytes, comments included."""

_TOKEN = re.compile(rb"(?:[ \t\r\n\v\f]|#[^\r\n]*[\r\n])*([^\s#]{1,20})")
_Pixels = npt.NDArray[Any]
_CHANNELS = {1: 1, 2: 1, 3: 3, 4: 1, 5: 1, 6: 3}
_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


class NetpbmFile(ImageFile.ImageFile):
    """One picture; the first, where a file holds several."""

    format = "PPM"
    format_description = "Netpbm"

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(_LONGEST_HEADER)
        kind = head[1:2]
        if kind in b"fF":
            self._read_floats(head)
        elif kind == b"7":
            self._read_pam(head)
        else:
            self._read_numbered(head, int(kind))
        self.tile = []

    def _read_numbered(self, head: bytes, kind: int) -> None:
        self._bits, self._plain, self._channels = kind in (1, 4), kind < 4, _CHANNELS[kind]
        numbers, self._start = _tokens(head, 2 if self._bits else 3)
        self._size = int(numbers[0]), int(numbers[1])
        self._white = 1 if self._bits else _white(int(numbers[2]))
        self._mode = "1" if self._bits else _MODES[self._channels]

    def _read_pam(self, head: bytes) -> None:
        text, found, _ = head.partition(b"ENDHDR\n")
        lines = [line.split() for line in text.splitlines()[1:]]
        fields = {words[0]: words[1] for words in lines if len(words) > 1 and words[0][:1] != b"#"}
        self._size = int(fields[b"WIDTH"]), int(fields[b"HEIGHT"])
        self._channels, self._white = int(fields[b"DEPTH"]), _white(int(fields[b"MAXVAL"]))
        if not found or self._channels not in _MODES:
            raise ImageError(f"damaged: a PAM of {self._channels} channels; expected 1 to 4")
        self._mode = _MODES[self._channels]
        self._bits, self._plain, self._start = False, False, len(text) + len(found)

    def _read_floats(self, head: bytes) -> None:
        self._channels = 3 if head[1:2] == b"F" else 1
        (width, height, scale), self._start = _tokens(head, 3)
        self._size, self._mode = (int(width), int(height)), "F" if self._channels == 1 else "RGB"
        self._bits, self._plain, self._white = False, False, 0
        self._type = "<f4" if float(scale) < 0 else ">f4"

    def load(self) -> Any:
        """Read the pixels, once."""
        if self._im is None:
            assert self.fp is not None
            self.fp.seek(self._start)
            picture = Image.fromarray(np.ascontiguousarray(self._pixels(self.fp.read())))
            self.im, self._mode = picture.im, picture.mode
        return super(ImageFile.ImageFile, self).load()

    def _pixels(self, data: bytes) -> _Pixels:
        """Pixels uint8 [H, W] or [H, W, C]; float32 [H, W] of a grey PFM."""
        width, height = self.size
        shape = (height, width) if self._channels == 1 else (height, width, self._channels)
        count = width * height * self._channels
        if self._bits and not self._plain:
            stride = -(-width // 8)
            rows = _first(np.frombuffer(data, np.uint8), stride * height).reshape(height, stride)
            return np.where(np.unpackbits(rows, axis=1, count=width), np.uint8(0), np.uint8(255))
        if not self._white:
            values = np.frombuffer(data[: 4 * count], self._type)
            rows = _first(values, count).reshape(shape)[::-1].astype(np.float32)  # from the bottom up
            return rows if self._channels == 1 else _stretched(rows)
        if self._bits:
            digits = _first(np.frombuffer(re.sub(rb"\s+|#[^\n]*\n", b"", data), np.uint8), count)
            return np.where(digits == ord("0"), np.uint8(255), np.uint8(0)).reshape(shape)
        if self._plain:
            words = re.sub(rb"#[^\n]*\n", b"", data)
            values = np.clip(np.fromstring(words, np.int32, sep=" ")[:count], 0, self._white)
        elif self._white > 255:
            values = np.frombuffer(data[: 2 * count], ">u2")
        else:
            values = np.frombuffer(data[:count], np.uint8)
        values = _first(values, count).reshape(shape)
        if self._white == 255:
            return values.astype(np.uint8, copy=False)
        levels = np.minimum(np.arange(65_536, dtype=np.uint32), self._white) * 255
        table = ((levels + self._white // 2) // self._white).astype(np.uint8)
        return np.take(table, values)


def _tokens(head: bytes, count: int) -> tuple[list[bytes], int]:
    """So many words after the magic number, and where the pixels begin: one blank after the last."""
    place, found = 2, []
    for _ in range(count):
        match = _TOKEN.match(head, place)
        if match is None:
            raise ImageError("damaged: the header breaks off")
        found.append(match[1])
        place = match.end()
    return found, place + 1


def _white(number: int) -> int:
    if not 1 <= number <= 65_535:
        raise ImageError(f"damaged: the header says that white is {number}")
    return number


def _first(values: _Pixels, count: int) -> _Pixels:
    if len(values) < count:
        raise ImageError("the file is truncated")
    return values[:count]


def _stretched(values: npt.NDArray[np.float32]) -> npt.NDArray[np.uint8]:
    """Colours without an agreed white over their own range, as grey is."""
    finite = values[np.isfinite(values)]
    if not finite.size:
        raise ImageError("damaged: no finite pixel value")
    low, high = float(finite.min()), float(finite.max())
    clean = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
    levels: npt.NDArray[np.uint8] = np.rint((clean - low) * (255 / ((high - low) or 1.0))).astype(np.uint8)
    return levels
