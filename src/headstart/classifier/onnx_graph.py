"""`model.onnx`: preprocessing's arithmetic, a backbone's stages, the layers and the head as one graph.

pixels uint8 [N, S, S, 3] -> normalise -> stages -> layers -> head -> softmax -> probabilities float32 [N, C]
                                                       layers -> distance -> share -> familiarity float32 [N]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from headstart.backbones.onnx.nodes import Nodes, averages, names_read, needed
from headstart.classifier.classifier import ANSWERS, OUTPUTS
from headstart.errors import RunError

if TYPE_CHECKING:
    from headstart.backbones import Backbone, FeatureLayer, Stage
    from headstart.data.images import Preprocess
    from headstart.heads import Familiarity, LinearHead

_AXES_AS_INPUT = 18
"""The version of ONNX's operators from which reductions take their axes as an input."""

_ANSWERS = {"softmax": ANSWERS[0], "sigmoid": ANSWERS[0], "identity": ANSWERS[1]}
"""What the graph calls its answer, by the head's link."""

PREFIX = "headstart"
"""In front of every name this module adds, so that none collides with the backbone's."""


def compose(
    backbone: "Backbone",
    *,
    layers: Sequence["FeatureLayer"],
    head: "LinearHead",
    familiarity: "Familiarity | None" = None,
    graph: Path | None = None,
) -> bytes:
    """The complete model as a serialised ONNX file.

    Args:
        backbone: its preprocessing and stages go into the graph.
        layers: what the head reads, concatenated in this order.
        head: reads them.
        familiarity: reads them too; None for a model that does not say how familiar an image is.
        graph: the staged ONNX file to use instead of the backbone's own (fine-tuned stages have new weights).
    """
    model = onnx.load(graph or backbone.graph)
    builder = _Builder(PREFIX, opset=max(each.version for each in model.opset_import if not each.domain))
    builder.normalise(backbone.preprocess, output=model.graph.input[0].name)
    before, builder.nodes = builder.nodes, []
    pooled = [builder.layer(backbone, layer) for layer in layers]
    features = pooled[0] if len(pooled) == 1 else builder.add("Concat", pooled, axis=1)
    builder.classify(features, head)
    if familiarity is not None:
        builder.compare(pooled, familiarity)
    answer = _ANSWERS[head.link]
    outputs = (answer, *OUTPUTS[1:]) if familiarity is not None else (answer,)
    nodes = needed([*before, *model.graph.node, *builder.nodes], outputs)
    used = {name for node in nodes for name in names_read(node)}
    size, classes = backbone.preprocess.size, head.weight.shape[1]
    composed = helper.make_graph(
        nodes,
        "headstart",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", size, size, 3])],
        [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
            for name, shape in zip(outputs, (["N", classes], ["N"]), strict=False)
        ],
        [tensor for tensor in [*model.graph.initializer, *builder.constants] if tensor.name in used],
    )
    whole = helper.make_model(composed, opset_imports=list(model.opset_import), ir_version=model.ir_version)
    return bytes(whole.SerializeToString())


@dataclass(frozen=True, eq=False)
class SavedGraph:
    """A saved classifier's graph, taken apart.

    Attributes:
        file: where it lies.
        model: the ONNX model.
        makers: which node makes a tensor, by the tensor's name.
        constants: stored tensors by name.
        head: the node that gives the logits, with its weight and bias as further inputs.
    """

    file: Path
    model: Any
    makers: Mapping[str, Any]
    constants: Mapping[str, Any]
    head: Any

    @classmethod
    def read(cls, file: Path) -> "SavedGraph":
        """Read the file that `compose` made.

        Raises:
            RunError: it is missing, damaged or no such model.
        """
        try:
            model = onnx.load(file)
            makers = {name: node for node in model.graph.node for name in node.output}
            constants = {tensor.name: tensor for tensor in model.graph.initializer}
            answer = next(makers[name] for name in ANSWERS if name in makers)
            linear = answer if answer.op_type == "Gemm" else makers[answer.input[0]]
            return cls(file, model, makers, constants, linear)
        except Exception as error:  # protobuf's for damaged files, which is no public name
            raise RunError(f"{file}: no head is found in it ({error!r}); fit again") from error

    def constant(self, name: str) -> NDArray[Any]:
        """A stored tensor."""
        return numpy_helper.to_array(self.constants[name])

    def alone(self) -> Any:
        """The model with its probabilities as the only output, and nothing in it that these do not need."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        graph = model.graph
        nodes = needed(list(graph.node), [name for name in ANSWERS if name in self.makers])
        used = {name for node in nodes for name in names_read(node)}
        kept = [tensor for tensor in graph.initializer if tensor.name in used]
        outputs = [output for output in graph.output if output.name in ANSWERS]
        del graph.node[:], graph.initializer[:], graph.output[:], graph.value_info[:]
        graph.node.extend(nodes)
        graph.initializer.extend(kept)
        graph.output.extend(outputs)
        return model

    def without_head(self) -> bytes:
        """The graph but for its head's numbers and its outputs: the same for all heads on one network."""
        model, numbers = self.alone(), set(self.head.input[1:])
        kept = [tensor for tensor in model.graph.initializer if tensor.name not in numbers]
        del model.graph.initializer[:], model.graph.output[:]
        model.graph.initializer.extend(kept)
        return bytes(model.SerializeToString(deterministic=True))


def pooling_matrix(stage: "Stage", *, grid: int) -> NDArray[np.float32]:
    """Adaptive average pooling as a matrix [positions, grid * grid], positions being H * W or tokens.

    Tokens in front of the patches get weight 0.
    """
    patches = stage.shape[0] - stage.prefix_tokens  # where the stage gives tokens
    height, width = stage.patch_grid or (patches, 1)
    rows, columns = averages(height, grid), averages(width, grid)
    cells = np.einsum("hi,wj->hwij", rows, columns).reshape(height * width, grid * grid)
    return np.concatenate([np.zeros((stage.prefix_tokens, grid * grid)), cells]).astype(np.float32)


class _Builder(Nodes):
    """What stands in front of the stages and behind them."""

    def __init__(self, prefix: str, *, opset: int) -> None:
        super().__init__(prefix)
        self.opset = opset  # of the backbone's file, which the whole graph keeps

    def normalise(self, preprocess: "Preprocess", *, output: str) -> None:
        """``pixels`` to the backbone's input: (x / 255 - mean) / std, channels first."""
        scale = 1.0 / (255.0 * np.array(preprocess.std, np.float32))
        shift = -np.array(preprocess.mean, np.float32) / np.array(preprocess.std, np.float32)
        real = self.add("Cast", ["pixels"], to=TensorProto.FLOAT)
        scaled = self.add("Mul", [real, self.constant(scale)])
        shifted = self.add("Add", [scaled, self.constant(shift)])
        self.add("Transpose", [shifted], perm=[0, 3, 1, 2], output=output)

    def layer(self, backbone: "Backbone", layer: "FeatureLayer") -> str:
        """What a layer gives, [N, width]."""
        if layer.stage == "features":
            return layer.stage
        return self.pool(backbone.stage(layer.stage), grid=layer.grid)

    def pool(self, stage: "Stage", *, grid: int) -> str:
        """A stage's map, averaged over a grid and flattened to [N, C * grid * grid]."""
        matrix = self.constant(pooling_matrix(stage, grid=grid))
        if len(stage.shape) == 3:
            positions = self.constant(np.array([0, stage.channels, -1], np.int64))
            flat = self.add("Reshape", [stage.name, positions])
        else:
            flat = self.add("Transpose", [stage.name], perm=[0, 2, 1])
        pooled = self.add("MatMul", [flat, matrix])
        return self.add("Reshape", [pooled, self.constant(np.array([0, stage.channels * grid**2], np.int64))])

    def classify(self, features: str, head: "LinearHead") -> None:
        """Features to ``probabilities`` or ``value``, the head's temperature included."""
        weight, bias = ((each / head.temperature).astype(np.float32) for each in (head.weight, head.bias))
        constants = [self.constant(weight), self.constant(bias)]
        if head.link == "identity":
            self.add("Gemm", [features, *constants], output=_ANSWERS[head.link])
            return
        scores = self.add("Gemm", [features, *constants])
        axis = {"axis": 1} if head.link == "softmax" else {}
        self.add(head.link.capitalize(), [scores], **axis, output=_ANSWERS[head.link])

    def compare(self, pooled: Sequence[str], known: "Familiarity") -> None:
        """Each layer's features to ``familiarity``; see `Familiarity.strangeness` and `Familiarity.of`."""
        unit = [self.add("LpNormalization", [each], axis=1, p=2) for each in pooled]
        joined = unit[0] if len(unit) == 1 else self.add("Concat", unit, axis=1)
        centred = self.add("Sub", [joined, self.constant(known.mean)])
        z = self.add("Mul", [centred, self.constant(known.multiplier)])
        scores = self.add("MatMul", [z, self.constant(known.projection)])
        shaped = self.add("MatMul", [scores, self.constant(known.form)])
        pulls = self.add("Mul", [shaped, self.constant(known.pull)])
        nearest = self.lowest(self.add("Sub", [self.constant(known.cost), pulls]))
        spread = self.sums(self.add("Mul", [scores, shaped]), width=len(known.form))
        seen = self.add("MatMul", [z, self.constant(known.directions)])
        inside = self.sums(self.squares(seen), width=known.directions.shape[1])
        outside = self.add("Sub", [self.sums(self.squares(z), width=len(known.mean)), inside])
        residual = self.add("Mul", [outside, self.constant(np.array(known.weight, np.float32))])
        strange = self.add("Add", [self.add("Add", [spread, nearest]), residual])  # [N, 1]
        less = self.add(
            "Cast", [self.add("Less", [self.constant(known.known), strange])], to=TensorProto.FLOAT
        )
        share = self.constant(np.full((len(known.known), 1), 1 / (len(known.known) + 1), np.float32))
        both = self.add("Sub", [self.constant(np.ones((), np.float32)), self.add("MatMul", [less, share])])
        self.add("Reshape", [both, self.constant(np.array([-1], np.int64))], output="familiarity")

    def squares(self, values: str) -> str:
        """Of each number."""
        return self.add("Mul", [values, values])

    def sums(self, values: str, *, width: int) -> str:
        """Of each row of so many, [N, 1]."""
        return self.add("MatMul", [values, self.constant(np.ones((width, 1), np.float32))])

    def lowest(self, values: str) -> str:
        """Of each row, [N, 1]."""
        if self.opset < _AXES_AS_INPUT:
            return self.add("ReduceMin", [values], axes=[1], keepdims=1)
        return self.add("ReduceMin", [values, self.constant(np.array([1], np.int64))], keepdims=1)
