"""Tables in text: CSV with commas, semicolons, tabs or bars, and JSON lines.

What a spreadsheet or a program writes is read as it is meant: byte order marks, UTF-16, `sep=;`, quotes after
a blank, comments, a trailing delimiter, any line ending, with or without a header. What cannot be sure is
refused with its row.
"""

from __future__ import annotations

import csv
import io
import itertools
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from headstart.data.dataset.columns import (
    HEAD_ROWS,
    IMAGE_NAMES,
    LabelTable,
    is_header,
    is_image_cell,
    plain,
)
from headstart.data.sources.parquet import MAX_COLUMNS, MAX_ROWS
from headstart.errors import DatasetError, printable

MAX_TABLE_BYTES = 256 * 2**20
MAX_LINE = 2**20
"""Characters; a line of a table is a path, a label and a few more cells."""

_SAMPLE = 2**22  # characters of a large table whose lines are counted before any is read
_REPEATED = 10  # lines for each different one, beyond which that sample is no list of images

_DELIMITERS = (",", ";", "\t", "|")
_SPOKEN = {",": "comma", ";": "semicolon", "\t": "tab", "|": "bar", " ": "blank"}
_NOT_TEXT = {
    b"PK\x03\x04": "is a zip or an Excel workbook; save it as CSV UTF-8",
    b"\xd0\xcf\x11\xe0": "is an Excel workbook; save it as CSV UTF-8",
    b"PAR1": "is a Parquet file; name it .parquet",
    b"version https://git-lfs": "is the pointer of a Git LFS file, not the table; get it with: git lfs pull",
}

WESTERN = "cp1252"
_SURE = frozenset(
    code
    for code in range(0xC0, 0x100)
    if len({bytes([code]).decode(page) for page in (WESTERN, "cp1250", "latin-1", "iso8859-15")}) == 1
)
"""Letters that Western and Central European code pages write with the same byte."""


class NotCertain(Exception):
    """Text that is no UTF-8 and whose code page is a guess."""


def western(cell: str) -> str:
    """A cell that is no UTF-8 (its bytes kept as surrogates) in the Western code page; else `NotCertain`.

    It is certain where each foreign letter stands alone, as é does, and all likely code pages agree on it.
    """
    raw = cell.encode("utf-8", "surrogateescape")
    if any(not letter.isascii() and not "\udc80" <= letter <= "\udcff" for letter in cell):
        raise NotCertain  # UTF-8 beside bytes that are none
    high = [index for index, code in enumerate(raw) if code >= 0x80]
    if any(raw[index] not in _SURE for index in high) or any(b - a == 1 for a, b in itertools.pairwise(high)):
        raise NotCertain
    return raw.decode(WESTERN)


def is_utf8(cell: str) -> bool:
    """Whether a cell was UTF-8 in its file."""
    return cell.isascii() or not any("\udc80" <= letter <= "\udcff" for letter in cell)


def decode(data: bytes, name: str) -> str:
    """A table's text; bytes that are no UTF-8 are kept as surrogates, as the file system's own names are."""
    for magic, reason in _NOT_TEXT.items():
        if data.startswith(magic):
            raise DatasetError(f"{printable(name)}: {reason}")
    if len(data) > MAX_TABLE_BYTES:
        raise DatasetError(f"{printable(name)}: larger than {MAX_TABLE_BYTES // 2**20} MiB; split it")
    wide = "utf-32" if data.startswith((b"\xff\xfe\0\0", b"\0\0\xfe\xff")) else "utf-16"
    try:
        if data.startswith((b"\xff\xfe", b"\xfe\xff", b"\0\0\xfe\xff")):
            text = data.decode(wide)
        else:
            text = data.decode("utf-8-sig", "surrogateescape")
    except UnicodeDecodeError as error:
        raise DatasetError(f"{printable(name)}: not readable as {wide.upper()}: {error.reason}") from None
    if "\0" in text:
        raise DatasetError(f"{printable(name)}: holds zero bytes, so it is no text; save it as CSV UTF-8")
    if len(text) > _SAMPLE:  # which a few kilobytes of an archive can hold, if all of it is the same
        lines = text[:_SAMPLE].splitlines()
        different = len(set(lines))
        if different * _REPEATED < len(lines):
            raise DatasetError(
                f"{printable(name)}: of its first {len(lines):,} lines only {different:,} differ; "
                "keep one for each image"
            )
    return text


@dataclass(frozen=True, kw_only=True)
class TextTable(LabelTable):
    """A CSV file that is read, row by row, when its columns are asked for."""

    name: str
    text: str
    delimiter: str
    first: int  # number of the first record that is a row

    def head(self) -> Sequence[Sequence[object]]:
        """The first rows, as wide as the header."""
        width = len(self.names)
        return [(cells + [""] * width)[:width] for _, cells in itertools.islice(self._rows(), HEAD_ROWS)]

    def read(self, columns: Sequence[int]) -> tuple[Sequence[int], list[Sequence[object]]]:
        """The rows' line numbers and these columns; refuses a row of more cells than there are columns."""
        numbers: list[int] = []
        values: list[list[object]] = [[] for _ in columns]
        for number, cells in self._rows():
            if any(cells[len(self.names) :]):
                raise DatasetError(self._too_wide(number, cells))
            if len(numbers) == MAX_ROWS:
                raise DatasetError(f"{printable(self.name)}: more than {MAX_ROWS:,} rows; split it")
            numbers.append(number)
            for column, index in zip(values, columns, strict=True):
                column.append(cells[index] if index < len(cells) else "")
        return numbers, list(values)

    def _rows(self) -> Iterator[tuple[int, list[str]]]:
        return itertools.islice(_records(self.text, self.delimiter, name=self.name), self.first, None)

    def _too_wide(self, number: int, cells: Sequence[str]) -> str:
        shown = ", ".join(printable(name) for name in self.names[:8])
        return (
            f"{printable(self.name)}: row {number}: {len(cells)} cells under {len(self.names)} columns "
            f"({shown}); put double quotes around a cell that holds a {_SPOKEN[self.delimiter]}"
        )


def read_text(data: bytes, name: str) -> TextTable:
    """A CSV file: its delimiter, its header if there is one, and from where its rows begin."""
    text = decode(data, name)
    if '"' in text:  # a closing quote may have blanks after it, which the strict reader refuses
        text = re.sub(r'(?<!")"[ \t]+(?=[,;|\r\n]|\Z)', '"', text)
    told = re.match(r"\s*\"?sep=(.)\"?[ \t]*(\r\n|\r|\n)", text, re.IGNORECASE)
    if told:
        text = "\n" * text[: told.end()].count("\n") + text[told.end() :]
    delimiter = told[1] if told and told[1] in _SPOKEN else _delimiter(text, name)
    skipped, first = 0, ["path", "label"]
    for _, cells in _records(text, delimiter, name=name):
        first = cells
        if not _is_comment(cells):
            break
        skipped += 1
    else:
        first = []
    while len(first) > 1 and not first[-1]:
        first.pop()  # a trailing delimiter
    if len(first) > MAX_COLUMNS:
        raise DatasetError(f"{printable(name)}: {len(first):,} columns; at most {MAX_COLUMNS:,} are read")
    headless = any(map(is_image_cell, first))
    return TextTable(
        names=tuple(f"column {number}" for number, _ in enumerate(first, 1)) if headless else tuple(first),
        size=len(text),
        notes=("no header: the first row is an image",) if headless else (),
        decimal_comma=delimiter == ";",
        name=name,
        text=text,
        delimiter=delimiter,
        first=skipped + (not headless),
    )


def _is_comment(cells: Sequence[str]) -> bool:
    header = is_header(cells) or (len(cells) > 1 and plain(cells[0]) in IMAGE_NAMES)
    return cells[0].startswith("#") and not header


def _delimiter(text: str, name: str) -> str:
    """The delimiter with which the first rows are a table of images; the comma where none is."""
    heads: dict[str, list[list[str]]] = {}
    for delimiter in (*_DELIMITERS, " "):
        try:
            rows = itertools.islice(_records(text, delimiter, name=name), HEAD_ROWS)
            heads[delimiter] = [cells for _, cells in rows if not _is_comment(cells)]
        except DatasetError:
            continue
    apart = heads.pop(" ", [])
    for delimiter, head in heads.items():
        if head and is_header(head[0]):
            return delimiter
    for delimiter, head in heads.items():
        if any(len(row) > 1 and any(map(is_image_cell, row)) for row in head[:2]):
            return delimiter
    if apart and all(len(row) == 2 for row in apart) and any(is_image_cell(row[0]) for row in apart[:2]):
        return " "
    for delimiter, head in heads.items():
        if head and len({len(row) for row in head}) == 1 < len(head[0]):
            return delimiter
    return ","


def _records(text: str, delimiter: str, *, name: str) -> Iterator[tuple[int, list[str]]]:
    """The records that are not blank, with the line on which each ends."""
    reader = csv.reader(_lines(text, name), delimiter=delimiter, skipinitialspace=True, strict=True)
    begun = 0
    try:
        for cells in reader:
            begun = reader.line_num
            trimmed = [cell.strip() for cell in cells]
            if any(trimmed):
                yield reader.line_num, trimmed
    except csv.Error as error:
        reason = f"not readable as CSV: {error}"
        if "unexpected end" in str(error):
            reason = "a quote is opened here and never closed"
        elif "expected after" in str(error):
            reason = "a quote ends inside a cell; write a quote that belongs to the text twice"
        raise DatasetError(f"{printable(name)}: row {begun + 1}: {reason}") from None


def _lines(text: str, name: str) -> Iterator[str]:
    for number, line in enumerate(io.StringIO(text, newline=""), 1):
        if len(line) > MAX_LINE:
            raise DatasetError(f"{printable(name)}: row {number}: more than {MAX_LINE:,} characters")
        yield line


@dataclass(frozen=True, kw_only=True)
class JsonLines(LabelTable):
    """A file with one JSON object a line, such as `metadata.jsonl`; its keys are the columns."""

    objects: tuple[tuple[int, dict[str, object]], ...]  # with their line numbers

    def head(self) -> Sequence[Sequence[object]]:
        """The first rows."""
        return [[each.get(key, "") for key in self.names] for _, each in self.objects[:HEAD_ROWS]]

    def read(self, columns: Sequence[int]) -> tuple[Sequence[int], list[Sequence[object]]]:
        """The rows' line numbers and these columns."""
        keys = [self.names[column] for column in columns]
        values: list[Sequence[object]] = [[each.get(key, "") for _, each in self.objects] for key in keys]
        return [number for number, _ in self.objects], values


def read_json_lines(data: bytes, name: str) -> JsonLines:
    """A file with one JSON object a line; refuses a row that is none."""
    objects: list[tuple[int, dict[str, object]]] = []
    keys: dict[str, None] = {}
    text = decode(data, name)
    for number, line in enumerate(_lines(text, name), 1):
        if not line.strip():
            continue
        try:
            found = json.loads(line)
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict):
            raise DatasetError(f"{printable(name)}: row {number}: expected a JSON object on each line")
        if len(objects) == MAX_ROWS:
            raise DatasetError(f"{printable(name)}: more than {MAX_ROWS:,} rows; split it")
        objects.append((number, found))
        keys |= dict.fromkeys(found)
        if len(keys) > MAX_COLUMNS:
            raise DatasetError(f"{printable(name)}: {len(keys):,} keys; at most {MAX_COLUMNS:,} are read")
    return JsonLines(names=tuple(keys), size=len(text), objects=tuple(objects))
