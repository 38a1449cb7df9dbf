"""Backbones: pre-trained networks as ordered stages, from the package, from timm or from a file.

Names are resolved on first use: predicting needs the runtimes in here, and none of what loads networks.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
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

_MODULES = {"Backbone": "backbone", "FeatureLayer": "backbone", "Stage": "backbone", "Recipe": "building"}
"""Where a name lives; the others are the registry's."""


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'registry')}"), name)
