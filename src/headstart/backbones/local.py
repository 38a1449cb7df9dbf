"""Backbones from a local file of weights: what it is, from its own metadata."""

import os
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.backbones.building import Recipe, require_timm
from headstart.backbones.checkpoints import open_weights, read_checkpoint
from headstart.backbones.exported import Origin, load_exported
from headstart.backbones.published import known_name, published_preprocess
from headstart.backbones.records import hash_file
from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, printable, reason_of
from headstart.files import Unreadable, parse_json

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")


def load_local(path: Path, *, size: int | None, architecture: str | None) -> Backbone:
    """The backbone of a file of weights.

    Args:
        path: ``.safetensors``, or a PyTorch file with nothing but tensors (``.pth``, ``.pt``, ``.bin``).
        size: Pixels a side; None for what the file or else the architecture says.
        architecture: timm's name of the network; None where the file says it.
    """
    os.close(open_weights(path))  # a pipe, a web page or a pointer is named before anything waits for it
    content_hash = hash_file(path)

    identity = f"file:{content_hash}:{architecture or ''}"
    resolve = partial(origin_of, path, architecture=architecture)
    return load_exported(path.stem, identity=identity, size=size, resolve=resolve, weights=path.absolute())


def origin_of(path: Path, *, architecture: str | None) -> Origin:
    """What the file says of itself, completed with what timm knows of its architecture."""
    require_timm(f"backbone {path.name}, for its first use,")
    metadata = _metadata(path)
    found = architecture or metadata.get("architecture")
    if found is None and path.suffix != ".safetensors":
        found = read_checkpoint(path)[1]
    if found is None:
        raise BackboneError(
            f"{printable(path)}: does not say its architecture; give timm's name of it (--architecture NAME)"
        )
    found = known_name(found)
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
        raise BackboneError(
            f"{printable(path)}: no readable .safetensors file: {reason_of(error)}"
        ) from error


def _kwargs(metadata: Mapping[str, str], *, path: Path) -> dict[str, Any]:
    """What the file says its network is made with: plain numbers and words, of known names alone.

    They become arguments of timm, some of which open files or run code, so nothing else gets through.
    """
    text = metadata.get("timm_kwargs", "{}")
    try:
        kwargs = parse_json(text)
    except Unreadable:
        kwargs = None
    said = f"{printable(path)}: metadata 'timm_kwargs'"
    if not isinstance(kwargs, dict):
        raise BackboneError(f"{said} should be a JSON object, got {printable(repr(text[:60]))}")
    for key, value in kwargs.items():
        if key not in _ARCHITECTURE | _OURS:
            raise BackboneError(
                f"{said} has {printable(repr(key[:40]))}, which is no argument of an architecture; "
                "remove it from the file"
            )
        most = _MOST_LAYERS if key in _COUNTS else _LARGEST
        if not _is_plain(value, most=most):
            raise BackboneError(
                f"{said} has {key} = {printable(repr(value)[:40])}; expected numbers up to {most:,}, or words"
            )
    return {key: value for key, value in kwargs.items() if key not in _OURS}


_OURS = frozenset({"num_classes", "img_size"})
"""What we say ourselves."""

_COUNTS = frozenset({"depth", "depths", "layers"})

_ARCHITECTURE = _COUNTS | {
    "act_layer", "aa_layer", "attn_drop_rate", "avg_down", "base_width", "bn_eps", "bn_momentum",
    "cardinality", "channel_multiplier", "class_token", "conv_bias", "conv_mlp", "drop_path_rate",
    "drop_rate", "dynamic_img_pad", "dynamic_img_size", "embed_dim", "embed_dims", "fc_norm", "fix_stem",
    "global_pool", "growth_rate", "head_hidden_size", "init_values", "kernel_sizes", "ls_init_value",
    "mlp_ratio", "mlp_ratios", "no_embed_class", "norm_eps", "norm_layer", "num_heads", "output_stride",
    "pad_type", "patch_size", "pos_drop_rate", "pos_embed", "pre_norm", "proj_bias", "proj_drop_rate",
    "qk_norm", "qkv_bias", "reg_tokens", "se_layer", "se_ratio", "stem_chs", "stem_kernel_size",
    "stem_size", "stem_stride", "stem_type", "stem_width", "window_size",
}  # fmt: skip
"""Arguments of timm's networks that say their shape: none opens, fetches, compiles or runs anything."""

_MOST_LAYERS, _LARGEST = 128, 8192
"""No published network has more layers a stage, or is wider."""

_MOST_VALUES = 16
_WORD = re.compile(r"[a-z0-9_]{0,40}")


def _is_plain(value: Any, *, most: int) -> bool:
    """Whether a value is a number of usual size, a word, true, false, null, or a short list of those."""
    if isinstance(value, list):
        return len(value) <= _MOST_VALUES and all(
            not isinstance(each, list) and _is_plain(each, most=most) for each in value
        )
    if isinstance(value, str):
        return _WORD.fullmatch(value) is not None
    if value is None or isinstance(value, bool):
        return True
    return isinstance(value, int | float) and -most <= value <= most


def _preprocess(
    metadata: Mapping[str, str], published: Preprocess, *, path: Path, architecture: str
) -> tuple[Preprocess, tuple[str, ...]]:
    """The file's own preprocessing; what it does not say is the architecture's, which a note admits."""
    fields = published.to_dict()
    notes: tuple[str, ...] = ()
    try:
        if "preprocess" in metadata:
            return Preprocess.from_dict({**fields, **parse_json(metadata["preprocess"])}), ()
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
    except (ValueError, TypeError, KeyError, OverflowError, Unreadable) as error:
        raise BackboneError(
            f"{printable(path)}: its metadata on preprocessing is unusable: {reason_of(error)}"
        ) from error
