"""Folders that appear complete or not at all, and what killed writers of them left."""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from headstart.errors import RunError
from headstart.files import flush, flush_tree


def check_place(path: Path) -> None:
    """Refuse a folder that a run cannot be saved in: asked before the work, or the work would be lost.

    Raises:
        RunError: the place is taken or cannot be written.
    """
    if path.exists():
        raise RunError(f"{path} is there already; name another folder with --out, or remove it")
    parent = next(folder for folder in path.parents if folder.exists())
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        raise RunError(f"{path}: {parent} cannot be written; name another folder with --out")


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder that appears at ``path`` complete or not at all.

    What a killed process left half written beside it is removed first (see `sweep`).

    Raises:
        RunError: the place is taken or cannot be written.
    """
    check_place(path)
    sweep(path.parent)
    partial = path.with_name(f".{path.name}.{_host()}.{os.getpid()}{_PARTIAL}")
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise RunError(f"{path}: {error.strerror}; name a folder that can be written with --out") from error
    try:
        with _locked(partial):
            yield partial
            flush_tree(partial)
            partial.rename(path)
            flush(path.parent)
    except BaseException as error:
        import shutil

        shutil.rmtree(partial, ignore_errors=True)
        if isinstance(error, OSError):
            raise RunError(
                f"{path}: {error.strerror}; make room or name another folder with --out"
            ) from error
        raise


_PARTIAL = ".partial"
"""A folder that is being written is hidden and called ``.NAME.HOST.PROCESS.partial``."""

_STARTING = 60.0
"""Seconds without a change after which a process of that number is another one, given the number later."""

_STALE = 86400.0
"""Seconds without a change after which a folder is given up whose writer cannot be asked after from here."""


def sweep(folder: Path) -> list[Path]:
    """Remove the half-written folders in ``folder`` that processes left which were killed.

    A folder's writer holds a lock on it, which the system gives back when the process ends. Where that
    cannot be asked (another machine's process, a disk without locks), a day without a change decides.

    Returns:
        What was removed; nothing that cannot be read or removed is an error.
    """
    import shutil

    removed = []
    try:
        found = [Path(entry.path) for entry in os.scandir(folder) if _is_partial(entry)]
    except OSError:
        return []
    for partial in found:
        try:
            if _abandoned(partial):
                shutil.rmtree(partial)
                removed.append(partial)
        except OSError:
            continue
    return removed


def _is_partial(entry: "os.DirEntry[str]") -> bool:
    parts = entry.name.removesuffix(_PARTIAL).rsplit(".", 2)
    named = entry.name.startswith(".") and entry.name.endswith(_PARTIAL) and len(parts) == 3
    return named and parts[2].isdecimal() and entry.is_dir(follow_symlinks=False)


def _abandoned(partial: Path) -> bool:
    """Whether nobody is writing this folder any more; in doubt somebody is."""
    _, host, process = partial.name.removesuffix(_PARTIAL).rsplit(".", 2)
    idle = time.time() - max(each.stat().st_mtime for each in (partial, *partial.iterdir()))
    free = _lock_is_free(partial) if host == _host() else None
    if free is None:
        return idle > _STALE
    return free and (not _is_running(int(process)) or idle > _STARTING)


def _host() -> str:
    """This machine's name, as a part of a file's name that has no dot."""
    import platform

    return "".join(each if each.isalnum() else "-" for each in platform.node())[:24] or "host"


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, where the system and the disk know such locks."""
    if os.name != "posix":
        yield
        return
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _lock_is_free(folder: Path) -> bool | None:
    """Whether no process holds the folder's lock; None where there are no such locks."""
    if os.name != "posix":
        return None
    import fcntl

    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return True
    except BlockingIOError:
        return False
    except OSError:
        return None
    finally:
        os.close(descriptor)


def _is_running(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):  # another user's, or a number that no process has
        return True
    return True
