"""Tables of costs and of priors, and what they make of a head."""

import csv
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError, printable
from headstart.files import MEBI, Unreadable, read_regular, write_whole
from headstart.heads.decisions import with_priors
from headstart.heads.linear import LinearHead, class_weight_vector
from headstart.runs import FitConfig

_LARGEST = 64 * MEBI
"""Bytes of a table: 2,000 x 2,000 costs."""

UNIFORM = "uniform"

COSTS_FILE, PRIORS_FILE = "costs.csv", "priors.csv"
"""Copies of the tables in a run's folder."""


def read_costs(file: str, classes: Sequence[str]) -> NDArray[np.float64]:
    """Costs of mistakes, [C, C]: rows are the true classes, columns the called ones, in the classes' order.

    Args:
        file: of comma-separated values: a header of class names behind its first cell, and a row for each
            class, its name before its costs.
        classes: all of them are in the table, and no other.

    Raises:
        OptionError: where the table is wrong, and what is expected there.
    """
    where = f"costs: {printable(file)}"
    header, rows = _table(file, where)
    columns = _places(header[1:], classes, where=f"{where}: header")
    lines = _places([row[0] for _, row in rows], classes, where=f"{where}: first column")
    table = np.zeros((len(classes), len(classes)))
    for at, (number, row) in zip(lines, rows, strict=True):
        if len(row) != len(header):
            raise OptionError(f"{where}: row {number} has {len(row)} cells, the header {len(header)}")
        for place, text in zip(columns, row[1:], strict=True):
            table[at, place] = _number(text, f"{where}: row {number}, {printable(classes[place])}")
    if (table < 0).any():
        raise OptionError(f"{where}: a cost is below zero; a right answer costs 0, a mistake more")
    if not table.any():
        raise OptionError(f"{where}: every cost is 0, so that no answer is better than another")
    return table


def read_priors(given: str, classes: Sequence[str]) -> NDArray[np.float64]:
    """The shares of the classes where a classifier will be used, [C], summing to one.

    Args:
        given: "uniform", or a file of comma-separated values: a header, then a class and its share (or count)
            in each row.
        classes: each has a row.

    Raises:
        OptionError: where the table is wrong, and what is expected there.
    """
    if given == UNIFORM:
        return np.full(len(classes), 1 / len(classes))
    where = f"priors: {printable(given)}"
    _, rows = _table(given, where)
    shares = np.zeros(len(classes))
    places = _places([row[0] for _, row in rows], classes, where=f"{where}: first column")
    for at, (number, row) in zip(places, rows, strict=True):
        if len(row) != 2:
            raise OptionError(f"{where}: row {number} has {len(row)} cells; expected a class and its share")
        shares[at] = _number(row[1], f"{where}: row {number}")
    if (shares <= 0).any():
        raise OptionError(
            f"{where}: a share is not above zero; leave out the images of classes that never come"
        )
    return np.asarray(shares / shares.sum(), dtype=np.float64)


def with_config_priors(
    head: LinearHead,
    *,
    config: FitConfig,
    classes: Sequence[str],
    labels: NDArray[np.int64],
    weights: NDArray[np.float64] | None,
) -> LinearHead:
    """The head for the shares that its config names, if any.

    ``labels`` and ``weights`` are those of the images that it was trained on; None where none has its own.
    """
    if config.priors is None:
        return head
    counts = np.bincount(labels, minlength=len(classes))
    seen = counts > 0
    own = np.bincount(labels, weights, minlength=len(classes))
    mass = own * class_weight_vector(config.class_weights, counts)
    priors = read_priors(config.priors, classes)
    least = (priors[seen] / mass[seen]).min()  # of what it never saw it knows nothing: that must not win
    trained = np.where(seen, mass, priors / least)
    return with_priors(head, priors.tolist(), trained=(trained / trained.sum()).tolist())


def decision_notes(config: FitConfig) -> tuple[str, ...]:
    """A sentence on what costs and priors make of labels and probabilities."""
    notes = []
    if config.priors is not None:
        notes.append("probabilities are for the shares of --priors; scores are of the images as they come")
    if config.costs is not None:
        notes.append(
            "an image is called what costs least on average (--costs), which may not be the likeliest"
        )
    return tuple(notes)


def copy_tables(config: FitConfig, folder: Path) -> None:
    """Keep the tables that a run's config names in its folder, for a head that is trained again."""
    for given, name in ((config.costs, COSTS_FILE), (config.priors, PRIORS_FILE)):
        if given not in (None, UNIFORM):
            write_whole(folder / name, read_regular(given, limit=_LARGEST))


def with_copies(config: FitConfig, folder: Path) -> FitConfig:
    """The config of a run with the tables that lie in its folder."""
    costs = str(folder / COSTS_FILE) if config.costs else None
    priors = config.priors if config.priors in (None, UNIFORM) else str(folder / PRIORS_FILE)
    return replace(config, costs=costs, priors=priors)


def check_decisions(config: FitConfig, classes: Sequence[str]) -> None:
    """Refuse costs and priors that do not fit the classes, before any image is looked at."""
    if config.costs is not None:
        read_costs(config.costs, classes)
    if config.priors is not None:
        read_priors(config.priors, classes)


def _table(file: str, where: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The header's cells, and each row's number and cells; blank rows are passed over."""
    try:
        text = read_regular(file, limit=_LARGEST).decode("utf-8-sig")
        first = text.partition("\n")[0]
        delimiter = max(",;\t", key=first.count)
        lines = list(csv.reader(text.splitlines(), delimiter=delimiter, strict=True))
    except Unreadable as error:
        raise OptionError(f"{where}: {error}") from None
    except UnicodeDecodeError:
        raise OptionError(f"{where}: no UTF-8; save it as CSV UTF-8") from None
    except csv.Error as error:
        raise OptionError(f"{where}: no table ({error}); expected comma-separated values") from None
    rows = [
        (number, [cell.strip() for cell in line])
        for number, line in enumerate(lines, 1)
        if any(map(str.strip, line))
    ]
    if not rows:
        raise OptionError(f"{where}: the table is empty; expected a header and a row for each class")
    return rows[0][1], rows[1:]


def _places(names: Sequence[str], classes: Sequence[str], *, where: str) -> list[int]:
    """The class of each name; each class is named once."""
    at = {name: place for place, name in enumerate(classes)}
    for place, name in enumerate(names):
        if name not in at:
            shown = ", ".join(map(printable, classes[:5])) + (", …" if len(classes) > 5 else "")
            raise OptionError(f"{where}: {printable(name)!r} is no class; the classes are {shown}")
        if name in names[:place]:
            raise OptionError(f"{where}: {printable(name)} is there twice; keep one")
    if missing := [name for name in classes if name not in names]:
        raise OptionError(f"{where}: {printable(missing[0])} is missing; expected all {len(classes)} classes")
    return [at[name] for name in names]


def _number(text: str, where: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise OptionError(f"{where}: {printable(text)!r} is no number")
    return value
