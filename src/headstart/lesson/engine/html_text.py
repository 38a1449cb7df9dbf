"""HTML as editors of learning platforms write it, turned into Markdown, which our pages show."""

from __future__ import annotations

import html
import re

_INLINE = {"strong": "**", "b": "**", "em": "*", "i": "*", "code": "`", "tt": "`"}
_BLOCKS = frozenset(("p", "div", "ul", "ol", "h1", "h2", "h3", "h4", "h5", "h6", "tr", "blockquote"))
_SILENT = frozenset(("script", "style"))

# Not html.parser: it takes quadratic time over tags that never end, and a stranger wrote this text.
_TAG = re.compile(r"(<[^<>]*>)")
_NAME = re.compile(r"<(?P<end>/?)(?P<name>[a-zA-Z][a-zA-Z0-9]*)(?=[\s/>])")
_PICTURES_TEXT = re.compile(r"""\salt=(?:"([^"]*)"|'([^']*)')""")
_BLANKS = re.compile(r"\s+")


def to_markdown(text: str) -> str:
    """Paragraphs, lists, emphasis and code as Markdown; other tags go, and what they hold stays.

    Takes time in proportion to the text's length, whatever it holds.
    """
    parts: list[str] = []
    verbatim = silent = 0
    for token in _TAG.split(_without_comments(text)):
        tag = _NAME.match(token)
        if tag is None:
            if not silent:
                said = html.unescape(token)
                parts.append(said if verbatim else _BLANKS.sub(" ", said))
            continue
        name, ends = tag["name"].lower(), bool(tag["end"])
        if name in _SILENT:
            silent = max(0, silent - 1) if ends else silent + 1
        elif name == "pre":
            parts.append(("\n```\n\n" if verbatim else "") if ends else "\n\n```\n")
            verbatim = max(0, verbatim - 1) if ends else verbatim + 1
        elif not silent:
            parts.append(_mark(name, token, ends=ends, verbatim=bool(verbatim)))
    lines = [line.rstrip() for line in "".join(parts).replace("\xa0", " ").split("\n")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _mark(name: str, token: str, *, ends: bool, verbatim: bool) -> str:
    """What stands in Markdown for a tag; `token` is all of it."""
    if name in _BLOCKS:
        return "\n\n"
    if name in _INLINE:
        return "" if verbatim else _INLINE[name]
    if ends:
        return ""
    if name == "img":
        found = _PICTURES_TEXT.search(token)
        said = html.unescape(found[1] or found[2] or "") if found else ""
        return f"[{said or 'a picture that was not imported'}]"
    return {"br": "\n", "li": "\n- "}.get(name, "")


def _without_comments(text: str) -> str:
    first, *rest = text.split("<!--")
    return first + "".join(part.partition("-->")[2] for part in rest)
