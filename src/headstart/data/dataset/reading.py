"""Lists the labelled images of a folder, archive, table or pair of arrays, without opening one."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.data.dataset.arrays import from_arrays
from headstart.data.dataset.columns import ColumnNames, LabelsUnknown
from headstart.data.dataset.folders import from_folders
from headstart.data.dataset.foreign import foreign
from headstart.data.dataset.groups import grouped, names_a_table
from headstart.data.dataset.labels import refuse_single_images
from headstart.data.dataset.listed_tables import (
    beside,
    from_listed_tables,
    refuse_contradicting_folders,
    table_with,
)
from headstart.data.dataset.lookup import given
from headstart.data.dataset.series import grouped_by_name, is_pattern, series_in_words
from headstart.data.dataset.shards import from_shards, is_shard, shard_paths, shards_in
from headstart.data.dataset.tables import from_tables, read_table, table_at
from headstart.data.dataset.targets import as_task, check_task
from headstart.data.dataset.values import SPLITS, Dataset
from headstart.data.sources import (
    TABLE_SUFFIXES,
    Listing,
    Place,
    RemotePlace,
    is_address,
    is_archive,
    list_archive,
    list_files,
)
from headstart.data.sources.listing import wrapper_of
from headstart.data.sources.names import TAR_SUFFIXES
from headstart.data.sources.remote import shown
from headstart.errors import DatasetError, printable
from headstart.files import is_there
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

LIST_SUFFIXES = (".txt", ".lst", ".json")
"""Of tables that may be anything else: read where they are given, or where nothing else has labels."""


def read_dataset(
    source: str | Place | tuple[Any, Any] | Dataset,
    *,
    split_by_folder: bool = True,
    for_training: bool = True,
    image_column: str | None = None,
    label_column: str | None = None,
    groups: str | None = None,
    weights_column: str | None = None,
    task: str | None = None,
) -> Dataset:
    """List labelled images; `headstart.data.dataset` says which layouts.

    Args:
        source: A folder, table (CSV, TSV, Parquet, JSON lines), zip or tar, on disk or at an address such as
            `s3://bucket/photos`; `(X, y)` with X uint8 [N, H, W] or [N, H, W, 1|3|4] (or a list of such
            images) and y of N labels, of N lists of labels, or of 0 and 1 [N, C]; or a data set, which comes
            back as it is.
        split_by_folder: Whether folders named train, val, test and the like are splits (else top folders are
            the classes, whatever they are called).
        for_training: Refuse what no classifier can be trained on: one class, a class that is held out whole.
        image_column: Of a table: where the images are; None for the column that can only be meant.
        label_column: Of a table: where the labels are, likewise.
        weights_column: Of a table: the images' weights in training, numbers above zero.
        groups: Of a table: a column (camera, patient, day) whose groups stay on one side of a split. It may
            be another table than that of the labels: one in the folder, or one that is given by its path.
            Or a pattern of file names, such as `{group}_*.jpg`, see `series.grouped_by_name`.
        task: "single-label", "multi-label" or "regression"; None for what the labels can only mean.

    Raises:
        DatasetError: One line: what is wrong, where, and the way out.
        MissingExtra: A Parquet file without pyarrow installed.
    """
    check_task(task)
    task = None if task == "auto" else task
    if isinstance(source, Dataset):
        return as_task(_grouped(source, groups), task or source.task, where=source.name)
    elsewhere = is_pattern(groups) or names_a_table(groups)
    wanted = ColumnNames(image_column, label_column, None if elsewhere else groups, weights_column, task)
    if isinstance(source, str | os.PathLike) and not _is_list(source):
        source = given(source)
    dataset = _read(source, wanted, split_by_folder=split_by_folder, for_training=for_training)
    where = "y" if isinstance(source, tuple) else shown(str(source))
    dataset = as_task(_grouped(dataset, groups), task, where=where)
    if groups is None and not isinstance(source, tuple):
        dataset = replace(dataset, notes=(*dataset.notes, *series_in_words(dataset)))
    if for_training:
        _refuse_untrainable(dataset, where=where)
    if isinstance(source, tuple):
        return dataset
    origin = shown(str(source)) if is_address(str(source)) else os.path.abspath(str(source))
    return replace(dataset, origin=origin)


def _is_list(source: str | Path) -> bool:
    """Whether it is a list of shards in braces, and not a path that has braces in it."""
    name = Path(source).name.lower()
    return "{" in name and name.endswith((*TAR_SUFFIXES, "}")) and not is_there(source)


def _grouped(dataset: Dataset, groups: str | None) -> Dataset:
    """The data set, if its table has been read with that column, or none is asked for."""
    if groups is None or any(sample.group for sample in dataset.samples):
        return dataset
    if is_pattern(groups):
        return grouped_by_name(dataset, groups)
    if names_a_table(groups):
        return grouped(dataset, read_table(groups, path=Path(groups)), column=None, shown=printable(groups))
    raise DatasetError(
        f"{dataset.name}: no group in it for --groups {printable(groups)}; list the images in a table whose "
        f"column {printable(groups)} says what belongs together, or give a pattern of names ({{group}}_*.jpg)"
    )


def _read(
    source: str | Place | tuple[Any, Any], wanted: ColumnNames, *, split_by_folder: bool, for_training: bool
) -> Dataset:
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DatasetError(f"arrays come as a pair (X, y), got a tuple of {len(source)}")
        return from_arrays(*source, task=wanted.task)
    if not isinstance(source, str | os.PathLike | RemotePlace):
        raise DatasetError(
            "expected a path (of a folder, CSV, Parquet, zip or tar) or a pair of arrays (X, y), "
            f"got {type(source).__name__}"
        )
    if not isinstance(source, RemotePlace) and _is_list(source):
        text = os.fspath(source)
        shards = {str(each): list_archive(each) for each in shard_paths(text)}
        return from_shards(printable(Path(text).name), shards, where=shown(text), task=wanted.task)
    path = source if isinstance(source, RemotePlace) else Path(source)
    named = path.resolve() if isinstance(path, Path) else path
    name = printable(named.stem if path.is_file() else named.name)
    where = printable(path)
    if path.is_dir() or is_archive(path):
        listing = list_files(path) if path.is_dir() else list_archive(path)
        return _read_listing(
            listing, wanted, name, path=path, split_by_folder=split_by_folder, for_training=for_training
        )
    if path.suffix.lower() in (*TABLE_SUFFIXES, *LIST_SUFFIXES):
        table = beside(table_at(path), path, wanted=wanted)
        return from_tables(name, [table], where=where, wanted=wanted, for_training=for_training)
    if told := foreign([path.as_posix() if isinstance(path, Path) else path.name]):
        raise DatasetError(f"{where}: no labelled images: {told}")
    raise DatasetError(f"{where}: expected a folder, a .csv, .tsv, .parquet or .jsonl, a .zip or a .tar")


def _read_listing(
    listing: Listing,
    wanted: ColumnNames,
    name: str,
    *,
    path: Place,
    split_by_folder: bool,
    for_training: bool,
) -> Dataset:
    """A folder or archive, by the table in it or by its folders."""
    by_table = from_listed_tables(name, listing, where=path, wanted=wanted, for_training=for_training)
    where, table = printable(path), None
    if wanted.groups and not isinstance(by_table, Dataset):
        table = table_with(wanted.groups, listing, where=path)
    if table is not None:
        rest = replace(listing, files=[each for each in listing.files if each[0] != table[0]])
        labels = replace(wanted, groups=None)
        try:
            dataset = _read_listing(
                rest, labels, name, path=path, split_by_folder=split_by_folder, for_training=for_training
            )
        except DatasetError as error:
            raise _of_both(error, None if isinstance(by_table, Dataset) else by_table, where) from None
        return grouped(dataset, table[1], column=wanted.groups, shown=printable(path / table[0]))
    if wanted != ColumnNames():
        if isinstance(by_table, DatasetError):
            raise by_table
        if by_table is None:
            raise DatasetError(
                f"{where}: no table in it, which --image-column, --label-column and --groups are for"
            )
        if wanted.label:
            return by_table
    try:
        dataset = _listed(
            by_table, name, listing, path=path, split_by_folder=split_by_folder, task=wanted.task
        )
        if len(dataset.classes) > 1 or isinstance(by_table, Dataset):
            return dataset
    except DatasetError:
        if found := _by_lists(name, listing, path=path, for_training=for_training):
            return found
        raise
    if found := _by_lists(name, listing, path=path, for_training=for_training):
        return found
    if for_training and by_table is None and (told := foreign([file for file, _ in listing.files])):
        raise DatasetError(f"{where}: only one class ({', '.join(dataset.classes)}): {told}")
    return dataset


def _by_lists(name: str, listing: Listing, *, path: Place, for_training: bool) -> Dataset | None:
    """By `train.txt` and the like, lines of files and labels, where nothing else says the labels."""
    with suppress(DatasetError):
        found = from_listed_tables(
            name, listing, where=path, wanted=ColumnNames(), for_training=for_training, suffixes=LIST_SUFFIXES
        )
        if isinstance(found, Dataset) and len(found.classes) > 1:
            return found
    return None


def _listed(
    by_table: Dataset | DatasetError | None,
    name: str,
    listing: Listing,
    *,
    path: Place,
    split_by_folder: bool,
    task: str | None,
) -> Dataset:
    """By shards, by the table that lies in a folder or archive, or by the folders; these two must agree."""
    where = printable(path)
    if shards := shards_in(listing) if path.is_dir() else []:
        found = {each: list_archive(path / each) for each in shards}
        return from_shards(name, found, where=where, task=task)
    if not isinstance(by_table, Dataset) and not path.is_dir() and is_shard(listing):
        return from_shards(name, {path.name: listing}, where=where, task=task)
    try:
        by_folders = from_folders(name, listing, where=where, split_by_folder=split_by_folder)
    except DatasetError as error:
        if isinstance(by_table, Dataset):
            return by_table
        if by_table is None and (told := foreign([file for file, _ in listing.files])):
            raise DatasetError(f"{where}: no labelled images: {told}") from None
        raise _of_both(error, by_table, where) from None
    if isinstance(by_table, DatasetError) and not _can_be(by_folders, task, where=where):
        raise by_table
    if isinstance(by_table, LabelsUnknown) and len(by_folders.classes) > 1:
        told = f"{where}: the folders are the labels, and not {str(by_table).removeprefix(f'{where}/')}"
        return replace(by_folders, notes=(*by_folders.notes, told))
    if by_table is None or (isinstance(by_table, DatasetError) and len(by_folders.classes) > 1):
        return by_folders
    if isinstance(by_table, DatasetError):
        raise by_table
    if len(by_folders.classes) < 2:
        return by_table
    refuse_contradicting_folders(by_table, by_folders, where=where)
    named = {sample.source for sample in by_table.samples}
    missing = sum(source not in named for _, source in listing.images()[0])
    if by_table.task != SINGLE_LABEL or _says_more(by_table) or not missing:
        told = f"{where}: read by the table and not by the folders; images that are not in it: {missing:,}"
        return replace(by_table, notes=(*by_table.notes, told)) if missing else by_table
    told = f"{where}: read by the folders; the table says the same of {len(by_table):,} images and lacks "
    return replace(by_folders, notes=(*by_folders.notes, f"{told}{missing:,}"))


def _can_be(by_folders: Dataset, task: str | None, *, where: str) -> bool:
    """Whether folders have labels of the task: numbers, or files that are linked into several of them."""
    try:
        found = as_task(by_folders, task or by_folders.task, where=where)
    except DatasetError:
        return False
    return task != MULTI_LABEL or len(found) < len(by_folders)


def _says_more(by_table: Dataset) -> bool:
    """Whether a table has more than labels: splits, groups or weights."""
    return any(each.split or each.group or each.weight != 1 for each in by_table.samples)


def _of_both(by_folders: DatasetError, by_table: DatasetError | None, where: str) -> DatasetError:
    """What is wrong with the folders, with the table, or with both where either could say the labels."""
    if isinstance(by_table, LabelsUnknown):
        return DatasetError(f"{by_folders}; and {str(by_table).removeprefix(f'{where}/')}")
    return by_table or by_folders


def _refuse_untrainable(dataset: Dataset, *, where: str) -> None:
    if dataset.task == REGRESSION and len({sample.target for sample in dataset.samples}) < 2:
        raise DatasetError(f"{where}: every image has the same number; there is nothing to learn")
    if dataset.task == MULTI_LABEL and not dataset.classes:
        raise DatasetError(f"{where}: no image has a label")
    if dataset.task == MULTI_LABEL and len({sample.target for sample in dataset.samples}) < 2:
        labels = dataset.label_of(dataset.samples[0])
        raise DatasetError(f"{where}: every image has the same labels ({labels}); there is nothing to learn")
    if dataset.task == SINGLE_LABEL:
        if len(dataset.classes) < 2:
            raise DatasetError(
                f"{where}: only one class ({dataset.classes[0]}); {_other_root(dataset, where=where)}"
            )
        try:
            refuse_single_images(dataset.classes, dataset.samples)
        except DatasetError as error:
            raise DatasetError(f"{where}: {error}") from None
    if not any(sample.split in ("train", None) for sample in dataset.samples):
        inner = wrapper_of([sample.name for sample in dataset.samples]).rstrip("/")
        way_out = f", or give {where.rstrip('/')}/{inner} to train on these" if inner else ""
        raise DatasetError(
            f"{where}: every image is held out and none is for training; add them in train/{way_out}"
        )
    sides: list[set[str | None]] = [set() for _ in dataset.classes]
    for sample in dataset.samples:
        for label in dataset.classes_of(sample):
            sides[label].add(sample.split)
    for name, found in zip(dataset.classes, sides, strict=True):
        if not found & {"train", None}:
            held_out = " and ".join(str(side) for side in SPLITS if side in found)
            raise DatasetError(
                f"{where}: class {name} is in {held_out} but not in training; add it or remove it there"
            )


def _other_root(dataset: Dataset, *, where: str) -> str:
    """What to do about a single class: it may be the folder around the classes."""
    only = dataset.classes[0]
    names = [sample.name for sample in dataset.samples]
    above = wrapper_of(names)
    inner = {name.removeprefix(above).split("/", 1)[0] for name in names if "/" in name.removeprefix(above)}
    if len(inner) < 2 or not above.startswith(f"{only}/"):
        return f"add at least one more class besides {only}"
    shown = ", ".join(sorted(inner)[:3])
    return f"if the classes are the folders in it ({shown}), give {where.rstrip('/')}/{above.rstrip('/')}"
