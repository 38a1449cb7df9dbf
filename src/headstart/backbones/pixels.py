"""What a network wants its pixels to be, where its weights do not say: as asked, or from files beside it.

Nothing here guesses: mean and standard deviation come from somewhere, or there is an error with the ways out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, OptionError, printable, reason_of
from headstart.files import Unreadable, parse_json, read_json

Colour = tuple[float, float, float]

_HALF, _IMAGENET = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)), ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
CAFFE = ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Mean and standard deviation of pixel / 255, red first. Sources: ``keras.applications.imagenet_utils``,
https://github.com/openai/CLIP (`clip.py`)."""

RANGES: Mapping[str, tuple[Colour, Colour]] = {
    "0..255": ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)),
    "0..1": ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0)),
    "-1..1": _HALF,
}

CONFIG_FILE = "preprocessor_config.json"
"""As Hugging Face's image processors write it."""

_CONFIG_BYTES = 2**20
_FILTERS = ("nearest", "lanczos", "bilinear", "bicubic", "box", "hamming")
"""Pillow's, by the numbers that such files name them with."""

_DEFAULT_CROP, _DEFAULT_FILTER = 0.875, "bicubic"


@dataclass(frozen=True)
class Pixels:
    """What a network wants its pixels to be."""

    mean: Colour  # of pixel / 255, red first
    std: Colour
    blue_first: bool = False  # whether the network itself reads blue, green, red
    size: int | None = None  # pixels a side; None where the network's own, or the user, decides
    crop_fraction: float = 1.0  # see `headstart.data.preprocess.Preprocess`, as the next two
    interpolation: str = "bilinear"
    crop_mode: str = "squash"
    note: str = ""  # what the user should know of it, one sentence

    @property
    def geometry(self) -> tuple[int | None, float, str, str]:
        """Everything but the numbers that a pixel becomes."""
        return self.size, self.crop_fraction, self.interpolation, self.crop_mode

    def preprocess(self, side: int) -> Preprocess:
        """For images of so many pixels a side."""
        return Preprocess(side, self.crop_fraction, self.interpolation, self.crop_mode, self.mean, self.std)


FAMILIES: Mapping[str, Pixels] = {
    "imagenet": Pixels(*_IMAGENET, False, None, _DEFAULT_CROP, "bicubic", "center"),
    "inception": Pixels(*_HALF, False, None, _DEFAULT_CROP, "bicubic", "center"),
    "caffe": Pixels(*CAFFE, True, None, _DEFAULT_CROP, "bilinear", "center"),
    "clip": Pixels(*_CLIP, False, None, 1.0, "bicubic", "center"),
    "mobileclip": Pixels(*RANGES["0..1"], False, None, 1.0, "bilinear", "center"),
    "dinov2": Pixels(*_IMAGENET, False, None, _DEFAULT_CROP, "bicubic", "center"),
    "dinov3": Pixels(*_IMAGENET, False, None, 1.0, "bilinear", "squash"),
    "siglip": Pixels(*_HALF, False, None, 1.0, "bicubic", "squash"),
}
"""By the names of networks' families. Sources: timm's configurations, and the image processors of
``facebook/dinov2-base``, ``facebook/dinov3-vits16-pretrain-lvd1689m``, ``google/siglip-base-patch16-224`` and
``apple/MobileCLIP-S0``."""

_FIELDS = "size=PX, crop=SHARE, interpolation=NAME, mode=center|squash, order=rgb|bgr"


def asked_pixels(asked: str, *, families: Mapping[str, Pixels] = FAMILIES) -> Pixels:
    """What ``--preprocess`` says: a family, a range or MEAN/STD, then single settings after colons.

    ``imagenet``, ``0..1``, ``0.5,0.5,0.5/0.25,0.25,0.25``, ``imagenet:size=256:crop=0.95:order=bgr``.

    Raises:
        OptionError: it is none of these.
    """
    first, *settings = asked.split(":")
    try:
        found = families.get(first) or _numbers(first)
        for setting in settings:
            found = _changed(found, setting)
        found.preprocess(found.size or 1)
    except (ValueError, OptionError) as error:
        said = f": {error}" if isinstance(error, OptionError) else ""
        raise OptionError(
            f"pixels {printable(asked[:80])!r}{said}; expected a family ({', '.join(families)}), a range "
            f"({', '.join(RANGES)}) or MEAN/STD of pixel / 255 (three numbers each); after colons {_FIELDS}"
        ) from None
    return found


def _numbers(text: str) -> Pixels:
    """A range or MEAN/STD; nothing else is known of the pixels, so the usual crop is taken."""
    mean, std = RANGES.get(text) or (_three(part.split(",")) for part in text.split("/"))
    return Pixels(mean, std, False, None, _DEFAULT_CROP, _DEFAULT_FILTER, "center")


def _three(values: Any) -> Colour:
    red, green, blue = (float(value) for value in values)
    if not all(map(math.isfinite, (red, green, blue))):
        raise ValueError("not finite")
    return red, green, blue


def _changed(pixels: Pixels, setting: str) -> Pixels:
    key, _, value = setting.partition("=")
    if key == "size":
        return replace(pixels, size=int(value))
    if key == "crop":
        return replace(pixels, crop_fraction=float(value))
    if key == "interpolation":
        return replace(pixels, interpolation=value)
    if key == "mode":
        return replace(pixels, crop_mode=value)
    if key == "order" and value in ("rgb", "bgr"):
        return replace(pixels, blue_first=value == "bgr")
    raise ValueError(setting)


def pixels_beside(path: Path) -> Pixels | None:
    """What `preprocessor_config.json` beside a model says, or the one above a folder ``onnx``; None for none.

    Raises:
        BackboneError: it is unusable.
    """
    above = [path.parent.parent] if path.parent.name == "onnx" else []
    for folder in (path.parent, *above):
        file = folder / CONFIG_FILE
        if not file.exists():
            continue
        try:
            fields = read_json(file, limit=_CONFIG_BYTES)
            found = _of_processor(fields if isinstance(fields, dict) else {})
            found.preprocess(found.size or 1)
        except (Unreadable, ValueError, TypeError, LookupError, OverflowError, OptionError) as error:
            raise BackboneError(
                f"{printable(file)}: says nothing usable of pixels ({printable(reason_of(error))[:120]}); "
                "mend it, or give --preprocess"
            ) from error
        return replace(found, note=f"pixels as {CONFIG_FILE} beside {path.name} says{found.note}")
    return None


def _of_processor(fields: Mapping[str, Any]) -> Pixels:
    """What a Hugging Face image processor does, of its settings."""
    fields = fields.get("image_processor") or fields  # where text has a processor too
    factor = float(fields.get("rescale_factor", 1 / 255)) if fields.get("do_rescale", True) else 1.0
    mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    if fields.get("do_normalize", True):
        mean, std = _three(fields["image_mean"]), _three(fields["image_std"])
    if fields.get("include_top"):  # EfficientNet's processor divides again
        std = _three(value * again for value, again in zip(std, _three(fields["image_std"]), strict=True))
    shift = 1.0 if fields.get("rescale_offset") else 0.0
    size, crop, mode = _sides(fields)
    resample = fields.get("resample")
    interpolation = _FILTERS[int(resample)] if resample is not None else _DEFAULT_FILTER
    return Pixels(
        mean=_three((value + shift) / (255 * factor) for value in mean),
        std=_three(value / (255 * factor) for value in std),
        blue_first=bool(fields.get("do_flip_channel_order", False)),
        size=size,
        crop_fraction=crop,
        interpolation=interpolation,
        crop_mode=mode,
        note="" if resample is not None else f"; it names no filter: took {_DEFAULT_FILTER}",
    )


_SHARE_BELOW = 384
"""Pixels: ConvNeXt's processor crops smaller images by `crop_pct`, and squashes larger ones."""


def _sides(fields: Mapping[str, Any]) -> tuple[int | None, float, str]:
    """Pixels a side that the network sees, the share that a crop keeps, how a picture is made square."""
    resized, keeps_ratio = _side(fields.get("size"))
    if resized is not None and "crop_pct" in fields:
        share = float(fields["crop_pct"] or _DEFAULT_CROP)
        return (resized, share, "center") if resized < _SHARE_BELOW else (resized, 1.0, "squash")
    if fields.get("do_center_crop") and fields.get("crop_size") is not None:
        seen, _ = _side(fields["crop_size"])
        if seen is None or not fields.get("do_resize", True):
            raise ValueError("a crop of pictures of any size")
        return seen, min(1.0, seen / (resized or seen)), "center"
    return resized, 1.0, "center" if keeps_ratio else "squash"


def _side(value: Any) -> tuple[int | None, bool]:
    """Pixels a side, and whether the shorter side alone is meant."""
    if isinstance(value, dict) and "shortest_edge" in value:
        return int(value["shortest_edge"]), True
    if isinstance(value, dict) and value:
        if value["height"] != value["width"]:
            raise ValueError(f"images of {value['height']} x {value['width']}, which are no squares")
        return int(value["height"]), False
    return (None if value is None or value == {} else int(value)), False


_SPANS = {"nominalrange_0_255": "0..255", "normalized_0_1": "0..1", "normalized_1_1": "-1..1"}


def pixels_in(metadata: Mapping[str, str], *, name: str) -> Pixels | None:
    """What an ONNX model's metadata says: our words, or ONNX's own; None where it says nothing of pixels.

    Ours are ``mean``, ``std``, ``input_size``, ``crop_pct``, ``interpolation``, ``crop_mode``, or all at once
    as ``preprocess`` (JSON); ONNX's are https://onnx.ai/onnx/repo-docs/MetadataProps.html.

    Raises:
        BackboneError: what it says is unusable.
    """
    said = {key.lower(): value for key, value in metadata.items()}
    try:
        found = _in_our_words(said) or _in_onnx_words(said)
        if found is not None:
            found.preprocess(found.size or 1)
    except (ValueError, TypeError, KeyError, OverflowError, Unreadable, OptionError, AttributeError) as error:
        raise BackboneError(
            f"{printable(name)}: its metadata on pixels is unusable ({printable(reason_of(error))[:120]}); "
            "give --preprocess"
        ) from error
    return found and replace(found, note=f"pixels as the metadata of {name} says")


def _in_our_words(said: Mapping[str, str]) -> Pixels | None:
    fields: Mapping[str, Any] = said
    if "preprocess" in said:
        fields = parse_json(said["preprocess"])
    if "mean" not in fields or "std" not in fields:
        return None
    mean, std = (
        _three(value.strip("()[] ").split(",") if isinstance(value, str) else value)
        for value in (fields["mean"], fields["std"])
    )
    size = str(fields.get("size", fields.get("input_size", ""))).strip("()[] ").split(",")[-1]
    return Pixels(
        mean,
        std,
        size=int(size) if size else None,
        crop_fraction=float(fields.get("crop_fraction", fields.get("crop_pct", _DEFAULT_CROP))),
        interpolation=str(fields.get("interpolation", _DEFAULT_FILTER)),
        crop_mode=str(fields.get("crop_mode", "center")),
    )


def _in_onnx_words(said: Mapping[str, str]) -> Pixels | None:
    span = _SPANS.get(said.get("image.nominalpixelrange", "").lower())
    if span is None:
        return None
    order = said.get("image.bitmappixelformat", "rgb8").lower()
    if order not in ("rgb8", "bgr8"):
        raise ValueError(f"pixels of the format {order}")
    return replace(_numbers(span), blue_first=order == "bgr8")
