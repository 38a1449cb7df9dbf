"""Which classifier is served, and its exchange for a newer one while requests are under way."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import MODEL_FILE, Classifier, load
from headstart.errors import HeadstartError, RunError, printable
from headstart.runs import CLASSIFIER_FILE, RUN_FILE, RunStore, read_run, timestamp

_log = logging.getLogger(__name__)

_LONGEST_LINE = 500
"""Letters of a line in the log."""

_BATCHES = (1, 4, 8, 16)
"""Sizes that a network is compiled for; a batch is cut into those, and the last piece may be padded."""

LOAD_SECONDS = 120.0
"""For a newer classifier to be loaded, compiled and tried; one that takes longer never ends."""

_REHEARSAL = """\
import sys
from pathlib import Path
from headstart.errors import HeadstartError
from headstart.serving.models import load_model
try:
    load_model(Path(sys.argv[1]), batch=int(sys.argv[2]))
except HeadstartError as error:
    sys.exit(str(error))
"""

Signature = tuple[tuple[int, int, int], ...]
Place = Callable[[], Path]
"""Says which run's folder is to be served now."""


@dataclass(frozen=True, eq=False)
class LoadedModel:
    """A classifier that is ready to answer.

    Attributes:
        classifier: as loaded.
        run: the name of its folder.
        since: when it was loaded, UTC.
        networks: compiled for so many images at once.
    """

    classifier: Classifier
    run: str
    since: str
    networks: Mapping[int, Any] = field(repr=False)

    def answers(self, pixels: Sequence[NDArray[np.uint8]]) -> NDArray[np.float32]:
        """Rendered images, each uint8 [S, S, 3], to what `Classifier.answer` gives; for one thread."""
        rows = []
        start = 0
        while start < len(pixels):
            left = len(pixels) - start
            size = next((size for size in sorted(self.networks) if size >= left), max(self.networks))
            fitting = [size for size in self.networks if size <= left]
            if fitting and left - max(fitting) < size - left:  # fewer are left over than would be padding
                size = max(fitting)
            part = np.stack(pixels[start : start + size])
            rows += [self.classifier.answer(found) for _, found in self.networks[size].stream([(0, part)])]
            start += size
        return np.concatenate(rows)


def load_model(folder: Path, *, batch: int) -> LoadedModel:
    """Load a run and compile it for every batch that may come, so that no request pays for it.

    Args:
        folder: the run's.
        batch: the most images that run at once.

    Raises:
        RunError: the folder is incomplete, or its model does not give what its task says.
    """
    classifier = load(folder)
    size = classifier.preprocess.size
    networks = {count: classifier.compiled(count) for count in {*(b for b in _BATCHES if b < batch), batch}}
    blank = np.zeros((1, size, size, 3), np.uint8)
    for network in networks.values():
        classifier.answer(next(iter(network.stream([(0, blank)])))[1])
    return LoadedModel(classifier, folder.name, timestamp(), networks)


def rehearse(folder: Path, batch: int) -> None:
    """Do what `load_model` does in a process that can be ended: a model may be made so that it never answers.

    Raises:
        RunError: it failed there, or took longer than `LOAD_SECONDS`.
    """
    command = [sys.executable, "-P", "-c", _REHEARSAL, str(folder), str(batch)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=LOAD_SECONDS, check=False
        )
    except subprocess.TimeoutExpired:
        raise RunError(f"{folder}: not loaded within {LOAD_SECONDS:g} s") from None
    if done.returncode:
        said = done.stderr.decode("utf-8", "replace").strip().splitlines() or ["it gave no reason"]
        raise RunError(said[-1])


class Models:
    """The classifier that is served, exchanged when another one lies in its place."""

    def __init__(self, place: Place, *, batch: int, rehearse: Callable[[Path, int], None] = rehearse) -> None:
        """Load the first one; see `load_model` for what it raises. ``rehearse`` tries later ones first."""
        self._place, self._batch, self._rehearse = place, batch, rehearse
        folder = place()
        self._seen = self._loaded = signature(folder)
        self.current = load_model(folder, batch=batch)
        self.trouble: str | None = None
        """Why the latest exchange failed; None where it did not."""

    def refresh(self, *, at_once: bool = False) -> bool | None:
        """Look, and exchange the classifier where there is another one that has stopped changing.

        A folder that is being copied changes between two looks; what looks the same twice is complete. What
        cannot be loaded is tried again once it has changed, and the old classifier goes on serving.

        Args:
            at_once: take what is there for complete, and try again what could not be loaded.

        Returns:
            True where it was exchanged, False where that failed, None where there was nothing to do.
        """
        try:
            folder = self._place()
            found = signature(folder)
            settled, self._seen = found == self._seen, found
            same = found == self._loaded and not (at_once and self.trouble)
            if not (settled or at_once) or same:
                return None
            self._loaded = found
            self._rehearse(folder, self._batch)
            loaded = load_model(folder, batch=self._batch)
            if signature(folder) != found:
                self._loaded = ()
                return None
        except Exception as error:  # the watcher must outlive it: the next run may be better
            known = isinstance(error, HeadstartError | OSError)
            text = printable(str(error) if known else f"{type(error).__name__}: {error}")[:_LONGEST_LINE]
            if text != self.trouble:
                _log.warning("the classifier stays: %s", text)
            self.trouble = text
            return False
        self.current, self.trouble = loaded, None
        _log.warning("now serving %s", printable(loaded.run))
        return True


def signature(folder: Path) -> Signature:
    """What changes when a run's folder is replaced: inode, time and size of its files.

    Raises:
        RunError: one of them is missing.
    """
    found = []
    for name in (CLASSIFIER_FILE, MODEL_FILE):
        try:
            status = (folder / name).stat()
        except OSError as error:
            raise RunError(f"{folder / name}: {error.strerror}; fit again or restore the folder") from error
        found.append((status.st_ino, status.st_mtime_ns, status.st_size))
    return tuple(found)


def fixed(run: str | Path) -> Place:
    """Always the same folder, given by itself or by the run's id.

    Raises:
        RunError: there is no such run.
    """
    folder = Path(run)
    if not (folder / CLASSIFIER_FILE).exists():
        folder = RunStore().find(run).path
    return lambda: folder


def latest(runs: str | Path) -> Place:
    """The newest of the runs in a folder, by the time at which each says that it was made."""
    root = Path(runs)
    known: dict[tuple[Path, int], str] = {}

    def made(folder: Path) -> str:
        file = folder / RUN_FILE
        key = (file, file.stat().st_mtime_ns)
        if key not in known:
            known[key] = read_run(folder).created
        return known[key]

    def newest() -> Path:
        found: list[tuple[str, Path]] = []
        try:
            folders = [folder for folder in root.iterdir() if not folder.name.startswith(".")]
        except OSError as error:
            raise RunError(f"{root}: {error.strerror}; expected a folder with runs in it") from error
        for folder in folders:
            if not (folder / CLASSIFIER_FILE).exists():
                continue
            try:
                found.append((made(folder), folder))
            except (OSError, RunError):
                continue  # not a whole run, or not yet
        if not found:
            raise RunError(f"{root}: no run in it; headstart fit PHOTOS --out {root}/NAME makes one")
        return max(found)[1]

    return newest
