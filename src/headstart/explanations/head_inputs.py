"""What a saved classifier's head reads: which maps inside the graph, pooled how, weighed how.

Between a stage's map and the logits there is often nothing but averages and one matrix. Then each position of
the map has a share in the logit that is known exactly; `Reading.weights` is that share's coefficient.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import FeatureLayer

if TYPE_CHECKING:
    from headstart.classifier.onnx_graph import SavedGraph

_FEATURES = "features"
_SHAPE_ONLY = frozenset({"Flatten", "Reshape", "Squeeze", "Identity", "Dropout"})
_MAP_AXES = ({2, 3}, {-1, -2})


@dataclass(frozen=True, eq=False)
class Reading:
    """One block of the head's input.

    Attributes:
        tensor: name of the map in the graph; None where the way from the last map to the features is more
            than an average, so that only a gradient tells the positions' shares.
        pooling: [positions, cells], the averages taken of the map; None for the plain mean.
        weight: [C_map * cells, classes], channel by channel; the mean over the classes is taken off, since a
            softmax does not see it.
        is_features: whether it is the network's feature vector and not a layer.
    """

    tensor: str | None
    pooling: NDArray[np.float32] | None
    weight: NDArray[np.float32]
    is_features: bool = False

    def coefficients(self, shape: Sequence[int], *, label: int) -> NDArray[np.float32]:
        """What one unit at each channel and position adds to the label's logit, [C_map, positions].

        Args:
            shape: of the map for one image, (C, H, W) or (tokens, C).
            label: index of a class.
        """
        channels = shape[0] if len(shape) == 3 else shape[1]
        positions = shape[1] * shape[2] if len(shape) == 3 else shape[0]
        pooling = self.pooling
        if pooling is None:
            pooling = np.full((positions, 1), 1 / positions, np.float32)
        found: NDArray[np.float32] = self.weight[:, label].reshape(channels, -1) @ pooling.T
        return found


def readings_of(graph: "SavedGraph", layers: Sequence[str]) -> tuple[Reading, ...]:
    """The blocks of a saved classifier's head, in the order in which they are concatenated.

    Args:
        graph: the classifier's.
        layers: names of what the head reads.
    """
    weight = graph.constant(graph.head.input[1])
    weight = weight - weight.mean(axis=1, keepdims=True)
    joined = graph.head.input[0]
    blocks = [joined] if len(layers) == 1 else list(graph.makers[joined].input)
    parsed = [FeatureLayer.parse(name) for name in layers]
    widths = [  # the graph does not say the features', so they are what is left
        0 if layer.stage == _FEATURES else int(graph.constant(graph.makers[block].input[1])[1])
        for layer, block in zip(parsed, blocks, strict=True)
    ]
    widths = [width or len(weight) - sum(widths) for width in widths]
    rows = np.split(weight, np.cumsum(widths)[:-1])
    readings = []
    for layer, block, part in zip(parsed, blocks, rows, strict=True):
        if layer.stage == _FEATURES:
            readings.append(Reading(_averaged(graph, block), None, part, is_features=True))
        else:
            product = graph.makers[graph.makers[block].input[0]]
            readings.append(Reading(layer.stage, graph.constant(product.input[1]), part))
    return tuple(readings)


def _averaged(graph: "SavedGraph", name: str) -> str | None:
    """The map whose mean over all positions is ``name``; None where more than that was done to it."""
    while name in graph.makers and graph.makers[name].op_type in _SHAPE_ONLY:
        name = graph.makers[name].input[0]
    maker = graph.makers.get(name)
    if maker is not None and (maker.op_type == "GlobalAveragePool" or _reduces_map(graph, maker)):
        return str(maker.input[0])
    return None


def _reduces_map(graph: "SavedGraph", node: Any) -> bool:
    from onnx import helper

    if node.op_type != "ReduceMean":
        return False
    axes = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1] in graph.constants:
        axes = graph.constant(node.input[1]).tolist()
    return axes is not None and set(axes) in _MAP_AXES
