"""What a Keras model wants its pixels to be: as asked, as its first layers say, or as its family's are."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.errors import BackboneError

_BYTES = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_SIGNED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Mean and standard deviation of pixel / 255, red first. Source: ``keras.applications.imagenet_utils``."""

RANGES = {"0..255": _BYTES, "0..1": _UNIT, "-1..1": _SIGNED}

_FAMILIES = {
    "densenet": ("conv2_block1_concat", _IMAGENET),
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

_BLUE_FIRST = ("resnet", "vgg")

_SCALING = {"Rescaling", "Normalization", "Multiply", "Divide", "TrueDivide", "Add", "Subtract", "GetItem"}
"""Layers and operations that scale pixels where they stand in front of every layer with weights."""


@dataclass(frozen=True)
class Pixels:
    """What a Keras model wants its pixels to be.

    Attributes:
        mean: Of pixel / 255, red first.
        std: Likewise.
        blue_first: Whether the model itself reads blue, green, red.
        note: What the user should know of it.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    blue_first: bool = False
    note: str = ""


def pixels_of(config: Any, *, asked: str | None, path: Path) -> Pixels:
    """What the pixels must be: as asked, as the model's first layers say, or as its family's are."""
    if asked is not None:
        return _asked(asked, path=path)
    if _scales_itself(config):
        return Pixels(*_BYTES, note=f"{path.name} scales its pixels itself, so it is given 0 to 255")
    names = {str(item.get("name")) for item in objects_in(config)}
    for family, (mark, _) in _FAMILIES.items():
        if mark in names:
            return _family(family, note=f"{path.name} is a {family}: took the pixels of its preprocess_input")
    raise BackboneError(
        f"backbone {path}: does not say what its pixels are; give --architecture with a range "
        f"({', '.join(RANGES)}), MEAN/STD (0.5,0.5,0.5/0.5,0.5,0.5) or a family ({', '.join(_FAMILIES)})"
    )


def _asked(asked: str, *, path: Path) -> Pixels:
    if asked in _FAMILIES:
        return _family(asked)
    if asked in RANGES:
        return Pixels(*RANGES[asked])
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in asked.split("/"))
        (red, green, blue), (red_std, green_std, blue_std) = mean, std
    except ValueError as error:
        raise BackboneError(
            f"backbone {path}: architecture {asked!r}: expected a range ({', '.join(RANGES)}), MEAN/STD of "
            f"pixel / 255 (three numbers each), or a family of Keras's ({', '.join(_FAMILIES)})"
        ) from error
    return Pixels((red, green, blue), (red_std, green_std, blue_std))


def _family(family: str, *, note: str = "") -> Pixels:
    return Pixels(*_FAMILIES[family][1], blue_first=family in _BLUE_FIRST, note=note)


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
