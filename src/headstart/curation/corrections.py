"""A label overlay: what somebody said about images, kept apart from them.

The file is a log of lines, each added by one write at its end, so that several processes may add to it and a
process that is killed leaves whole lines; a line that was cut short is passed over.
"""

import json
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from headstart.data.dataset import Dataset, Sample, Skipped, content_hash
from headstart.data.sources import FileSource, Source, source_at
from headstart.errors import ImageError, OptionError, printable
from headstart.files import MEBI, Mistyped, Unreadable, flush, make, parse_json, read_regular, record
from headstart.heads.tasks import only_single_label
from headstart.runs import timestamp

_LARGEST = 256 * MEBI
"""Bytes of all corrections of a data set: a million of them."""

_UNDO = b'{"undo": true}\n'


@dataclass(frozen=True)
class Correction:
    """One word on one image.

    Attributes:
        path: what the user calls the image: its path in the data set.
        content: its content hash, hex; this and not the path is what the correction holds on to.
        label: what it is; None to leave the image out.
        was: the label before, where there was one.
        created: UTC, ISO 8601.
        file: where an added image lies; None for images of the data set.
        member: of ``file``, where that is a zip.
    """

    path: str
    content: str
    label: str | None
    was: str | None
    created: str
    file: str | None = None
    member: str | None = None

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "Correction":
        """The inverse of `dataclasses.asdict`; unknown keys are left aside.

        Raises:
            Mistyped: a field is missing, or is not what it should be.
        """
        checked = _CORRECTION(data)
        return cls(**{each.name: checked.get(each.name) for each in fields(cls)})

    def source(self) -> Source | None:
        """Where the image can be read, if the correction says so."""
        return None if self.file is None else source_at(self.file, self.member)


_CORRECTION = record(get_type_hints(Correction), optional=("was", "file", "member"))


class Corrections:
    """The corrections of one data set, in a file of their own.

    Args:
        file: need not exist yet; its folder neither.
    """

    def __init__(self, file: Path) -> None:
        self.file = Path(file)

    def add(
        self, path: str | Path, label: str | None, *, content: str | None = None, was: str | None = None
    ) -> Correction:
        """Say what an image is.

        Args:
            path: the image's path in the data set, or of a file to add to it.
            label: what it is; None to leave it out.
            content: its content hash, hex, where it is known; else ``path`` must be a readable file.
            was: the label before.

        Raises:
            OptionError: there is neither a content hash nor a readable file, or the label is blank.
        """
        place = None
        if content is None:
            place = str(Path(path).absolute())
            try:
                content = content_hash(FileSource(place).read()).hex()
            except ImageError as error:
                raise OptionError(f"{path}: {error}; give an image file that can be read") from error
        correction = Correction(str(path), content, label, was, timestamp(), place)
        self.add_many([correction])
        return correction

    def add_many(self, corrections: Iterable[Correction]) -> None:
        """Add several at once, all of them or, if the process dies, none.

        Raises:
            OptionError: a label is blank, or the file cannot be written.
        """
        found = list(corrections)
        if any(each.label is not None and not each.label.strip() for each in found):
            raise OptionError("a label is blank; name a class, or None to leave the image out")
        self._append(b"".join(json.dumps(asdict(each)).encode() + b"\n" for each in found))

    def undo(self) -> Correction | None:
        """Take the last correction back; it, or None where there is none."""
        standing = self.list()
        if not standing:
            return None
        self._append(_UNDO)
        return standing[-1]

    def list(self) -> tuple[Correction, ...]:
        """What stands, in the order of adding."""
        standing: list[Correction] = []
        for entry in self._entries():
            if entry is not None:
                standing.append(entry)
            elif standing:
                standing.pop()
        return tuple(standing)

    def current(self) -> dict[str, Correction]:
        """The last word on each image, by its content hash."""
        return {correction.content: correction for correction in self.list()}

    def changes(self) -> dict[str, Correction]:
        """Those of `current` that say something else than the data; the others say that a label is right."""
        given: dict[str, str | None] = {}
        for each in self.list():  # a label put right may be confirmed later, as what it was then
            given[each.content] = given.get(each.content) or each.was
        return {
            content: each
            for content, each in self.current().items()
            if each.label is None or each.label != given[content]
        }

    def apply(self, dataset: Dataset) -> Dataset:
        """The data set with these labels, for a whole new fit.

        An image is found by its path and taken only if its content is still the same; if none is there, by
        its content. Images that were added come to the training side where the data set has sides. What a
        correction speaks of in vain is listed among the skipped.
        """
        left = dict(self.current())
        if not left:
            return dataset
        only_single_label(dataset.task, "correcting labels", instead="correct the table")
        matched = _matched(dataset, left)
        added = [(each, each.source()) for key, each in left.items() if key not in matched.values()]
        rows: list[tuple[Sample, str]] = []
        for index, sample in enumerate(dataset.samples):
            correction = left[matched[index]] if index in matched else None
            label = correction.label if correction else dataset.classes[sample.label]
            if label is not None:
                rows.append((sample, label))
        side = "train" if any(sample.split for sample in dataset.samples) else None
        lost = []
        for correction, source in added:
            if source is not None and correction.label is not None:
                rows.append((Sample(correction.path, -1, side, source), correction.label))
            elif source is None:
                lost.append(Skipped(correction.path, "a correction speaks of it, but it is not here"))
        classes = tuple(sorted({label for _, label in rows}))
        number = {label: index for index, label in enumerate(classes)}
        samples = tuple(replace(sample, label=number[label]) for sample, label in rows)
        return replace(
            dataset,
            classes=classes,
            samples=samples,
            skipped=(*dataset.skipped, *lost),
            corrections=str(self.file.absolute()),
        )

    def _entries(self) -> Iterator[Correction | None]:
        """Each line's correction; None where the one before is taken back."""
        try:
            lines = read_regular(self.file, limit=_LARGEST).splitlines()
        except Unreadable as error:
            if not self.file.is_symlink() and not self.file.exists():
                return
            raise OptionError(f"{printable(self.file)}: {error}; corrections cannot be read") from error
        for line in lines:
            try:
                entry = parse_json(line)
                if isinstance(entry, dict) and entry.get("undo"):
                    yield None
                elif isinstance(entry, dict) and entry.get("content"):
                    yield Correction.from_dict(entry)
            except (Unreadable, Mistyped):
                continue  # cut short by a crash, or not ours

    def _append(self, lines: bytes) -> None:
        try:
            make(self.file.parent)
            handle = os.open(self.file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
            try:
                size = os.fstat(handle).st_size
                torn = size > 0 and os.pread(handle, 1, size - 1) != b"\n"
                os.write(handle, b"\n" + lines if torn else lines)
                os.fsync(handle)
            finally:
                os.close(handle)
            if size == 0:
                flush(self.file.parent)
        except OSError as error:
            raise OptionError(f"{self.file}: {error.strerror}; corrections cannot be kept there") from error


def _matched(dataset: Dataset, corrections: dict[str, Correction]) -> dict[int, str]:
    """Which sample each correction speaks of: index of the sample to content hash.

    Only the files of the names that were corrected are read, unless one of them is no longer there.
    """
    names = {correction.path for correction in corrections.values()}
    named = [index for index, sample in enumerate(dataset.samples) if sample.name in names]
    found = {index: key for index in named if (key := content_of(dataset.samples[index])) in corrections}
    missing = [key for key, each in corrections.items() if key not in found.values() and each.file is None]
    if missing:
        for index, sample in enumerate(dataset.samples):
            if index not in found and (key := content_of(sample)) in corrections:
                found[index] = key
    return found


def content_of(sample: Sample) -> str:
    """An image's content hash, hex; empty where it cannot be read."""
    try:
        return content_hash(sample.source.read()).hex()
    except ImageError:
        return ""
