"""Backbones from an ONNX file: where it is, what its pixels are; OpenVINO cuts it at its first use."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headstart.backbones import records
from headstart.backbones.backbone import Backbone
from headstart.backbones.exported import CUT_SO, digest, from_record
from headstart.backbones.pixels import CONFIG_FILE, FAMILIES, Pixels, asked_pixels, pixels_beside, pixels_in
from headstart.backbones.published import download, hub_folder
from headstart.errors import BackboneError, MissingWeights, OptionError, printable
from headstart.files import Unreadable

SUFFIXES = (".onnx", ".xml")
"""ONNX, and OpenVINO's own form (IR)."""

HUB = "hf:"
"""How the name of a Hugging Face repository begins."""

_FILES = ("onnx/model.onnx", "onnx/vision_model.onnx", "model.onnx")
"""Where repositories have their network; those of text and images have one for images alone beside it."""

_REPOSITORY = re.compile(r"([A-Za-z0-9][\w.-]*)/([A-Za-z0-9][\w.-]*?)(?:/([\w./-]+\.onnx))?")


def load_onnx_file(path: Path, *, size: int | None, preprocess: str | None, name: str = "") -> Backbone:
    """The backbone of an ONNX file, its classifier left out.

    Args:
        path: The file.
        size: Pixels a side; None for its own.
        preprocess: What its pixels are, see `headstart.backbones.pixels.asked_pixels`; None where
            `preprocessor_config.json` beside it or its metadata says so.
        name: What the user asked for; the file's own name where it was that.

    Raises:
        BackboneError: It is missing or unusable, no image network, or nothing says what its pixels are.
        ParityError: Cut into stages, it computes something else.
    """
    known = _known(path)
    pixels = _pixels(path, known["metadata"], asked=preprocess)

    def export(key: str) -> dict[str, Any]:
        from headstart.backbones.onnx.export import export_model

        return export_model(path, key=key, size=size, pixels=pixels)

    identity = f"onnx:{CUT_SO}:{known['hash']}:{pixels}"
    return from_record(name or path.stem, identity=identity, size=size, export=export, weights=None)


def load_hub(name: str, *, size: int | None, preprocess: str | None) -> Backbone:
    """The network of a Hugging Face repository that has an ONNX file, from the cache or downloaded into it.

    Args:
        name: ``hf:OWNER/NAME``, or ``hf:OWNER/NAME/PATH.onnx`` for one file of several.
        size: Pixels a side; None for its own.
        preprocess: As of `load_onnx_file`.

    Raises:
        MissingWeights: It is not on this machine and cannot be fetched.
    """
    found = _REPOSITORY.fullmatch(name.removeprefix(HUB))
    if found is None or ".." in name:
        raise BackboneError(
            f"backbone {printable(name[:80])}: expected {HUB}OWNER/NAME of a Hugging Face repository"
        )
    owner, repository, file = found.groups()
    files = (file,) if file else _FILES
    path = _cached(owner, repository, files) or _downloaded(f"{owner}/{repository}", files, name=name)
    return load_onnx_file(path, size=size, preprocess=preprocess, name=name)


def _cached(owner: str, repository: str, files: tuple[str, ...]) -> Path | None:
    """The first of some files that is in the Hugging Face cache, of the revision that was fetched last."""
    folder = hub_folder() / f"models--{owner}--{repository}"
    main = folder / "refs" / "main"
    try:
        revisions = [folder / "snapshots" / main.read_text(encoding="utf-8").strip()]
    except (OSError, ValueError):
        revisions = sorted((folder / "snapshots").glob("*"))
    return next((each / file for file in files for each in revisions if (each / file).is_file()), None)


def cached_networks() -> Iterator[tuple[str, Path]]:
    """Networks in the Hugging Face cache whose pixels are said there, by the names that `load_hub` takes."""
    for folder in sorted(hub_folder().glob("models--*--*")):
        owner, _, repository = folder.name.removeprefix("models--").partition("--")
        path = _cached(owner, repository, _FILES)
        places = () if path is None else (path.parent, path.parent.parent)
        if path and any((place / CONFIG_FILE).is_file() for place in places):
            yield f"{HUB}{owner}/{repository}", path


def _downloaded(repository: str, files: tuple[str, ...], *, name: str) -> Path:
    """A network's file, with what it needs beside it."""
    from headstart.backbones.onnx.reading import further_files, parse

    path = download(name, repository=repository, files=files)
    below = path.parent.name + "/" if path.parent.name == "onnx" else ""
    for further in further_files(parse(path), path):
        download(name, repository=repository, files=(below + further,))
    with contextlib.suppress(MissingWeights):  # then something else must say what its pixels are
        download(name, repository=repository, files=(CONFIG_FILE, below + CONFIG_FILE))
    return path


def _known(path: Path) -> dict[str, Any]:
    """A hash of a file and of those that its weights lie in, and its metadata; read once for each state."""
    pointer = records.graphs_folder() / f"onnx-{digest(str(path.absolute()))}.json"
    known = records.read_record(pointer)
    if known is None or any(records.stamp(path.parent / name) != stamp for name, stamp in known["files"]):
        from headstart.backbones.onnx.reading import files_and_metadata, read_model

        names, metadata = files_and_metadata(path)
        stamps = [[name, records.stamp(path.parent / name)] for name in names]
        if len(names) > 1:
            read_model(
                path
            )  # refuses what is missing, damaged or elsewhere, before anything else is made of it
        try:
            parts = [records.hash_file(path.parent / name) for name in names]
        except (OSError, Unreadable) as error:
            raise BackboneError(f"backbone {printable(path)}: not readable: {error}") from error
        known = {"files": stamps, "hash": _joined(parts), "metadata": metadata}
        records.write_record(pointer, known)
    return known


def _joined(parts: list[str]) -> str:
    return hashlib.blake2b(" ".join(parts).encode(), digest_size=16).hexdigest()


def _pixels(path: Path, metadata: dict[str, str], *, asked: str | None) -> Pixels:
    """As asked, or as said beside the file or in it."""
    if asked is not None:
        try:
            return asked_pixels(asked)
        except OptionError as error:
            raise OptionError(f"--preprocess: {error}") from error
    found = pixels_beside(path) or pixels_in(metadata, name=path.name)
    if found is None:
        raise BackboneError(
            f"backbone {printable(path)}: nothing says what its pixels are; three ways out: (1) put the "
            f"{CONFIG_FILE} of its makers beside it, (2) give --preprocess with their family "
            f"({', '.join(FAMILIES)}), (3) give --preprocess MEAN/STD of pixel / 255, such as "
            "0.485,0.456,0.406/0.229,0.224,0.225"
        )
    return found
