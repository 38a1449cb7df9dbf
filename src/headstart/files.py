"""Reads files that came from others: regular ones alone, bounded in bytes, below a root if there is one."""

from __future__ import annotations

import os
import stat
from pathlib import Path


class Unreadable(Exception):
    """A file that is not read; the message is the reason alone, without the file's name."""


def read_regular(path: str | Path, *, limit: int, below: Path | None = None) -> bytes:
    """The bytes of a regular file; a pipe, a device or a growing file neither blocks nor fills the memory.

    Args:
        path: the file.
        limit: bytes; a larger file is refused. What is counted is what was read, not what the system says.
        below: the folder in which the file must lie once every link is followed; None for anywhere.

    Raises:
        Unreadable: it is missing, no regular file, too large, or outside the folder.
    """
    if below is not None and not Path(path).resolve().is_relative_to(below.resolve()):
        raise Unreadable("a link out of its folder is not followed")
    try:
        # Non-blocking: opening a pipe that nobody writes to must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise Unreadable("not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                data = file.read(limit + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # a name may hold what no name can
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    if len(data) > limit:
        raise Unreadable(f"larger than {limit:,} bytes")
    return data
