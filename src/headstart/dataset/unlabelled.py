"""Images without labels, to predict: files, folders, archives."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from headstart.dataset.lookup import given
from headstart.dataset.values import Sample, Skipped
from headstart.errors import DatasetError, printable
from headstart.sources import (
    TABLE_SUFFIXES,
    FileSource,
    is_archive,
    list_archive,
    list_folder,
    why_not_an_image,
)


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
            found, beside = _below(path, shown.rstrip("/"))
            if not found:
                why = f"; {beside[0].name}: {beside[0].reason}" if beside else ""
                raise DatasetError(f"{shown}: no image in it{why}")
            samples += found
            skipped += beside
        elif path.name.lower().endswith(TABLE_SUFFIXES):
            raise DatasetError(f"{shown}: is a table; give the images, or their folder or archive")
        else:
            samples.append(Sample(shown, -1, None, FileSource(str(path))))
    return Unlabelled(tuple(samples), tuple(skipped))


def _below(path: Path, shown: str) -> tuple[list[Sample], list[Skipped]]:
    listing = list_folder(path) if path.is_dir() else list_archive(path)
    samples: list[Sample] = []
    skipped: list[Skipped] = []
    for name, source in listing.files:
        full = f"{shown}/{printable(name)}"
        reason = why_not_an_image(name, source)
        if reason is None:
            samples.append(Sample(full, -1, None, source))
        else:
            skipped.append(Skipped(full, reason))
    skipped += [
        Skipped(f"{shown}/{item.name}", item.reason, item.files, item.litter) for item in listing.left_out
    ]
    return samples, skipped
