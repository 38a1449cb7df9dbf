"""Several labels in a cell: lists, lists that were written as text, `cat|dog`, columns of 0 and 1.

Whatever was assumed is said; what may be read in two ways is refused with its row.
"""

from __future__ import annotations

import ast
import json
import re
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

from headstart.data.dataset.columns import MINUS_ONE, flag
from headstart.data.dataset.labels import are_measured, as_label, made_of_others
from headstart.data.dataset.rows import SAY_ONE, LabelledRow, each_of
from headstart.errors import DatasetError, printable
from headstart.heads.tasks import MULTI_LABEL

SAY_SEVERAL = "if images have several labels, say --task multi-label"

_DELIMITERS = ("|", ";", ",")
"""Between the labels of a cell; one of them in all cells."""

_LISTS = (list, tuple, set, frozenset)

_ADJACENT = re.compile(r"""['"]\s+['"]""")

_EMPTY_SET = "set()"

_LONGEST_SHOWN = 200


def labels_of(cell: Iterable[object]) -> tuple[str, ...]:
    """The labels of a cell that is a list, each once."""
    found = [as_label(each) for each in cell]
    if None in found:
        raise DatasetError("a label in the list is empty")
    return tuple(dict.fromkeys(each for each in found if each is not None))


def lists_of(cells: Sequence[object], place: Callable[[int], str]) -> list[tuple[str, ...]] | None:
    """Every cell's labels where some are lists: text is one label then, and a missing value none.

    None where no cell is a list, or all of them are empty.

    Raises:
        DatasetError: Names the place of a cell that is neither.
    """
    if not any(isinstance(cell, _LISTS) and len(cell) for cell in cells):
        return None
    found = []
    for at, cell in enumerate(cells):
        try:
            label = None if isinstance(cell, _LISTS) else as_label(cell)
            if label is not None and not isinstance(cell, str):
                raise DatasetError(f"the label {label} is no list, as those of other images are")
            found.append(labels_of(cell) if isinstance(cell, _LISTS) else (label,) if label else ())
        except DatasetError as error:
            raise DatasetError(f"{place(at)}: {error}") from None
    return found


def flagged(
    names: Sequence[str], columns: Sequence[Sequence[object]], place: Callable[[int], str], *, signs: bool
) -> tuple[list[tuple[str, ...]], tuple[str, ...]]:
    """The labels of every row of columns of 0 and 1, one for each label; and what was assumed.

    Args:
        names: of the columns.
        columns: their cells.
        place: where a row stands.
        signs: whether they may be columns of -1 and 1, all of them.

    Raises:
        DatasetError: Names the place of the first cell that is neither.
    """
    texts = [[str(cell).strip() for cell in column] for column in columns]
    known = {text: flag(text) for column in texts for text in set(column)}
    notes: tuple[str, ...] = ()
    if signs and False not in known.values() and MINUS_ONE & known.keys():
        known |= dict.fromkeys(MINUS_ONE & known.keys(), False)
        notes = ("-1 is read as 0, since no cell is 0",)
    found = []
    for at, row in enumerate(zip(*texts, strict=True)):
        if None in (flags := [known[text] for text in row]):
            odd = flags.index(None)
            way_out = "; write either, or take the row or the column away" if signs else ""
            raise DatasetError(
                f"{place(at)}: {printable(names[odd])} is {_shown(row[odd])!r}; expected 0 or 1, as elsewhere"
                f"{way_out}"
            )
        found.append(tuple(name for name, on in zip(names, flags, strict=True) if on))
    return found, notes


def apart(
    rows: Sequence[LabelledRow], *, task: str | None, where: str, whole: bool = False
) -> tuple[list[LabelledRow], tuple[str, ...]]:
    """Rows whose cells hold several labels, as `cat|dog`, with these; and what was assumed.

    `whole`: whether some cells were lists, so that no label is to be taken apart.

    Raises:
        DatasetError: some cells may be several labels, which is not certain, or in two ways.
    """
    first: dict[str, LabelledRow] = {}
    for row in rows:
        for text in each_of(row.label):
            first.setdefault(text, row)
    parts: dict[str, tuple[str, ...]] | None = None
    notes: tuple[str, ...] = ()
    if whole:
        parts = {text: (text,) for text in first}
    elif (parts := _written_lists(first, task=task, where=where)) is not None:
        shown = _shown(next(text for text in parts if parts[text]))
        notes = (f"{where}: labels are lists written as text, such as {shown!r}: multi-label",)
    elif task == MULTI_LABEL:
        parts, notes = _split(first, where=where)
    elif task is None:
        parts, notes = _found(rows, first, where=where)
    if parts is None:
        return list(rows), notes
    several = [
        row._replace(label=tuple(dict.fromkeys(each for text in each_of(row.label) for each in parts[text])))
        for row in rows
    ]
    return several, (*notes, *_kept_whole({label for row in several for label in row.label}, where=where))


def _found(
    rows: Sequence[LabelledRow], first: Mapping[str, LabelledRow], *, where: str
) -> tuple[dict[str, tuple[str, ...]] | None, tuple[str, ...]]:
    """The labels of each text where nobody asked for several, and it is certain that there are."""
    texts = [str(row.label) for row in rows]
    found = [] if are_measured(texts) else sorted(made_of_others(first), key=lambda each: not each[2])
    if not found:  # 0,5 is not 0 and 5
        return None, ()
    label, made_of, certain = found[0]
    shown = " and ".join(repr(_shown(part)) for part in made_of[:3])
    said = f"the label {_shown(label)!r} is {shown}"
    if not certain:
        return None, (f"{where}: {said} together, which are labels too; each image is taken to have one",)
    if "|" in label and _recurring(texts):
        told = (
            f"{where}: labels such as {_shown(label)!r} are several: multi-label; if they are one, {SAY_ONE}"
        )
        return _split(first, where=where)[0], (told,)
    raise DatasetError(f"{where}: {_place(first[label])}: {said} together; keep one, or {SAY_SEVERAL}")


def _written_lists(
    first: Mapping[str, LabelledRow], *, task: str | None, where: str
) -> dict[str, tuple[str, ...]] | None:
    """The labels of each text where all are lists in text, as pandas writes `['cat', 'dog']`; None else.

    A text among such lists is one label where several were asked for.
    """
    texts = [text for text in first if text]
    square = [text for text in texts if text[0] + text[-1] == "[]"]
    others = [text for text in texts if text[0] + text[-1] in ("()", "{}") or text == _EMPTY_SET]
    if task not in (None, MULTI_LABEL) or not texts or (not square and len(others) < len(texts)):
        return None
    found: dict[str, tuple[str, ...]] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SyntaxWarning)  # an escape that Python does not know
        for text in (*square, *others):
            try:
                labels = _parsed(text)
            except DatasetError as error:
                raise DatasetError(f"{where}: {_place(first[text])}: {error}") from None
            if labels is not None:
                found[text] = labels
    missing = [text for text in texts if text not in found]
    if missing and (not square or (not found and len(square) < len(texts))):
        return None
    for text in missing:
        if text in square:
            raise DatasetError(
                f"{where}: {_place(first[text])}: the label {_shown(text)!r} is no list that can be read; "
                "write its labels as cat|dog" + (f", or {SAY_ONE}" if task is None else "")
            )
        if task is None:
            one = next(iter(found))
            raise DatasetError(
                f"{where}: {_place(first[text])}: the label {_shown(text)!r} is no list, and {_shown(one)!r} "
                f"({_place(first[one])}) is one; {SAY_SEVERAL}, or {SAY_ONE}"
            )
    return {text: found.get(text, (text,) if text else ()) for text in first}


def _parsed(text: str) -> tuple[str, ...] | None:
    """The labels of a list that is written as JSON or by Python; None of any other text."""
    if _ADJACENT.search(text):  # two strings without a comma, as NumPy writes them: Python makes one of them
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text)
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        if isinstance(found, _LISTS) and all(isinstance(each, str | int | float) for each in found):
            return labels_of(found)
    return None


def _split(
    first: Mapping[str, LabelledRow], *, where: str
) -> tuple[dict[str, tuple[str, ...]], tuple[str, ...]]:
    """The labels of each text, split at the one delimiter that occurs; and which that is."""
    order = list(first)
    marks = {mark: text for mark in _DELIMITERS for text in reversed(order) if mark in text}
    if len(marks) > 1:
        (one, before), (other, text), *_ = sorted(marks.items(), key=lambda each: order.index(each[1]))
        raise DatasetError(
            f"{where}: {_place(first[text])}: {_shown(text)!r} has {other!r}, and {_shown(before)!r} "
            f"({_place(first[before])}) has {one!r}; labels are split at one of them: write all with it, or "
            'as lists: ["a, b", "c"]'
        )
    told = f"no label has {_spoken(_DELIMITERS)} in it, so each is one"
    for mark, text in marks.items():
        told = f"labels are split at {mark!r}, such as {_shown(text)!r}"
    mark = next(iter(marks), _DELIMITERS[0])
    parts = {text: [as_label(part) for part in text.split(mark)] for text in first}
    return {text: tuple(filter(None, found)) for text, found in parts.items()}, (f"{where}: {told}",)


def _kept_whole(labels: Collection[str], *, where: str) -> tuple[str, ...]:
    """A sentence where a label among several is made of others, as `cat dog` or `cat/dog`, and is kept."""
    found = [(label, parts) for label, parts, _ in made_of_others(labels)]
    if not found:
        return ()
    label, parts = found[0]
    more = f", as are {len(found) - 1:,} more labels" if len(found) > 1 else ""
    shown = " and ".join(repr(_shown(part)) for part in parts[:3])
    return (
        f"{where}: the label {_shown(label)!r} is kept as one{more}, and is {shown} together, which are "
        f"labels too; if it is both, write {_shown('|'.join(parts))}",
    )


def _recurring(texts: Sequence[str]) -> bool:
    """Whether fewer than half of the cells have a bar, and all that stands between bars comes again."""
    with_bar = [text for text in texts if "|" in text]
    counts = Counter(part.strip() for text in texts for part in text.split("|"))
    parts = {part.strip() for text in with_bar for part in text.split("|")}
    return len(with_bar) < len(texts) / 2 and all(part and counts[part] > 1 for part in parts)


def _place(row: LabelledRow) -> str:
    return row.at or printable(row.path)


def _spoken(marks: Sequence[str]) -> str:
    return f"{', '.join(map(repr, marks[:-1]))} or {marks[-1]!r}"


def _shown(text: str) -> str:
    return printable(text if len(text) <= _LONGEST_SHOWN else f"{text[:_LONGEST_SHOWN]}…")
