"""Reads files that came from others: regular ones, bounded in bytes and depth, below a root if one is set."""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

MEBI = 2**20

JSON_BYTES = 16 * MEBI
"""A description of something; lists of all images have bounds of their own."""

JSON_DEPTH = 32
"""Lists and objects inside each other; what Headstart writes needs ten."""

_JSON_CONTAINERS = 1_000_000
"""Lists and objects in a small file: an empty one is two letters, and takes up to 64 bytes of memory."""

_BYTES_PER_CONTAINER = 12
"""A large file may have more of them, as many as lists of images have."""

_LARGEST_WHOLE = 2**63
"""Whole numbers beyond overflow whatever they are handed to: databases, dates, floating-point numbers."""

_MOST_LINKS = 40
"""Links that one path may lead through; the system's own limit."""


class Unreadable(Exception):
    """A file that is not read; the message is the reason alone, without the file's name."""


def read_regular(path: str | Path, *, limit: int, below: Path | None = None) -> bytes:
    """The bytes of a regular file; a pipe, a device or a growing file neither blocks nor fills the memory.

    Args:
        path: the file.
        limit: bytes; a larger file is refused. What is counted is what was read, not what the system says.
        below: the folder in which the file must lie once every link is followed; None for anywhere.

    Raises:
        Unreadable: it is missing, no regular file, too large, or outside the folder; of what lies outside
            nothing is told, not even whether it is there.
    """
    try:
        descriptor = open_regular(path, below=below)
        try:
            data = _read(descriptor, limit=limit)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # a name may hold what no name can
        raise Unreadable(getattr(error, "strerror", None) or str(error)) from error
    if len(data) > limit:
        raise Unreadable(f"larger than {limit:,} bytes")
    return data


def _read(descriptor: int, *, limit: int) -> bytes:
    """All that there is, but at most a byte more than the limit.

    A file object would set aside ``limit`` bytes and give nearly all of them back, which takes longer than
    reading a photograph.
    """
    parts = [os.read(descriptor, min(os.fstat(descriptor).st_size, limit) + 1)]
    left = limit + 1 - len(parts[0])
    while left > 0 and (part := os.read(descriptor, min(left, MEBI))):
        parts.append(part)
        left -= len(part)
    return b"".join(parts)


def open_regular(path: str | Path, *, below: Path | None = None) -> int:
    """A descriptor for reading a regular file; ``below`` as in `read_regular`.

    Raises:
        Unreadable: it is no regular file, or outside the folder.
        OSError: the system's reason.
    """
    descriptor = os.open(path, _READ) if below is None else _open_below(below, path)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable("not a regular file")
    return descriptor


Roots = tuple[Path, ...]

_held: ContextVar[Roots | None] = ContextVar("roots", default=None)


@contextmanager
def held_below(*roots: Path) -> Iterator[None]:
    """For as long as it lasts, images, tables and archives are opened below these folders alone.

    Whoever lists or names them in it gets sources that keep to it, wherever and whenever they are read.
    """
    before = _held.set(roots)
    try:
        yield
    finally:
        _held.reset(before)


def held_roots() -> Roots | None:
    """The folders of `held_below`; None where everything may be opened."""
    return _held.get()


def root_of(path: str | Path, roots: Roots | None) -> Path | None:
    """Which of the roots a path must be opened below; None for anywhere. Unreadable where below none."""
    if roots is None:
        return None
    place = Path(os.path.join(os.getcwd(), path))
    for root in roots:
        if place.is_relative_to(root) or place.is_relative_to(os.path.realpath(root)):
            return root
    raise Unreadable(_OUTSIDE)


def is_there(path: str | Path, *, regular: bool = False) -> bool:
    """Whether something, or a regular file, is there that may be opened; outside is as good as absent."""
    try:
        root = root_of(path, held_roots())
        if root is None:
            return os.path.isfile(path) if regular else os.path.exists(path)
        descriptor = open_regular(path, below=root) if regular else _open_below(root, path)
    except (OSError, ValueError, Unreadable):
        return False
    os.close(descriptor)
    return True


def is_below(path: str | Path, root: Path) -> bool:
    """Whether a path leads to something inside a folder, links followed; no where nothing is there."""
    try:
        os.close(_open_below(root, path))
    except (OSError, ValueError, Unreadable):
        return False
    return True


def read_json(path: str | Path, *, limit: int = JSON_BYTES, below: Path | None = None) -> Any:
    """What a JSON file holds. It may be anybody's: what it costs is bounded by its size.

    Args:
        path: the file.
        limit: bytes.
        below: as in `read_regular`.

    Raises:
        Unreadable: as `read_regular`; or it is no JSON, is nested too deeply, or has numbers without end.
    """
    return parse_json(read_regular(path, limit=limit, below=below))


def parse_json(data: bytes | str, *, depth: int = JSON_DEPTH) -> Any:
    """The same of bytes that are read already; `depth` is how many levels it may have."""
    try:
        text = data.decode("utf-8-sig") if isinstance(data, bytes) else data
    except UnicodeDecodeError:
        raise Unreadable("no JSON: it is no UTF-8") from None
    if text.count("[") + text.count("{") > max(_JSON_CONTAINERS, len(text) // _BYTES_PER_CONTAINER):
        raise Unreadable("more lists in it than a file of that size has")
    try:
        found = json.loads(text, parse_int=_whole if _LONG.search(text) else None)
    except RecursionError:
        raise Unreadable(f"nested deeper than {depth} levels") from None
    except ValueError as error:
        raise Unreadable(f"no JSON: {error}") from None
    if _deeper(found, depth):
        raise Unreadable(f"nested deeper than {depth} levels")
    return found


_LONG = re.compile(r"[0-9]{19}")
"""Letters of a name too; but only where there are such are numbers looked at one by one."""


def _whole(digits: str) -> int:
    number = int(digits) if len(digits) <= 20 else _LARGEST_WHOLE
    if not -_LARGEST_WHOLE <= number < _LARGEST_WHOLE:
        raise ValueError("a whole number has more than 19 digits")
    return number


def _deeper(value: Any, levels: int) -> bool:
    """Whether lists and objects lie in each other for more than so many levels."""
    layer = [value]
    for _ in range(levels + 1):
        layer = [
            inner
            for each in layer
            if isinstance(each, dict | list)
            for inner in (each.values() if isinstance(each, dict) else each)
            if isinstance(inner, dict | list)
        ]
        if not layer:
            return False
    return True


_READ = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
"""Non-blocking: opening a pipe that nobody writes to must not wait for a writer."""

_STEP = sum(getattr(os, name, 0) for name in ("O_PATH", "O_DIRECTORY", "O_NOFOLLOW", "O_CLOEXEC"))
"""A folder on the way, which need not be readable; a link put there meanwhile is none."""

_OUTSIDE = "not in its folder, or not there"


def _open_below(root: Path, path: str | Path) -> int:
    """Opens a path step by step from a root, so that no step, and no link, leaves it while it is opened."""
    top = Path(os.path.realpath(root))
    if os.open not in os.supports_dir_fd or os.readlink not in os.supports_dir_fd:
        place = Path(os.path.realpath(path))  # no such steps here: compared, then opened
        if not place.is_relative_to(top):
            raise Unreadable(_OUTSIDE)
        return os.open(place, _READ)
    parts = _parts(top, root, os.path.join(os.getcwd(), path))
    opened = [os.open(top, _STEP)]
    links = 0
    try:
        while parts:
            part = parts.pop()
            if part == "..":
                if len(opened) == 1:
                    raise Unreadable(_OUTSIDE)
                os.close(opened.pop())
                continue
            target = _target(part, opened[-1])
            if target is None:
                flags = _STEP if parts else _READ | os.O_NOFOLLOW
                opened.append(os.open(part, flags, dir_fd=opened[-1]))
                continue
            links += 1
            if links > _MOST_LINKS:
                raise Unreadable(_OUTSIDE)
            if os.path.isabs(target):
                while len(opened) > 1:
                    os.close(opened.pop())
            parts += _parts(top, root, target)
        return opened.pop()
    except OSError as error:
        raise Unreadable(_OUTSIDE if error.errno in _ABSENT else error.strerror or str(error)) from error
    finally:
        for each in opened:
            os.close(each)


_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)
"""These would tell what lies behind a link."""


def _target(name: str, folder: int) -> str | None:
    """Where a link leads; None for what is none."""
    try:
        return os.readlink(name, dir_fd=folder)
    except OSError as error:
        if error.errno == errno.EINVAL:
            return None
        raise


def _parts(top: Path, root: Path, path: str) -> list[str]:
    """The steps from the root, the last one first."""
    if os.path.isabs(path):
        tops = (
            top,
            Path(os.path.abspath(root)),
            Path(os.getcwd(), root),
        )  # `..` in the root stays in its paths
        found = next((p for p in tops if Path(path).is_relative_to(p)), None)
        if found is None:
            raise Unreadable(_OUTSIDE)
        path = os.fspath(path)[len(os.fspath(found)) :]
    return [part for part in reversed(path.split("/")) if part not in ("", ".")]
