"""Backbones: pre-trained networks as ordered stages, from the package, from timm or from a file."""

from headstart.backbones.backbone import Backbone, FeatureLayer, Stage
from headstart.backbones.building import Recipe
from headstart.backbones.registry import BackboneInfo, available, backbone_of, load_backbone

__all__ = [
    "Backbone",
    "BackboneInfo",
    "FeatureLayer",
    "Recipe",
    "Stage",
    "available",
    "backbone_of",
    "load_backbone",
]
