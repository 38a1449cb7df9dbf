"""Lists labelled images: folders, zips, tables, arrays. No image is opened."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from headstart.dataset.building import build
from headstart.dataset.tables import FolderFiles, ListedFiles, from_table, read_table
from headstart.dataset.values import SPLIT_NAMES, SPLITS, Dataset, Sample, Skipped
from headstart.errors import DatasetError, ImageError
from headstart.sources import (
    TABLE_SUFFIXES,
    ArraySource,
    FileSource,
    Listing,
    Source,
    list_folder,
    list_zip,
    printable,
    why_not_an_image,
)


def read_dataset(
    source: str | Path | tuple[Any, Any] | Dataset, *, split_by_folder: bool = True, for_training: bool = True
) -> Dataset:
    """List labelled images; `headstart.dataset` says which layouts.

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
    return dataset if isinstance(source, tuple) else replace(dataset, origin=os.path.abspath(source))


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
        return from_table(
            name, read_table(path.read_bytes(), path.name), FolderFiles(path.parent), where=path
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


def _from_zip(name: str, path: Path, *, split_by_folder: bool) -> Dataset:
    listing = list_zip(path)
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
    return _from_folders(name, listing, where=printable(path), split_by_folder=split_by_folder)


def _from_folders(name: str, listing: Listing, *, where: str, split_by_folder: bool) -> Dataset:
    tops = [folder for folder in listing.folders if "/" not in folder]
    by_split = split_by_folder and are_splits(tops)
    rows: list[tuple[str, str, str | None, Source]] = []
    skipped: list[Skipped] = []
    loose = 0
    for path, source in listing.files:
        parts = path.split("/", 2 if by_split else 1)
        split = SPLIT_NAMES.get(parts[0].lower()) if by_split and len(parts) > 1 else None
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
    return build(name, rows, skipped)


def are_splits(tops: Sequence[str]) -> bool:
    """Whether folders of these names are splits with classes inside, and not classes themselves.

    `train` is also a vehicle: it takes another split beside it, or nothing else, to make it a split.
    """
    sides = [SPLIT_NAMES.get(top.lower()) for top in tops]
    return "train" in sides and (None not in sides or "validation" in sides or "test" in sides)


def _class_folders(folders: Sequence[str], *, by_split: bool) -> list[str]:
    if not by_split:
        return [folder for folder in folders if "/" not in folder]
    pairs = [folder.split("/") for folder in folders if folder.count("/") == 1]
    return [pair[1] for pair in pairs if pair[0].lower() in SPLIT_NAMES]


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
