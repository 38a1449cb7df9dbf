"""The catalogue of experiments: predicted seconds and stored results, cached for two seconds."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from headstart.errors import OptionError
from headstart.lesson.engine import placeholders
from headstart.lesson.engine.reference import Reference, completed, references

FRESH_SECONDS = 2.0
"""How long results are taken from memory before the store is asked again: a terminal may run some, too."""

Fields = Mapping[str, object]
Answer = TypeVar("Answer")


class Catalogue:
    """Descriptions and results of the experiments, cached for two seconds.

    Args:
        experiments: `headstart.lesson.experiments`, or None for a lesson without any.
    """

    def __init__(self, experiments: Any = None) -> None:
        self.experiments = experiments
        self._kept: dict[tuple[object, ...], tuple[float, Any]] = {}
        self._turn = threading.Lock()

    def known(self) -> tuple[str, ...]:
        """The names of the experiments."""
        return self.experiments.registry() if self.experiments else ()

    def about(self, name: str, *, parameters: Mapping[str, object] | None = None) -> Any | None:
        """What an experiment says of itself: parameters, predicted seconds with these values, bound."""
        if name not in self.known():
            return None
        key = ("about", name, *sorted((parameters or {}).items()))
        return self._fresh(key, lambda: self.experiments.describe(name, parameters=parameters))

    def latest(self, name: str, *, as_declared: bool = False) -> Any | None:
        """The newest result on this machine; where asked, only of a run in which nothing was varied."""
        if name not in self.known():
            return None
        return self._fresh(
            (name, as_declared), lambda: self.experiments.latest(name, as_declared=as_declared)
        )

    def find(self, identity: str) -> Any | None:
        """A stored result by its id, or None where it is not on this machine."""
        return self.experiments.find(identity) if self.experiments and identity else None

    def results(self) -> Mapping[str, Fields]:
        """The fields of every experiment that has run."""
        return self._fresh(("results", None), self.experiments.results) if self.experiments else {}

    def run(
        self,
        name: str,
        *,
        parameters: Mapping[str, object] | None = None,
        source: str | None = None,
        seed: int = 0,
        progress: Callable[[str, int, int], None] | None = None,
    ) -> Any:
        """Runs one here and now, and stores its result.

        Raises OptionError for one that is not part of this installation.
        """
        if name not in self.known():
            raise OptionError(f"experiment {name!r} cannot run here: it is not part of this installation")
        result = self.experiments.run(
            name, parameters=parameters, source=source, seed=seed, progress=progress
        )
        self.forget()
        return result

    def forget(self) -> None:
        """Asks the store again the next time."""
        with self._turn:
            self._kept.clear()

    def _fresh(self, key: tuple[object, ...], ask: Callable[[], Answer]) -> Answer:
        with self._turn:
            at, kept = self._kept.get(key, (float("-inf"), None))
            answer: Answer = kept
            if time.monotonic() - at <= FRESH_SECONDS:
                return answer
            if key in self._kept:  # one page asks; the others take what is known meanwhile
                self._kept[key] = (time.monotonic(), kept)
        answer = ask()
        with self._turn:
            self._kept[key] = (time.monotonic(), answer)
        return answer


@dataclass(frozen=True)
class Shown:
    """The results that one learner may see now.

    Attributes:
        catalogue: every result there is.
        held: experiments that settle a problem which this learner has open; theirs are held back.
    """

    catalogue: Catalogue
    held: frozenset[str] = frozenset()

    def latest(self, name: str, *, as_declared: bool = False) -> Any | None:
        """As `Catalogue.latest`; None where it is held back."""
        return None if name in self.held else self.catalogue.latest(name, as_declared=as_declared)

    def reference(self, name: str) -> Reference | None:
        """What the reference machine measured; None where it is held back, or was never measured there."""
        return None if name in self.held else references().get(name)

    def results(self) -> Mapping[str, Fields]:
        """The numbers in prose: this machine's, else the reference machine's; what is held back says so."""
        return {
            name: dict.fromkeys(fields, placeholders.HELD) if name in self.held else fields
            for name, fields in completed(self.catalogue.results()).items()
        }
