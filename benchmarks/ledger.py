"""Results of a long benchmark, one line each in a file, so that a stopped one goes on where it was."""

import json
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


class Ledger:
    """What is known already, by key, and what is added to it as it comes."""

    def __init__(self, file: Path, *, total: int) -> None:
        self.file, self.total = file, total
        self._known: dict[str, Any] = {}
        self._started, self._added = time.perf_counter(), 0
        if file.exists():
            for line in file.read_text().splitlines():
                try:
                    entry = json.loads(line)
                except ValueError:
                    continue  # written half when the benchmark was stopped
                self._known[entry["key"]] = entry["value"]
        if self._known:
            print(f"{file}: {len(self._known)} of {total} results are there already", flush=True)

    def __contains__(self, key: str) -> bool:
        """Whether this was measured before."""
        return key in self._known

    def __getitem__(self, key: str) -> Any:
        """What was measured."""
        return self._known[key]

    def add(self, key: str, value: Any) -> None:
        """Keep a result on the disk."""
        with self.file.open("a") as file:
            file.write("\n" * (file.tell() > 0) + json.dumps({"key": key, "value": value}))
        self._known[key] = value
        self._added += 1

    def position(self) -> str:
        """``[12/44, about 95 s left]``: how many are done and, by those of this process, what is to come."""
        done = len(self._known)
        each = (time.perf_counter() - self._started) / max(1, self._added)
        return f"[{done:2}/{self.total}, about {each * max(0, self.total - done):.0f} s left]"


@contextmanager
def workplace(folder: Path | None) -> Iterator[Path]:
    """A folder for everything: the one named with ``--work``, which stays, or one that is gone afterwards."""
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.resolve()
        return
    with tempfile.TemporaryDirectory() as scratch:
        yield Path(scratch)
