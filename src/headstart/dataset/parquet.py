"""Parquet tables, those of Hugging Face data sets too, whose images lie inside."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.dataset.columns import IMAGE_NAMES, LABEL_NAMES, SPLIT_COLUMNS, plain
from headstart.errors import DatasetError, ImageError, printable
from headstart.images import looks_like_an_image
from headstart.sources.parquet import ParquetFile, ParquetImage, is_binary, libraries

_HEAD_ROWS = 50
_FEW_COLUMNS = 64
_TELLING = frozenset((*IMAGE_NAMES, *LABEL_NAMES, *SPLIT_COLUMNS))


@dataclass(frozen=True)
class ImageCell:
    """What a row says of an image that lies inside: its source, and the name it once had."""

    source: ParquetImage
    path: str | None


@dataclass(frozen=True)
class ParquetTable:
    """A Parquet file whose columns are read when they are asked for."""

    file: ParquetFile
    notes: tuple[str, ...] = ()

    @cached_property
    def names(self) -> tuple[str, ...]:
        """The columns' names."""
        return tuple(self.file.schema.names)

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return self.file.size

    @cached_property
    def holds_images(self) -> frozenset[int]:
        """Columns of bytes, and of bytes with a path as Hugging Face data sets have them."""
        found = [index for index in range(len(self.names)) if self._bytes_of(index) is not None]
        images = [i for i in found if self._features.get(self.names[i], {}).get("_type") == "Image"]
        return frozenset(images or found)

    def _bytes_of(self, index: int) -> str | None:
        """The path in the file's schema of a column's bytes."""
        pyarrow, _ = libraries()
        name, kind = self.names[index], self.file.schema.field(index).type
        if pyarrow.types.is_struct(kind):
            inner = [kind.field(number) for number in range(kind.num_fields)]
            return next((f"{name}.bytes" for each in inner if each.name == "bytes"), None)
        return name if is_binary(kind) and self._are_images(name) else None

    def _are_images(self, name: str) -> bool:
        """Whether a column of bytes holds images and not text."""
        for row in range(min(self.file.reader.metadata.num_rows, 3)):
            try:
                if looks_like_an_image(self.file.image(name, row)[:64]):
                    return True
            except ImageError:
                continue
        return False

    @cached_property
    def _features(self) -> dict[str, Any]:
        """What Hugging Face's library noted of the columns."""
        metadata = self.file.schema.metadata or {}
        try:
            found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}

    def head(self) -> Sequence[Sequence[object]]:
        """The first rows; of very many columns those alone whose names tell something."""
        count = min(_HEAD_ROWS, self.file.reader.metadata.num_rows)
        few = len(self.names) <= _FEW_COLUMNS
        columns = [
            self._column(index, most=count) if few or plain(name) in _TELLING else [""] * count
            for index, name in enumerate(self.names)
        ]
        return list(zip(*columns, strict=True))

    def read(self, columns: Sequence[int]) -> tuple[Sequence[int], list[Sequence[object]]]:
        """Row numbers from 1, and these columns; classes by their names where the file has them."""
        count = self.file.reader.metadata.num_rows
        return range(1, count + 1), [self._column(index, most=count) for index in columns]

    def _column(self, index: int, *, most: int) -> Sequence[object]:
        place = self._bytes_of(index) if index in self.holds_images else None
        if place is not None:
            return self._cells(index, place, most=most)
        return self._named(index, self._first_values(self.names[index], most))

    def _first_values(self, column: str, most: int) -> list[object]:
        pyarrow, _ = libraries()
        kind = self.file.schema.field(column).type
        if pyarrow.types.is_nested(kind):
            return [[]] * most  # a list is no label: said by the row that is read first
        found: list[object] = []
        for batch in self.file.batches(column):
            found += batch
            if len(found) >= most:
                break
        return found[:most]

    def _cells(self, index: int, place: str, *, most: int) -> Sequence[object]:
        paths: list[object] = [None] * most
        if place != self.names[index]:
            kind = self.file.schema.field(index).type
            if any(kind.field(number).name == "path" for number in range(kind.num_fields)):
                paths = []
                for batch in self.file.batches(f"{self.names[index]}.path"):
                    paths += batch
                    if len(paths) >= most:
                        break
        return [
            ImageCell(ParquetImage(self.file, place, row), str(path) if path else None)
            for row, path in enumerate(paths[:most])
        ]

    def _named(self, index: int, values: list[object]) -> list[object]:
        names = self._features.get(self.names[index], {}).get("names")
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            return values
        return [self._class(value, names, row=row) for row, value in enumerate(values, 1)]

    def _class(self, value: object, names: Sequence[str], *, row: int) -> object:
        if not isinstance(value, int) or value == -1:
            return None if value == -1 else value
        if not 0 <= value < len(names):
            where = f"{printable(self.file.name)}: row {row}"
            raise DatasetError(f"{where}: class {value}, but the file names {len(names)} classes, from 0")
        return names[value]


def read_parquet(name: str, *, data: bytes | None = None, path: Path | None = None) -> ParquetTable:
    """A Parquet file, in memory or on disk.

    Raises:
        DatasetError: It is none, or beyond the bounds.
        MissingExtra: pyarrow is not installed.
    """
    libraries()
    file = ParquetFile(name, data, None if path is None else os.fspath(path.absolute()))
    try:
        _ = file.reader
    except OSError as error:
        raise DatasetError(f"{printable(name)}: {error.strerror or error}") from error
    return ParquetTable(file)
