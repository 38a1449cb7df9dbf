"""A bound on memory while something reads a file that a stranger may have written."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

_turn = threading.RLock()
"""The bound is one number of the process: two at once would hand each other's on, and leave it for good."""

HEADROOM = 256 * 2**20
"""Bytes that reading any file may take beside what the file itself holds."""


@contextmanager
def bounded_memory(more: int) -> Iterator[None]:
    """Let this process take so many bytes more than it has; what takes further ones gets a MemoryError.

    The bound is the process's own, so other threads meet it too; it is wide enough for what is honest, and
    one such reading waits for another. Where the system has none (anything but Linux), there is none.

    Args:
        more: bytes.
    """
    if not sys.platform.startswith("linux"):
        yield
        return
    import resource

    with _turn:
        taken = next(
            int(line.split()[1]) * 1024
            for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
            if line.startswith("VmData:")
        )
        soft, hard = resource.getrlimit(resource.RLIMIT_DATA)
        bound = taken + more if soft == resource.RLIM_INFINITY else min(taken + more, soft)
        resource.setrlimit(resource.RLIMIT_DATA, (bound, hard))
        try:
            yield
        finally:
            resource.setrlimit(resource.RLIMIT_DATA, (soft, hard))
