"""Finds a backbone by name or path."""

from dataclasses import dataclass
from pathlib import Path

from headstart.backbones.backbone import Backbone
from headstart.backbones.builtin import BUILTIN, load_builtin
from headstart.errors import BackboneError


@dataclass(frozen=True)
class BackboneInfo:
    """One line of the list of backbones."""

    name: str


def available() -> list[BackboneInfo]:
    """The backbones that load without a download."""
    return [BackboneInfo(name) for name in BUILTIN]


def load_backbone(
    name: str | Path,
    *,
    size: int | None = None,
    architecture: str | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> Backbone:
    """Load a backbone."""
    if str(name) in BUILTIN and pretrained:
        return load_builtin(str(name), size=size)
    raise BackboneError(f"unknown backbone {name!r}")
