"""Checks: what is wrong with the data, before anything is trained on it.

`inspect` looks at every image once, `report` turns what was seen into findings, each with the files behind
it. `fit` gathers the same facts while it extracts features and calls `report` alone.
"""

from __future__ import annotations

import os
import statistics
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from headstart.data.appearance import Appearance, alike_names, appearance, shows_nothing
from headstart.data.dataset import SPLITS, Dataset, Sample, Skipped, content_hash, read_dataset
from headstart.data.dataset.labels import DOUBTFUL_WORDS
from headstart.data.images import ImageFacts, decode
from headstart.data.sources import reads
from headstart.data.splits import (
    by_size,
    check_near_duplicates,
    duplicate_groups,
    exact_groups,
    large_groups_in_words,
)
from headstart.errors import ImageError
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL

IMBALANCE_WORTH_SAYING = 5.0
"""Largest class over smallest; below, class weights or nothing at all do."""

SMALL_AGAINST_THE_OTHERS = 0.25
"""Of the median shorter side: such an image is a thumbnail among photographs."""

EXTREME_ASPECT = 4.0
"""Longer over shorter side, where the data set's median is below half of it: the centre crop loses most."""

SMALL_CLASS = 3
"""Images of a class of which, once some are held out, hardly one is left to learn from or to judge by."""

INSPECTION_SIDE = 146
"""Pixels of the shorter side that are decoded at least. The hash needs half of that, but then JPEGs come at a
coarser scale and near-duplicates at the limit are missed; this is what the default backbone has decoded."""

_FILES_A_LINE = 6

_CLASSES_SHOWN = 12

_IMAGES_PER_TASK = 16


@dataclass(frozen=True, slots=True)
class File:
    """One image of a finding."""

    name: str
    label: str
    split: str | None


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Images with the same content, or nearly."""

    files: tuple[File, ...]
    exact: bool  # all of them byte for byte

    @property
    def labels(self) -> tuple[str, ...]:
        """The different labels, sorted."""
        return tuple(sorted({file.label for file in self.files}))

    @property
    def splits(self) -> tuple[str, ...]:
        """The different sides, from train to test."""
        present = {file.split for file in self.files}
        return tuple(side for side in SPLITS if side in present)


@dataclass(frozen=True, slots=True)
class OddSize:
    """An image whose size is unlike the others'."""

    name: str
    width: int  # pixels
    height: int
    reason: str


@dataclass(frozen=True, slots=True)
class PlainImage:
    """An image that shows next to nothing."""

    name: str
    label: str
    reason: str  # black, white, nearly empty, blurred


@dataclass(frozen=True)
class DataReport:
    """What was found in a data set; every finding names its files."""

    name: str
    images: int  # readable ones
    classes: dict[str, dict[str, int]]  # per class: images on each side ("unassigned" where there is none)
    skipped: tuple[Skipped, ...]  # files and rows of a table
    exact_duplicates: tuple[DuplicateGroup, ...]
    near_duplicates: tuple[DuplicateGroup, ...]
    odd_sizes: tuple[OddSize, ...]
    plain: tuple[PlainImage, ...] = ()  # of what `inspect` decoded; a fit has not looked
    notes: tuple[str, ...] = ()  # what was guessed while reading, what groups did to the split
    task: str = SINGLE_LABEL
    sides: Mapping[str, int] = field(default_factory=dict)  # readable images on each

    @property
    def contradictions(self) -> tuple[DuplicateGroup, ...]:
        """Exact duplicates under two and more labels: at least one of the labels is wrong."""
        return tuple(group for group in self.exact_duplicates if len(group.labels) > 1)

    @property
    def leaks(self) -> tuple[DuplicateGroup, ...]:
        """Duplicates, exact or near, on both sides of a split: they flatter the held-out score."""
        return tuple(
            group for group in (*self.exact_duplicates, *self.near_duplicates) if len(group.splits) > 1
        )

    @property
    def alike_names(self) -> tuple[tuple[str, ...], ...]:
        """Names of classes that may be meant as one: they differ in case, signs or a letter."""
        return alike_names(list(self.classes))

    @property
    def small_classes(self) -> dict[str, int]:
        """Classes of two or three images, with how many, where others have more."""
        counts = {name: sum(sides.values()) for name, sides in self.classes.items()}
        if max(counts.values(), default=0) <= SMALL_CLASS:
            return {}
        return {name: count for name, count in counts.items() if 2 <= count <= SMALL_CLASS}

    @property
    def left_out(self) -> tuple[Skipped, ...]:
        """What somebody may miss."""
        return tuple(item for item in self.skipped if not item.litter)

    @property
    def passed_over(self) -> tuple[Skipped, ...]:
        """What nobody misses: hidden, of the system, or written by Headstart."""
        return tuple(item for item in self.skipped if item.litter)

    @property
    def imbalance(self) -> float:
        """Images of the largest class over those of the smallest; infinite where one has none."""
        counts = [sum(sides.values()) for sides in self.classes.values()]
        return max(counts) / min(counts) if min(counts, default=0) else float("inf")

    def to_dict(self) -> dict[str, Any]:
        """Everything, as JSON-ready values; no list is cut short."""
        return {
            "name": self.name,
            "images": self.images,
            "classes": {name: dict(sides) for name, sides in self.classes.items()},
            "skipped": [item.to_dict() for item in self.skipped],
            "notes": list(self.notes),
            "contradictions": [asdict(group) for group in self.contradictions],
            "leaks": [asdict(group) for group in self.leaks],
            "exact_duplicates": [asdict(group) for group in self.exact_duplicates],
            "near_duplicates": [asdict(group) for group in self.near_duplicates],
            "imbalance": self.imbalance if np.isfinite(self.imbalance) else None,
            "odd_sizes": [asdict(item) for item in self.odd_sizes],
            "plain": [asdict(item) for item in self.plain],
            "alike_names": [list(names) for names in self.alike_names],
            "small_classes": self.small_classes,
        }

    def headline(self) -> list[str]:
        """What there is; what was guessed, a line each; and what matters most about it."""
        one, more = ("label", "labels") if self.task == MULTI_LABEL else ("class", "classes")
        kinds = f"{len(self.classes)} {one if len(self.classes) == 1 else more}"
        what = f"{'with' if self.task == MULTI_LABEL else 'in'} {kinds}"
        what = "with a number each" if self.task == REGRESSION else what
        first = f"{self.images:,} images {what}{self._sides()}"
        if self.task != SINGLE_LABEL:
            first = f"{self.task}: {first}"
        if self.left_out:
            first += f"; {_files(self.left_out)} left out"
        if self.passed_over:
            first += f"; {_files(self.passed_over)} passed over (hidden, the system's or our own)"
        problems = [text for text, _ in self._problems()]
        return [first, *self.notes, *(["found: " + "; ".join(problems[:4])] if problems else [])]

    def text(self, *, most: int = 5) -> str:
        """The report in plain words; each finding shows at most so many of its entries."""
        lines = self.headline()[: len(self.notes) + 1]
        if self.task != REGRESSION:
            lines.append(images_of_each(self.classes))
        findings = [*self._problems()]
        nothing = not findings and not self.left_out
        if self.left_out:
            findings.insert(0, (f"{_files(self.left_out)} left out", [_why(item) for item in self.left_out]))
        if self.passed_over:
            shown = [_why(item) for item in self.passed_over]
            findings.append((f"{_files(self.passed_over)} passed over", shown))
        told: set[str] = set()  # a leak is also a copy; once is enough
        for title, entries in findings:
            new = [entry for entry in entries if entry not in told]
            told.update(entries)
            lines.append(f"- {title}" + (" (listed above)" if entries and not new else ""))
            lines += [f"    {entry}" for entry in new[:most]]
            if len(new) > most:
                lines.append(f"    and {len(new) - most:,} more (--json lists all)")
        if nothing:
            lines.append("nothing wrong was found")
        return "\n".join(lines)

    def _sides(self) -> str:
        totals = ((side, self.sides.get(side, 0)) for side in SPLITS)
        shown = ", ".join(f"{total:,} {side}" for side, total in totals if total)
        return f" ({shown})" if shown else ""

    def _problems(self) -> Iterator[tuple[str, list[str]]]:
        """Findings in the order of how much they spoil, each with the lines behind it."""
        if groups := self.contradictions:
            yield f"{_count(len(groups), 'image')} under more than one label", list(map(_line, groups))
        if doubtful := [name for name in self.classes if name in DOUBTFUL_WORDS]:
            yield f"a class is called {' and '.join(doubtful)}; is its label missing?", []
        lonely = [name for name, sides in self.classes.items() if sum(sides.values()) == 1]
        if len(lonely) > 1:
            yield f"{len(lonely):,} of {len(self.classes):,} classes have one image", lonely
        if small := self.small_classes:
            shown = [f"{name}: {count} images" for name, count in small.items()]
            yield f"{_count(len(small), 'class', 'classes')} of {SMALL_CLASS} images or fewer", shown
        if alike := self.alike_names:
            shown = [" and ".join(names) for names in alike]
            yield f"{_count(len(alike), 'group')} of class names that are nearly the same", shown
        if plain := self.plain:
            shown = [f"{item.name}: {item.reason}" for item in plain]
            yield (
                f"{_count(len(plain), 'image')} that {'show' if len(plain) > 1 else 'shows'} next to nothing",
                shown,
            )
        if groups := self.leaks:
            yield f"{_count(len(groups), 'image')} on both sides of a split", list(map(_line, groups))
        if groups := self.exact_duplicates:
            copies = sum(len(group.files) - 1 for group in groups)
            yield f"{_count(copies, 'exact copy', 'exact copies')}", list(map(_line, groups))
        if groups := self.near_duplicates:
            yield f"{_count(len(groups), 'group')} of near-duplicates", list(map(_line, groups))
        if self.imbalance >= IMBALANCE_WORTH_SAYING:
            counts = {name: sum(sides.values()) for name, sides in self.classes.items()}
            least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
            yield f"classes are uneven: {counts[most]:,} of {most}, {counts[least]:,} of {least}", []
        if odd := self.odd_sizes:
            shown = [f"{item.name}: {item.width} x {item.height}, {item.reason}" for item in odd]
            yield f"{_count(len(odd), 'image')} of odd size", shown


def images_of_each(classes: Mapping[str, Mapping[str, int]]) -> str:
    """The classes with their images on one line, all of up to 12, else the first ones and a count."""
    shown = [f"{name} {sum(sides.values()):,}" for name, sides in classes.items()]
    more = f" … and {len(shown) - _CLASSES_SHOWN:,} more classes" if len(shown) > _CLASSES_SHOWN else ""
    return f"classes: {', '.join(shown[:_CLASSES_SHOWN])}{more}"


def _count(number: int, one: str, many: str | None = None) -> str:
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def _files(skipped: Iterable[Skipped]) -> str:
    return _count(sum(item.files for item in skipped), "file")


def _why(item: Skipped) -> str:
    return f"{item.name}: {item.reason}" + (f" ({item.files:,} files)" if item.files > 1 else "")


def _line(group: DuplicateGroup) -> str:
    """The group's files, or some of very many: one of each label and side comes first."""
    files = list(group.files)
    if len(files) > _FILES_A_LINE:
        kinds = {(file.label, file.split): file for file in reversed(files)}
        firsts = [file for file in files if kinds[file.label, file.split] is file]
        files = [*firsts, *(file for file in files if file not in firsts)]
    more = len(files) - _FILES_A_LINE
    line = " = ".join(_described(file, group) for file in files[:_FILES_A_LINE])
    return f"{line} and {more:,} more" if more > 0 else line


def _described(file: File, group: DuplicateGroup) -> str:
    differs = [file.label] if len(group.labels) > 1 else []
    if len(group.splits) > 1 and file.split:
        differs.append(file.split)
    return f"{file.name} ({', '.join(differs)})" if differs else file.name


def report(
    dataset: Dataset,
    hashes: Sequence[bytes | None],
    facts: Sequence[ImageFacts | None],
    splits: Sequence[str | None],
    skipped: Sequence[Skipped],
    groups: Sequence[Sequence[int]] | None = None,
    *,
    looks: Sequence[str | None] = (),
    notes: Sequence[str] = (),
) -> DataReport:
    """Turn what was seen of a data set's images into findings.

    Args:
        dataset: The labelled images.
        hashes: Each sample's `content_hash`; None where it could not be read or decoded.
        facts: Each sample's facts, or None likewise.
        splits: Each sample's side, or None where there is none.
        skipped: Every file that was left out, while listing and while decoding.
        groups: What `duplicate_groups` said, where the caller has asked it already.
        looks: Why each sample shows next to nothing, where that was looked at, see `shows_nothing`.
        notes: What the groups did to the split.
    """
    if groups is None:
        groups = duplicate_groups(hashes, facts)
    readable = [index for index, digest in enumerate(hashes) if digest is not None]
    classes: dict[str, dict[str, int]] = {name: {} for name in dataset.classes}
    for index in readable:
        side = splits[index] or "unassigned"
        for label in dataset.classes_of(dataset.samples[index]):
            sides = classes[dataset.classes[label]]
            sides[side] = sides.get(side, 0) + 1

    def group(indices: Iterable[int], *, exact: bool) -> DuplicateGroup:
        found = [(dataset.samples[index], splits[index]) for index in indices]
        return DuplicateGroup(
            tuple(File(each.name, dataset.label_of(each), side) for each, side in found), exact
        )

    return DataReport(
        name=dataset.name,
        images=len(readable),
        classes=classes,
        skipped=tuple(skipped),
        exact_duplicates=tuple(group(each, exact=True) for each in exact_groups(hashes)),
        near_duplicates=tuple(
            group(each, exact=False) for each in groups if len({hashes[index] for index in each} - {None}) > 1
        ),
        odd_sizes=_odd_sizes(dataset.samples, facts),
        plain=tuple(
            PlainImage(each.name, dataset.label_of(each), why)
            for each, why in zip(dataset.samples, looks, strict=False)
            if why is not None
        ),
        notes=(*dataset.notes, *notes),
        task=dataset.task,
        sides=Counter(found for index in readable if (found := splits[index])),
    )


def _odd_sizes(samples: Sequence[Sample], facts: Sequence[ImageFacts | None]) -> tuple[OddSize, ...]:
    known = [(sample, fact) for sample, fact in zip(samples, facts, strict=True) if fact is not None]
    if not known:
        return ()
    usual_side = statistics.median(min(fact.width, fact.height) for _, fact in known)
    usual_aspect = statistics.median(_aspect(fact) for _, fact in known)
    odd = []
    for sample, fact in known:
        side, aspect = min(fact.width, fact.height), _aspect(fact)
        if side < SMALL_AGAINST_THE_OTHERS * usual_side:
            reason = f"the others have about {usual_side:.0f} pixels on the shorter side"
        elif aspect > EXTREME_ASPECT and aspect > 2 * usual_aspect:
            reason = f"sides of {aspect:.1f} to 1; the centre crop keeps only its middle"
        else:
            continue
        odd.append(OddSize(sample.name, fact.width, fact.height, reason))
    return tuple(odd)


def _aspect(fact: ImageFacts) -> float:
    return max(fact.width, fact.height) / min(fact.width, fact.height)


Progress = Callable[[str, int, int], None]
"""Called with (phase, done, total)."""

_Seen = tuple[bytes | None, ImageFacts | None, Skipped | None, Appearance | None]


def check(
    source: str | Path | tuple[Any, Any] | Dataset,
    *,
    near_duplicates: str = "group",
    groups: str | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> DataReport:
    """Read a data set, look at every image and report; leaks are sought between the splits it gives.

    Args:
        source: What `read_dataset` takes.
        near_duplicates: "group", or "ignore" to look for exact duplicates alone.
        groups: What a fit is to keep on one side, see `read_dataset`.
        workers: Threads; one per core where None.
        progress: Told now and then how far it is.

    Raises:
        DatasetError: The labelled images do not form a data set (see `read_dataset`).
        OptionError: An unknown word, or no such column.
    """
    check_near_duplicates(near_duplicates)
    dataset = read_dataset(source, groups=groups)
    hashes, facts, skipped, looks = inspect(dataset, workers=workers, progress=progress)
    splits = [
        sample.split if digest is not None else None
        for sample, digest in zip(dataset.samples, hashes, strict=True)
    ]
    found = duplicate_groups(hashes, facts) if near_duplicates == "group" else exact_groups(hashes)
    large = by_size(dataset, hashes, found)[1] if groups is None else []
    notes = large_groups_in_words(dataset, large)
    return report(
        dataset, hashes, facts, splits, (*dataset.skipped, *skipped), found, looks=looks, notes=notes
    )


def inspect(
    dataset: Dataset, *, workers: int | None = None, progress: Progress | None = None
) -> tuple[list[bytes | None], list[ImageFacts | None], tuple[Skipped, ...], list[str | None]]:
    """Decode every image, with threads.

    Args:
        dataset: The labelled images.
        workers: Threads; one per core where None.
        progress: Told now and then how far it is.

    Returns:
        Content hashes and facts in the samples' order (None where a file is no usable image), those files
        with the reasons, and why each image shows next to nothing, where it does.
    """
    total = len(dataset.samples)
    tasks = [dataset.samples[start : start + _IMAGES_PER_TASK] for start in range(0, total, _IMAGES_PER_TASK)]
    seen: list[_Seen] = []
    with ThreadPoolExecutor(workers or os.cpu_count() or 1, thread_name_prefix="inspect") as pool:
        try:
            for part in pool.map(_look_at, tasks):
                seen += part
                if progress is not None:
                    progress("checking", len(seen), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # else Ctrl-C would wait for the whole queue
            raise
    hashes, facts, reasons, looks = zip(*seen, strict=True) if seen else ((), (), (), ())
    skipped = tuple(reason for reason in reasons if reason is not None)
    return list(hashes), list(facts), skipped, shows_nothing(looks)


def _look_at(samples: Sequence[Sample]) -> list[_Seen]:
    seen: list[_Seen] = []
    for sample, read in zip(samples, reads([each.source for each in samples]), strict=True):
        try:
            data = read()
            decoded = decode(data, shortest_side=INSPECTION_SIDE)
            seen.append((content_hash(data), decoded.facts, None, appearance(decoded.pixels)))
        except ImageError as error:
            seen.append((None, None, Skipped(sample.name, str(error)), None))
    return seen
