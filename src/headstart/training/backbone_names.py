"""Backbones as options name them: a name or a file, and perhaps a size; and those that are here."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from headstart.backbones import Backbone, available, load_backbone
from headstart.backbones.registry import is_graph
from headstart.errors import OptionError
from headstart.runs import DEFAULT_BACKBONE, Method
from headstart.runs.config import split_size

SIZES = {"builtin": (96, 128), DEFAULT_BACKBONE: (128, 160, 224)}
"""Pixels a side at which these are considered; any other backbone at its own."""


@dataclass(frozen=True)
class BackboneName:
    """A backbone to consider; size None is its own."""

    name: str
    size: int | None = None

    @property
    def label(self) -> str:
        """Short, for tables: a file without its folder."""
        return Path(self.name).name


def parse_names(names: Sequence[str]) -> tuple[BackboneName, ...]:
    """Candidates from ``builtin``, ``builtin@160``, ``weights.safetensors@96``; repeated ones once.

    Raises:
        OptionError: None is given.
    """
    found = [BackboneName(*split_size(text)) for text in map(str.strip, names) if text]
    if not found:
        raise OptionError("no backbones are named; give some, like builtin or builtin@160")
    return tuple(dict.fromkeys(found))


def load_named(candidate: BackboneName, *, preprocess: str | None = None) -> tuple[BackboneName, Backbone]:
    """The backbone, and its name, which is another one where the default was asked for.

    Args:
        candidate: Which one.
        preprocess: What the pixels of those are that do not say it themselves.
    """
    pixels = preprocess if is_graph(candidate.name) else None
    backbone = load_backbone(candidate.name, size=candidate.size, preprocess=pixels)
    known = replace(candidate, name=backbone.name) if candidate.name == Method.backbone else candidate
    return known, backbone


def sized(names: Sequence[str] | None, *, size: int | None) -> tuple[str, ...] | None:
    """Names as given, those without a size of their own at this one; None stays None."""
    if names is None:
        return None
    found = parse_names(names)
    return tuple(f"{each.name}@{each.size or size}" if each.size or size else each.name for each in found)


def default_candidates() -> tuple[BackboneName, ...]:
    """What can be loaded here without a download, some of it at several sizes.

    Of ONNX files in the Hugging Face cache nobody knows what they are, so they are to be named.
    """
    return tuple(
        BackboneName(info.name, size)
        for info in available()
        if not (info.needs and find_spec(info.needs) is None) and not is_graph(info.name)
        for size in SIZES.get(info.name, (None,))
    )
