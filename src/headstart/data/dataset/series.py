"""Series in the names of files (cam01_0001.jpg, cam01_0002.jpg, …): found unasked, and read by a pattern."""

from __future__ import annotations

import itertools
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import replace

from headstart.data.dataset.values import Dataset
from headstart.errors import DatasetError, printable

_GROUP = "{group}"

_LOOKED_AT = 20_000
"""Names by which series are found; of more, runs of a thousand from all over the list."""

_RUN = 1_000

_FEWEST = 4
"""Series, and images of one on average, below which names say nothing."""

_NAMED = 0.9
"""Share of the images that must be in a series."""

_WILDCARDS = {"*": "[^/]*?", _GROUP: "(?P<group>[^/]+?)"}

_WORD = re.compile(r"[^_\-. ]+")


def is_pattern(groups: str | None) -> bool:
    """Whether `groups` is a pattern of file names, and neither a column nor a table.

    Raises:
        DatasetError: it has a wildcard or braces and does not say what of a name is the group.
    """
    if groups is not None and _GROUP not in groups and re.search(r"[*{}]", groups):
        raise DatasetError(
            f"--groups {printable(groups)}: a pattern of names needs {_GROUP} where the group is, such as "
            f"'{_GROUP}_*.jpg'"
        )
    return groups is not None and _GROUP in groups


def grouped_by_name(dataset: Dataset, pattern: str) -> Dataset:
    """The data set with the group of every image whose name fits; the others are each by itself.

    Args:
        dataset: without groups.
        pattern: with `{group}` once, for the shortest text without a slash that makes the rest fit; besides
            it `*` and `?` as in a shell. It is held against as many of a path's last parts as it has.

    Raises:
        DatasetError: it has several `{group}`, or fits no image.
    """
    if pattern.count(_GROUP) > 1:
        raise DatasetError(f"--groups {printable(pattern)}: write {_GROUP} once")
    fits = re.compile("/".join(map(_expression, pattern.split("/"))))
    parts = pattern.count("/") + 1
    found = [fits.fullmatch("/".join(sample.name.split("/")[-parts:])) for sample in dataset.samples]
    if not any(found):
        raise DatasetError(
            f"{dataset.name}: no name fits --groups {printable(pattern)}; the first one is "
            f"{dataset.samples[0].name}"
        )
    samples = tuple(
        replace(sample, group=each["group"] if each else None)
        for sample, each in zip(dataset.samples, found, strict=True)
    )
    note = f"groups from names that fit {printable(pattern)}"
    alone = found.count(None)
    note += f"; images that do not: {alone:,}, each by itself" if alone else ""
    return replace(dataset, samples=samples, notes=(*dataset.notes, note))


def _expression(part: str) -> str:
    """A regular expression of one part of a path, whose wildcards reach over no slash.

    Each takes the shortest text that the fixed one behind it follows and gives none of it back, so that no
    name, however made, takes long.
    """
    first, *pieces = [
        re.escape(text).replace(r"\?", "[^/]") if text not in _WILDCARDS else _WILDCARDS[text]
        for text in re.split(r"(\*|\{group\})", part)
    ]
    chunks = [wildcard + fixed for wildcard, fixed in zip(pieces[::2], pieces[1::2], strict=True)]
    return first + "".join(f"(?>{chunk})" for chunk in chunks[:-1]) + "".join(chunks[-1:])


def series_in_words(dataset: Dataset) -> tuple[str, ...]:
    """A sentence where names look like series that may fall apart over a split; none where they do not.

    A folder within a class, or a word of the name with more words behind it, is a series where its values are
    several in a class and each has several images: a class alone, a running number or a hash is none.
    """
    samples = dataset.samples
    if any(sample.split or sample.group for sample in samples):
        return ()
    if len(samples) > _LOOKED_AT:
        step = len(samples) // (_LOOKED_AT // _RUN)
        samples = tuple(each for start in range(0, len(samples), step) for each in samples[start:][:_RUN])
    labels = [sample.label for sample in samples]
    paths = [sample.name.rsplit("/", 2) for sample in samples]
    folders = [path[-2] if len(path) > 2 else None for path in paths]
    if _are_series(folders, labels):
        return (_said(folders, f"{_GROUP}/*"),)
    words = [_WORD.findall(path[-1].rpartition(".")[0]) for path in paths]
    for place in range(max(map(len, words)) - 1):
        values = [each[place] if len(each) > place + 1 else None for each in words]
        if _are_series(values, labels):
            return (_said(values, _pattern(paths[0][-1], place)),)
    return ()


def _are_series(values: Sequence[str | None], labels: Sequence[int]) -> bool:
    named = [(value, label) for value, label in zip(values, labels, strict=True) if value is not None]
    counts = Counter(value for value, _ in named)
    if len(named) < _NAMED * len(values) or not _FEWEST <= len(counts) <= len(named) / _FEWEST:
        return False
    of_class: dict[int, set[str]] = defaultdict(set)
    for value, label in named:
        of_class[label].add(value)
    if 2 * sum(map(len, of_class.values())) > len(named):  # a running number comes again in every class, once
        return False
    return 2 * sum(len(found) > 1 for found in of_class.values()) > len(of_class)


def _said(values: Sequence[str | None], pattern: str) -> str:
    counts = Counter(value for value in values if value is not None)
    first, *_, last = sorted(counts)
    return (
        f"names look like {len(counts):,} series ({printable(first)} … {printable(last)}); images of one on "
        f"both sides of a split flatter the score: --groups '{pattern}' keeps each on one side"
    )


def _pattern(name: str, place: int) -> str:
    """A pattern whose group is the word at a place, counted from 0, of names like this one."""
    words = list(_WORD.finditer(name))
    between = [name[one.end() : two.start()] for one, two in itertools.pairwise(words)]
    return "".join(f"*{text}" for text in between[:place]) + f"{_GROUP}{between[place]}*"
