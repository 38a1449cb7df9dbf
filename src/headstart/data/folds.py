"""Which fold of a cross-validation each image is in."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from headstart.data.dataset import Dataset
from headstart.data.splits import by_group
from headstart.errors import DatasetError


def assign_folds(
    dataset: Dataset, hashes: Sequence[bytes | None], together: Sequence[Sequence[int]], *, folds: int
) -> tuple[int | None, ...]:
    """Every sample's fold, from 0; None where its hash is None (it could not be read).

    What belongs together is in one fold. First come the sets of several images, the largest first, then the
    single ones; each goes to the fold that has the fewest images of its classes so far, in shares of the
    class, and of equal ones to that with the fewest images. Sets of one size come in the order of their
    contents (or of their groups' names), so that the folds depend on what the images are and not on their
    order. It is what scikit-learn's `StratifiedGroupKFold` does, but for the random order.

    Args:
        dataset: the labelled images.
        hashes: `content_hash` of each sample, or None.
        together: disjoint lists of indices, see `Split.together`.
        folds: how many, 2 or more.

    Raises:
        DatasetError: there are fewer sets and single images than folds.
    """
    digests = by_group(dataset, hashes)
    grouped = {index for members in together for index in members}
    units = [[index for index in members if hashes[index] is not None] for members in together]
    units += [[index] for index, digest in enumerate(hashes) if digest is not None and index not in grouped]
    units = [unit for unit in units if unit]
    if len(units) < folds:
        what = "groups and images outside of them" if len(units) < len(hashes) else "images"
        raise DatasetError(f"{dataset.name}: {folds} folds of {len(units)} {what}; take fewer folds")
    units.sort(key=lambda unit: (-len(unit), max(digests[index] or b"" for index in unit)))
    labels = dataset.labels
    sizes = Counter(labels[[index for unit in units for index in unit]].tolist())
    filled = [dict.fromkeys(sizes, 0) for _ in range(folds)]
    totals = [0] * folds
    found: list[int | None] = [None] * len(hashes)
    for unit in units:
        counts = dict(sorted(Counter(labels[unit].tolist()).items()))  # sums must not depend on the order
        fullness = [sum(has[label] * n / sizes[label] for label, n in counts.items()) for has in filled]
        fold = min(range(folds), key=lambda each: (fullness[each], totals[each], each))
        for label, count in counts.items():
            filled[fold][label] += count
        totals[fold] += len(unit)
        for index in unit:
            found[index] = fold
    return tuple(found)
