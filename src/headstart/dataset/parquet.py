"""Parquet tables, those of Hugging Face data sets too, whose images lie inside.

Rows, columns and the file's footer are bounded before anything is read, and values come in batches: a file of
a few kilobytes can claim millions of rows.
"""

from __future__ import annotations

import io
import json
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from headstart.dataset.delimited import MAX_COLUMNS, MAX_ROWS
from headstart.errors import DatasetError, ImageError, MissingExtra, printable
from headstart.sources import MAX_FILE_BYTES

MAX_FOOTER = 8 * 2**20
"""Bytes; a shard of a million rows in groups of a hundred has about six."""

MAX_GROUP = 2**30
"""Bytes of images in one row group, which is decoded whole to reach one of them."""

MAX_VALUE = 64 * 2**10
"""Bytes of a path or a label."""

_HEAD_ROWS = 50
_BATCH_ROWS = 16_384
_GROUPS_KEPT = 2


@dataclass(frozen=True, eq=False)
class ParquetFile:
    """A Parquet file on disk or in memory; any number of threads may read images from it."""

    name: str
    data: bytes | None = None  # None: on disk, at `path`
    path: str | None = None
    _turn: threading.Lock = field(default_factory=threading.Lock)
    _kept: OrderedDict[tuple[str, int], list[Any]] = field(default_factory=OrderedDict)

    @cached_property
    def reader(self) -> Any:
        """The opened file."""
        pyarrow, parquet = _libraries()
        self._check_footer()
        try:
            source = pyarrow.BufferReader(self.data) if self.data is not None else self.path
            reader = parquet.ParquetFile(source, memory_map=self.data is None)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        if reader.metadata.num_rows > MAX_ROWS:
            rows = f"{reader.metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read"
            raise DatasetError(f"{printable(self.name)}: {rows}: split it")
        if reader.metadata.num_columns > MAX_COLUMNS:
            columns = f"{reader.metadata.num_columns:,} columns; at most {MAX_COLUMNS:,} are read"
            raise DatasetError(f"{printable(self.name)}: {columns}")
        return reader

    def _check_footer(self) -> None:
        """Before the library parses it: a footer takes a thousand times its bytes of seconds and memory."""
        with io.BytesIO(self.data) if self.data is not None else open(str(self.path), "rb") as file:
            size = file.seek(0, os.SEEK_END)
            file.seek(max(0, size - 8))
            tail = file.read(8)
        if tail[4:] != b"PAR1":
            raise DatasetError(f"{printable(self.name)}: not readable as Parquet: it does not end as one")
        if int.from_bytes(tail[:4], "little") > MAX_FOOTER:
            raise DatasetError(
                f"{printable(self.name)}: its list of columns and row groups is larger than "
                f"{MAX_FOOTER // 2**20} MiB; write it with fewer columns and larger row groups"
            )

    def _unreadable(self, error: Exception) -> DatasetError:
        line = " ".join(printable(str(error)).split())[:200]
        return DatasetError(f"{printable(self.name)}: not readable as Parquet: {line}")

    def values(self, column: str) -> list[Any]:
        """A column's values, of a length that paths and labels have."""
        return [value for batch in self._batches(column) for value in batch]

    def _batches(self, column: str) -> Iterator[list[Any]]:
        pyarrow, _ = _libraries()
        import pyarrow.compute as compute

        try:
            for batch in self.reader.iter_batches(_BATCH_ROWS, columns=[column]):
                array = batch.column(0)
                while pyarrow.types.is_struct(array.type):
                    array = array.flatten()[0]
                if pyarrow.types.is_dictionary(array.type):
                    array = array.cast(array.type.value_type)
                kind = array.type
                if pyarrow.types.is_large_string(kind) or pyarrow.types.is_string(kind) or _is_binary(kind):
                    longest = compute.max(compute.binary_length(array)).as_py() or 0
                    if longest > MAX_VALUE:
                        raise DatasetError(
                            f"{printable(self.name)}: a value of {printable(column)} has {longest:,} bytes; "
                            f"a path or a label has at most {MAX_VALUE:,}"
                        )
                yield array.to_pylist()
        except (pyarrow.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def image(self, column: str, row: int) -> bytes:
        """An image that lies inside: the bytes in one row; its row group is kept for the next ones.

        Raises:
            ImageError: There is none, it is too large, or the file is damaged.
        """
        group, start = self._group_of(row)
        with self._turn:
            images = self._kept.get((column, group))
            if images is None:
                images = self._read_group(column, group)
                self._kept[column, group] = images
                while len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((column, group))
        found = images[row - start].as_py()
        if not found:
            raise ImageError("the row holds no image")
        if len(found) > MAX_FILE_BYTES:
            raise ImageError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return bytes(found)

    def _read_group(self, column: str, group: int) -> Any:
        pyarrow, _ = _libraries()
        about = self.reader.metadata.row_group(group)
        sizes = [about.column(number) for number in range(about.num_columns)]
        if sum(each.total_uncompressed_size for each in sizes if each.path_in_schema == column) > MAX_GROUP:
            raise ImageError(
                f"its row group is larger than {MAX_GROUP // 2**30} GiB; write the table with smaller ones"
            )
        try:
            array = self.reader.read_row_group(group, columns=[column]).column(0).combine_chunks()
        except (pyarrow.ArrowException, OSError) as error:
            raise ImageError(f"cannot be read from the table: {error}") from error
        array = array.chunk(0) if isinstance(array, pyarrow.ChunkedArray) else array
        return array.field(0) if pyarrow.types.is_struct(array.type) else array

    def _group_of(self, row: int) -> tuple[int, int]:
        starts = self._starts
        low, high = 0, len(starts)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if starts[middle] <= row else (low, middle)
        return low, starts[low]

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of each row group."""
        metadata, starts, total = self.reader.metadata, [], 0
        for group in range(metadata.num_row_groups):
            starts.append(total)
            total += metadata.row_group(group).num_rows
        return starts or [0]


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a row of a Parquet file."""

    file: ParquetFile
    column: str
    row: int  # from 0

    def read(self) -> bytes:
        """Its bytes."""
        return self.file.image(self.column, self.row)


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
        return tuple(self.file.reader.schema_arrow.names)

    @cached_property
    def holds_images(self) -> frozenset[int]:
        """Columns of bytes, and of bytes with a path as Hugging Face data sets have them."""
        found = [index for index in range(len(self.names)) if self._bytes_of(index) is not None]
        images = [i for i in found if self._features.get(self.names[i], {}).get("_type") == "Image"]
        return frozenset(images or found)

    def _bytes_of(self, index: int) -> str | None:
        """The path in the file's schema of a column's bytes."""
        pyarrow, _ = _libraries()
        name, kind = self.names[index], self.file.reader.schema_arrow.field(index).type
        if pyarrow.types.is_struct(kind):
            inner = [kind.field(number) for number in range(kind.num_fields)]
            return next((f"{name}.bytes" for each in inner if each.name == "bytes"), None)
        return name if _is_binary(kind) and self._are_images(name) else None

    def _are_images(self, name: str) -> bool:
        """Whether a column of bytes holds images and not text."""
        from headstart.images import looks_like_an_image

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
        metadata = self.file.reader.schema_arrow.metadata or {}
        try:
            found = json.loads(metadata.get(b"huggingface", b"{}"))["info"]["features"]
        except (ValueError, KeyError, TypeError, RecursionError):
            return {}
        return {k: v for k, v in found.items() if isinstance(v, dict)} if isinstance(found, dict) else {}

    def head(self) -> Sequence[Sequence[object]]:
        """The first rows; images as cells, columns of other kinds empty."""
        count = min(_HEAD_ROWS, self.file.reader.metadata.num_rows)
        columns = [self._column(index, most=count) for index in range(len(self.names))]
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
        pyarrow, _ = _libraries()
        kind = self.file.reader.schema_arrow.field(column).type
        if pyarrow.types.is_nested(kind):
            return [[]] * most  # a list is no label: said by the row that is read first
        found: list[object] = []
        for batch in self.file._batches(column):
            found += batch
            if len(found) >= most:
                break
        return found[:most]

    def _cells(self, index: int, place: str, *, most: int) -> Sequence[object]:
        paths: list[object] = [None] * most
        if place != self.names[index]:
            kind = self.file.reader.schema_arrow.field(index).type
            if any(kind.field(number).name == "path" for number in range(kind.num_fields)):
                paths = []
                for batch in self.file._batches(f"{self.names[index]}.path"):
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
    _libraries()
    file = ParquetFile(name, data, None if path is None else os.fspath(path.absolute()))
    try:
        _ = file.reader
    except OSError as error:
        raise DatasetError(f"{printable(name)}: {error.strerror or error}") from error
    return ParquetTable(file)


def _is_binary(kind: Any) -> bool:
    pyarrow, _ = _libraries()
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def _libraries() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("reading a Parquet file", extra="parquet") from None
    return pyarrow, pyarrow.parquet
