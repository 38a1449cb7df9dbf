"""Parquet files: bounded before they are read, in batches, and the images that lie inside.

A file of a few kilobytes can claim millions of rows; what it claims is looked at first.
"""

from __future__ import annotations

import io
import os
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate
from typing import Any

from headstart.data.sources.reading import MAX_FILE_BYTES
from headstart.errors import DatasetError, ImageError, MissingExtra, printable, reason_of

MAX_ROWS = 2_000_000
"""Of any table."""

MAX_COLUMNS = 10_000
"""Of any table."""

MAX_FOOTER = 8 * 2**20
"""Bytes; a shard of a million rows in groups of a hundred has about six."""

MAX_GROUP = 2**30
"""Bytes of images in one row group, which is decoded whole to reach one of them."""

MAX_VALUE = 64 * 2**10
"""Bytes of a path or a label."""

MAX_TEXT = 256 * 2**20
"""Bytes of a column of paths or labels."""

MAX_DELTA_TEXT = 96 * 2**20
"""Likewise of one whose texts are written as differences, of which a few kilobytes can make any number."""

MAX_LISTED = 5_000_000
"""Labels in a column of lists, of which a few kilobytes can claim any number."""

_BATCH_ROWS = 16_384
_SMALL_BATCH = 1_024
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
        pyarrow, parquet = libraries()
        self._check_footer()
        try:
            reader = parquet.ParquetFile(self._source(), memory_map=self.data is None)
        except (pyarrow.ArrowException, OSError) as error:
            raise self._unreadable(error) from error
        if reader.metadata.num_rows > MAX_ROWS:
            rows = f"{reader.metadata.num_rows:,} rows; at most {MAX_ROWS:,} are read"
            raise DatasetError(f"{printable(self.name)}: {rows}: split it")
        if reader.metadata.num_columns > MAX_COLUMNS:
            columns = f"{reader.metadata.num_columns:,} columns; at most {MAX_COLUMNS:,} are read"
            raise DatasetError(f"{printable(self.name)}: {columns}")
        return reader

    @cached_property
    def size(self) -> int:
        """Its bytes."""
        return len(self.data) if self.data is not None else os.path.getsize(str(self.path))

    @cached_property
    def schema(self) -> Any:
        """Columns with their types."""
        return self.reader.schema_arrow

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
        return DatasetError(f"{printable(self.name)}: not readable as Parquet: {reason_of(error)}")

    def batches(self, column: str) -> Iterator[list[Any]]:
        """The values of a column, of a length that paths and labels have; equal texts are one object.

        Texts are read as a dictionary, so that a long one that stands in each of a million rows is one. Those
        written as differences cannot be: they come in small batches, and all different ones are counted.
        """
        pyarrow, parquet = libraries()
        claimed = self._claimed(column)
        if claimed > MAX_TEXT:
            raise self._too_long(column, claimed, most=MAX_TEXT)
        small = column not in self.schema.names or self._is_delta(column)
        options = {} if small else {"read_dictionary": [column]}
        texts: dict[object, object] = {}
        length = 0
        try:
            reader = parquet.ParquetFile(self._source(), memory_map=self.data is None, **options)
            for batch in reader.iter_batches(_SMALL_BATCH if small else _BATCH_ROWS, columns=[column]):
                array = batch.column(0)
                while pyarrow.types.is_struct(array.type):
                    array = array.flatten()[0]
                if pyarrow.types.is_dictionary(array.type):
                    self._check_lengths(array.dictionary, column)
                    known = array.dictionary.to_pylist()
                    yield [None if index is None else known[index] for index in array.indices.to_pylist()]
                else:
                    self._check_lengths(array, column)
                    values = array.to_pylist()
                    if small and values and isinstance(values[0], str | bytes):
                        new = {value for value in values if value is not None and value not in texts}
                        length += sum(map(len, new))
                        if length > MAX_DELTA_TEXT:
                            raise self._too_long(column, length, most=MAX_DELTA_TEXT)
                        texts |= zip(new, new, strict=True)
                        values = [texts.get(value) for value in values]
                    yield values
        except (pyarrow.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def lists(self, column: str) -> Iterator[list[Any]]:
        """The values of a column of lists of texts or whole numbers, as bounded as `batches`."""
        pyarrow, parquet = libraries()
        chunks = self._chunks(column, inside=True)
        if sum(chunk.num_values for chunk in chunks) > MAX_LISTED:
            raise DatasetError(
                f"{printable(self.name)}: the column {printable(column)} has more than {MAX_LISTED:,} labels"
            )
        if (claimed := sum(chunk.total_uncompressed_size for chunk in chunks)) > MAX_TEXT:
            raise self._too_long(column, claimed, most=MAX_TEXT)
        texts: dict[object, object] = {}
        length = 0
        try:
            reader = parquet.ParquetFile(self._source(), memory_map=self.data is None)
            for batch in reader.iter_batches(_SMALL_BATCH, columns=[column]):
                self._check_lengths(batch.column(0).flatten(), column)
                for values in batch.column(0).to_pylist():
                    new = {value for value in values or () if isinstance(value, str) and value not in texts}
                    length += sum(map(len, new))
                    if length > MAX_DELTA_TEXT:
                        raise self._too_long(column, length, most=MAX_DELTA_TEXT)
                    texts |= zip(new, new, strict=True)
                    yield [texts.get(value, value) for value in values or ()]
        except (pyarrow.ArrowException, OSError) as error:
            raise self._unreadable(error) from error

    def _too_long(self, column: str, size: int, *, most: int) -> DatasetError:
        return DatasetError(
            f"{printable(self.name)}: the column {printable(column)} takes {size / 2**20:,.0f} MiB; "
            f"paths and labels take at most {most // 2**20}"
        )

    def _chunks(self, column: str, *, inside: bool = False) -> list[Any]:
        """What the footer says of a column in each row group; or of the first one inside it."""
        metadata = self.reader.metadata
        paths = [metadata.schema.column(i).path for i in range(metadata.num_columns)]
        at = next(
            (
                i
                for i, path in enumerate(paths)
                if path == column or (inside and path.startswith(f"{column}."))
            ),
            None,
        )
        if at is None:
            return []
        return [metadata.row_group(group).column(at) for group in range(metadata.num_row_groups)]

    def _claimed(self, column: str) -> int:
        """Decoded bytes of a column."""
        return sum(chunk.total_uncompressed_size for chunk in self._chunks(column))

    def _is_delta(self, column: str) -> bool:
        """Whether its texts are written as differences, as Spark and DuckDB may write them."""
        kinds = {encoding for chunk in self._chunks(column) for encoding in chunk.encodings}
        return bool(kinds & {"DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"})

    def _check_lengths(self, array: Any, column: str) -> None:
        import pyarrow.compute as compute

        if not (is_binary(array.type) or str(array.type) in ("string", "large_string")):
            return
        longest = compute.max(compute.binary_length(array)).as_py() or 0
        if longest > MAX_VALUE:
            raise DatasetError(
                f"{printable(self.name)}: a value of {printable(column)} has {longest:,} bytes; "
                f"a path or a label has at most {MAX_VALUE:,}"
            )

    def _source(self) -> Any:
        pyarrow, _ = libraries()
        return pyarrow.BufferReader(self.data) if self.data is not None else self.path

    def image(self, column: str, row: int) -> bytes:
        """An image that lies inside: the bytes in one row; its row group is kept for the next ones."""
        group = bisect_right(self._starts, row) - 1
        with self._turn:
            images = self._kept.get((column, group))
            if images is None:
                images = self._read_group(column, group)
                self._kept[column, group] = images
                while len(self._kept) > _GROUPS_KEPT:
                    self._kept.popitem(last=False)
            self._kept.move_to_end((column, group))
        found = images[row - self._starts[group]].as_py()
        if not found:
            raise ImageError("the row holds no image")
        if len(found) > MAX_FILE_BYTES:
            raise ImageError(f"larger than {MAX_FILE_BYTES // 2**20} MiB")
        return bytes(found)

    def _read_group(self, column: str, group: int) -> Any:
        pyarrow, _ = libraries()
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

    @cached_property
    def _starts(self) -> list[int]:
        """The first row of each row group."""
        metadata = self.reader.metadata
        sizes = (metadata.row_group(group).num_rows for group in range(metadata.num_row_groups - 1))
        return list(accumulate(sizes, initial=0))


@dataclass(frozen=True, slots=True)
class ParquetImage:
    """An image in a row of a Parquet file."""

    file: ParquetFile
    column: str
    row: int  # from 0

    @property
    def place(self) -> tuple[str, str]:
        """The file's path (empty for one in memory), and the column with the row."""
        return self.file.path or "", f"{self.column}:{self.row}"

    def read(self) -> bytes:
        """Its bytes."""
        return self.file.image(self.column, self.row)


def image_at(file: ParquetFile, member: str) -> ParquetImage | None:
    """An image by the second part of its place; None where the file has no such row."""
    column, _, row = member.rpartition(":")
    there = row.isdecimal() and int(row) < file.reader.metadata.num_rows
    return ParquetImage(file, column, int(row)) if there else None


def is_list_of_labels(kind: Any) -> bool:
    """Whether a column has lists of texts or whole numbers."""
    pyarrow, _ = libraries()
    if not (pyarrow.types.is_list(kind) or pyarrow.types.is_large_list(kind)):
        return False
    inner = kind.value_type
    return str(inner) in ("string", "large_string") or bool(pyarrow.types.is_integer(inner))


def is_binary(kind: Any) -> bool:
    """Whether a column has bytes."""
    pyarrow, _ = libraries()
    return bool(pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind))


def libraries() -> tuple[Any, Any]:
    """Pyarrow and its reader of Parquet; MissingExtra where they are not installed."""
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("reading a Parquet file", extra="parquet") from None
    return pyarrow, pyarrow.parquet
