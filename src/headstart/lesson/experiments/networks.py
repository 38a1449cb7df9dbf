"""Which networks an experiment uses, and what stands in for one that is not on this machine."""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib.util import find_spec

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.builtin import BUILTIN as BUILTINS
from headstart.backbones.imagenet import IMAGENET
from headstart.backbones.registry import available
from headstart.errors import BackboneError, MissingExtra, OptionError

BUILTIN, BUILTIN_LARGE = BUILTINS

_GROWTH = 2
"""Large networks that take any size see so many times the small one's pixels a side, see `_LARGEST_SIZE`."""

SMALLEST, _LARGEST = 32, 224
"""Pixels a side that may be asked for."""

_LARGEST_SIZE = 96
"""Pixels a side for large networks that take any size."""


@dataclass(frozen=True)
class Chosen:
    """A network, what to call it, and what must be said about it (empty where nothing)."""

    network: Backbone
    label: str
    note: str = ""


def load(name: str, *, size: int) -> Chosen:
    """The network of that name at so many pixels a side, or the largest that is here in its place.

    ``builtin@96`` is the built-in network at a size of its own.

    Names that are asked for and whose weights are not on this machine are never fetched: an experiment has
    seconds, and a download may take minutes.
    """
    name, size = named(name, size=size)
    if name in BUILTINS:
        return _labelled(load_backbone(name, size=size))
    missing = _missing(name)
    if not missing:
        try:
            return _labelled(_at_moderate_size(name, size=size))
        except (BackboneError, MissingExtra) as error:
            missing = str(error)
    other = _labelled(_largest())
    return replace(other, note=f"{missing}, so {other.label}, the largest network here, is used instead")


def named(name: str, *, size: int) -> tuple[str, int]:
    """A network's name without its pixels, and the pixels a side behind its @, else those that are given.

    Raises:
        OptionError: what stands behind the @ is no size.
    """
    name, _, own = name.partition("@")
    return name, _pixels(name, own) if own else size


def any_weights(name: str, *, size: int) -> Chosen:
    """The network of that name, with random weights where its own are not on this machine.

    For what does not depend on them; where timm is not installed the built-in network is used instead.
    """
    if name != BUILTIN and (missing := _missing(name)):
        if find_spec("timm") is None:
            note = f"{missing}, so the built-in network is used instead"
            return replace(load(BUILTIN, size=size), note=note)
        network = load_backbone(name, size=size, pretrained=False)
        return Chosen(network, f"{name} with random weights", f"{missing}; random ones do as well here")
    return load(name, size=size)


def _labelled(network: Backbone) -> Chosen:
    return Chosen(network, f"{network.name} at {network.preprocess.size} px")


def _pixels(name: str, text: str) -> int:
    if not text.isascii() or not text.isdigit() or not SMALLEST <= int(text) <= _LARGEST:
        raise OptionError(f"{name}@{text}: expected pixels a side after the @, {SMALLEST} to {_LARGEST}")
    return int(text)


def moderate_size(size: int) -> int:
    """Pixels a side that a large network sees where a small one sees so many."""
    return min(_LARGEST_SIZE, _GROWTH * size)


def _at_moderate_size(name: str, *, size: int) -> Backbone:
    """A large network on small images, where it takes them: at its own size it would take too long."""
    try:
        return load_backbone(name, size=moderate_size(size))
    except BackboneError:
        return load_backbone(name)


def _missing(name: str) -> str:
    if name.endswith((".safetensors", ".pth", ".pt", ".bin")):
        return ""
    here = {each for info in available() for each in (info.name, info.name.split(".")[0])}
    if name in IMAGENET and name in here:
        return ""
    if find_spec("timm") is None:
        return f"{name} needs headstart[torch]"
    return "" if name in here else f"the weights of {name} are not on this machine"


def _largest() -> Backbone:
    """The network with the most weights on this machine: the larger built-in one, if nothing else."""
    others = sorted((info for info in available() if info.name != BUILTIN), key=lambda info: -info.bytes)
    for info in others:
        try:
            return _at_moderate_size(info.name, size=_LARGEST_SIZE)
        except (BackboneError, MissingExtra):
            continue
    return load_backbone(BUILTIN_LARGE, size=_LARGEST_SIZE)
