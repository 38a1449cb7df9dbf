"""Public sets of photographs that can be fetched by name: one file each, whose content is known beforehand.

The file is an archive, which every command reads as it is; nothing is unpacked. What arrives is bounded by
the size that is known, and thrown away where its checksum is another.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import DatasetError, OptionError, printable, reason_of

_CHUNK = 1 << 18
_PATIENCE = 30.0
"""Seconds without a byte after which a server is given up."""


@dataclass(frozen=True)
class Sample:
    """A set of photographs.

    Attributes:
        name: To ask for it.
        shows: What is in it.
        address: Where it is published.
        bytes: Size of the file.
        sha256: Of the file, as published checksums have it.
        licence: What is known of it.
    """

    name: str
    shows: str
    address: str
    bytes: int
    sha256: str
    licence: str

    @property
    def file(self) -> str:
        """What the file is called."""
        return self.address.rsplit("/", 1)[1]


SAMPLES = {
    sample.name: sample
    for sample in (
        Sample(
            "flowers",
            "3,670 photographs of five kinds of flowers",
            "https://download.tensorflow.org/example_images/flower_photos.tgz",
            228_813_984,
            # https://github.com/tensorflow/datasets, url_checksums/tf_flowers.txt
            "4c54ace7911aaffe13a365c34f650e71dd5bf1be0a58b464e5a7183e3e595d9c",
            "Creative Commons Attribution; the photographers are named in LICENSE.txt inside",
        ),
        Sample(
            "ants-and-bees",
            "397 photographs of ants and bees, split into train and val",
            "https://download.pytorch.org/tutorial/hymenoptera_data.zip",
            47_286_322,
            # https://github.com/pytorch/tutorials, .jenkins/download_data.py
            "fbc41b31d544714d18dd1230b1e2b455e1557766e13e67f9f5a7a23af7c02209",
            "a subset of ImageNet, for research and teaching; the pictures are their owners'",
        ),
    )
}


def sample_named(name: str) -> Sample:
    """The set of that name.

    Raises:
        OptionError: there is none.
    """
    if name not in SAMPLES:
        raise OptionError(f"no sample {printable(name[:80])!r}; there are {', '.join(SAMPLES)}")
    return SAMPLES[name]


def fetch(sample: Sample, folder: Path, *, told: Callable[[int, int], object] | None = None) -> Path:
    """The set's file in a folder: what is there already, else what is published.

    What has arrived stays in a file beside it that ends in `.part`, where the next call goes on.

    Args:
        sample: one of `SAMPLES`.
        folder: where the file shall be.
        told: called with (bytes here, bytes in all).

    Raises:
        DatasetError: it cannot be fetched, with the ways out; or what came is not what was published.
    """
    target = folder / sample.file
    if target.exists():
        _check(target, sample)
        return target
    part = target.with_name(f"{target.name}.part")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with os.fdopen(os.open(part, _OPENING, 0o666), "r+b") as file:
            _receive(sample, file, told=told)
    except (OSError, ValueError) as error:  # ValueError is what http.client makes of a garbled answer
        raise DatasetError(_unreachable(sample, target, part, reason=reason_of(error))) from error
    _check(part, sample)
    part.replace(target)
    return target


_OPENING = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)


def _receive(sample: Sample, file: Any, *, told: Callable[[int, int], object] | None) -> None:
    """Fills the file up to the size that is known, from where it ends."""
    from http.client import HTTPException
    from urllib.error import URLError
    from urllib.request import Request, urlopen

    here = file.seek(0, os.SEEK_END)
    if here >= sample.bytes:
        return
    request = Request(sample.address, headers={"Range": f"bytes={here}-"} if here else {})
    try:
        with urlopen(request, timeout=_PATIENCE) as answer:
            if answer.status != 206 or not answer.headers.get("Content-Range", "").startswith(
                f"bytes {here}-"
            ):
                here = file.seek(0)  # the server sends all of it
                file.truncate()
            while chunk := answer.read(min(_CHUNK, sample.bytes + 1 - here)):
                file.write(chunk)
                here += len(chunk)
                if here > sample.bytes:
                    break  # more than there is: the checksum will say so
                if told is not None:
                    told(here, sample.bytes)
    except HTTPException as error:
        raise OSError(f"the connection ended early ({type(error).__name__})") from error
    except URLError as error:
        raise OSError(str(getattr(error.reason, "strerror", None) or error.reason)) from error
    if here < sample.bytes:
        raise OSError("the connection ended early")
    file.flush()
    os.fsync(file.fileno())


def _check(path: Path, sample: Sample) -> None:
    """Raises DatasetError where a file is not the one that was published; a partial one is removed."""
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found == sample.sha256:
        return
    if path.suffix == ".part":
        path.unlink()
        what = "what came was removed; try again, or fetch it by hand"
    else:
        what = "move it away, and the same command fetches it anew"
    raise DatasetError(
        f"{printable(path)}: this is not the published {sample.file} (SHA-256 {found}, expected "
        f"{sample.sha256}); {what}"
    )


def _unreachable(sample: Sample, target: Path, part: Path, *, reason: str) -> str:
    kept = part.stat().st_size if part.is_file() else 0
    if not kept:
        part.unlink(missing_ok=True)
    going_on = f"{kept / 1e6:.0f} MB are kept, and the same command goes on from there; " if kept else ""
    return (
        f"sample {sample.name}: it could not be fetched ({reason}); {going_on}three ways out: (1) with a "
        f"network fetch {sample.address} and put the file at {printable(target)}, (2) give a folder of "
        "your own with one folder of images per class, (3) `headstart experiment` alone needs no download"
    )
