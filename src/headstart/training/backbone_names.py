"""Backbones as options name them: a name or a file, and perhaps a size."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from headstart.backbones import Backbone, load_backbone
from headstart.errors import OptionError
from headstart.runs import Method


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
    found = []
    for text in names:
        match = re.fullmatch(r"(.+)@(\d+)", text.strip())
        if match:
            found.append(BackboneName(match[1], int(match[2])))
        elif text.strip():
            found.append(BackboneName(text.strip()))
    if not found:
        raise OptionError("no backbones are named; give some, like builtin or builtin@160")
    return tuple(dict.fromkeys(found))


def load_named(candidate: BackboneName) -> tuple[BackboneName, Backbone]:
    """The backbone, and its name, which is another one where the default was asked for."""
    backbone = load_backbone(candidate.name, size=candidate.size)
    known = replace(candidate, name=backbone.name) if candidate.name == Method.backbone else candidate
    return known, backbone


def sized(names: Sequence[str] | None, *, size: int | None) -> tuple[str, ...] | None:
    """Names as given, those without a size of their own at this one; None stays None."""
    if names is None:
        return None
    found = parse_names(names)
    return tuple(f"{each.name}@{each.size or size}" if each.size or size else each.name for each in found)
