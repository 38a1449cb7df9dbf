"""Results of experiments on this machine, in the store."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headstart.errors import RunError
from headstart.files import Unreadable, parse_json
from headstart.lesson.engine.results import ExperimentResult
from headstart.runs import store

_NEWEST = 20
"""Results among which one that was measured whole is looked for: all newer ones are."""


class ResultStore:
    """An append-only table of results."""

    def __init__(self, home: Path | None = None) -> None:
        self.address = store.address(home)

    def add(self, result: ExperimentResult) -> None:
        """Keep a result; when this returns, it is on the disk."""
        row = (
            result.id,
            result.name,
            result.size,
            len(result.varied),
            result.created,
            result.seconds,
            json.dumps(result.to_dict(), ensure_ascii=False),
        )
        query = (
            "insert into results (id, name, size, varied, created, seconds, result) "
            "values (?, ?, ?, ?, ?, ?, ?)"
        )
        self._use(lambda database: database.execute(query, row), writes=True)

    def find(self, identity: str) -> ExperimentResult | None:
        """One result by its id, or None where it is not here."""
        return next(iter(self._select("where id = ?", identity)), None)

    def latest(
        self, name: str, *, size: str | None = None, as_declared: bool = False
    ) -> ExperimentResult | None:
        """The newest result of an experiment, or None while it has not run.

        Args:
            name: the experiment's.
            size: only of this size.
            as_declared: only where no parameter was varied and no training was cut short, as in results of
                old, which is what prose may quote.
        """
        where, values = "where name = ?", [name]
        if size is not None:
            where, values = f"{where} and size = ?", [*values, size]
        if not as_declared:
            return next(iter(self._select(f"{where} order by number desc limit 1", *values)), None)
        found = self._select(f"{where} and varied = 0 order by number desc limit {_NEWEST}", *values)
        return next((each for each in found if each.processor_seconds > 0), None)

    def history(self, name: str | None = None, *, limit: int = 50) -> list[ExperimentResult]:
        """Stored results, the newest first."""
        where, values = ("where name = ? ", [name]) if name else ("", [])
        return self._select(f"{where}order by number desc limit ?", *values, limit)

    def _select(self, where: str, *values: str | int) -> list[ExperimentResult]:
        if not store.is_there(self.address):
            return []
        query = f"select result from results {where}"
        rows = self._use(lambda database: database.execute(query, values).fetchall(), writes=False)
        return [result for (text,) in rows if (result := _result(text)) is not None]

    def _use(self, work: Callable[[store.Database], Any], *, writes: bool) -> Any:
        try:
            return store.use(self.address, work, writes=writes)
        except (OSError, sqlite3.Error) as error:
            raise RunError(
                f"results of experiments in {store.name_of(self.address)}: {store.reason(error)}"
            ) from error


def _result(text: str) -> ExperimentResult | None:
    """What a row holds; None where it is damaged."""
    try:
        return ExperimentResult.from_dict(parse_json(text))
    except (Unreadable, AttributeError, KeyError, TypeError, ValueError):
        return None
