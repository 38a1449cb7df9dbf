"""Stores uploaded photographs and zips; nothing of their names is trusted.

A photograph is decoded before it is kept and is named by us; of its own name a readable rest stays, so that
people recognise it. A zip is kept as it is and never extracted: `headstart.data.sources` reads it in place.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import unicodedata
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from starlette.datastructures import UploadFile

from headstart.data.dataset import Skipped, content_hash, list_unlabelled, read_dataset
from headstart.data.images import open_image
from headstart.data.sources import MAX_FILE_BYTES
from headstart.errors import DatasetError, ImageError, OptionError, printable
from headstart.files import make

LARGEST_UPLOAD = 4 * 2**30
"""Bytes of everything that one form brings."""

FREE_SHARE = 4
"""What arrives may take one part in so many of the free disk: it passes through a file before it is kept."""

LARGEST_PICTURE = 64 * 2**20
"""Bytes of one photograph to classify."""

MOST_MEMBERS = 200_000
"""Entries of a zip: listing more takes longer than a page may."""

_SUFFIXES = {"JPEG": ".jpg", "MPO": ".jpg", "PNG": ".png", "WEBP": ".webp", "GIF": ".gif", "BMP": ".bmp"}
_SUFFIXES |= {"TIFF": ".tif", "AVIF": ".avif"}
_LONGEST = 60
_UNSAFE = re.compile(r"[^\w .()+&,'-]")
_MOST_FOLDERS = 3


@contextmanager
def passing_through(folder: Path) -> Iterator[None]:
    """Keeps temporary files of uploads in ``folder``, which is ours alone.

    A form's files leave the memory from a megabyte on, for the system's folder for temporary files, which all
    users share. That place is the process's own setting; so are the temporary files of an export.
    """
    before, tempfile.tempdir = tempfile.tempdir, str(make(folder))
    try:
        yield
    finally:
        tempfile.tempdir = before


def room(folder: Path) -> int:
    """Bytes that an upload to ``folder`` may have now."""
    return min(LARGEST_UPLOAD, shutil.disk_usage(folder).free // FREE_SHARE)


def is_zip(sent: Sequence[UploadFile]) -> bool:
    """Whether the form brings one zip, by its content."""
    if len(sent) != 1:
        return False
    head = sent[0].file.read(4)
    sent[0].file.seek(0)
    return head in (b"PK\x03\x04", b"PK\x05\x06")


def store_zip(sent: UploadFile, target: Path, *, labelled: bool = True) -> Path:
    """Keeps a zip as ``target``, once it has been seen to hold a data set, or images where none is asked for.

    Raises:
        DatasetError: it is no zip, holds too many entries, or no labelled images.
    """
    with _create(target) as file:
        shutil.copyfileobj(sent.file, file)
    name = printable(sent.filename or "the zip")
    try:
        with zipfile.ZipFile(target) as archive:
            names = archive.namelist()
        if "[Content_Types].xml" in names or "mimetype" in names:
            raise DatasetError(f"{name}: a document, no zip of photographs; save its pictures and send those")
        entries = len(names)
        if entries > MOST_MEMBERS:
            raise DatasetError(f"{name}: {entries:,} entries; at most {MOST_MEMBERS:,} are read here")
        if labelled:
            read_dataset(target, for_training=False)
        else:
            list_unlabelled([target])
    except (DatasetError, zipfile.BadZipFile, NotImplementedError, ValueError, OSError) as error:
        target.unlink(missing_ok=True)
        text = str(error).replace(printable(target), name)
        raise DatasetError(text if name in text else f"{name}: not a readable zip: {text}") from None
    return target


def store_photographs(sent: Iterable[UploadFile], folder: Path, *, label: str = "") -> tuple[Skipped, ...]:
    """Keeps photographs below a folder, in a folder per class; gives those that were refused.

    Args:
        sent: the files; a class is read from the last folder in a file's name where it has one.
        folder: where to; made if need be.
        label: the class of those without a folder; empty for none.

    Raises:
        OptionError: not one of them is a usable image, or a zip is among them.
    """
    named = [(_parts(each.filename or ""), each) for each in sent]
    if len(named) > 1 and any(parts and parts[-1].lower().endswith(".zip") for parts, _ in named):
        raise OptionError("send one zip at a time, and photographs without a zip among them")
    tops = {parts[0] for parts, _ in named if len(parts) > 1}
    shared = len(tops) == 1 and all(len(parts) > 1 for parts, _ in named)
    wrapped = shared and any(len(parts) > 2 for parts, _ in named)
    refused, kept = [], 0
    for parts, each in named:
        folders = parts[1:-1] if wrapped else parts[:-1]
        place = [clean(part) for part in folders[-_MOST_FOLDERS:]] or (
            [clean(label)] if label.strip() else []
        )
        shown = printable("/".join(parts[-2:])) or "a file without a name"
        try:
            _keep(each, folder.joinpath(*place), stem=Path(parts[-1]).stem if parts else "")
        except ImageError as error:
            refused.append(Skipped(shown, str(error)))
            continue
        kept += 1
    if not kept:
        reason = f"{refused[0].name}: {refused[0].reason}" if refused else "no file was chosen"
        raise OptionError(f"{reason}; expected photographs (JPEG, PNG, WebP, …) or one zip of them")
    return tuple(refused)


def name_of(sent: Sequence[UploadFile]) -> str:
    """What to call what was sent: the zip, or the folder that all of it lay in."""
    first = (sent[0].filename or "").replace("\\", "/")
    if len(sent) == 1 and first.lower().endswith(".zip"):
        return clean(Path(first).stem)
    top = first.split("/")[0] if "/" in first else ""
    tops = {(each.filename or "").replace("\\", "/").split("/")[0] for each in sent}
    return clean(top) if top and len(tops) == 1 else "my photographs"


def clean(text: str) -> str:
    """A name for a folder or file made of what is left of ``text``; never empty, hidden, or a way up."""
    plain = unicodedata.normalize("NFC", text)
    plain = _UNSAFE.sub("-", plain)[:_LONGEST].strip(" .-_")
    return plain or "unnamed"


def _parts(name: str) -> list[str]:
    return [part for part in name.replace("\\", "/").split("/") if part not in ("", ".", "..")]


def _keep(sent: UploadFile, folder: Path, *, stem: str) -> None:
    data = sent.file.read(min(MAX_FILE_BYTES, LARGEST_UPLOAD) + 1)
    _, facts = open_image(data)  # refuses what is no image, is too large to decode, or breaks off
    suffix = _SUFFIXES.get(facts.format)
    if suffix is None:
        raise ImageError(f"{facts.format} is no image format that is kept here")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    # The content's hash makes names unique, and the same photograph sent twice one file.
    target = folder / f"{clean(stem)[:40]}-{content_hash(data).hex()[:10]}{suffix}"
    if not target.exists():
        with _create(target) as file:
            file.write(data)


@contextmanager
def _create(path: Path) -> Iterator[BinaryIO]:
    """A new file; whatever goes wrong while it is written, nothing of it stays."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
    except OSError as error:
        path.unlink(missing_ok=True)
        raise OptionError(f"cannot keep what was sent: {error.strerror}; make room on the disk") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
