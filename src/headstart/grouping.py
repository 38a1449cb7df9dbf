"""Which images stay on one side of a split together: near-duplicates, or what a column of a table says."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from headstart.dataset import Dataset, assign_splits
from headstart.duplicates import near_duplicate_groups
from headstart.errors import OptionError
from headstart.images import NO_HASH, ImageFacts

NEAR_DUPLICATES = ("group", "ignore")
"""What to do about them: keep each group on one side, or nothing."""

LARGE_GROUP = 0.1
"""Share of a class beyond which a group of near-duplicates is no repeated picture but the camera's own view:
kept together, it alone would decide the split."""

FEW_IMAGES = 5
"""Different pictures of a class that may stay together whatever share they are."""


@dataclass(frozen=True)
class Split:
    """The sides of a data set's images, and how they came about.

    Attributes:
        sides: each sample's, None where it could not be read.
        groups: duplicates, exact and near, that were found, whether or not they stay together.
        notes: what the groups did to the split, one sentence each.
    """

    sides: tuple[str | None, ...]
    groups: tuple[Sequence[int], ...]
    notes: tuple[str, ...]


def check_near_duplicates(value: str) -> None:
    """Refuse a word that is none of `NEAR_DUPLICATES`.

    Raises:
        OptionError: it is not.
    """
    if value not in NEAR_DUPLICATES:
        raise OptionError(f"near_duplicates={value!r}: expected one of {', '.join(NEAR_DUPLICATES)}")


def split(
    dataset: Dataset,
    hashes: Sequence[bytes | None],
    facts: Sequence[ImageFacts | None],
    *,
    validation: float,
    test: float,
    near_duplicates: str = "group",
) -> Split:
    """Every sample's side, with what belongs together on one of them.

    Where samples carry groups of their own (`read_dataset(..., groups=COLUMN)`), those alone decide.

    Args:
        dataset: the labelled images.
        hashes: each sample's `content_hash`, or None.
        facts: each sample's facts, or None.
        validation: share of the images, where the data does not say.
        test: likewise.
        near_duplicates: "group" or "ignore".

    Raises:
        OptionError: shares that cannot be, or an unknown word.
        DatasetError: a class is left without a training image.
    """
    check_near_duplicates(near_duplicates)
    exact = exact_groups(hashes)
    found = duplicate_groups(hashes, facts) if near_duplicates == "group" else exact
    if any(sample.group for sample in dataset.samples):
        sides = assign_splits(dataset, hashes, exact, validation=validation, test=test)
        return Split(sides, tuple(found), _said_of_columns(dataset, sides, validation=validation, test=test))
    kept, large = _by_size(dataset, hashes, found)
    sides = assign_splits(dataset, hashes, [*exact, *kept], validation=validation, test=test)
    notes = large_groups_in_words(dataset, large)
    alone = assign_splits(dataset, hashes, exact, validation=validation, test=test) if kept else sides
    if moved := sum(now != before for now, before in zip(sides, alone, strict=True)):
        images = f"{moved:,} images were" if moved > 1 else "1 image was"
        notes = (f"near-duplicates stay on one side: {images} moved for that", *notes)
    return Split(sides, tuple(found), notes)


def large_groups(
    dataset: Dataset, hashes: Sequence[bytes | None], groups: Sequence[Sequence[int]]
) -> list[Sequence[int]]:
    """Those groups of near-duplicates that are too much of a class to be kept on one side."""
    return _by_size(dataset, hashes, groups)[1]


def _by_size(
    dataset: Dataset, hashes: Sequence[bytes | None], groups: Sequence[Sequence[int]]
) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Groups to keep on one side, and those that are too much of a class for that."""
    pictures: dict[int, set[bytes]] = defaultdict(set)
    for sample, digest in zip(dataset.samples, hashes, strict=True):
        if digest is not None:
            pictures[sample.label].add(digest)
    sizes: tuple[list[Sequence[int]], list[Sequence[int]]] = ([], [])
    for group in groups:
        different = {(dataset.samples[index].label, hashes[index]) for index in group}
        counts = Counter(label for label, _ in different)
        large = any(
            count > max(FEW_IMAGES, LARGE_GROUP * len(pictures[label])) for label, count in counts.items()
        )
        sizes[large].append(group)
    return sizes


def large_groups_in_words(dataset: Dataset, groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """A sentence about groups that are left apart; none where there are none."""
    if not groups:
        return ()
    labels = sorted({dataset.samples[index].label for group in groups for index in group})
    names = ", ".join(dataset.classes[label] for label in labels[:3]) + (", …" if len(labels) > 3 else "")
    which = f"{len(groups):,} groups are" if len(groups) > 1 else "one group is"
    return (
        f"{sum(map(len, groups)):,} images look alike (one camera, one film?) and are not kept on one side, "
        f"because {which} more than a tenth of a class ({names}): accuracies may flatter; --groups COLUMN "
        "(of a table) keeps together what a column says",
    )


def _said_of_columns(
    dataset: Dataset, sides: Sequence[str | None], *, validation: float, test: float
) -> tuple[str, ...]:
    """How many groups there are, and what they leave empty."""
    groups = {sample.group for sample in dataset.samples if sample.group}
    wanted = (("validation", validation), ("test", test))
    given = {sample.split for sample in dataset.samples} - {None}
    empty = [side for side, share in wanted if share > 0 and side not in sides and not given]
    without = f"; too few for any {' or '.join(empty)} image" if empty else ""
    return (f"{len(groups):,} groups of the table stay on one side each{without}",)


def exact_groups(hashes: Sequence[bytes | None]) -> list[list[int]]:
    """Lists of two and more indices of equal contents."""
    by_hash: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(hashes):
        if digest is not None:
            by_hash[digest].append(index)
    return [group for group in by_hash.values() if len(group) > 1]


def duplicate_groups(hashes: Sequence[bytes | None], facts: Sequence[ImageFacts | None]) -> list[list[int]]:
    """Disjoint groups of images with equal content or matching perceptual hashes.

    Args:
        hashes: Each sample's `content_hash`, or None.
        facts: Each sample's facts, or None.

    Returns:
        Lists of two and more ascending indices, ordered by their first.
    """
    unreadable = [digest is None or fact is None for digest, fact in zip(hashes, facts, strict=True)]
    perceptual = b"".join(
        NO_HASH if out or fact is None else fact.perceptual_hash
        for out, fact in zip(unreadable, facts, strict=True)
    )
    near = near_duplicate_groups(np.frombuffer(perceptual, dtype=np.uint8).reshape(-1, len(NO_HASH)))
    return _joined(len(hashes), (*near, *exact_groups(hashes)))


def _joined(count: int, groups: Iterable[Sequence[int]]) -> list[list[int]]:
    """Groups that share an image become one."""
    leaders = list(range(count))
    for group in groups:
        found = [_leader(leaders, index) for index in group]
        for index in found:
            leaders[index] = min(found)
    merged: dict[int, list[int]] = defaultdict(list)
    for index in range(count):
        merged[_leader(leaders, index)].append(index)
    return [group for group in merged.values() if len(group) > 1]


def _leader(leaders: list[int], index: int) -> int:
    while leaders[index] != index:
        leaders[index] = leaders[leaders[index]]
        index = leaders[index]
    return index
