"""Data sets: a folder, a table, a zip or arrays become labelled images with a class list and splits.

Layouts that `read_dataset` understands:

* a folder (or zip) of class folders; images may lie in folders within a class folder;
* `train/`, `val/` (or `valid/`, `validation/`) and `test/`, each with class folders inside;
* a CSV or Parquet file with the columns `path`, `label` and, if wanted, `split`; paths are relative to it;
* a pair of arrays `(X, y)`.

Listing opens no image: what cannot be decoded is found, named and counted later, in the one decoding pass.
"""

from __future__ import annotations

import csv
import hashlib
import io
import os
import posixpath
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from headstart.errors import DatasetError, ImageError, MissingExtra, OptionError
from headstart.sources import (
    TABLE_SUFFIXES,
    ArraySource,
    FileSource,
    Listing,
    Source,
    ZipSource,
    list_folder,
    list_zip,
    printable,
    why_not_an_image,
)

__all__ = [
    "SPLITS",
    "ArraySource",
    "Dataset",
    "FileSource",
    "Sample",
    "Skipped",
    "Source",
    "assign_splits",
    "check_shares",
    "content_hash",
    "describe",
    "list_images",
    "place_of",
    "printable",
    "read_dataset",
]

SPLITS = ("train", "validation", "test")
"""In the order of being held out: a later one wins where near-duplicates pull in two directions."""

_SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}


# ---------------------------------------------------------------------------------------------------------
# Values
# ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image."""

    name: str  # what the user sees: the path relative to the data set's root, always printable
    label: int  # index into Dataset.classes; -1 where there is no label
    split: str | None  # "train", "validation" or "test" where the data set says so
    source: Source


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Dataset:
    """Labelled images; at least two classes, each with at least one image."""

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()  # files left out while listing

    def __len__(self) -> int:
        return len(self.samples)

    @cached_property
    def labels(self) -> npt.NDArray[np.int64]:
        """Every sample's label, int64 [N]."""
        return np.fromiter((sample.label for sample in self.samples), dtype=np.int64, count=len(self.samples))


def place_of(sample: Sample) -> dict[str, str]:
    """Where the image can be read again; nothing for arrays, which only the caller has."""
    source = sample.source
    if isinstance(source, FileSource):
        return {"file": str(Path(source.path).absolute())}
    if isinstance(source, ZipSource) and source.archive.filename:
        return {"file": str(Path(source.archive.filename).absolute()), "member": source.member.filename}
    return {}


def describe(sample: Sample, *, label: str, split: str | None, content: bytes | None) -> dict[str, Any]:
    """An image as the files of a run have it: name, label, side, hash (hex, empty if unreadable), place."""
    known = {"path": sample.name, "label": label, "split": split, "content": (content or b"").hex()}
    return {**known, **place_of(sample)}


def content_hash(data: bytes | npt.NDArray[Any]) -> bytes:
    """Sixteen bytes (BLAKE2b) that name an image by its content; arrays also by shape and dtype."""
    if isinstance(data, np.ndarray):
        digest = hashlib.blake2b(f"{data.dtype.str}{data.shape}".encode(), digest_size=16, person=b"array")
        digest.update(np.ascontiguousarray(data).data)
        return digest.digest()
    return hashlib.blake2b(data, digest_size=16).digest()


# ---------------------------------------------------------------------------------------------------------
# Reading
# ---------------------------------------------------------------------------------------------------------


def read_dataset(
    source: str | Path | tuple[Any, Any] | Dataset, *, split_by_folder: bool = True, for_training: bool = True
) -> Dataset:
    """List labelled images; the module's docstring says which layouts.

    Args:
        source: A folder, CSV, Parquet or zip; `(X, y)` with X uint8 [N, H, W] or [N, H, W, 1|3|4] (or a list
            of such images) and y of N labels; or a data set, which comes back as it is.
        split_by_folder: Whether top folders named train, val and test are splits (else they are classes).
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
    return dataset


def _read(source: str | Path | tuple[Any, Any], *, split_by_folder: bool) -> Dataset:
    if isinstance(source, tuple):
        if len(source) != 2:
            raise DatasetError(f"arrays come as a pair (X, y), got a tuple of {len(source)}")
        return _from_arrays(*source)
    if not isinstance(source, str | os.PathLike):
        raise DatasetError(
            "expected a path (of a folder, CSV, Parquet or zip) or a pair of arrays (X, y), "
            f"got {type(source).__name__}"
        )
    path = Path(source)
    name = printable(path.resolve().stem if path.is_file() else path.resolve().name)
    if path.is_dir():
        return _from_folders(name, list_folder(path), where=printable(path), split_by_folder=split_by_folder)
    if not path.exists():
        raise DatasetError(f"{printable(path)}: no such folder or file")
    if path.suffix.lower() in TABLE_SUFFIXES:
        return _from_table(
            name, _read_table(path.read_bytes(), path.name), _FolderFiles(path.parent), where=path
        )
    if path.suffix.lower() == ".zip":
        return _from_zip(name, path, split_by_folder=split_by_folder)
    raise DatasetError(f"{printable(path)}: expected a folder, a .csv, a .parquet or a .zip")


def list_images(paths: Iterable[str | Path]) -> tuple[Sample, ...]:
    """Images to predict: files as given, and all image files below folders and in zips; labels are -1.

    Raises:
        DatasetError: A path does not exist, or a folder has no image in it.
    """
    samples: list[Sample] = []
    for path in map(Path, paths):
        shown = printable(path)
        if path.is_dir() or path.suffix.lower() == ".zip":
            listing = list_folder(path) if path.is_dir() else list_zip(path)
            found = [
                Sample(f"{shown.rstrip('/')}/{printable(name)}", -1, None, origin)
                for name, origin in listing.files
                if why_not_an_image(name, origin) is None
            ]
            if not found:
                raise DatasetError(f"{shown}: no image in it")
            samples += found
        elif path.exists():
            samples.append(Sample(shown, -1, None, FileSource(str(path))))
        else:
            raise DatasetError(f"{shown}: no such folder or file")
    return tuple(samples)


# ---------------------------------------------------------------------------------------------------------
# Folders and zips
# ---------------------------------------------------------------------------------------------------------


def _from_zip(name: str, path: Path, *, split_by_folder: bool) -> Dataset:
    listing = list_zip(path)
    for table_name, source in listing.files:
        if "/" not in table_name and table_name.lower().endswith(TABLE_SUFFIXES):
            try:
                content = source.read()
            except ImageError as error:
                raise DatasetError(f"{printable(path)}: {table_name} {error}") from error
            table = _read_table(bytes(content), table_name)
            if {"path", "label"} <= table.columns.keys():
                where = path / table_name
                return _from_table(name, table, _ListedFiles(dict(listing.files)), where=where)
    return _from_folders(name, listing, where=printable(path), split_by_folder=split_by_folder)


def _from_folders(name: str, listing: Listing, *, where: str, split_by_folder: bool) -> Dataset:
    tops = [folder for folder in listing.folders if "/" not in folder]
    by_split = split_by_folder and are_splits(tops)
    rows: list[tuple[str, str, str | None, Source]] = []
    skipped: list[Skipped] = []
    loose = 0
    for path, source in listing.files:
        parts = path.split("/", 2 if by_split else 1)
        split = _SPLIT_NAMES.get(parts[0].lower()) if by_split and len(parts) > 1 else None
        reason = why_not_an_image(path, source)
        if reason is None and by_split and len(parts) > 1 and split is None:
            reason = f"{printable(parts[0])}/ lies beside train/ and is no split"
        if reason is None and len(parts) < (3 if by_split else 2):
            reason = "lies in no class folder, so it has no label"
            loose += 1
        if reason is None:
            rows.append((path, parts[-2], split, source))
        else:
            skipped.append(Skipped(printable(path), reason))
    if not rows and loose:
        raise DatasetError(
            f"{where}: {loose} images but no class folders; put each class into a folder of its own"
        )
    classes = _class_folders(listing.folders, by_split=by_split)
    _refuse_empty_classes(where, classes, {label for _, label, _, _ in rows}, skipped)
    return _build(name, rows, skipped)


def are_splits(tops: Sequence[str]) -> bool:
    """Whether folders of these names are splits with classes inside, and not classes themselves.

    `train` is also a vehicle: it takes another split beside it, or nothing else, to make it a split.
    """
    sides = [_SPLIT_NAMES.get(top.lower()) for top in tops]
    return "train" in sides and (None not in sides or "validation" in sides or "test" in sides)


def _class_folders(folders: Sequence[str], *, by_split: bool) -> list[str]:
    if not by_split:
        return [folder for folder in folders if "/" not in folder]
    pairs = [folder.split("/") for folder in folders if folder.count("/") == 1]
    return [pair[1] for pair in pairs if pair[0].lower() in _SPLIT_NAMES]


def _refuse_empty_classes(where: str, classes: list[str], used: set[str], skipped: list[Skipped]) -> None:
    if not used:
        others = f" ({len(skipped)} other files)" if skipped else ""
        raise DatasetError(f"{where}: no images{others}; expected a folder with one folder per class")
    empty = sorted(set(classes) - used)
    if empty:
        shown = ", ".join(printable(folder) for folder in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        raise DatasetError(
            f"{where}: no images in class folder {shown}{more}; add images or remove the folder"
        )


# ---------------------------------------------------------------------------------------------------------
# Tables
# ---------------------------------------------------------------------------------------------------------


_COLUMNS = ("path", "label", "split")


@dataclass(frozen=True)
class _Table:
    columns: dict[str, list[str]]  # by lower-case name
    rows: list[int]  # the number by which the user finds each row


class _Files(Protocol):
    def find(self, path: str) -> Source | None: ...


@dataclass(frozen=True)
class _FolderFiles:
    root: Path

    def find(self, path: str) -> Source | None:
        full = os.path.join(self.root, path)
        return FileSource(full) if os.path.isfile(full) else None


@dataclass(frozen=True)
class _ListedFiles:
    files: Mapping[str, Source]

    def find(self, path: str) -> Source | None:
        return self.files.get(posixpath.normpath(path.replace("\\", "/")))


def _read_table(data: bytes, name: str) -> _Table:
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
    return _Table(columns, rows)


def _read_parquet(data: bytes, name: str) -> _Table:
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
    return _Table(columns, list(range(1, table.num_rows + 1)))


def _from_table(name: str, table: _Table, files: _Files, *, where: Path) -> Dataset:
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
        if side and side.lower() not in _SPLIT_NAMES:
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
        rows.append((path, label, _SPLIT_NAMES.get(side.lower()), source))
    if not rows:
        raise DatasetError(f"{shown}: no rows below its header")
    return _build(name, rows, skipped)


def _refuse_contradiction(
    at: str, path: str, earlier: tuple[int, str, str], now: tuple[int, str, str]
) -> None:
    for what, before, after in zip(("label", "split"), earlier[1:], now[1:], strict=True):
        if before != after:
            raise DatasetError(
                f"{at}: {printable(path)} has {what} {printable(after)!r} here and {printable(before)!r} "
                f"in row {earlier[0]}; keep one of them"
            )


# ---------------------------------------------------------------------------------------------------------
# Arrays
# ---------------------------------------------------------------------------------------------------------


def _from_arrays(images: Any, labels: Any) -> Dataset:
    """A data set of arrays; the range of floats is not guessed, so they are refused."""
    if not hasattr(images, "__len__"):
        raise DatasetError(f"X: expected an array or a list of images, got {type(images).__name__}")
    if not isinstance(images, np.ndarray):
        images = [np.asarray(image) for image in images]
    for array in [images] if isinstance(images, np.ndarray) else images:
        if array.dtype != np.uint8:
            way_out = "for values from 0 to 1, pass (X * 255).round().astype('uint8')"
            if array.dtype.kind in "iu":
                way_out = "pass X.astype('uint8')"
            raise DatasetError(f"X: expected uint8 from 0 to 255, got {array.dtype}; {way_out}")
    if isinstance(images, np.ndarray) and not (
        images.ndim == 3 or (images.ndim == 4 and images.shape[3] in (1, 3, 4))
    ):
        raise DatasetError(f"X: expected the shape [N, H, W] or [N, H, W, 1|3|4], got {list(images.shape)}")
    targets = np.asarray(labels).ravel()
    if len(targets) != len(images):
        raise DatasetError(
            f"y: expected one label per image, got {len(targets)} labels for {len(images)} images"
        )
    if len(targets) == 0:
        raise DatasetError("X: no images")
    missing = [index for index, target in enumerate(targets) if target is None or target != target]  # NaN
    if missing:
        raise DatasetError(
            f"y: {len(missing)} labels are missing, the first at {missing[0]}; leave those out"
        )
    try:
        values, codes = np.unique(targets, return_inverse=True)  # sorts numbers as numbers
    except TypeError as error:
        raise DatasetError(f"y: labels are of several kinds ({error}); make all of them text") from error
    samples = tuple(
        Sample(f"image {index}", int(code), None, ArraySource(image))
        for index, (code, image) in enumerate(zip(codes.ravel(), images, strict=True))
    )
    return Dataset("arrays", tuple(str(value) for value in values), samples)


# ---------------------------------------------------------------------------------------------------------
# Building
# ---------------------------------------------------------------------------------------------------------


def _build(name: str, rows: list[tuple[str, str, str | None, Source]], skipped: list[Skipped]) -> Dataset:
    classes = sorted({label for _, label, _, _ in rows})
    index = {label: number for number, label in enumerate(classes)}
    samples = tuple(
        Sample(printable(path), index[label], split, source) for path, label, split, source in rows
    )
    return Dataset(name, tuple(map(printable, classes)), samples, tuple(skipped))


def _refuse_untrainable(dataset: Dataset, *, where: str) -> None:
    if len(dataset.classes) < 2:
        raise DatasetError(f"{where}: only one class ({dataset.classes[0]}); a classifier needs two or more")
    sides: list[set[str | None]] = [set() for _ in dataset.classes]
    for sample in dataset.samples:
        sides[sample.label].add(sample.split)
    for name, found in zip(dataset.classes, sides, strict=True):
        if not found & {"train", None}:
            held_out = " and ".join(str(side) for side in SPLITS if side in found)
            raise DatasetError(
                f"{where}: class {name} is in {held_out} but not in training; add it or remove it there"
            )


# ---------------------------------------------------------------------------------------------------------
# Splits
# ---------------------------------------------------------------------------------------------------------


def assign_splits(
    dataset: Dataset,
    hashes: Sequence[bytes | None],
    groups: Sequence[Sequence[int]],
    *,
    validation: float = 0.15,
    test: float = 0.15,
) -> tuple[str | None, ...]:
    """Every sample's side; None where its hash is None (it could not be read).

    An image's own side is a pure function of its content: the hash, read as a number from 0 to 1, is below
    `test`, below `test + validation`, or above both. So each class is split in these shares in expectation,
    and adding or removing other images changes nothing. A group of near-duplicates goes whole to the most
    held-out side of any of its members (test before validation before train): adding an image can move
    another one only away from training, and only if the two are in one group. A class of so few images that
    all would be held out keeps the one nearest to training, until it has grown, rather than fail.

    Splits that the data set gives win. Where it gives some but no validation, that is carved out of its
    training images by the same rule, and its test images stay as they are.

    Args:
        dataset: The labelled images.
        hashes: `content_hash` of each sample, or None.
        groups: Disjoint lists of indices into the samples.
        validation: Share of the images, from 0 to less than 1.
        test: Likewise; both together stay below 1.

    Raises:
        OptionError: The shares leave nothing to train on.
        DatasetError: A class is left without any training image.
    """
    check_shares(validation=validation, test=test)
    given = [sample.split for sample in dataset.samples]
    carve = any(given) and "validation" not in given
    sides: list[str | None] = []
    for split, digest in zip(given, hashes, strict=True):
        if digest is None:
            sides.append(None)
        elif split is None:
            sides.append(_own_side(digest, validation=validation, test=test))
        elif split == "train" and carve:
            sides.append(_own_side(digest, validation=validation, test=0.0))
        else:
            sides.append(split)
    _keep_groups_together(sides, given, groups, carve=carve)
    _train_every_class(dataset, sides, hashes, groups)
    _refuse_untrained_classes(dataset, sides)
    return tuple(sides)


def check_shares(*, validation: float, test: float) -> None:
    """Refuse shares that leave nothing to train on, before any image is looked at.

    Raises:
        OptionError: One is not from 0 to less than 1, or both together reach 1.
    """
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise OptionError(
            f"splits: validation and test must be 0 or more and together below 1, got {validation} and {test}"
        )


def _own_side(digest: bytes, *, validation: float, test: float) -> str:
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def _keep_groups_together(
    sides: list[str | None], given: Sequence[str | None], groups: Sequence[Sequence[int]], *, carve: bool
) -> None:
    """Move each group's free members to its most held-out side; images of given sides stay there."""
    for group in groups:
        present = {sides[index] for index in group}
        if len(present - {None}) < 2:
            continue
        side = "test" if "test" in present else "validation"
        for index in group:
            if sides[index] is not None and given[index] is None:
                sides[index] = side
            elif sides[index] is not None and given[index] == "train" and carve and "validation" in present:
                sides[index] = "validation"


def _train_every_class(
    dataset: Dataset,
    sides: list[str | None],
    hashes: Sequence[bytes | None],
    groups: Sequence[Sequence[int]],
) -> None:
    """Give each class without a training image one of its own, with that one's near-duplicates."""
    trained = {sample.label for sample, side in zip(dataset.samples, sides, strict=True) if side == "train"}
    if len(trained) == len(dataset.classes):
        return
    together = {index: group for group in groups for index in group}
    nearest = sorted(range(len(sides)), key=lambda index: hashes[index] or b"", reverse=True)
    for index in nearest:
        label, moving = dataset.samples[index].label, together.get(index, [index])
        given = {dataset.samples[member].split for member in moving}
        if label in trained or sides[index] is None or not given <= {"train", None}:
            continue
        for member in moving:
            if sides[member] is not None:
                sides[member] = "train"
                trained.add(dataset.samples[member].label)


def _refuse_untrained_classes(dataset: Dataset, sides: Sequence[str | None]) -> None:
    trained = {sample.label for sample, side in zip(dataset.samples, sides, strict=True) if side == "train"}
    for label, name in enumerate(dataset.classes):
        if label not in trained:
            held = sum(
                sample.label == label and side is not None
                for sample, side in zip(dataset.samples, sides, strict=True)
            )
            raise DatasetError(
                f"{dataset.name}: class {name} has no training image (readable: {held}, all held out); "
                "add images, or give the splits yourself with train/ and val/ folders"
            )
