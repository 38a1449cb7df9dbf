"""What a Keras model wants its pixels to be: as asked, as its first layers say, or as its family's are."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.backbones.pixels import CAFFE, FAMILIES, RANGES, Pixels, asked_pixels
from headstart.errors import BackboneError, OptionError

_IMAGENET = FAMILIES["imagenet"]
_SIGNED, _CAFFE = Pixels(*RANGES["-1..1"]), Pixels(*CAFFE, blue_first=True)

_FAMILIES = {
    "densenet": ("conv2_block1_concat", Pixels(_IMAGENET.mean, _IMAGENET.std)),
    "inception_resnet_v2": ("mixed_7a", _SIGNED),
    "inception_v3": ("mixed9_1", _SIGNED),
    "mobilenet": ("conv_dw_1", _SIGNED),
    "mobilenet_v2": ("expanded_conv_project_BN", _SIGNED),
    "nasnet": ("stem_bn1", _SIGNED),
    "resnet": ("conv2_block1_3_bn", _CAFFE),
    "resnet_v2": ("conv2_block1_preact_bn", _SIGNED),
    "vgg": ("block5_conv3", _CAFFE),
    "xception": ("block2_sepconv1", _SIGNED),
}
"""Keras's applications that leave the pixels to ``preprocess_input``: a layer that only they have, and what
that makes of the pixels. The others (EfficientNet, MobileNetV3, ConvNeXt, …) scale them inside the model."""

_SCALING = {"Rescaling", "Normalization", "Multiply", "Divide", "TrueDivide", "Add", "Subtract", "GetItem"}
"""Layers and operations that scale pixels where they stand in front of every layer with weights."""


def pixels_of(config: Any, *, asked: str | None, path: Path) -> Pixels:
    """What the pixels must be: as asked, as the model's first layers say, or as its family's are."""
    families = {name: pixels for name, (_, pixels) in _FAMILIES.items()}
    if asked is not None:
        try:
            return asked_pixels(asked, families={**families, **FAMILIES})
        except OptionError as error:
            raise BackboneError(f"backbone {path}: {error}") from error
    if _scales_itself(config):
        note = f"{path.name} scales its pixels itself, so it is given 0 to 255"
        return Pixels(*RANGES["0..255"], note=note)
    names = {str(item.get("name")) for item in objects_in(config)}
    for family, (mark, pixels) in _FAMILIES.items():
        if mark in names:
            note = f"{path.name} is a {family}: took the pixels of its preprocess_input"
            return replace(pixels, note=note)
    raise BackboneError(
        f"backbone {path}: does not say what its pixels are; give --preprocess with a range "
        f"({', '.join(RANGES)}), MEAN/STD (0.5,0.5,0.5/0.5,0.5,0.5) or a family ({', '.join(_FAMILIES)})"
    )


def _scales_itself(config: Any) -> bool:
    """Whether a layer in front of every layer with weights scales the pixels."""
    for item in objects_in(config):
        kind, settings = str(item["class_name"]), item.get("config")
        if kind in _SCALING:
            return True
        if isinstance(settings, dict) and ("kernel_initializer" in settings or "filters" in settings):
            return False
    return False


def objects_in(config: Any, *, outermost: bool = True) -> Iterator[Mapping[str, Any]]:
    """Everything in a configuration that Keras would make an object of, outermost first.

    The outermost model's losses and metrics are not loaded; those of a model inside it are.
    """
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for key, value in config.items():
            if not (outermost and key == "compile_config"):
                yield from objects_in(value, outermost=False)
    elif isinstance(config, list):
        for value in config:
            yield from objects_in(value, outermost=False)
