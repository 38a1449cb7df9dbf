"""A badge as a picture, with the credential baked in (Open Badges 3.0, "Baked Badge").

PNG: an uncompressed iTXt chunk with the keyword `openbadgecredential`. SVG: the element
`openbadges:credential` with the attribute `verify`. A picture holds exactly one credential.
"""

from __future__ import annotations

import io
import math
import re
import struct
import zlib
from collections.abc import Iterator
from html import escape
from typing import TYPE_CHECKING

from headstart.errors import LessonError
from headstart.lesson.engine import xml_files
from headstart.lesson.engine.badges import BadgeError

if TYPE_CHECKING:
    from PIL.PngImagePlugin import PngImageFile

KEYWORD = "openbadgecredential"
NAMESPACE = "https://purl.imsglobal.org/ob/v3p0"
LARGEST_PICTURE = 10_000_000
"""Bytes; what is larger is no badge of ours and not worth reading."""

LARGEST_SIDE = 4096
"""Pixels; a picture of theirs is decoded, at four bytes a pixel."""

SIDE = 512
INK, PAPER, GOLD, LIGHT = "#17324d", "#fdfaf3", "#e0a526", "#f4d58a"

# Five stages: three frozen ones, pale, and the two that were trained.
_BARS = [(166 + 38 * n, 206 - 18 * n, 194 + 38 * n, 236, LIGHT if n < 3 else GOLD) for n in range(5)]
_PNG, _END = b"\x89PNG\r\n\x1a\n", b"\0\0\0\0IEND\xaeB`\x82"
_ELEMENT = re.compile(r"<openbadges:credential\b[^>]*?(?:/>|>.*?</openbadges:credential>)\s*", re.DOTALL)


def draw_svg(title: str, holder: str) -> str:
    """The badge's picture as SVG, without a credential."""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in _rosette())
    bars = "".join(
        f'<rect x="{left}" y="{top}" width="{right - left}" height="{bottom - top}" fill="{colour}"/>'
        for left, top, right, bottom, colour in _BARS
    )
    lines = _wrapped(title)
    first = 300 - 18 * (len(lines) - 1)
    text = "".join(
        f'<text x="256" y="{first + 36 * number}" font-size="32" font-weight="700">{escape(line)}</text>'
        for number, line in enumerate(lines)
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {SIDE} {SIDE}" role="img" '
        f'aria-label="{escape(title)}, {escape(holder)}">'
        f'<polygon points="{points}" fill="{GOLD}"/>'
        f'<circle cx="256" cy="256" r="196" fill="{PAPER}" stroke="{INK}" stroke-width="6"/>'
        f"{bars}"
        f'<g fill="{INK}" font-family="system-ui, sans-serif" text-anchor="middle">{text}'
        f'<text x="256" y="386" font-size="22">{escape(holder)}</text></g></svg>'
    )


def draw_png(title: str, holder: str) -> bytes:
    """The badge's picture as PNG, 512 pixels a side, without a credential."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.new("RGBA", (SIDE, SIDE), (0, 0, 0, 0))
    draw = ImageDraw.Draw(image)
    draw.polygon(list(_rosette()), fill=GOLD)
    draw.ellipse((60, 60, 452, 452), fill=PAPER, outline=INK, width=6)
    for left, top, right, bottom, colour in _BARS:
        draw.rectangle((left, top, right, bottom), fill=colour)
    lines = _wrapped(title)
    for number, line in enumerate(lines):
        place = (256, 300 - 18 * (len(lines) - 1) + 36 * number)
        draw.text(place, line, fill=INK, font=ImageFont.load_default(30), anchor="ms")
    draw.text((256, 386), holder[:40], fill=INK, font=ImageFont.load_default(22), anchor="ms")
    data = io.BytesIO()
    image.save(data, "PNG", optimize=True)
    return data.getvalue()


def bake_png(png: bytes, credential: str) -> bytes:
    """The PNG with the credential in it, in place of one that was there. Raises BadgeError."""
    from PIL.PngImagePlugin import PngInfo

    text = PngInfo()
    text.add_itxt(KEYWORD, credential)
    baked = io.BytesIO()
    _opened(png).save(baked, "PNG", pnginfo=text, optimize=True)
    return baked.getvalue()


def bake_svg(svg: str, credential: str) -> str:
    """The SVG with the credential in it, in place of one that was there. Raises BadgeError."""
    svg = _ELEMENT.sub("", svg)
    match = re.search(r"<svg\b[^>]*>", svg)
    if match is None:
        raise BadgeError("this is no SVG: expected an <svg> element")
    tag = match.group()
    if "xmlns:openbadges=" not in tag:
        tag = f'<svg xmlns:openbadges="{NAMESPACE}"{tag[len("<svg") :]}'
    element = f'<openbadges:credential verify="{escape(credential)}"></openbadges:credential>'
    return svg[: match.start()] + tag + element + svg[match.end() :]


def extract(data: bytes) -> str:
    """The credential in a PNG, an SVG or a `.jwt` file. Raises BadgeError where there is none."""
    if len(data) > LARGEST_PICTURE:
        raise BadgeError(f"this file is too large to be a badge: more than {LARGEST_PICTURE // 1_000_000} MB")
    if data.startswith(_PNG):
        return _in_png(data)
    try:
        text = data.decode("utf-8").strip()
    except UnicodeDecodeError:
        raise BadgeError("this is no badge: expected a PNG, an SVG or a .jwt file") from None
    if text.startswith("<"):
        return _one(_credentials(text))
    return text


def _credentials(svg: str) -> list[str]:
    """What each credential element of an SVG holds."""
    try:
        root = xml_files.parse(svg, what="this SVG")
    except LessonError as error:
        raise BadgeError(str(error)) from None
    return [each.get("verify", "") for each in root.iter(f"{{{NAMESPACE}}}credential")]


def _one(found: list[str]) -> str:
    if len(found) != 1:
        raise BadgeError(f"expected exactly one credential in the picture, got {len(found)}")
    return found[0]


def _opened(png: bytes) -> PngImageFile:
    """A PNG whose checksums fit, decoded."""
    from PIL.PngImagePlugin import PngImageFile

    if not png.startswith(_PNG):
        raise BadgeError("this is no PNG picture")
    if _END not in png:  # the one checksum that Pillow does not look at
        raise BadgeError("the PNG picture is damaged or cut off")
    try:
        PngImageFile(io.BytesIO(png)).verify()
        image = PngImageFile(io.BytesIO(png))
        if max(image.size) > LARGEST_SIDE:
            raise BadgeError(
                f"this picture is too large to be a badge: more than {LARGEST_SIDE} pixels a side"
            )
        image.load()
    except (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error):
        raise BadgeError("the PNG picture is damaged or cut off") from None
    return image


def _in_png(png: bytes) -> str:
    """The credential; counted by hand, because of several texts of one name Pillow keeps the last."""
    keyword = KEYWORD.encode() + b"\0"
    texts = _opened(png).text
    _one([KEYWORD] * png.count(keyword))
    if KEYWORD not in texts or keyword + b"\0\0" not in png:
        raise BadgeError("the credential in the picture is no uncompressed iTXt, as Open Badges 3.0 wants it")
    return str(texts[KEYWORD])


def _rosette() -> Iterator[tuple[float, float]]:
    """The corners of the badge's outer star, 48 of them."""
    for corner in range(48):
        radius = 244 if corner % 2 == 0 else 222
        angle = corner * math.tau / 48
        yield 256 + radius * math.cos(angle), 256 + radius * math.sin(angle)


def _wrapped(title: str, width: int = 18) -> list[str]:
    """The title in lines of about `width` characters, at most three."""
    lines = [""]
    for word in title.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width and len(lines) < 3:
            lines.append(word)
        else:
            lines[-1] = f"{lines[-1]} {word}".strip()
    return lines
