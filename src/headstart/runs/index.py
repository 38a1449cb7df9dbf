"""The index of all runs, in the store: finds a run by its id, and is made again from the folders."""

import json
import os
import sqlite3
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from headstart.errors import RunError, printable
from headstart.files import Mistyped, Unreadable, home_folder, parse_json
from headstart.runs import store
from headstart.runs.record import RUN_FILE, Run, UnreadableRun, look_at, read_run

_LEVELS = 3
"""Folders below a given one in which runs are looked for."""

_MOST_FOLDERS = 100_000
"""Folders that are looked into; whoever gives a whole disk is not kept waiting for ever."""

_ALL = 2**62
"""A limit that is none, in SQLite and PostgreSQL alike."""

Listed = Run | UnreadableRun
_T = TypeVar("_T")


@dataclass(frozen=True)
class Rebuilt:
    """What an index was made of: runs that were read, that could not be, and how many are gone."""

    runs: tuple[Run, ...]
    unreadable: tuple[UnreadableRun, ...] = ()
    gone: int = 0


@dataclass(frozen=True)
class RunStore:
    """The index of all runs, a table of the store. The folders are the truth: it may be made again."""

    home: Path = field(default_factory=home_folder)

    @property
    def address(self) -> store.Address:
        """The store's file or server."""
        return store.address(self.home)

    def add(self, run: Run) -> None:
        """Enter a run; entering it again replaces the entry.

        Raises:
            RunError: the index cannot be written; the run's folder is complete all the same.
        """
        self._use(lambda database: _enter(database, [run]), writes=True)

    def select(self, *, contains: str = "", limit: int | None = None) -> list[Run]:
        """Runs that can be read, the newest first; ``contains`` must be somewhere in a run's record."""
        return [each for each in self.entries(contains=contains, limit=limit) if isinstance(each, Run)]

    def entries(self, *, contains: str = "", limit: int | None = None, after: int = 0) -> list[Listed]:
        """The same with those that cannot be read, ``after`` so many."""
        sought = json.dumps(contains)[1:-1]  # as the record writes it
        for special in "!%_":  # those of LIKE stand for themselves
            sought = sought.replace(special, f"!{special}")
        return self._entries(
            "WHERE lower(body) LIKE lower(?) ESCAPE '!' ORDER BY created DESC, id DESC LIMIT ? OFFSET ?",
            (f"%{sought}%", _ALL if limit is None else limit, after),
        )

    def get(self, identity: str) -> Listed | None:
        """The run of this id."""
        found = self._entries("WHERE id = ?", (identity,))
        return found[0] if found else None

    def find(self, name: str | Path) -> Run:
        """A run by its folder, its id, or the beginning of an id that is unique.

        Raises:
            RunError: there is none, several begin so, its folder is gone, or its record cannot be read.
        """
        folder = Path(name)
        if folder.is_dir():
            return read_run(folder)
        text = str(name)
        matches = self._entries("WHERE substr(id, 1, ?) = ?", (len(text), text))
        # Of a damaged row the id itself may be what is damaged; the folder knows better.
        matches = matches or [
            run for run in (*self.entries(), *self.unlisted(Path("runs"))) if run.id.startswith(text)
        ]
        exact = [run for run in matches if run.id == text]
        if len(exact or matches) > 1:
            raise RunError(f"{name} begins {len(matches)} runs; give more of the id (headstart runs)")
        if not matches:
            raise RunError(
                f"no run {printable(name)}: neither a folder nor an id; headstart runs lists the runs"
            )
        run = (exact or matches)[0]
        if not run.path.exists():
            raise RunError(f"run {run.id} was in {run.path}, which is gone; fit again or give its new folder")
        return read_run(run.path)

    def unlisted(self, folder: Path, look: Callable[[Path], Listed] = look_at) -> list[Listed]:
        """Runs directly in a folder that the index does not list: copied, unpacked, or never entered.

        Args:
            folder: need not be there.
            look: reads one.
        """
        places = [place for place in _runs_in(folder, levels=1) if place != folder.absolute()]
        if not places:
            return []
        known: set[bytes] = set()
        with suppress(RunError):  # without an index none of them is known
            if store.is_there(self.address):
                paths = self._use(lambda database: database.execute("SELECT path FROM runs").fetchall())
                known = {os.fsencode(path) for (path,) in paths}
        return [look(place) for place in places if os.fsencode(place) not in known]

    def rebuild(self, folders: Iterable[Path] = ()) -> Rebuilt:
        """Make the index again from the folders: those that it knows, and what lies in those that are given.

        A run whose folder is gone (a disk that is not there, perhaps) stays listed while its row can be read.

        Raises:
            RunError: the index cannot be written.
        """
        known = self._entries("", ()) if store.is_there(self.address) else []
        gone = [each for each in known if isinstance(each, Run) and not each.path.is_dir()]
        places = {each.path for each in known} | {each for folder in folders for each in _runs_in(folder)}
        looked = [look_at(place) for place in sorted(places) if place.is_dir()]
        runs = [each for each in looked if isinstance(each, Run)]

        def write(database: store.Database) -> None:
            database.execute("DELETE FROM runs")
            _enter(database, [*gone, *runs])

        self._use(write, writes=True)
        return Rebuilt(
            tuple(runs), tuple(each for each in looked if isinstance(each, UnreadableRun)), len(gone)
        )

    # The store

    def _entries(self, where: str, values: Sequence[Any]) -> list[Listed]:
        if not store.is_there(self.address):
            return []
        query = f"SELECT rowid, id, path, created, body FROM runs {where}"
        rows: list[Sequence[Any]] = self._use(lambda database: database.execute(query, values).fetchall())
        read = [_entry(row[1:]) for row in rows]
        damaged = {
            row[0]: entry
            for row, (entry, sound) in zip(rows, read, strict=True)
            if isinstance(entry, Run) and not sound
        }
        if damaged:
            with suppress(RunError):  # a read-only home can do without
                self._use(lambda database: _replace(database, damaged), writes=True)
        return [entry for entry, _ in read]

    def _use(self, work: Callable[[store.Database], _T], *, writes: bool = False) -> _T:
        try:
            return store.use(self.address, work, writes=writes)
        except (OSError, sqlite3.Error) as error:
            raise RunError(f"runs store {store.name_of(self.address)}: {store.reason(error)}") from error


def _enter(database: store.Database, runs: Iterable[Run]) -> None:
    rows = (
        # A path need not be text.
        (run.id, os.fsencode(run.path.absolute()), run.created, json.dumps(run.to_dict(), default=str))
        for run in runs
    )
    database.executemany(
        "INSERT INTO runs (id, path, created, body) VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET "
        "path = excluded.path, created = excluded.created, body = excluded.body",
        rows,
    )


def _replace(database: store.Database, damaged: Mapping[int, Run]) -> None:
    """Replace damaged rows by what their folders say."""
    database.executemany("DELETE FROM runs WHERE rowid = ?", [(row,) for row in damaged])
    _enter(database, damaged.values())


def _entry(row: Sequence[Any]) -> tuple[Listed, bool]:
    """A row's run, or what its folder says where the row is damaged; and whether the row is sound."""
    identity, path, created, body = (
        each.decode("utf-8", "replace") if isinstance(each, bytes) and number != 1 else each
        for number, each in enumerate(row)
    )
    place = Path(os.fsdecode(path if isinstance(path, bytes) else str(path).encode("utf-8", "replace")))
    try:
        record = parse_json(body)
        run = Run.from_dict(record, path=place)
        same_place = record.get("path") == str(place) or place.is_dir()
        if run.id == identity and run.created == created and same_place:
            return run, True
        reason = "its row in the index is damaged"
    except (Unreadable, Mistyped, AttributeError, TypeError) as error:
        reason = f"its row in the index is damaged or of another version: {printable(str(error))}"
    for folder in (place, *store.places_in(str(body).encode("utf-8", "replace"))):
        found = look_at(folder)
        if isinstance(found, Run):
            return found, False
    return UnreadableRun(printable(str(identity)), place, printable(str(created)), reason), False


def _runs_in(folder: Path, *, levels: int = _LEVELS) -> list[Path]:
    """The runs' folders in a folder, or itself; hidden ones are drafts."""
    found: list[Path] = []
    layer, seen = [folder.absolute()], 0
    for _ in range(levels + 1):
        below: list[Path] = []
        for place in layer:
            if os.path.lexists(place / RUN_FILE):
                found.append(place)
                continue
            try:
                with os.scandir(place) as entries:
                    inner = [
                        Path(each.path)
                        for each in entries
                        if not each.name.startswith(".") and each.is_dir(follow_symlinks=False)
                    ]
            except OSError:
                continue
            seen += len(inner)
            below += inner if seen <= _MOST_FOLDERS else []
        layer = below
    return found
