"""Writes files that are whole or not there: a kill or a power cut leaves no half of one."""

from __future__ import annotations

import errno
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

OUTPUT_MARKER = ".headstart-output"
"""A file in every folder of pictures and models that is written for the user: no photographs to train on."""


@contextmanager
def whole(path: str | Path, *, mode: int = 0o666) -> Iterator[Path]:
    """A draft beside ``path`` to write to; on leaving it is flushed to the disk and gets its name.

    Args:
        path: the file; one that is there is replaced in one step.
        mode: permissions, of which the process's mask takes its share.

    Raises:
        OSError: the system's reason, with the name that was asked for; the draft is gone, and a file that was
            there is as it was.
    """
    target = Path(path)
    draft = target.with_name(f".{target.name[:100]}.{secrets.token_hex(6)}.draft")
    try:
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        yield draft
        flush(draft)
        draft.replace(target)
        flush(target.parent)
    except BaseException as error:
        with suppress(OSError):  # it may not even have been made
            draft.unlink()
        if isinstance(error, OSError) and error.filename in (draft, os.fspath(draft)):
            error.filename, error.filename2 = os.fspath(target), None
        raise


def write_whole(path: str | Path, content: bytes | str, *, mode: int = 0o666) -> None:
    """Write a file whole or not at all, text as UTF-8; see `whole`."""
    with whole(path, mode=mode) as draft:
        draft.write_bytes(content if isinstance(content, bytes) else content.encode())


def write_new(path: str | Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write a file whole unless one is there; of several processes that do so at once, one's stays."""
    target = Path(path)
    draft = target.with_name(f".{target.name[:60]}.{secrets.token_hex(6)}.new")
    write_whole(draft, content, mode=mode)
    try:
        os.link(draft, target)  # unlike a rename, a link never replaces what is there
    except FileExistsError:
        return
    finally:
        draft.unlink()
    flush(target.parent)


def flush_tree(folder: Path) -> None:
    """Wait until everything below a folder, and the folder itself, is on the disk."""
    for place, _, names in os.walk(folder, topdown=False):
        for name in names:
            file = Path(place, name)
            if not file.is_symlink():
                flush(file)
        flush(Path(place))


def flush(path: Path) -> None:
    """Wait until a file's bytes, or a folder's names, are on the disk, where system and disk know how."""
    if os.name != "posix" and path.is_dir():
        return
    flags = os.O_RDONLY if os.name == "posix" else os.O_RDWR | getattr(os, "O_BINARY", 0)
    descriptor = os.open(path, flags)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF, errno.EROFS):
            raise  # of the others the disk knows no such thing
    finally:
        os.close(descriptor)


def mark_output(folder: Path) -> None:
    """Say in a folder that Headstart wrote it, so that it is never taken for photographs.

    Raises:
        OSError: it cannot be written.
    """
    (folder / OUTPUT_MARKER).write_text(
        "Written by Headstart, which passes over this folder when it reads photographs.\n", encoding="utf-8"
    )
