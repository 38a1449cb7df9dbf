"""A live bar below the cell of a notebook that trains."""

import html
import sys
import time
from collections.abc import Mapping
from typing import Any

from headstart.runs import Run
from headstart.runs.callbacks import Callback
from headstart.runs.formatting import human_seconds

_PAUSE = 0.2
"""Seconds between two drawings of it."""

_PHASES = {
    "choice": "choosing the backbone",
    "features": "reading images",
    "check": "checking the data",
    "train": "training",
    "epochs": "training",
    "folds": "cross-validating",
    "evaluate": "evaluating",
    "save": "saving",
}


def notebook_bars() -> list[Callback]:
    """A bar where this is the kernel of a notebook; none elsewhere."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return [NotebookBar()] if hasattr(shell, "kernel") else []


class NotebookBar(Callback):
    """Draws itself over its former state; in the end it says how long the work took."""

    def __init__(self) -> None:
        self._display: Any = None
        self._phase, self._epoch = "", ""
        self._started = time.perf_counter()
        self._began = self._drawn = 0.0

    def on_phase_begin(self, phase: str) -> None:
        """Say what begins."""
        self._phase, self._epoch, self._began = phase, "", time.perf_counter()
        self._draw(_PHASES.get(phase, phase))

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Draw at most five times a second."""
        now = time.perf_counter()
        if phase != self._phase:
            self._phase, self._began = phase, now
        if now - self._drawn < _PAUSE and done < total:
            return
        passed = now - self._began
        left = f", {human_seconds(passed * (total - done) / done)} left" if 0 < done < total else ""
        self._draw(f"{_PHASES.get(phase, phase)}: {done:,} of {total:,}{left}{self._epoch}", done, total)

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> None:
        """Keep what the epoch came to beside the bar."""
        found = epoch.get("validation_accuracy")
        self._epoch = "" if found is None else f"; validation accuracy {found:.1%}"

    def on_phase_end(self, phase: str, result: Any) -> None:
        """A saved run is the end."""
        if isinstance(result, Run):
            self._draw(f"trained in {human_seconds(time.perf_counter() - self._started)}")

    def _draw(self, text: str, done: int = 0, total: int = 0) -> None:
        import IPython.display

        HTML: Any = IPython.display.HTML  # these have no types
        display: Any = IPython.display.display
        bar = f'<progress value="{done}" max="{total}"></progress> ' if total else ""
        drawn = HTML(f"{bar}{html.escape(text)}")
        if self._display is None:
            self._display = display(drawn, display_id=True)
        else:
            self._display.update(drawn)
        self._drawn = time.perf_counter()
