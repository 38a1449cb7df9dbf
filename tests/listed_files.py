"""Files that are listed and never decoded."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path

from headstart.data.dataset import Dataset

PIXEL = b"\xff\xd8\xff and so on: listing does not decode"


def fill(root: str | Path, *names: str, content: bytes = PIXEL) -> Path:
    """Files of these names below a folder, each with the same content."""
    for name in names:
        path = Path(root) / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return Path(root)


def write(root: Path, files: Mapping[str, bytes | str]) -> Path:
    """Files below a folder, by their names with slashes."""
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return root


def zipped(path: Path, members: Mapping[str, bytes | str] | Iterable[tuple[str, bytes | str]]) -> Path:
    """A zip of these members."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items() if isinstance(members, Mapping) else members:
            archive.writestr(name, content)
    return path


def described(dataset: Dataset) -> list[tuple[str, str, str | None]]:
    """Every image's name, label and split."""
    return [(sample.name, dataset.classes[sample.label], sample.split) for sample in dataset.samples]
