"""What was found out about a graph, kept as small JSON files beside it, written atomically."""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.places import cache_folder, make

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
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return record if isinstance(record, dict) and record.get("format") == FORMAT else None


def write_record(path: Path, record: Mapping[str, Any]) -> None:
    """Write the record in one step: a reader sees all of it or nothing."""
    text = json.dumps({"format": FORMAT, **record}, indent=1)
    write_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a draft, then rename it to ``path``, so that a kill leaves no half-written file."""
    handle, draft = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".draft")
    os.close(handle)
    try:
        write(Path(draft))
        os.replace(draft, path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise


def hash_file(path: Path) -> str:
    """Thirty-two hex digits of the file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
