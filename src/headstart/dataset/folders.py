"""Folders and zips with one folder for each class, and images to predict."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from headstart.dataset.building import build
from headstart.dataset.values import SPLIT_NAMES, Dataset, Sample, Skipped
from headstart.errors import DatasetError, printable
from headstart.sources import (
    FileSource,
    Listing,
    Source,
    list_folder,
    list_zip,
    why_not_an_image,
)


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


def from_folders(name: str, listing: Listing, *, where: str, split_by_folder: bool) -> Dataset:
    """The data set of a folder's or zip's class folders; `where` is shown in errors.

    Raises:
        DatasetError: One line: no images, or no class folders.
    """
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
    return build(name, rows, skipped, where=where)


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
