"""Programs that tests start: Ctrl-C reaches them, however pytest was started, and none outlives its test."""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def started(command: Sequence[str | Path], **options: Any) -> Iterator[subprocess.Popen[str]]:
    """A running program, which is killed at the end unless it has ended; ``options`` are those of Popen.

    What a shell starts in the background, or with nohup, ignores SIGINT, and so does whatever that starts in
    turn. Hence it is handled while the program starts: a handler is not inherited, the default is.
    """
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        program = subprocess.Popen(command, text=True, **options)
    finally:
        signal.signal(signal.SIGINT, before)
    with program:
        try:
            yield program
        finally:
            program.kill()
