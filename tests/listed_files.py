"""Files that are listed and never decoded."""

from __future__ import annotations

from pathlib import Path

PIXEL = b"\xff\xd8\xff and so on: listing does not decode"


def fill(root: str | Path, *names: str, content: bytes = PIXEL) -> Path:
    """Files of these names below a folder, each with the same content."""
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(root)
