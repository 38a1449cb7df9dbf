"""Which side of a split each image is on, and which images stay there together.

Near-duplicates do, or what a column of a table says belongs together.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from headstart.data.dataset import Dataset, content_hash
from headstart.data.duplicates import joined_groups, near_duplicate_groups
from headstart.data.images import NO_HASH, ImageFacts
from headstart.errors import DatasetError, OptionError

NEAR_DUPLICATES = ("group", "ignore")
"""What to do about them: keep each group on one side, or nothing."""

LARGE_GROUP = 0.1
"""Share of a class beyond which a group of near-duplicates is no repeated picture but the camera's own view:
kept together, it alone would decide the split."""

FEW_IMAGES = 5
"""Different pictures of a class that may stay together whatever share they are."""


@dataclass(frozen=True)
class Split:
    """The sides of a data set's images, and how they came about."""

    sides: tuple[str | None, ...]  # each sample's, None where it could not be read
    groups: tuple[Sequence[int], ...]
    """Duplicates, exact and near, that were found, whether or not they stay together."""
    together: tuple[Sequence[int], ...]  # what stays on one side, disjoint
    notes: tuple[str, ...]  # what the groups did to the split, one sentence each


def check_near_duplicates(value: str) -> None:
    """Refuse a word that is none of `NEAR_DUPLICATES`, with an OptionError."""
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

    Where samples carry groups of their own (`read_dataset(..., groups=…)`), those alone decide.

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
    assign = partial(assign_splits, dataset, hashes, validation=validation, test=test)
    alone = assign(exact)
    if any(sample.group for sample in dataset.samples):
        said = _said_of_columns(dataset, alone, validation=validation, test=test)
        return Split(alone, tuple(found), tuple(_named_groups(dataset)), said)
    kept, large = by_size(dataset, hashes, found)
    sides = assign([*exact, *kept]) if kept else alone
    notes = large_groups_in_words(dataset, large)
    if moved := sum(now != before for now, before in zip(sides, alone, strict=True)):
        images = f"{moved:,} images were" if moved > 1 else "1 image was"
        notes = (f"near-duplicates stay on one side: {images} moved for that", *notes)
    return Split(sides, tuple(found), tuple(joined_groups(len(hashes), [*exact, *kept])), notes)


def by_size(
    dataset: Dataset, hashes: Sequence[bytes | None], groups: Sequence[Sequence[int]]
) -> tuple[list[Sequence[int]], list[Sequence[int]]]:
    """Groups to keep on one side, and those that are too much of a class for that."""
    pictures: dict[int, set[bytes]] = defaultdict(set)
    for sample, digest in zip(dataset.samples, hashes, strict=True):
        if digest is not None:
            for label in dataset.classes_of(sample):
                pictures[label].add(digest)
    sizes: tuple[list[Sequence[int]], list[Sequence[int]]] = ([], [])
    for group in groups:
        different = {
            (label, hashes[index]) for index in group for label in dataset.classes_of(dataset.samples[index])
        }
        counts = Counter(label for label, _ in different)
        most = {label: max(FEW_IMAGES, LARGE_GROUP * len(pictures[label])) for label in counts}
        sizes[any(counts[label] > most[label] for label in counts)].append(group)
    return sizes


def large_groups_in_words(dataset: Dataset, groups: Sequence[Sequence[int]]) -> tuple[str, ...]:
    """A sentence about groups that are left apart; none where there are none."""
    if not groups:
        return ()
    labels = sorted(
        {each for group in groups for i in group for each in dataset.classes_of(dataset.samples[i])}
    )
    names = ", ".join(dataset.classes[label] for label in labels[:3]) + (", …" if len(labels) > 3 else "")
    which = f"{len(groups):,} groups are" if len(groups) > 1 else "one group is"
    return (
        f"{sum(map(len, groups)):,} images look alike (one camera, one film?) and are not kept on one side, "
        f"because {which} more than a tenth of a class ({names}): accuracies may flatter; --groups (a "
        "column, or a pattern of names) keeps together what belongs together",
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
    return (f"{len(groups):,} groups stay on one side each{without}",)


def exact_groups(hashes: Sequence[bytes | None]) -> list[list[int]]:
    """Lists of two and more indices of equal contents."""
    first: dict[bytes, int] = {}
    groups: dict[int, list[int]] = {}  # of the few that come again: a list for each image would be memory
    for index, digest in enumerate(hashes):
        if digest is not None and (earlier := first.setdefault(digest, index)) != index:
            groups.setdefault(earlier, [earlier]).append(index)
    return [groups[earlier] for earlier in sorted(groups)]


def duplicate_groups(hashes: Sequence[bytes | None], facts: Sequence[ImageFacts | None]) -> list[list[int]]:
    """Disjoint groups of images with equal content or matching perceptual hashes.

    Args:
        hashes: Each sample's `content_hash`, or None.
        facts: Each sample's facts, or None.

    Returns:
        Lists of two and more ascending indices, ordered by their first.
    """
    perceptual = b"".join(
        NO_HASH if digest is None or fact is None else fact.perceptual_hash
        for digest, fact in zip(hashes, facts, strict=True)
    )
    near = near_duplicate_groups(np.frombuffer(perceptual, dtype=np.uint8).reshape(-1, len(NO_HASH)))
    return joined_groups(len(hashes), [*near, *exact_groups(hashes)])


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

    Samples that carry a group stay together instead: the side is a pure function of the group's name, so an
    image that is added moves no other. Where no group falls to a side that has a share, the one nearest to it
    is taken, as long as another two train.

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
    shares: dict[str | None, tuple[float, float]] = {None: (validation, test)}
    if carve:
        shares["train"] = (validation, 0.0)
    named = _named_groups(dataset)
    digests = by_group(dataset, hashes)
    sides = [
        None if digest is None else _own_side(digest, *shares[split]) if split in shares else split
        for split, digest in zip(given, digests, strict=True)
    ]
    _keep_groups_together(sides, given, named or groups, carve=carve)
    if not any(given):
        _hold_out_groups(sides, digests, named, shares={"test": test, "validation": validation})
    _train_every_class(dataset, sides, digests, named or groups)
    _refuse_untrained_classes(dataset, sides)
    return tuple(sides)


def check_shares(*, validation: float, test: float) -> None:
    """Refuse shares that leave nothing to train on, with an OptionError, before any image is looked at."""
    if not (0 <= validation < 1 and 0 <= test < 1 and validation + test < 1):
        raise OptionError(
            f"splits: validation and test must be 0 or more and together below 1, got {validation} and {test}"
        )


def _own_side(digest: bytes, validation: float, test: float) -> str:
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test:
        return "test"
    return "validation" if position < test + validation else "train"


def _named_groups(dataset: Dataset) -> list[list[int]]:
    """Indices of each group that the data set names, those of one image included."""
    members: dict[str, list[int]] = {}
    for index, sample in enumerate(dataset.samples):
        if sample.group:
            members.setdefault(sample.group, []).append(index)
    return list(members.values())


def by_group(dataset: Dataset, hashes: Sequence[bytes | None]) -> list[bytes | None]:
    """What decides each sample's side: its content, or its group's name."""
    return [
        digest if digest is None or not sample.group else content_hash(f"group {sample.group}".encode())
        for sample, digest in zip(dataset.samples, hashes, strict=True)
    ]


def _hold_out_groups(
    sides: list[str | None],
    digests: Sequence[bytes | None],
    named: Sequence[Sequence[int]],
    *,
    shares: Mapping[str, float],
) -> None:
    """Give a side that few groups have left empty the nearest one of a side that has several."""
    for side, share in shares.items():
        if not share or side in sides:
            continue
        on: dict[str, list[Sequence[int]]] = {}
        for group in named:
            for found in {sides[index] for index in group} - {None}:
                on.setdefault(str(found), []).append(group)
        several = max(on.values(), key=len, default=[])
        giving = on.get("train", []) if len(on.get("train", [])) > 1 else several
        if len(named) < 3 or len(giving) < 2:
            continue
        nearest = min(giving, key=lambda group: max(digests[index] or b"" for index in group))
        for index in nearest:
            if sides[index] is not None:
                sides[index] = side


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
    trained = _trained(dataset, sides)
    if len(trained) == len(dataset.classes):
        return
    together = {index: group for group in groups for index in group}
    nearest = sorted(range(len(sides)), key=lambda index: hashes[index] or b"", reverse=True)
    for index in nearest:
        labels, moving = dataset.classes_of(dataset.samples[index]), together.get(index, [index])
        given = {dataset.samples[member].split for member in moving}
        if trained.issuperset(labels) or sides[index] is None or not given <= {"train", None}:
            continue
        for member in moving:
            if sides[member] is not None:
                sides[member] = "train"
                trained.update(dataset.classes_of(dataset.samples[member]))


def _trained(dataset: Dataset, sides: Sequence[str | None]) -> set[int]:
    return {
        label
        for sample, side in zip(dataset.samples, sides, strict=True)
        if side == "train"
        for label in dataset.classes_of(sample)
    }


def _refuse_untrained_classes(dataset: Dataset, sides: Sequence[str | None]) -> None:
    trained = _trained(dataset, sides)
    for label, name in enumerate(dataset.classes):
        if label in trained:
            continue
        paired = zip(dataset.samples, sides, strict=True)
        own = [side for sample, side in paired if label in dataset.classes_of(sample)]
        if held := sum(side is not None for side in own):
            raise DatasetError(
                f"{dataset.name}: class {name} has no training image (readable: {held}, all held out); "
                "add images, or give the splits yourself with train/ and val/ folders"
            )
        images = "its only image cannot" if len(own) == 1 else f"none of its {len(own):,} images can"
        raise DatasetError(
            f"{dataset.name}: class {name}: {images} be read (headstart check says why); replace "
            "them or remove the class"
        )
