"""Images without labels, to predict: files, folders, archives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart.data.dataset.lookup import given
from headstart.data.dataset.values import Sample, Skipped
from headstart.data.sources import (
    TABLE_SUFFIXES,
    FileSource,
    is_archive,
    list_archive,
    list_files,
)
from headstart.errors import DatasetError, printable


@dataclass(frozen=True)
class Unlabelled:
    """Images to predict (their labels are -1), and what lies beside them and is passed over."""

    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...]


def list_images(paths: Iterable[str | Path]) -> tuple[Sample, ...]:
    """Images to predict, as `list_unlabelled` finds them, whose errors it has too."""
    return list_unlabelled(paths).samples


def list_unlabelled(paths: Iterable[str | Path]) -> Unlabelled:
    """Images to predict: files as given, and all image files below folders and in archives.

    Raises:
        DatasetError: A path does not exist, or a folder has no image in it.
    """
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for path in map(given, paths):
        shown = printable(path)
        if path.is_dir() or is_archive(path):
            listing = list_files(path) if path.is_dir() else list_archive(path)
            found, beside = listing.images(below=f"{str(path).rstrip('/')}/")
            if not found:
                why = f"; {beside[0].name}: {beside[0].reason}" if beside else ""
                raise DatasetError(f"{shown}: no image in it{why}")
            samples += [Sample(printable(name), -1, None, source) for name, source in found]
            skipped += beside
        elif path.name.lower().endswith(TABLE_SUFFIXES):
            raise DatasetError(f"{shown}: is a table; give the images, or their folder or archive")
        else:
            source = FileSource(str(path)) if isinstance(path, Path) else path.source()
            samples.append(Sample(shown, -1, None, source))
    return Unlabelled(tuple(samples), tuple(skipped))
