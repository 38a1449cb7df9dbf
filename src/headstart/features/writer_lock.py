"""A lock for one writer at a time, which names the process that one waits for.

SQLite has a lock of its own for writers, but it is silent: a process that was stopped (Ctrl-Z, ``SIGSTOP``,
a debugger) in the middle of a transaction keeps all others waiting for as long as it sleeps, and nothing says
so. So a writer locks a file first. The system gives the lock back when a process dies.
"""

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from headstart.errors import CacheError

PATIENCE = 3.0
"""Seconds of waiting before it is said whom for; a transaction takes hundredths of one."""

LAST_PATIENCE = 2.0
"""Seconds that a writer in a hurry waits: it was interrupted and only wants to keep what it has."""

_SHORTEST_NAP, _LONGEST_NAP = 0.001, 0.02
_FILE = "writer.lock"

_log = logging.getLogger(__name__)


@contextmanager
def writer_lock(folder: Path, *, hurry: threading.Event | None = None) -> Iterator[None]:
    """Hold the lock for writing to the database in ``folder``.

    Args:
        folder: of the database.
        hurry: once set, waiting goes on for `LAST_PATIENCE` seconds at most.

    Raises:
        CacheError: there was a hurry, and somebody else kept the lock.
    """
    if os.name != "posix":  # elsewhere SQLite's own lock has to do
        yield
        return
    # A file opened anew is a holder of its own, so that the threads of one process exclude each other too.
    with (folder / _FILE).open("a+b", buffering=0) as file:
        _wait(file, folder, hurry=hurry)
        file.truncate(0)
        file.write(str(os.getpid()).encode())
        yield


def _wait(file: IO[bytes], folder: Path, *, hurry: threading.Event | None) -> None:
    import fcntl

    started, nap, said = time.monotonic(), _SHORTEST_NAP, False
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return
        except BlockingIOError:
            waited = time.monotonic() - started
        except OSError:
            return  # a file system without such locks: SQLite's own has to do
        if hurry is not None and hurry.is_set() and waited > LAST_PATIENCE:
            raise CacheError(f"feature cache {folder}: {_holder(file)} is writing to it and does not end")
        if waited > PATIENCE and not said:
            said = True
            _log.warning("feature cache %s: waiting for %s, which is writing to it", folder, _holder(file))
        time.sleep(nap)
        nap = min(2 * nap, _LONGEST_NAP)


def _holder(file: IO[bytes]) -> str:
    """Who holds the lock, and how to go on where that process is stopped."""
    file.seek(0)
    name = file.read(32).decode("ascii", errors="replace")
    if not name.isdecimal():
        return "another process"
    try:
        state = Path(f"/proc/{name}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (OSError, IndexError):
        state = ""
    if state in ("T", "t"):
        return f"process {name} (stopped; kill -CONT {name} lets it go on, kill -KILL {name} ends it)"
    return f"process {name}"
