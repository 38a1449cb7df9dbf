"""Reads a body of `multipart/form-data` that lies in memory, without a file for any part of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header


class FormError(Exception):
    """The body is not what its type says."""


class TooManyParts(Exception):
    """The form has more parts than it may."""


@dataclass(slots=True)
class Part:
    """One part of a form.

    Attributes:
        field: the field's name.
        filename: what the client calls the file; None where the part is no file.
        data: its content.
    """

    field: str = ""
    filename: str | None = None
    data: bytes = b""


@dataclass
class _Collector:
    """What the parser tells while it reads; a part's content comes in one piece or in several."""

    most: int
    parts: list[Part] = field(default_factory=list)
    pieces: list[bytes] = field(default_factory=list)
    name: bytes = b""
    value: bytes = b""
    disposition: bytes = b""
    complete: bool = True

    def on_part_begin(self) -> None:
        if len(self.parts) == self.most:
            raise TooManyParts
        self.parts.append(Part())
        self.pieces, self.disposition, self.complete = [], b"", False

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self.name += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def on_header_end(self) -> None:
        if self.name.lower() == b"content-disposition":
            self.disposition = self.value
        self.name = self.value = b""

    def on_headers_finished(self) -> None:
        options = parse_options_header(self.disposition)[1]
        if b"name" not in options:
            raise FormError("a part has no name")
        part = self.parts[-1]
        part.field = options[b"name"].decode("utf-8", "replace")
        if b"filename" in options:
            part.filename = options[b"filename"].decode("utf-8", "replace")

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        self.pieces.append(data[start:end])

    def on_part_end(self) -> None:
        self.parts[-1].data = self.pieces[0] if len(self.pieces) == 1 else b"".join(self.pieces)
        self.complete = True


def read_form(body: bytes, content_type: str, *, most: int) -> list[Part]:
    """The parts of a form, in their order.

    Args:
        body: all of it.
        content_type: the header, with the boundary in it.
        most: parts that there may be.

    Raises:
        FormError: it cannot be read.
        TooManyParts: there are more than ``most``.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise FormError("the boundary is missing from the header Content-Type")
    found = _Collector(most)
    callbacks: Any = {name: getattr(found, name) for name in dir(found) if name.startswith("on_")}
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except FormParserError:
        raise FormError("its parts cannot be told apart") from None
    if not found.complete:
        raise FormError("its last part has no end")
    return found.parts
