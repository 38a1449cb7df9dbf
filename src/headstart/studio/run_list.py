"""The list of runs: those of the run store, and those in the studio's folder that it does not know."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

from headstart.errors import RunError, printable
from headstart.runs import RUN_FILE, Run, RunStore, UnreadableRun, look_at, read_run
from headstart.runs.store import name_of
from headstart.web.recent import Recent

PAGE = 100
"""Runs on one page of the list."""

_KEPT = 512
_LARGEST_KEPT = 1 << 20
"""Bytes of a record that is kept in memory; a larger one is read each time."""

Listed = Run | UnreadableRun


@dataclass(frozen=True)
class RunList:
    """Every run that still lies where it was saved, wherever it was started. Safe to share between threads.

    Attributes:
        folder: where runs made here are saved; what was copied or unpacked there is listed too.
    """

    folder: Path
    _kept: Recent[tuple[tuple[int, int], Listed]] = field(default_factory=lambda: Recent(_KEPT), repr=False)

    def page(
        self, number: int = 0, *, size: int | None = None, contains: str = ""
    ) -> tuple[list[Listed], bool]:
        """One page of them, the newest first, as their folders say it now; and whether there are more.

        What no index knows is on the first page. An index that cannot be read is one unreadable entry.
        """
        store, size = RunStore(), size or PAGE
        unreadable: list[Listed] = []
        try:
            found = store.entries(contains=contains, limit=size + 1, after=number * size)
        except RunError as error:
            found = []
            place = Path(name_of(store.address))
            unreadable = [UnreadableRun(place.name, place, "", printable(str(error)))]
        listed = [self._now(each) for each in found[:size] if each.path.is_dir()]
        if number == 0:
            known = {each.id for each in listed}
            listed += [
                each
                for each in store.unlisted(self.folder, look=self._look)
                if each.id not in known and _says(each, contains)
            ]
        listed.sort(key=lambda each: (each.created, each.id), reverse=True)
        return [*unreadable, *listed], len(found) > size

    def on(self, data: str) -> list[Run]:
        """Every run on a data set of that name, the newest first."""
        found = self._unlisted()
        with suppress(RunError):  # the list of runs says so
            found += RunStore().select(contains=data)
        chosen = {run.id: run for run in reversed(found) if run.config.data == data and run.path.is_dir()}
        return sorted(chosen.values(), key=lambda run: (run.created, run.id), reverse=True)

    def get(self, identity: str) -> Run | None:
        """A run by its whole id; None where there is none.

        Raises:
            RunError: it is there and cannot be read.
        """
        found: Listed | None = None
        with suppress(RunError):  # the folders can do without the index
            found = RunStore().get(identity)
        if found is None or not found.path.is_dir():
            unlisted = RunStore().unlisted(self.folder, look=self._look)
            found = next((each for each in unlisted if each.id == identity), None)
        if isinstance(found, UnreadableRun):
            raise RunError(f"run {found.id} cannot be read: {found.reason}")
        return None if found is None else read_run(found.path)

    def _unlisted(self) -> list[Run]:
        return [each for each in RunStore().unlisted(self.folder, look=self._look) if isinstance(each, Run)]

    def _now(self, listed: Listed) -> Listed:
        """An entry of the index as its folder says it now."""
        found = listed if isinstance(listed, UnreadableRun) else self._look(listed.path)
        return found if isinstance(found, Run) else replace(found, id=listed.id, created=listed.created)

    def _look(self, folder: Path) -> Listed:
        """A run's record, read again when its file has changed."""
        try:
            status = (folder / RUN_FILE).stat()
        except OSError:
            return look_at(folder)
        stamp = (status.st_mtime_ns, status.st_size)
        kept = self._kept.peek(str(folder))
        if kept is not None and kept[0] == stamp:
            return kept[1]
        found = look_at(folder)
        if status.st_size <= _LARGEST_KEPT:
            self._kept.keep((stamp, found), name=str(folder))
        return found


def _says(listed: Listed, text: str) -> bool:
    return not text or (isinstance(listed, Run) and text.casefold() in str(listed.to_dict()).casefold())
