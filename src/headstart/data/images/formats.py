"""Which image formats are read, told apart by their first bytes: names and extensions lie.

The list is ours and not Pillow's, whose forty readers also start programs (EPS), read fonts and metafiles, or
guess. What is not in it is named and refused.
"""

from __future__ import annotations

import importlib
import io
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from headstart.errors import ImageError

Matches = Callable[[bytes], bool]


@dataclass(frozen=True)
class ImageFormat:
    """One format: its name, the extensions its files have, how they begin, and who reads them."""

    name: str
    suffixes: str
    matches: Matches
    reader: str  # module:class


def _starts(*magic: bytes) -> Matches:
    return lambda head: head.startswith(magic)


_HEIF_BRANDS = frozenset(
    {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs", b"mif1", b"mif2", b"msf1"}
)


_JPEG = b"\xff\xd8\xff"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_is_jp2 = _starts(b"\0\0\0\x0cjP  \r\n\x87\n", b"\xff\x4f\xff\x51")


def _is_webp(head: bytes) -> bool:
    return head[:4] == b"RIFF" and head[8:12] == b"WEBP"


def _is_pcx(head: bytes) -> bool:
    return head[:1] == b"\x0a" and head[1:2] in b"\0\2\3\5" and head[2:3] == b"\1"


def _is_avif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and b"avi" in head[8:64]


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS


def _is_netpbm(head: bytes) -> bool:
    return re.match(rb"P[1-7fF][\s#]", head) is not None


def _is_tga(head: bytes) -> bool:
    """TGA has no magic number; every field of its header that has few values must have one of them."""
    if len(head) < 18:
        return False
    mapped, kind, map_depth, depth, flags = head[1], head[2], head[7], head[16], head[17]
    depths = {1: (8,), 2: (16, 24, 32), 3: (8, 16)}.get(kind & 7, ()) if kind & ~11 == 0 else ()
    if depth not in depths or flags & 0xC0 or not any(head[12:14]) or not any(head[14:16]):
        return False
    if kind & 7 == 1:
        return mapped == 1 and map_depth in (16, 24, 32)
    return mapped == 0 and not any(head[3:8])


FORMATS = (
    ImageFormat("JPEG", ".jpg .jpeg .jpe .jfif .mpo", _starts(_JPEG), "PIL.JpegImagePlugin:JpegImageFile"),
    ImageFormat("PNG", ".png .apng", _starts(b"\x89PNG\r\n\x1a\n"), "PIL.PngImagePlugin:PngImageFile"),
    ImageFormat("WEBP", ".webp", _is_webp, "PIL.WebPImagePlugin:WebPImageFile"),
    ImageFormat("GIF", ".gif", _starts(b"GIF87a", b"GIF89a"), "PIL.GifImagePlugin:GifImageFile"),
    ImageFormat("BMP", ".bmp .dib", _starts(b"BM"), "PIL.BmpImagePlugin:BmpImageFile"),
    ImageFormat("TIFF", ".tif .tiff", _starts(*_TIFF), "headstart.data.images.tiff:TiffFile"),
    ImageFormat("AVIF", ".avif .avifs", _is_avif, "PIL.AvifImagePlugin:AvifImageFile"),
    ImageFormat("HEIF", ".heic .heif .hif .heics .heifs", _is_heif, "pillow_heif:HeifImageFile"),
    ImageFormat(
        "JPEG2000", ".jp2 .j2k .j2c .jpc .jpf .jpx", _is_jp2, "PIL.Jpeg2KImagePlugin:Jpeg2KImageFile"
    ),
    ImageFormat(
        "PPM", ".ppm .pgm .pbm .pnm .pam .pfm", _is_netpbm, "headstart.data.images.netpbm:NetpbmFile"
    ),
    ImageFormat("QOI", ".qoi", _starts(b"qoif"), "PIL.QoiImagePlugin:QoiImageFile"),
    ImageFormat("DDS", ".dds", _starts(b"DDS "), "PIL.DdsImagePlugin:DdsImageFile"),
    ImageFormat("ICO", ".ico", _starts(b"\0\0\1\0"), "headstart.data.images.ico:IconFile"),
    ImageFormat("SGI", ".sgi .rgb .rgba .bw", _starts(b"\x01\xda"), "PIL.SgiImagePlugin:SgiImageFile"),
    ImageFormat("PCX", ".pcx", _is_pcx, "PIL.PcxImagePlugin:PcxImageFile"),
    ImageFormat("TGA", ".tga .icb .vda .vst", _is_tga, "PIL.TgaImagePlugin:TgaImageFile"),
)
"""In the order in which they are tried: TGA is the vaguest."""

IMAGE_SUFFIXES = frozenset(suffix for each in FORMATS for suffix in each.suffixes.split())
"""Extensions of files that are taken for images, in lower case with their dot."""

_UNSUPPORTED: tuple[tuple[str, Matches], ...] = (
    ("PDF", _starts(b"%PDF")),
    ("SVG", lambda head: b"<svg" in head[:512]),
    ("Photoshop", _starts(b"8BPS")),
    ("PostScript", _starts(b"%!PS", b"\xc5\xd0\xd3\xc6")),
    ("JPEG XL", _starts(b"\xff\x0a", b"\0\0\0\x0cJXL ")),
    ("Canon raw", lambda head: head[4:12] == b"ftypcrx "),
)


def sniff(data: bytes) -> str:
    """The name of a file's format, by its first bytes."""
    if not data:
        raise ImageError("the file is empty")
    head = data[:512]
    for each in FORMATS:
        if each.matches(head):
            return each.name
    for name, matches in _UNSUPPORTED:
        if matches(head):
            raise ImageError(f"{name} files are not supported; convert to JPEG or PNG")
    if head.startswith(b"version https://git-lfs"):
        raise ImageError("a Git LFS pointer and not the image; fetch it with git lfs pull")
    raise ImageError("not an image (no JPEG, PNG, WebP, GIF, BMP, TIFF, AVIF, HEIF or the like)")


def looks_like_an_image(head: bytes) -> bool:
    """Whether a file that starts with these bytes (64 suffice) is of a format that `open_image` reads."""
    return any(each.matches(head) for each in FORMATS)


@lru_cache(maxsize=len(FORMATS))
def _reader(name: str) -> Callable[[io.BytesIO], Any]:
    """The reader of one format: `Image.open` would import all forty plugins to find it."""
    module, _, reader = next(each.reader for each in FORMATS if each.name == name).partition(":")
    try:
        found: Callable[[io.BytesIO], Any] = getattr(importlib.import_module(module), reader)
    except ImportError:
        raise ImageError("HEIC and HEIF files need pillow-heif: pip install 'headstart[heif]'") from None
    return found


def opened(name: str, data: bytes) -> Any:
    """A Pillow image whose header has been read and whose pixels have not."""
    return _reader(name)(io.BytesIO(data))
