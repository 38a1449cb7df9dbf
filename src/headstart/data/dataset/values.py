"""What a data set is made of: labelled samples, what was left out, the names of the splits."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from headstart.data.sources import FileSource, MemberSource, RemoteSource, Skipped, Source, is_address
from headstart.errors import printable
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

__all__ = ["SPLITS", "Dataset", "Sample", "Skipped", "content_hash", "describe", "place_of"]

SPLITS = ("train", "validation", "test")
"""In the order of being held out: a later one wins where near-duplicates pull in two directions."""


@dataclass(frozen=True, slots=True)
class Sample:
    """One labelled image."""

    name: str  # what the user sees: the path relative to the data set's root, always printable
    label: (
        int  # index into Dataset.classes; -1 where there is none, or the task has no one label: see `target`
    )
    split: str | None  # "train", "validation" or "test" where the data set says so
    source: Source
    place: int = field(default=-1, compare=False)  # of one that was moved: where it stood as it was read
    weight: float = 1.0  # in training, beside the others'
    group: str | None = None  # what a table's column says that it belongs to: all of it stays on one side
    target: tuple[int, ...] | float | None = (
        None  # multi-label: indices of its labels; regression: its number
    )


@dataclass(frozen=True)
class Dataset:
    """Labelled images; at least two classes, each with at least one image, or one number for each image."""

    name: str
    classes: tuple[str, ...]
    samples: tuple[Sample, ...]
    skipped: tuple[Skipped, ...] = ()  # files and rows left out while listing
    notes: tuple[str, ...] = ()  # what was guessed while reading: a table among several, columns, a code page
    origin: str | None = field(default=None, compare=False)  # path of the folder, table or zip that was read
    corrections: str | None = field(default=None, compare=False)  # path of the labels that lie over its own
    task: str = SINGLE_LABEL  # "multi-label": `Sample.target` has the labels; "regression": it has the number

    def __len__(self) -> int:
        return len(self.samples)

    def __repr__(self) -> str:
        return f"Dataset({self.name!r}: {len(self):,} images, {self._in_words()})"

    def _in_words(self) -> str:
        if self.task == REGRESSION:
            return "a number each"
        one, more = ("label", "labels") if self.task == MULTI_LABEL else ("class", "classes")
        what = one if len(self.classes) == 1 else more
        names = ", ".join(map(printable, self.classes[:5])) + (", …" if len(self.classes) > 5 else "")
        return f"{len(self.classes):,} {what} ({names})"

    @cached_property
    def labels(self) -> npt.NDArray[Any]:
        """Every sample's label, int64 [N]; multi-label: uint8 [N, C] of 0 and 1; regression: float64 [N]."""
        count = len(self.samples)
        if self.task == REGRESSION:
            return np.fromiter((sample.target for sample in self.samples), dtype=np.float64, count=count)
        if self.task == MULTI_LABEL:
            found = np.zeros((count, len(self.classes)), np.uint8)
            for row, sample in enumerate(self.samples):
                found[row, list(self.classes_of(sample))] = 1
            return found
        return np.fromiter((sample.label for sample in self.samples), dtype=np.int64, count=count)

    def classes_of(self, sample: Sample) -> tuple[int, ...]:
        """Indices of the classes that an image is of; of a number, of the only one."""
        if isinstance(sample.target, tuple):
            return sample.target
        return (0,) if self.task == REGRESSION else (sample.label,)

    def label_of(self, sample: Sample) -> str:
        """What the data says of an image: its class, its labels with bars between them, or its number."""
        if isinstance(sample.target, float):
            return f"{sample.target:.10g}"
        return "|".join(self.classes[label] for label in self.classes_of(sample))


def place_of(sample: Sample) -> dict[str, str]:
    """Where the image can be read again; nothing for arrays, which only the caller has."""
    source = sample.source
    if isinstance(source, FileSource):
        folder, name = os.path.split(source.path)
        return {"file": os.path.join(_absolute(folder, os.getcwd()), name)}
    if isinstance(source, RemoteSource):
        return {"file": source.address}
    if isinstance(source, MemberSource):
        file, member = source.place
        if not file:  # inside a table inside an archive
            return {}
        return {"file": file if is_address(file) else str(Path(file).absolute()), "member": member}
    return {}


@lru_cache(maxsize=64)
def _absolute(folder: str, _working_folder: str) -> str:
    return str(Path(folder).absolute())


def describe(sample: Sample, *, label: str, split: str | None, content: bytes | None) -> dict[str, Any]:
    """An image as the files of a run have it: name, label, side, hash (hex, empty if unreadable), place."""
    known = {"path": sample.name, "label": label, "split": split, "content": (content or b"").hex()}
    weight = {} if sample.weight == 1 else {"weight": sample.weight}
    group = {} if sample.group is None else {"group": sample.group}
    return {**known, **place_of(sample), **weight, **group}


def content_hash(data: bytes | npt.NDArray[Any]) -> bytes:
    """Sixteen bytes (BLAKE2b) that name an image by its content; arrays also by shape and dtype."""
    if isinstance(data, np.ndarray):
        digest = hashlib.blake2b(f"{data.dtype.str}{data.shape}".encode(), digest_size=16, person=b"array")
        digest.update(np.ascontiguousarray(data).data)
        return digest.digest()
    return hashlib.blake2b(data, digest_size=16).digest()
