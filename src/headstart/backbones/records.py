"""Small JSON records of exported graphs, kept beside them."""

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.files import Unreadable, cache_folder, make, open_regular, read_json, write_whole

FORMAT = 1
"""Raised when graphs or records of older versions must not be used any more."""


def graphs_folder() -> Path:
    """Where exported graphs and their records are kept; made if missing."""
    folder = cache_folder() / "graphs"
    make(folder)
    return folder


def read_record(path: Path) -> dict[str, Any] | None:
    """The record, or None where there is none that this version can use."""
    try:
        record = read_json(path)
    except Unreadable:
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record in one step: a reader sees all of it or nothing."""
    write_whole(path, json.dumps({"format": FORMAT, **record}, indent=1))


def stamp(path: Path) -> list[int] | None:
    """Size and time of change, by which a file is known again without reading it; None if it is not there."""
    try:
        facts = path.stat()
    except OSError:
        return None
    return [facts.st_size, facts.st_mtime_ns]


def hash_file(path: Path) -> str:
    """Thirty-two hex digits of a regular file's bytes.

    Raises:
        Unreadable: it is no regular file.
        OSError: the system's reason.
    """
    with os.fdopen(open_regular(path), "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
