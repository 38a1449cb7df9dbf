"""Backbones from a local file of weights: what it is, from its own metadata."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone, Recipe
from headstart.backbones.exported import Origin, load_exported
from headstart.backbones.records import hash_file
from headstart.errors import BackboneError
from headstart.preprocess import Preprocess

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_local(path: Path, *, size: int | None, architecture: str | None) -> Backbone:
    """The backbone of a file of weights.

    Args:
        path: ``.safetensors``, or a PyTorch file with nothing but tensors (``.pth``, ``.pt``, ``.bin``).
        size: Pixels a side; None for what the file or else the architecture says.
        architecture: timm's name of the network; None where the file says it.

    Raises:
        BackboneError: The file is missing or unusable, or nothing says what the weights belong to.
    """
    try:
        content_hash = hash_file(path)
    except OSError as error:
        raise BackboneError(
            f"backbone {path}: no such file of weights, or not readable ({error.strerror})"
        ) from error

    def resolve() -> Origin:
        return origin_of(path, architecture=architecture)

    identity = f"file:{content_hash}:{architecture or ''}"
    return load_exported(path.stem, identity=identity, size=size, resolve=resolve, weights=path.absolute())


def origin_of(path: Path, *, architecture: str | None) -> Origin:
    """What the file says of itself, completed with what timm knows of its architecture.

    Raises:
        BackboneError: As for `load_local`.
    """
    from headstart.backbones.architectures import check_known, published_preprocess
    from headstart.backbones.building import read_checkpoint, require_timm

    require_timm(f"backbone {path.name}, for its first use,")
    metadata = _metadata(path)
    found = architecture or metadata.get("architecture")
    if found is None and path.suffix != ".safetensors":
        found = read_checkpoint(path)[1]
    if found is None:
        raise BackboneError(
            f"{path}: does not say its architecture; give timm's name of it (--architecture NAME)"
        )
    check_known(found)
    kwargs = _kwargs(metadata, path=path)
    preprocess, notes = _preprocess(metadata, published_preprocess(found), path=path, architecture=found)
    return Origin(Recipe(found, kwargs, path.absolute()), preprocess, notes=notes)


def _metadata(path: Path) -> dict[str, str]:
    if path.suffix != ".safetensors":
        return {}
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return dict(file.metadata() or {})
    except (OSError, SafetensorError) as error:
        raise BackboneError(f"{path}: no readable .safetensors file: {error}") from error


def _kwargs(metadata: Mapping[str, str], *, path: Path) -> dict[str, Any]:
    text = metadata.get("timm_kwargs", "{}")
    try:
        kwargs = json.loads(text)
    except ValueError:
        kwargs = None
    if not isinstance(kwargs, dict):
        raise BackboneError(f"{path}: metadata 'timm_kwargs' should be a JSON object, got {text[:60]!r}")
    return {key: value for key, value in kwargs.items() if key not in ("num_classes", "img_size")}


def _preprocess(
    metadata: Mapping[str, str], published: Preprocess, *, path: Path, architecture: str
) -> tuple[Preprocess, tuple[str, ...]]:
    """The file's own preprocessing; what it does not say is the architecture's, which a note admits."""
    fields = published.to_dict()
    notes: tuple[str, ...] = ()
    try:
        if "preprocess" in metadata:
            return Preprocess.from_dict({**fields, **json.loads(metadata["preprocess"])}), ()
        for key in ("mean", "std"):
            if key in metadata:
                fields[key] = [float(value) for value in metadata[key].strip("()[] ").split(",")]
        if "mean" not in metadata or "std" not in metadata:
            notes = (f"{path.name} does not say its pixel mean and std: took those of timm's {architecture}",)
        if "input_size" in metadata:
            fields["size"] = int(metadata["input_size"].strip("()[] ").split(",")[-1])
        for key in ("crop_fraction", "crop_pct"):
            if key in metadata:
                fields["crop_fraction"] = float(metadata[key])
        for key in ("interpolation", "crop_mode"):
            fields[key] = metadata.get(key, fields[key])
        return Preprocess.from_dict(fields), notes
    except (ValueError, TypeError, KeyError) as error:
        raise BackboneError(f"{path}: its metadata on preprocessing is unusable: {error}") from error
