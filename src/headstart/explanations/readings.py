"""What a saved classifier's head reads: which maps inside the graph, pooled how, weighed how.

Between a stage's map and the logits there is often nothing but averages and one matrix. Then each position of
the map has a share in the logit that is known exactly; `Reading.weights` is that share's coefficient.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Tap
from headstart.classifier import Classifier
from headstart.errors import RunError
from headstart.explanations.keeping import kept

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
        is_features: whether it is the network's feature vector and not a tap.
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


def readings_of(classifier: Classifier) -> tuple[Reading, ...]:
    """The blocks of a classifier's head, in the order in which they are concatenated.

    Raises:
        RunError: the graph is not one that `composition` made.
    """
    return kept(classifier, "readings", lambda: _read_head(classifier.model, taps=classifier.about["taps"]))


def _read_head(model: Path, *, taps: Sequence[str]) -> tuple[Reading, ...]:
    """The same, read from a saved classifier's file."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(model).graph
    makers = {name: node for node in graph.node for name in node.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    try:
        head = makers[makers["probabilities"].input[0]]
        weight = numpy_helper.to_array(constants[head.input[1]])
        block_names = _blocks(head.input[0], makers, count=len(taps))
    except (KeyError, IndexError):
        raise RunError(f"{model}: the head cannot be found in it; fit again to have heat maps") from None
    weight = weight - weight.mean(axis=1, keepdims=True)
    parsed = [Tap.parse(name) for name in taps]
    widths = [_width(block, tap, makers, constants) for tap, block in zip(parsed, block_names, strict=True)]
    widths = [width or len(weight) - sum(widths) for width in widths]  # the features' is what is left
    rows = np.split(weight, np.cumsum(widths)[:-1])
    readings = []
    for tap, block, part in zip(parsed, block_names, rows, strict=True):
        if tap.stage == _FEATURES:
            readings.append(Reading(_averaged(block, makers, constants), None, part, is_features=True))
        else:
            pooling = numpy_helper.to_array(constants[makers[makers[block].input[0]].input[1]])
            readings.append(Reading(tap.stage, pooling, part))
    return tuple(readings)


def _width(block: str, tap: Tap, makers: Mapping[str, Any], constants: Mapping[str, Any]) -> int:
    """How many rows of the head's weight a tap has; 0 for the features, which the graph does not say."""
    from onnx import numpy_helper

    if tap.stage == _FEATURES:
        return 0
    return int(numpy_helper.to_array(constants[makers[block].input[1]])[1])


def _blocks(name: str, makers: Mapping[str, Any], *, count: int) -> list[str]:
    return [name] if count == 1 else list(makers[name].input)


def _averaged(name: str, makers: Mapping[str, Any], constants: Mapping[str, Any]) -> str | None:
    """The map whose mean over all positions is ``name``; None where more than that was done to it."""
    while name in makers and makers[name].op_type in _SHAPE_ONLY:
        name = makers[name].input[0]
    maker = makers.get(name)
    if maker is None:
        return None
    if maker.op_type == "GlobalAveragePool" or _reduces_map(maker, constants):
        return str(maker.input[0])
    return None


def _reduces_map(node: Any, constants: Mapping[str, Any]) -> bool:
    from onnx import helper, numpy_helper

    if node.op_type != "ReduceMean":
        return False
    axes = next((helper.get_attribute_value(a) for a in node.attribute if a.name == "axes"), None)
    if axes is None and len(node.input) > 1 and node.input[1] in constants:
        axes = numpy_helper.to_array(constants[node.input[1]]).tolist()
    return axes is not None and set(axes) in _MAP_AXES


def logits_of(classifier: Classifier) -> str:
    """The name of the tensor that holds the logits, divided by the temperature.

    Raises:
        RunError: the graph is not one that `composition` made.
    """
    return kept(classifier, "logits", lambda: _logits_name(classifier.model))


def _logits_name(model: Path) -> str:
    import onnx

    for node in onnx.load(model).graph.node:
        if "probabilities" in node.output and node.op_type == "Softmax":
            return str(node.input[0])
    raise RunError(f"{model}: the head cannot be found in it; fit again to have heat maps")
