"""File descriptors: what libraries write to them past Python."""

import contextlib
import os
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator

STANDARD_ERROR = 2

_turn = threading.RLock()
"""One thread after the other, so that each puts back what it found."""


@contextlib.contextmanager
def standard_error_without(drop: Callable[[bytes], bool]) -> Iterator[None]:
    """Hold back what any library writes to file descriptor 2 until this ends, and leave some lines out.

    Args:
        drop: Whether a line is left out.
    """
    try:
        os.fstat(STANDARD_ERROR)
    except OSError:  # there is no such descriptor
        yield
        return
    with _turn, tempfile.TemporaryFile() as written:
        terminal = os.dup(STANDARD_ERROR)
        sys.stderr.flush()
        os.dup2(written.fileno(), STANDARD_ERROR)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, STANDARD_ERROR)
            os.close(terminal)
            written.seek(0)
            for line in written:
                if not drop(line):
                    os.write(STANDARD_ERROR, line)
