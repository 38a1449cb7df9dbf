"""CSV and Parquet files with the columns `path`, `label` and, if wanted, `split`."""

from __future__ import annotations

import csv
import io
import os
import posixpath
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headstart.dataset.building import build
from headstart.dataset.values import SPLIT_NAMES, Dataset, Skipped
from headstart.errors import DatasetError, MissingExtra, printable
from headstart.sources import FileSource, Source

_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class Table:
    """What a table says, whichever format it was in."""

    columns: dict[str, list[str]]  # by lower-case name
    rows: list[int]  # the number by which the user finds each row


class _Files(Protocol):
    def find(self, path: str) -> Source | None: ...


@dataclass(frozen=True)
class FolderFiles:
    """The files that a table in a folder speaks of."""

    root: Path

    def find(self, path: str) -> Source | None:
        """The file at `path`, relative to the table; None where there is none."""
        full = os.path.join(self.root, path)
        return FileSource(full) if os.path.isfile(full) else None


@dataclass(frozen=True)
class ListedFiles:
    """The files that a table in a zip speaks of."""

    files: Mapping[str, Source]

    def find(self, path: str) -> Source | None:
        """The file at `path`, relative to the table; None where there is none."""
        return self.files.get(posixpath.normpath(path.replace("\\", "/")))


def read_table(data: bytes, name: str) -> Table:
    """A CSV or Parquet file's columns, by its name's ending.

    Raises:
        DatasetError: It cannot be read.
        MissingExtra: It is Parquet, and pyarrow is not installed.
    """
    if name.lower().endswith(".parquet"):
        return _read_parquet(data, name)
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DatasetError(f"{printable(name)}: is UTF-16; save it as CSV UTF-8")
    # surrogateescape keeps names that are no UTF-8 openable, as the file system's own names are
    reader = csv.reader(io.StringIO(data.decode("utf-8-sig", "surrogateescape"), newline=""))
    try:
        header = [cell.strip().lower() for cell in next(reader, [])]
        columns: dict[str, list[str]] = {column: [] for column in header}
        for column in _COLUMNS:
            if header.count(column) > 1:
                raise DatasetError(f"{printable(name)}: the column {column} is there twice; keep one of them")
        rows = []
        for cells in reader:
            if any(cells):
                rows.append(reader.line_num)
                for index, column in enumerate(header):
                    columns[column].append(cells[index].strip() if index < len(cells) else "")
    except csv.Error as error:
        raise DatasetError(
            f"{printable(name)}: row {reader.line_num}: not readable as CSV: {error}"
        ) from error
    return Table(columns, rows)


def _read_parquet(data: bytes, name: str) -> Table:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise MissingExtra("reading a Parquet file", extra="parquet") from None
    try:
        table = pyarrow.parquet.read_table(pyarrow.BufferReader(data))
        wanted = [column for column in table.column_names if column.lower() in _COLUMNS]
        columns = {
            column.lower(): ["" if value is None else str(value) for value in table[column].to_pylist()]
            for column in wanted
        }
    except pyarrow.ArrowException as error:
        raise DatasetError(f"{printable(name)}: not readable as Parquet: {error}") from error
    return Table(columns, list(range(1, table.num_rows + 1)))


def from_table(name: str, table: Table, files: _Files, *, where: Path) -> Dataset:
    """The data set that a table describes; `where` is shown in errors.

    Raises:
        DatasetError: One line: which row is wrong, and how.
    """
    shown = printable(where)
    if not {"path", "label"} <= table.columns.keys():
        got = ", ".join(map(printable, table.columns)) or "nothing"
        raise DatasetError(f"{shown}: expected the columns path,label[,split] in its first row, got {got}")
    splits = table.columns.get("split", [""] * len(table.rows))
    rows: list[tuple[str, str, str | None, Source]] = []
    skipped: list[Skipped] = []
    first: dict[str, tuple[int, str, str]] = {}
    for number, path, label, side in zip(
        table.rows, table.columns["path"], table.columns["label"], splits, strict=True
    ):
        at = f"{shown}: row {number}"
        if not path or not label:
            raise DatasetError(f"{at}: {'path' if not path else 'label'} is empty")
        if side and side.lower() not in SPLIT_NAMES:
            raise DatasetError(
                f"{at}: split is {printable(side)!r}; expected train, validation, test or nothing"
            )
        earlier = first.setdefault(path, (number, label, side))
        if earlier[0] != number:
            _refuse_contradiction(at, path, earlier, (number, label, side))
            skipped.append(Skipped(printable(path), f"row {number} repeats row {earlier[0]}"))
            continue
        source = files.find(path)
        if source is None:
            raise DatasetError(f"{at}: no such file: {printable(path)} (paths are relative to the table)")
        rows.append((path, label, SPLIT_NAMES.get(side.lower()), source))
    if not rows:
        raise DatasetError(f"{shown}: no rows below its header")
    return build(name, rows, skipped, where=shown)


def _refuse_contradiction(
    at: str, path: str, earlier: tuple[int, str, str], now: tuple[int, str, str]
) -> None:
    for what, before, after in zip(("label", "split"), earlier[1:], now[1:], strict=True):
        if before != after:
            raise DatasetError(
                f"{at}: {printable(path)} has {what} {printable(after)!r} here and {printable(before)!r} "
                f"in row {earlier[0]}; keep one of them"
            )
