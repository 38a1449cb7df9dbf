"""Prediction servers that the studio starts, each in a process that ends with it."""

from __future__ import annotations

import atexit
import contextlib
import json
import subprocess
import sys
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from headstart.errors import OptionError

START_SECONDS = 60.0
"""Loading a classifier takes a second or two; after this long it will not come."""

STOP_SECONDS = 10.0
MOST = 4
"""Servers at once; each holds a compiled model in memory."""

_PROGRAM = """\
import os, signal, sys, threading

def outlive_nobody():
    sys.stdin.buffer.read()
    os.kill(os.getpid(), signal.SIGTERM)

threading.Thread(target=outlive_nobody, daemon=True).start()
from headstart.cli import main
main()
"""
"""The command, with an ear on its input: the system closes it when the studio ends, however that ends."""


@dataclass(frozen=True)
class Serving:
    """One server: the run, where it listens, its process."""

    run: str
    address: str
    process: subprocess.Popen[bytes]

    @property
    def alive(self) -> bool:
        """Whether it is still there."""
        return self.process.poll() is None


class Servings:
    """All of them. Safe to share between threads."""

    def __init__(self) -> None:
        self._servings: dict[str, Serving] = {}
        self._turn = threading.Lock()
        atexit.register(self.stop_all)

    def get(self, run: str) -> Serving | None:
        """The server of a run, while it is there."""
        found = self._servings.get(run)
        return found if found is not None and found.alive else None

    def start(self, run: str, folder: Path) -> Serving:
        """Starts a server on a free port of loopback, or gives the one that is there.

        Raises:
            OptionError: it did not start; the message is its own.
        """
        with self._turn:
            found = self.get(run)
            if found is not None:
                return found
            if sum(each.alive for each in self._servings.values()) >= MOST:
                raise OptionError(f"{MOST} classifiers are being served already; stop one of them first")
            with tempfile.TemporaryFile() as complaints:
                command = [sys.executable, "-c", _PROGRAM, "serve", str(folder), "--port", "0", "--json"]
                process = subprocess.Popen(
                    command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints
                )
                facts = _announcement(process)
                if facts is None:
                    _end(process)
                    complaints.seek(0)
                    said = complaints.read().decode("utf-8", "replace").strip().splitlines()
                    reason = said[-1].removeprefix("headstart: ") if said else "it gave no reason"
                    raise OptionError(f"the server did not start: {reason}")
            self._servings[run] = Serving(run, str(facts["address"]), process)
            return self._servings[run]

    def stop(self, run: str) -> None:
        """Ends a run's server after the requests that it has taken."""
        with self._turn:
            found = self._servings.pop(run, None)
        if found is not None:
            _end(found.process)

    def stop_all(self) -> None:
        """Ends every server."""
        for run in list(self._servings):
            self.stop(run)


def _announcement(process: subprocess.Popen[bytes]) -> dict[str, Any] | None:
    """What the server prints once it takes connections; None where it ends or is silent for too long."""
    found: list[dict[str, Any]] = []
    pipe = process.stdout
    if pipe is None:
        return None

    def read(pipe: IO[bytes]) -> None:
        text = b""
        for line in pipe:
            text += line
            with contextlib.suppress(ValueError):
                found.append(json.loads(text))
                return

    reader = threading.Thread(target=read, args=(pipe,), daemon=True)
    reader.start()
    reader.join(START_SECONDS)
    return found[0] if found else None


def _end(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    for pipe in (process.stdin, process.stdout):
        if pipe is not None:
            pipe.close()
