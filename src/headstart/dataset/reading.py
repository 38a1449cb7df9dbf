"""Reads labelled images: which of folders, zips, tables and arrays a source is. No image is opened."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.dataset.arrays import from_arrays
from headstart.dataset.folders import from_folders
from headstart.dataset.labels import refuse_measurements
from headstart.dataset.shards import from_shards, is_shard, shard_paths, shards_in
from headstart.dataset.tables import FolderFiles, ListedFiles, from_table, read_table
from headstart.dataset.values import SPLITS, Dataset
from headstart.errors import DatasetError, ImageError, printable
from headstart.sources import TABLE_SUFFIXES, is_archive, list_archive, list_folder


def read_dataset(
    source: str | Path | tuple[Any, Any] | Dataset, *, split_by_folder: bool = True, for_training: bool = True
) -> Dataset:
    """List labelled images; `headstart.dataset` says which layouts.

    Args:
        source: A folder, CSV, Parquet, zip or tar; `(X, y)` with X uint8 [N, H, W] or [N, H, W, 1|3|4] (or a
            list of such images) and y of N labels; or a data set, which comes back as it is.
        split_by_folder: Whether folders named train, val, test and the like are splits (else top folders are
            the classes, whatever they are called).
        for_training: Refuse what no classifier can be trained on: one class, a class that is held out whole.

    Raises:
        DatasetError: One line: what is wrong, where, and the way out.
        MissingExtra: A Parquet file without pyarrow installed.
    """
    if isinstance(source, Dataset):
        return source
    dataset = _read(source, split_by_folder=split_by_folder)
    if for_training:
        _refuse_untrainable(dataset, where="y" if isinstance(source, tuple) else printable(source))
    return dataset if isinstance(source, tuple) else replace(dataset, origin=os.path.abspath(source))


def _read(source: str | Path | tuple[Any, Any], *, split_by_folder: bool) -> Dataset:
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DatasetError(f"arrays come as a pair (X, y), got a tuple of {len(source)}")
        return from_arrays(*source)
    if not isinstance(source, str | os.PathLike):
        raise DatasetError(
            "expected a path (of a folder, CSV, Parquet, zip or tar) or a pair of arrays (X, y), "
            f"got {type(source).__name__}"
        )
    path = Path(source)
    name = printable(path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_dir():
        listing = list_folder(path)
        if shards := shards_in(listing):
            return from_shards(
                name, {each: list_archive(path / each) for each in shards}, where=printable(path)
            )
        return from_folders(name, listing, where=printable(path), split_by_folder=split_by_folder)
    if not path.exists():
        if "{" not in path.name:
            raise DatasetError(f"{printable(path)}: no such folder or file")
        listings = {str(each): list_archive(each) for each in shard_paths(str(path))}
        return from_shards(name, listings, where=printable(path))
    if path.suffix.lower() in TABLE_SUFFIXES:
        return from_table(
            name, read_table(path.read_bytes(), path.name), FolderFiles(path.parent), where=path
        )
    if is_archive(path):
        return _from_archive(name, path, split_by_folder=split_by_folder)
    raise DatasetError(f"{printable(path)}: expected a folder, a .csv, a .parquet, a .zip or a .tar")


def _from_archive(name: str, path: Path, *, split_by_folder: bool) -> Dataset:
    listing = list_archive(path)
    for table_name, source in listing.files:
        if "/" not in table_name and table_name.lower().endswith(TABLE_SUFFIXES):
            try:
                content = source.read()
            except ImageError as error:
                raise DatasetError(f"{printable(path)}: {table_name} {error}") from error
            table = read_table(bytes(content), table_name)
            if {"path", "label"} <= table.columns.keys():
                where = path / table_name
                return from_table(name, table, ListedFiles(dict(listing.files)), where=where)
    if is_shard(listing):
        return from_shards(name, {path.name: listing}, where=printable(path))
    return from_folders(name, listing, where=printable(path), split_by_folder=split_by_folder)


def _refuse_untrainable(dataset: Dataset, *, where: str) -> None:
    if len(dataset.classes) < 2:
        raise DatasetError(
            f"{where}: only one class ({dataset.classes[0]}); {_other_root(dataset, where=where)}"
        )
    try:
        refuse_measurements(dataset.classes, dataset.samples)
    except DatasetError as error:
        raise DatasetError(f"{where}: {error}") from None
    sides: list[set[str | None]] = [set() for _ in dataset.classes]
    for sample in dataset.samples:
        sides[sample.label].add(sample.split)
    for name, found in zip(dataset.classes, sides, strict=True):
        if not found & {"train", None}:
            held_out = " and ".join(str(side) for side in SPLITS if side in found)
            raise DatasetError(
                f"{where}: class {name} is in {held_out} but not in training; add it or remove it there"
            )


def _other_root(dataset: Dataset, *, where: str) -> str:
    """What to do about a single class: it may be the folder around the classes."""
    only = dataset.classes[0]
    inner = {parts[1] for sample in dataset.samples if len(parts := sample.name.split("/", 2)) == 3}
    if len(inner) < 2 or not all(sample.name.startswith(f"{only}/") for sample in dataset.samples):
        return "a classifier needs two or more"
    shown = ", ".join(sorted(inner)[:3])
    return f"if the classes are the folders in it ({shown}), give {where.rstrip('/')}/{only}"
