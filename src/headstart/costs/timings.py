"""What earlier work on this machine took, remembered in the home folder.

Every step of a job has a base: seconds by a formula with fixed constants. What is remembered is the ratio of
measured seconds to that base, so that one observation of a network at 128 px also says something about it at
160 px, and about another network, where nothing better is known.
"""

import hashlib
import math
import os
import platform
import sqlite3
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart import databases
from headstart.costs.estimates import Estimate
from headstart.files import home_folder

_NEWEST = 12
"""Observations of one key that count; older ones tell of an older machine."""

_FADING = 0.8
"""Weight of an observation relative to the next newer one."""

_OWN_TRUST = 0.05
"""How many observations of its own the estimate from other keys is worth: timing it beats a guess."""

_USUAL_NOISE = 0.1
"""Standard deviation of a logarithm that is expected of repeated work; counts as one observation."""

_GENERAL_TRUST = 1.0
"""How many observations the constants of the formulas are worth."""

_LEAST_SPREAD = 0.06
"""The same work timed twice differs by so much, as the standard deviation of a logarithm."""

_OUTLIER = 100.0
"""A ratio beyond this, or below one over it, is a suspended laptop or a broken clock."""


_DOUBT = 8.0
"""How many whole commands it takes before their errors count for half."""

_MOST_SURPRISE = 2.9
"""Prediction errors, in their own standard deviations, are counted up to here."""

_VAGUE = 0.2
"""From this spread up a prediction is mostly formulas: how such turn out says nothing of those that rest on
measurements, nor the other way round."""


@dataclass(frozen=True)
class Correction:
    """How whole predictions on this machine have erred: a factor on seconds, and one on their spread."""

    factor: float = 1.0
    widening: float = 1.0


@dataclass(frozen=True)
class Observation:
    """One measured step: ``ratio`` is seconds over the seconds that the formula gives."""

    quantity: str
    key: str
    ratio: float


_FORMULAS = 3
"""Raised when a formula of `costs.formulas` changes: ratios to the old one say nothing of the new."""


def machine() -> str:
    """Names this machine and the cores that are given to it; a home folder may be shared between several."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{platform.node()} {platform.machine()} {cores}"


def machine_digits() -> str:
    """The same in hex digits: a run may be given away, and need not say what a computer is called."""
    return hashlib.blake2b(machine().encode(), digest_size=8).hexdigest()


def _owner() -> str:
    """What a ratio belongs to."""
    return f"{machine()} formulas {_FORMULAS}"


class Rates:
    """Remembered ratios, loaded once; asking takes no time."""

    def __init__(self, observations: Iterable[Observation] = ()) -> None:
        """From observations, the newest first."""
        self._logs: dict[tuple[str, str], list[float]] = {}
        for seen in observations:
            if 1 / _OUTLIER <= seen.ratio <= _OUTLIER:
                self._logs.setdefault((seen.quantity, seen.key), []).append(math.log(seen.ratio))

    def known(self, quantity: str, key: str) -> bool:
        """Whether this very thing has been measured."""
        return (quantity, key) in self._logs

    def estimate(self, quantity: str, key: str, *, base: float, spread: float) -> Estimate:
        """Seconds of a step.

        Args:
            quantity: which kind of step.
            key: which one of the kind.
            base: seconds by the formula.
            spread: how far the formula may be off where nothing is remembered.
        """
        general, general_spread = self._general(quantity, but=key, spread=spread)
        own = self._logs.get((quantity, key), [])[:_NEWEST]
        if not own:
            return Estimate(base * math.exp(general), general_spread)
        weights = [_FADING**age for age in range(len(own))]
        total = sum(weights)
        trusted = total + _OWN_TRUST
        mean = (sum(w * x for w, x in zip(weights, own, strict=True)) + _OWN_TRUST * general) / trusted
        scatter = sum(w * (x - mean) ** 2 for w, x in zip(weights, own, strict=True))
        variance = (scatter + _USUAL_NOISE**2) / (total + 1)
        # The next outcome scatters as these did, about a mean that is itself known only so well.
        return Estimate(base * math.exp(mean), max(_LEAST_SPREAD, math.sqrt(variance * (1 + 1 / trusted))))

    def correction(self, spread: float) -> Correction:
        """What past errors say about the next prediction of such a spread; nothing while there are none.

        Both factors are shrunk toward one, as if `_DOUBT` perfectly calibrated predictions had been seen too.
        """
        errors = self._logs.get(("command", ""), [])
        surprises = self._logs.get(("surprise", _sharpness(spread)), [])
        factor = math.exp(sum(errors) / (len(errors) + _DOUBT))
        variance = (sum(x**2 for x in surprises) + _DOUBT) / (len(surprises) + _DOUBT)
        return Correction(factor, math.sqrt(variance))

    def _general(self, quantity: str, *, but: str, spread: float) -> tuple[float, float]:
        """The logarithm of the ratio that other keys of this kind suggest, and its standard deviation."""
        others = [
            sum(logs[:_NEWEST]) / len(logs[:_NEWEST])
            for (kind, key), logs in self._logs.items()
            if kind == quantity and key != but
        ]
        mean = sum(others) / (len(others) + _GENERAL_TRUST)
        variance = sum((x - mean) ** 2 for x in others) + _GENERAL_TRUST * spread**2
        return mean, max(_LEAST_SPREAD, math.sqrt(variance / (len(others) + _GENERAL_TRUST)))


def verdict(predicted: float, actual: float, *, spread: float) -> list[Observation]:
    """How a prediction of what was to come turned out, for `Rates.correction`."""
    if predicted <= 0 or actual <= 0 or spread <= 0:
        return []
    error = math.log(actual / predicted)
    surprise = max(-_MOST_SURPRISE, min(_MOST_SURPRISE, error / spread))
    return [
        Observation("command", "", math.exp(error)),
        Observation("surprise", _sharpness(spread), math.exp(surprise)),
    ]


def _sharpness(spread: float) -> str:
    return "vague" if spread >= _VAGUE else "sharp"


_SCHEMA = (
    "create table if not exists observations (machine text, quantity text, key text, ratio real, at real)"
)
_WAIT_SECONDS = 5.0


class RateStore:
    """Where observations are kept: ``home/rates.sqlite``."""

    def __init__(self, home: Path | None = None) -> None:
        self.path = (home or home_folder()) / "rates.sqlite"

    def stamp(self) -> tuple[int, ...]:
        """Changes whenever something was added, and costs no reading: times and sizes of the files."""
        found: list[int] = []
        # SQLite adds to the second file first, and removes it when nobody is left.
        for file in (self.path, self.path.with_name(f"{self.path.name}-wal")):
            with suppress(FileNotFoundError):
                stat = file.stat()
                found += (stat.st_mtime_ns, stat.st_size) if stat.st_size else ()
        return tuple(found)

    def load(self) -> Rates:
        """This machine's ratios. A store that cannot be read is as good as none: predictions get wider."""
        return Rates(self.observations())

    def observations(self) -> list[Observation]:
        """What was measured on this machine, the newest first."""
        if not self.path.exists():
            return []
        query = "SELECT quantity, key, ratio FROM observations WHERE machine = ? ORDER BY at DESC LIMIT 4000"
        rows = self._use(lambda database: database.execute(query, (_owner(),)).fetchall(), writes=False)
        return [Observation(*row) for row in rows or () if isinstance(row[2], float)]

    def add(self, observations: Iterable[Observation]) -> None:
        """Remember; a read-only home costs later predictions their sharpness and nothing else."""
        now, name = time.time(), _owner()
        rows = [(name, seen.quantity, seen.key, seen.ratio, now) for seen in observations if seen.ratio > 0]
        if not rows:
            return
        query = "INSERT INTO observations VALUES (?, ?, ?, ?, ?)"
        self._use(lambda database: database.executemany(query, rows).fetchall(), writes=True)

    def _use(
        self, work: Callable[[sqlite3.Connection], list[tuple[Any, ...]]], *, writes: bool
    ) -> list[tuple[Any, ...]] | None:
        """Do something with the store; None where that cannot be done."""
        lost = "seconds are predicted from formulas until this machine has done some work again"
        try:
            return databases.use(
                self.path, work, schema=_SCHEMA, lost=lost, writes=writes, wait=_WAIT_SECONDS, durable=False
            )
        except (OSError, sqlite3.Error):
            return None
