"""Finds the table that labels the images of a folder or archive, and compares it with class folders.

A folder of Parquet shards as the Hugging Face hub names them, `metadata.csv` of its imagefolder, `train.csv`
beside `test.csv`, `labels.csv` beside photographs. Where two could be meant, the user is asked.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from headstart.data.dataset.columns import (
    LABEL_NAMES,
    ColumnNames,
    LabelsUnknown,
    LabelTable,
    choose,
    image_column,
    plain,
)
from headstart.data.dataset.lookup import Files
from headstart.data.dataset.split_names import sides_of, split_of
from headstart.data.dataset.tables import LocatedTable, found, from_tables, read_table
from headstart.data.dataset.values import Dataset, Skipped
from headstart.data.sources import TABLE_SUFFIXES, FileSource, Listing, Place, Source, why_not_an_image
from headstart.data.sources.names import is_image_name
from headstart.data.sources.remote import around
from headstart.errors import DatasetError, ImageError, printable
from headstart.files import is_there
from headstart.heads.tasks import SINGLE_LABEL

_SHARD = re.compile(r"(?P<split>[\w.]+?)-\d{5}-of-\d{5}(?:-[0-9a-f]+)?\.parquet")
_MEANT = ("labels", "metadata", "annotations")
_MOST = 20
"""Tables of one folder that are looked into."""

_MOST_SPLITS = 3
"""Folders of a table's split that it may speak of."""


@dataclass(frozen=True)
class _Candidate:
    path: str
    table: LocatedTable
    all_found: bool  # whether every one of its first rows has a file


def from_listed_tables(
    name: str,
    listing: Listing,
    *,
    where: Place,
    wanted: ColumnNames,
    for_training: bool,
    suffixes: tuple[str, ...] = TABLE_SUFFIXES,
) -> Dataset | DatasetError | None:
    """The data set that tables in a folder or archive describe; None where there is no such table.

    A `DatasetError` comes back where there is a table that is wrong: the folders may say the labels. It is a
    `LabelsUnknown` where one names images that are here.

    Raises:
        DatasetError: Several tables could be meant, or the one that is meant is wrong.
    """
    files = dict(listing.files)
    if shards := _shards(files):
        tables, notes = _located_shards(shards, files, where=where)
        used = {path for paths in shards.values() for path in paths}
    else:
        problems: list[DatasetError] = []
        usable = _usable(files, suffixes, where=where, wanted=wanted, problems=problems)
        if not usable:
            return min(problems, key=lambda each: not isinstance(each, LabelsUnknown), default=None)
        meant, notes = _meant(usable, where=where)
        tables, used = [each.table for each in meant], {each.path for each in meant}
    dataset = from_tables(
        name, tables, where=printable(where), wanted=wanted, for_training=for_training, notes=notes
    )
    named = {sample.source for sample in dataset.samples}
    by = "the tables" if shards else " and ".join(printable(path) for path in sorted(used)[:2])
    beside = [
        Skipped(printable(path), why_not_an_image(path, source) or f"not in {by}")
        for path, source in files.items()
        if path not in used and source not in named
    ]
    return replace(dataset, skipped=(*dataset.skipped, *beside, *listing.left_out))


def _usable(
    files: Mapping[str, Source],
    suffixes: tuple[str, ...],
    *,
    where: Place,
    wanted: ColumnNames,
    problems: list[DatasetError],
) -> list[_Candidate]:
    """The tables at the top, else those in the folders there, that name images which are there."""
    tables = [path for path in files if path.lower().endswith(suffixes)]
    tables = [path for path in tables if "submission" not in _stem(path)]  # forms, whose labels are made up
    for depth in (0, 1):
        found_here = []
        for path in [path for path in tables if path.count("/") == depth][:_MOST]:
            try:
                found_here.append(_candidate(path, files, where=where, wanted=wanted))
            except DatasetError as error:
                shown, said = printable(where / path), str(error)
                kind = LabelsUnknown if isinstance(error, LabelsUnknown) else DatasetError
                problems.append(kind(said if said.startswith(shown) else f"{shown}: {said}"))
        if found_here:
            return found_here
    return []


def table_with(column: str, listing: Listing, *, where: Place) -> tuple[str, LabelTable] | None:
    """The first table of a folder or archive, by its path, that has a column of this name."""
    files = dict(listing.files)
    tables = [path for path in files if path.lower().endswith(TABLE_SUFFIXES) and path.count("/") < 2]
    for path in sorted(tables, key=lambda path: path.count("/"))[:_MOST]:
        with suppress(DatasetError):
            table = _read(path, files[path], where=where)
            if plain(column) in map(plain, table.names):
                return path, table
    return None


def _candidate(path: str, files: Mapping[str, Source], *, where: Place, wanted: ColumnNames) -> _Candidate:
    """The table, which names at least one image that is there."""
    table = _read(path, files[path], where=where)
    places = []
    for folder in _around(path, files):
        around = {each.removeprefix(folder): file for each, file in files.items() if each.startswith(folder)}
        places.append(LocatedTable(table, Files.listed(around), printable(where / path), folder=folder))
    located, all_found = best_place(places, wanted)
    columns = choose(table, wanted, finds=partial(found, files=located.files))
    known = len(columns.labels) > 1 or plain(table.names[columns.labels[0]]) in LABEL_NAMES
    if not wanted.label and not known and _class_folders(files) > 1:
        name = printable(table.names[columns.labels[0]])
        raise LabelsUnknown(
            f"its column {name} may be anything; say --label-column {name} if it is the label"
        )
    return _Candidate(path, located, all_found)


def best_place(places: Sequence[LocatedTable], wanted: ColumnNames) -> tuple[LocatedTable, bool]:
    """A table with the first files among which all of its first rows have theirs, or else the most.

    Raises:
        DatasetError: It names none of them.
    """
    table, counts, problem = places[0].table, [], DatasetError("no rows below its header")
    head = table.head()
    for place in places if head else ():
        finds = partial(found, files=place.files)
        try:
            image = image_column(table, wanted, finds=finds)
        except DatasetError as error:
            counts.append(0)
            problem = error
            continue
        counts.append(sum(finds(row[image]) is not None for row in head))
        problem = DatasetError(f"none of its first {len(head)} rows names a file that is here")
        if counts[-1] == len(head):
            break
    if not any(counts):
        raise problem
    return places[counts.index(max(counts))], max(counts) == len(head)


def _around(path: str, files: Mapping[str, Source]) -> Sequence[str]:
    """The folders that a table may speak of, with a slash at their ends: its own, the top, its split's.

    `labels/labels.csv` speaks of `images/`, and `train_labels.csv` of the files of `train/`, which may be
    called as those in `test/` are.
    """
    own = path.rpartition("/")[0]
    splits: dict[str, None] = {}
    if side := _side(path):
        folders = {each.rpartition("/")[0] for each in files if is_image_name(each)}
        splits = dict.fromkeys(f"{each}/" for each in sorted(folders) if _side(each) == side)
    return list(dict.fromkeys((f"{own}/" if own else "", "", *list(splits)[:_MOST_SPLITS])))


def _side(path: str) -> str | None:
    """The split that a table or a folder is named after."""
    return split_of(re.sub("|".join(_MEANT), "", _stem(path) or path.rpartition("/")[2]))


def beside(table: LabelTable, path: Place, *, wanted: ColumnNames) -> LocatedTable:
    """A table on disk with the files of its folder, or of the one there that has its split's name."""
    shown = printable(path)
    if not isinstance(path, Path):
        return LocatedTable(table, Files(*around(path)), shown)
    places = [LocatedTable(table, Files.below(path.parent), shown)]
    if side := _side(path.name):
        with os.scandir(path.parent) as entries:
            fits = [each for each in entries if _side(each.name) == side and each.is_dir()]
            names = sorted(each.name for each in fits if is_there(each.path))
        places += [
            LocatedTable(table, Files.below(path.parent / name), shown, folder=f"{name}/")
            for name in names[:_MOST_SPLITS]
        ]
    if len(places) == 1:
        return places[0]
    try:
        return best_place(places, wanted)[0]
    except DatasetError:
        return places[0]  # which says what is wrong


def _class_folders(files: Mapping[str, Source]) -> int:
    return len({path.split("/", 1)[0] for path in files if "/" in path and is_image_name(path)})


def _read(path: str, source: Source, *, where: Place) -> LabelTable:
    shown = printable(where / path)
    if isinstance(source, FileSource):
        return read_table(shown, path=Path(source.path))
    try:
        return read_table(shown, data=bytes(source.read()))
    except ImageError as error:
        raise DatasetError(f"{shown}: {error}") from error


def _meant(usable: Sequence[_Candidate], *, where: Place) -> tuple[Sequence[_Candidate], list[str]]:
    """The table that is meant among several, or all where they are splits; and a line that says so."""
    if len(usable) == 1:
        return usable, []
    sides = _sides(usable)
    names = _names(usable)
    named = [each for each in usable if _stem(each.path) in _MEANT]
    split = [
        replace(each, table=replace(each.table, split=sides[each.path]))
        for each in usable
        if each.path in sides and "train" in sides.values()
    ]
    if len(split) == len(usable):
        return split, [f"{printable(where)}: {names} are the splits"]
    for fits in (named, split, [each for each in usable if each.all_found]):
        if len(fits) == 1 or (fits is split and len({*sides.values()}) > 1):
            others = _names([each for each in usable if each.path not in {one.path for one in fits}])
            return fits, [f"{printable(where)}: read by {_names(fits)}, not by {others}"]
    raise DatasetError(
        f"{printable(where)}: {len(usable)} tables name images ({names}); give the one that is meant, "
        f"such as {printable(where / usable[0].path)}, or move the others away"
    )


def _names(tables: Sequence[_Candidate]) -> str:
    return ", ".join(printable(each.path) for each in tables)


def _stem(path: str) -> str:
    return path.rpartition("/")[2].rpartition(".")[0].lower()


def _sides(usable: Sequence[_Candidate]) -> dict[str, str]:
    """The splits that tables are named after, or the folders that they lie in, by their paths."""
    folders = {each.path: each.table.folder.rstrip("/") for each in usable}
    stems = {each.path: re.sub("|".join(_MEANT), "", _stem(each.path)) for each in usable}
    named = folders if all(folders.values()) else stems
    sides = sides_of(named.values())
    return {path: sides[name] for path, name in named.items() if name in sides}


def refuse_contradicting_folders(by_table: Dataset, by_folders: Dataset, *, where: str) -> None:
    """Refuse a table whose labels are not those of the folders that its images lie in."""
    labels = {sample.source: by_folders.label_of(sample) for sample in by_folders.samples}
    for sample in by_table.samples:
        folder, row = labels.get(sample.source), by_table.label_of(sample)
        if folder is not None and folder != row and by_table.task == SINGLE_LABEL:
            raise DatasetError(
                f"{where}: {sample.name} is {row!r} in the table and {folder!r} by its folder; give the "
                "table itself to go by it, or move it away to go by the folders"
            )


def _shards(files: Mapping[str, Source]) -> dict[str, list[str]]:
    """Parquet shards by their split, as the hub names them, at the top or in one folder such as `data`."""
    found_shards: dict[str, list[str]] = {}
    for path in sorted(files):
        match = _SHARD.fullmatch(path.rpartition("/")[2])
        if match and path.count("/") <= 1:
            found_shards.setdefault(match["split"], []).append(path)
    return found_shards


def _located_shards(
    shards: Mapping[str, Sequence[str]], files: Mapping[str, Source], *, where: Place
) -> tuple[list[LocatedTable], list[str]]:
    """All shards of all splits together; missing ones are said."""
    shown = printable(where)
    sides = sides_of(shards)
    unknown = [split for split in shards if split not in sides]
    if unknown and len(shards) > 1:
        raise DatasetError(
            f"{shown}: shards of {', '.join(map(printable, shards))}; {printable(unknown[0])} is no known "
            "split: move its files away, or give one file"
        )
    tables, notes = [], []
    around = Files.listed(files)
    for split, paths in shards.items():
        count = max(int(re.findall(r"-of-(\d{5})", path)[-1]) for path in paths)
        if len(paths) < count:
            notes.append(f"{shown}: {len(paths)} of the {count} shards of {printable(split)} are here")
        for path in paths:
            table = _read(path, files[path], where=where)
            tables.append(LocatedTable(table, around, printable(path), split=sides.get(split)))
    return tables, notes
