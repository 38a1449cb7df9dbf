"""Parquet tables, those of Hugging Face data sets too, whose images lie inside."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, islice
from pathlib import Path
from typing import Any

from headstart.data.dataset.columns import (
    HEAD_ROWS,
    IMAGE_NAMES,
    LABEL_NAMES,
    SPLIT_COLUMNS,
    TRUTH_COLUMNS,
    LabelTable,
    plain,
)
from headstart.data.images import looks_like_an_image
from headstart.data.sources.parquet import ParquetFile, ParquetImage, is_binary, is_list_of_labels, libraries
from headstart.errors import DatasetError, ImageError, printable, reason_of

_FEW_COLUMNS = 64
_TELLING = frozenset((*IMAGE_NAMES, *LABEL_NAMES, *SPLIT_COLUMNS, *TRUTH_COLUMNS))


@dataclass(frozen=True)
class ImageCell:
    """An image that lies in a table, and the file name it once had."""

    source: ParquetImage
    path: str | None


@dataclass(frozen=True, kw_only=True)
class ParquetTable(LabelTable):
    """A Parquet file whose columns are read when they are asked for."""

    file: ParquetFile
    bytes_of: Mapping[int, str]  # the path in the file's schema of each column's images
    features: Mapping[str, Mapping[str, Any]]  # what Hugging Face's library noted of the columns

    def head(self) -> Sequence[Sequence[object]]:
        """The first rows; of very many columns those alone whose names tell something."""
        count = min(HEAD_ROWS, self.file.reader.metadata.num_rows)
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
        pyarrow, _ = libraries()
        name, kind = self.names[index], self.file.schema.field(index).type
        if index in self.holds_images:
            paths: list[object] = [None] * most
            if self.bytes_of[index] != name and "path" in _inside(kind):
                paths = self._values(f"{name}.path", most)
            return [
                ImageCell(ParquetImage(self.file, self.bytes_of[index], row), str(path) if path else None)
                for row, path in enumerate(paths)
            ]
        if is_list_of_labels(kind):
            return list(islice(self.file.lists(name), most))
        if pyarrow.types.is_nested(kind):
            return [[]] * most  # a list is no label: said by the row that is read first
        values = self._values(name, most)
        classes = self.features.get(name, {}).get("names")
        if not isinstance(classes, list) or not all(isinstance(each, str) for each in classes):
            return values
        return [self._class(value, classes, row=row) for row, value in enumerate(values, 1)]

    def _values(self, column: str, most: int) -> list[object]:
        return list(islice(chain.from_iterable(self.file.batches(column)), most))

    def _class(self, value: object, names: Sequence[str], *, row: int) -> object:
        if not isinstance(value, int) or value == -1:
            return None if value == -1 else value
        if not 0 <= value < len(names):
            where = f"{printable(self.file.name)}: row {row}"
            raise DatasetError(f"{where}: class {value}, but the file names {len(names)} classes, from 0")
        return names[value]


def read_parquet(name: str, *, data: bytes | None = None, path: Path | None = None) -> ParquetTable:
    """A Parquet file, in memory or on disk."""
    libraries()
    file = ParquetFile(name, data, None if path is None else os.fspath(path.absolute()))
    try:
        names = tuple(file.schema.names)
    except OSError as error:
        raise DatasetError(f"{printable(name)}: {reason_of(error)}") from error
    features = _features(file)
    found = {index: place for index in range(len(names)) if (place := _bytes_of(file, index)) is not None}
    images = [index for index in found if features.get(names[index], {}).get("_type") == "Image"]
    return ParquetTable(
        names=names,
        size=file.size,
        holds_images=frozenset(images or found),
        file=file,
        bytes_of=found,
        features=features,
    )


def _features(file: ParquetFile) -> dict[str, dict[str, Any]]:
    metadata = file.schema.metadata or {}
    try:
        found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return {}
    return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}


def _bytes_of(file: ParquetFile, index: int) -> str | None:
    """The path in the file's schema of a column's bytes; None where they are no images."""
    pyarrow, _ = libraries()
    name, kind = file.schema.names[index], file.schema.field(index).type
    if pyarrow.types.is_struct(kind):
        return f"{name}.bytes" if "bytes" in _inside(kind) else None
    if not is_binary(kind):
        return None
    for row in range(min(file.reader.metadata.num_rows, 3)):
        try:
            if looks_like_an_image(file.image(name, row)[:64]):
                return str(name)
        except ImageError:
            continue
    return None


def _inside(kind: Any) -> list[str]:
    """The names of a struct's fields."""
    return [kind.field(number).name for number in range(kind.num_fields)]
