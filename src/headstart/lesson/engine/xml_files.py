"""Parses XML that a stranger may have written."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET

from headstart.errors import LessonError

_DECLARATION = re.compile(r"<!(?:DOCTYPE|ENTITY)", re.IGNORECASE)


def parse(text: str, *, what: str) -> ET.Element:
    """The root of an XML document; `what` it is begins the message.

    Raises LessonError where it is not well formed, or has a document type declaration: without one no entity
    can unfold into gigabytes or stand for another file.
    """
    if _DECLARATION.search(text):
        raise LessonError(f"{what}: a document type declaration is not accepted; remove it")
    try:
        return ET.fromstring(text)
    except (ET.ParseError, ValueError) as error:
        raise LessonError(f"{what}: not well formed ({error})") from None
