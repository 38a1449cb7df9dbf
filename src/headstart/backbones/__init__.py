"""Backbones: pre-trained networks as ordered stages, from the package, from timm or from a file."""

from headstart.backbones.backbone import Backbone, Recipe, Stage, Tap
from headstart.backbones.registry import BackboneInfo, available, load_backbone

__all__ = ["Backbone", "BackboneInfo", "Recipe", "Stage", "Tap", "available", "load_backbone"]
