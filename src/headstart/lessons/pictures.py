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

from headstart.errors import LessonError
from headstart.lessons import xml_files
from headstart.lessons.badges import BadgeError

KEYWORD = b"openbadgecredential"
NAMESPACE = "https://purl.imsglobal.org/ob/v3p0"
LARGEST_PICTURE = 10_000_000
"""Bytes; what is larger is no badge of ours and not worth reading."""

SIDE = 512
INK, PAPER, GOLD, LIGHT = "#17324d", "#fdfaf3", "#e0a526", "#f4d58a"

# Five stages: three frozen ones, pale, and the two that were trained.
_BARS = [(166 + 38 * n, 206 - 18 * n, 194 + 38 * n, 236, LIGHT if n < 3 else GOLD) for n in range(5)]
_PNG = b"\x89PNG\r\n\x1a\n"
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
    text = KEYWORD + b"\0" + b"\0\0" + b"\0" + b"\0" + credential.encode()
    baked = [_PNG]
    for kind, data in _chunks(png):
        if _keyword(kind, data) == KEYWORD:
            continue
        baked.append(_chunk(kind, data))
        if kind == b"IHDR":
            baked.append(_chunk(b"iTXt", text))
    return b"".join(baked)


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
        return _one([_text(chunk) for kind, chunk in _chunks(data) if _keyword(kind, chunk) == KEYWORD])
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


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    """(type, data) of each chunk, checksums verified (https://www.w3.org/TR/png-3/, 5.3 Chunk layout)."""
    if not png.startswith(_PNG):
        raise BadgeError("this is no PNG picture")
    place, kind = len(_PNG), b""
    while kind != b"IEND":
        if place + 12 > len(png):
            raise BadgeError("the PNG picture is cut off")
        length, kind = struct.unpack(">I4s", png[place : place + 8])
        data = png[place + 8 : place + 8 + length]
        checksum = png[place + 8 + length : place + 12 + length]
        if len(data) < length or len(checksum) < 4:
            raise BadgeError("the PNG picture is cut off")
        if struct.unpack(">I", checksum)[0] != zlib.crc32(kind + data):
            raise BadgeError("the PNG picture is damaged: a checksum does not fit")
        yield kind, data
        place += 12 + length


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def _keyword(kind: bytes, data: bytes) -> bytes:
    return data.split(b"\0", 1)[0] if kind == b"iTXt" else b""


def _text(data: bytes) -> str:
    """The text of an uncompressed iTXt chunk: keyword, flag, method, language, translated keyword, text."""
    _, rest = data.split(b"\0", 1)
    if rest[:1] != b"\0":
        raise BadgeError("the credential in the picture is compressed, which Open Badges 3.0 forbids")
    try:
        return rest[2:].split(b"\0", 2)[2].decode("utf-8")
    except (IndexError, UnicodeDecodeError):
        raise BadgeError("the credential in the picture is damaged") from None


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
