"""Names and pins that people give to runs, in one file of the studio's; runs themselves stay as they are."""

from __future__ import annotations

import json
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from headstart.errors import printable
from headstart.files import Unreadable, read_json, write_whole
from headstart.runs import Run, UnreadableRun

LONGEST_NAME = 60


@dataclass(frozen=True)
class RunNames:
    """Names and pins by run id. Safe to share between threads."""

    file: Path
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def all(self) -> dict[str, str]:
        """The name of each run that has one."""
        return {run: str(said.get("name")) for run, said in self._read().items() if said.get("name")}

    def pinned(self) -> list[str]:
        """Ids of the pinned runs, the last pinned first."""
        return [run for run, said in reversed(self._read().items()) if said.get("pinned")]

    def give(self, run: str, *, name: str, pinned: bool) -> None:
        """Names and pins a run; with neither, and for a run that is gone, nothing is kept of it."""
        name = printable(" ".join(name.split()))[:LONGEST_NAME]
        with self._turn:
            said = self._read()
            said.pop(run, None)
            if name or pinned:
                said[run] = {"name": name, "pinned": pinned}
            self.file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_whole(self.file, json.dumps(said), mode=0o600)

    def _read(self) -> dict[str, Mapping[str, object]]:
        try:
            found = read_json(self.file)
        except Unreadable:
            return {}
        known = found.items() if isinstance(found, dict) else ()
        return {run: said for run, said in known if isinstance(said, dict)}


@dataclass(frozen=True)
class Family:
    """A run, and those that were retrained from it after corrections, the newest first."""

    first: Run | UnreadableRun
    later: tuple[Run, ...] = ()


def families(runs: Sequence[Run | UnreadableRun]) -> list[Family]:
    """Retrained runs folded under the oldest of theirs that is listed, in the order of each one's newest."""
    known = {run.id: run for run in runs if isinstance(run, Run)}

    def oldest(run: Run) -> str:
        seen = {run.id}
        while (parent := known.get(str(run.head_fit.get("retrained_from")))) and parent.id not in seen:
            seen.add(parent.id)
            run = parent
        return run.id

    found: dict[str, list[Run]] = {}
    order: list[str | UnreadableRun] = []
    for run in runs:
        if isinstance(run, UnreadableRun):
            order.append(run)
            continue
        root = oldest(run)
        if root not in found:
            found[root] = []
            order.append(root)
        if run.id != root:
            found[root].append(run)
    return [
        Family(each) if isinstance(each, UnreadableRun) else Family(known[each], tuple(found[each]))
        for each in order
    ]
