"""Near-duplicates: which of very many perceptual hashes belong to one and the same picture.

Two hashes match where few of their 256 bits differ. How few depends on how much the pictures show: a hash of
bold shapes on an even ground has few independent bits, and half of a drawer of handwritten digits would match
at the distance that a recompressed photograph needs. So the distance shrinks with the `detail` of a hash.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

DISTANCE = 32
"""Bits of 256 that may differ between two pictures full of detail. Chosen on photographs of flowers, so
its figures are those of the data it was tuned on: of 334, a copy at half or a third of the size or at JPEG
quality 50 is found in 99 %, one cropped by 2 % a side in 35 %. Among 1,000 the only match is a group of
three; the next nearest pairs are about 60 bits apart."""

LEAST_DETAIL = 100
"""Neighbouring bits that differ, of 480, below which a hash says nothing. Of 1,000 photographs 99 % have more
than 120, half more than 190; scikit-learn's 8 x 8 digits, smoothly enlarged, have 73 to 102 in the median."""

FULL_DETAIL = 200
"""Neighbouring bits that differ from which on the whole distance is allowed; it grows linearly in between."""

_BITS = 256
_SIDE = 16
_FEWEST_BANDS = 13
"""256 / 13 is 20 bits a band: a table of a million entries."""

_NEIGHBOURS = 32
"""Within a bucket each hash meets at most this many others, so that a film of 100,000 like frames does not
become 5,000,000,000 pairs. They are neighbours in the hash's order, which links such a cluster as well."""

_PAIRS_AT_ONCE = 1 << 20
_HASHES_AT_ONCE = 1 << 14

_Pairs = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]


def near_duplicate_groups(hashes: npt.NDArray[np.uint8], *, distance: int = DISTANCE) -> list[list[int]]:
    """Group the pictures that are the same but for size, compression or small corrections.

    Matches chain: where A matches B and B matches C, all three form a group. Hashes of tiny or flat pictures
    (`NO_HASH`, and all with too little detail) match nothing, not even each other.

    Candidates come from bands: hashes that differ in at most `distance` bits agree, up to one bit, in one of
    `distance // 2 + 1` parts at least (pigeonhole), so only those are compared. A hundred thousand hashes
    take seconds.

    Args:
        hashes: uint8 [N, 32], as `ImageFacts.perceptual_hash`.
        distance: Bits that may differ between pictures full of detail, 0 to 64.

    Returns:
        Lists of two and more indices, each ascending, ordered by their first.
    """
    if not 0 <= distance <= _BITS // 4:
        raise ValueError(f"distance must be 0 to {_BITS // 4} bits, got {distance}")
    if len(hashes) < 2:
        return []
    unique, inverse = np.unique(np.ascontiguousarray(hashes, dtype=np.uint8), axis=0, return_inverse=True)
    detail = detail_of(unique)
    limits = np.floor(distance * np.clip((detail - LEAST_DETAIL) / (FULL_DETAIL - LEAST_DETAIL), 0, 1))
    telling = np.flatnonzero(detail > LEAST_DETAIL)
    parents = np.full(len(unique), -1, dtype=np.int64)
    parents[telling] = telling[_components(unique[telling], limits[telling].astype(np.int64), distance)]
    return _grouped(parents[inverse.ravel()])


def joined_groups(count: int, groups: Sequence[Sequence[int]]) -> list[list[int]]:
    """Groups of `count` things where those that share one are one."""
    left = np.array([group[0] for group in groups for _ in group], dtype=np.int64)
    right = np.array([index for group in groups for index in group], dtype=np.int64)
    return _grouped(_merge(np.arange(count), left, right))


def detail_of(hashes: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """How many of the 480 pairs of neighbouring bits differ, int64 [N], for uint8 hashes [N, 32]."""
    total = np.zeros(len(hashes), dtype=np.int64)
    for start in range(0, len(hashes), _HASHES_AT_ONCE):
        part = slice(start, start + _HASHES_AT_ONCE)
        bits = np.unpackbits(hashes[part], axis=1).reshape(-1, _SIDE, _SIDE)
        total[part] += np.count_nonzero(bits[:, :, 1:] != bits[:, :, :-1], axis=(1, 2))
        total[part] += np.count_nonzero(bits[:, 1:] != bits[:, :-1], axis=(1, 2))
    return total


def _components(
    hashes: npt.NDArray[np.uint8], limits: npt.NDArray[np.int64], distance: int
) -> npt.NDArray[np.int64]:
    """The smallest index that each hash is linked to, directly or through others."""
    parents = np.arange(len(hashes))
    words = hashes.view(np.uint64)
    for left, right in _candidates(hashes, distance):
        left, right = left[parents[left] != parents[right]], right[parents[left] != parents[right]]
        differing = np.bitwise_count(words[left] ^ words[right]).sum(axis=1)
        match = differing <= np.minimum(limits[left], limits[right])
        parents = _merge(parents, left[match], right[match])
    return parents


def _merge(
    parents: npt.NDArray[np.int64], left: npt.NDArray[np.int64], right: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Union-find over whole arrays: hang each higher root below the lower one until all pairs agree."""
    while len(left):
        a, b = parents[left], parents[right]
        np.minimum.at(parents, np.maximum(a, b), np.minimum(a, b))
        while not np.array_equal(parents, parents[parents]):
            parents = parents[parents]
        apart = parents[left] != parents[right]
        left, right = left[apart], right[apart]
    return parents


def _candidates(hashes: npt.NDArray[np.uint8], distance: int) -> Iterator[_Pairs]:
    """Pairs that agree in some band but for at most one bit; a pair may come more than once."""
    # Bits of one band come from all over the picture: neighbours agree too often to tell pictures apart.
    scattered = np.random.default_rng(0).permutation(_BITS)
    for band in np.array_split(scattered, max(distance // 2 + 1, _FEWEST_BANDS)):
        keys = np.zeros(len(hashes), dtype=np.int64)
        for place, bit in enumerate(band.tolist()):
            keys |= ((hashes[:, bit // 8] >> (7 - bit % 8)) & 1).astype(np.int64) << place
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.searchsorted(keys, np.arange((1 << len(band)) + 1))
        positions = np.arange(len(keys))
        for left, right in _expand(positions, positions + 1, starts[keys + 1]):
            yield order[left], order[right]
        for flip in 1 << np.arange(len(band)):
            below = positions[(keys & flip) == 0]
            other = keys[below] | flip
            for left, right in _expand(below, starts[other], starts[other + 1]):
                yield order[left], order[right]


def _expand(
    positions: npt.NDArray[np.int64], first: npt.NDArray[np.int64], last: npt.NDArray[np.int64]
) -> Iterator[_Pairs]:
    """Each position paired with the positions from `first` up to `last`, a bounded number at once."""
    counts = np.minimum(last - first, _NEIGHBOURS)
    some = counts > 0
    positions, first, counts = positions[some], first[some], counts[some]
    step = _PAIRS_AT_ONCE // _NEIGHBOURS
    for start in range(0, len(positions), step):
        part = slice(start, start + step)
        lengths = counts[part]
        within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
        yield np.repeat(positions[part], lengths), np.repeat(first[part], lengths) + within


def _grouped(parents: npt.NDArray[np.int64]) -> list[list[int]]:
    members = np.flatnonzero(parents >= 0)
    members = members[np.argsort(parents[members], kind="stable")]
    cuts = np.flatnonzero(np.diff(parents[members])) + 1
    groups = [part.tolist() for part in np.split(members, cuts) if len(part) > 1]
    return sorted(groups, key=lambda group: group[0])
