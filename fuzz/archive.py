"""Fuzzes the reading of zips: every input is a listing whose members read, or an error of ours.

python fuzz/archive.py [SECONDS]
"""

import io
import os
import tempfile
import zipfile
from pathlib import Path

from run import fuzz

_FOLDER = Path(tempfile.mkdtemp())


def seeds() -> list[bytes]:
    """Zips of class folders, with a table, with names that climb, and encrypted by their flags."""
    found = []
    for names in (
        ["a/1.jpg", "b/2.jpg"],
        ["photos/a/1.jpg", "photos/b/2.png", "photos/table.csv"],
        ["../../up.jpg", "/etc/passwd", "C:\\x\\1.jpg", "a//b/./1.jpg"],
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
            for name in names:
                archive.writestr(
                    name, b"path,label\n1.jpg,a\n" if name.endswith("csv") else b"\xff\xd8\xff" * 30
                )
        found.append(buffer.getvalue())
    return found


def target(data: bytes) -> None:
    """List the zip as a data set and read what it lists."""
    from headstart.data.dataset import read_dataset
    from headstart.errors import DatasetError, ImageError

    file = _FOLDER / "sent.zip"
    file.write_bytes(data)
    try:
        samples = read_dataset(file, for_training=False).samples
    except DatasetError as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error!r}") from error
        return
    for sample in samples[:50]:
        try:
            sample.source.read()
        except ImageError as error:
            if "\n" in str(error):
                raise AssertionError(f"more than one line: {error!r}") from error
    if os.listdir(_FOLDER) != ["sent.zip"]:
        raise AssertionError("something was extracted")


if __name__ == "__main__":
    fuzz(
        target,
        seeds(),
        modules=["headstart.data.sources", "headstart.data.dataset.folders", "headstart.data.dataset.tables"],
    )
