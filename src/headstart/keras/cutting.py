"""Finds the prefix: the largest part of a model, from its inputs, that computes the same in every epoch.

A layer is judged by what it does in training mode: whether its weights train, whether it draws random
numbers, whether it updates statistics, whether it adds to the loss. A frozen BatchNormalization does none of
these; one whose ``trainable`` is true does, even if it has no weights to train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import keras

from headstart.backbones.keras.graph import Call, Graph, Key, needed, open_model
from headstart.errors import OptionError

_NOISE = {
    "Dropout": "rate",
    "SpatialDropout1D": "rate",
    "SpatialDropout2D": "rate",
    "SpatialDropout3D": "rate",
    "AlphaDropout": "rate",
    "GaussianDropout": "rate",
    "GaussianNoise": "stddev",
}
"""Layers that are random in training mode only, and the setting that makes them do nothing when it is 0."""


_AUGMENTATION = "keras.src.layers.preprocessing.image_preprocessing."


@dataclass(frozen=True)
class Stop:
    """A layer at which the prefix ends."""

    layer: str
    reason: str


@dataclass(frozen=True, eq=False)
class Cut:
    """A model in two: the prefix runs once per image, the tail is trained.

    The two graphs share the user's layers. ``cached`` are the tensors that cross the cut, in the order of the
    prefix's outputs; the tail's inputs are these, then the inputs of the model that it reads directly
    (``raw``, by position).
    """

    graph: Graph
    prefix: Graph
    tail: Graph
    cached: tuple[Key, ...]
    raw: tuple[int, ...]
    stops: tuple[Stop, ...]
    own_code: tuple[str, ...]  # layers of the prefix whose code is not Keras's

    @property
    def multiply_adds(self) -> tuple[int, int]:
        """Of the prefix and of the whole model, for one image, forward."""
        return multiply_adds(self.prefix), multiply_adds(self.graph)

    @property
    def bytes_per_image(self) -> int | None:
        """What the cache holds for one image; None where a dimension is only known from the data."""
        sizes = [_bytes(self.graph.specs[key]) for key in self.cached]
        return None if any(size is None for size in sizes) else sum(size or 0 for size in sizes)


def cut_model(model: Any) -> Cut:
    """Divide a built model; it stays as it is.

    Raises:
        OptionError: its graph cannot be read, or random augmentation stands before frozen layers.
    """
    graph = open_model(model)
    fixed: set[Key] = set(graph.inputs)
    prefix: list[Call] = []
    stops: list[Stop] = []
    for call in graph.calls:
        if not fixed.issuperset(call.inputs.values()):
            continue
        reason = why_not(call)
        if reason is None:
            prefix.append(call)
            fixed.update(call.outputs)
        else:
            stops.append(Stop(call.name, reason))
    _refuse_augmentation(graph, fixed)
    return _divide(graph, prefix, stops=stops)


def _divide(graph: Graph, prefix: Sequence[Call], *, stops: Sequence[Stop]) -> Cut:
    chosen = set(map(id, prefix))
    tail = [call for call in graph.calls if id(call) not in chosen]
    computed = {key for call in prefix for key in call.outputs}
    wanted = dict.fromkeys([key for call in tail for key in call.inputs.values()] + list(graph.outputs))
    cached = [key for key in wanted if key in computed]
    raw = [i for i, key in enumerate(graph.inputs) if key in wanted]
    kept = needed(prefix, cached)
    return Cut(
        graph=graph,
        prefix=graph.part(kept, inputs=graph.inputs, outputs=cached),
        tail=graph.part(tail, inputs=[*cached, *(graph.inputs[i] for i in raw)], outputs=graph.outputs),
        cached=tuple(cached),
        raw=tuple(raw),
        stops=tuple(stops),
        own_code=tuple(call.name for call in kept if _own_code(call.operation)),
    )


def without(cut: Cut, names: Mapping[str, str]) -> Cut:
    """The cut moved up in front of the layers called ``names``, each with the reason."""
    fixed: set[Key] = set(cut.graph.inputs)
    prefix: list[Call] = []
    for call in cut.prefix.calls:
        if call.name not in names and fixed.issuperset(call.inputs.values()):
            prefix.append(call)
            fixed.update(call.outputs)
    stops = [*cut.stops, *(Stop(name, reason) for name, reason in names.items())]
    return _divide(cut.graph, prefix, stops=stops)


def why_not(call: Call) -> str | None:
    """Why a call cannot be computed once for all epochs; None if it can."""
    operation = call.operation
    if not isinstance(operation, keras.layers.Layer):
        return None
    if operation.trainable_variables:
        return "its weights train"
    training = call.training is not False
    for layer in operation._flatten_layers():
        reason = _why_not_layer(layer, training=training)
        if reason is not None:
            return reason if layer is operation else f"in it, {layer.name}: {reason}"
    return None


def _why_not_layer(layer: Any, *, training: bool) -> str | None:
    kind = type(layer).__name__
    own_code = _own_layer(layer)
    if not own_code and kind in _NOISE:
        return "it is random in training" if training and getattr(layer, _NOISE[kind]) > 0 else None
    if isinstance(layer, keras.layers.BatchNormalization):
        return "it updates its statistics in training" if training and layer.trainable else None
    if isinstance(layer, keras.layers.SpectralNormalization):
        return "it updates its weights in training, frozen or not" if training else None
    if is_augmentation(layer):
        return "it augments at random" if training else None
    if layer._seed_generators and (training or own_code):
        return "it draws random numbers"
    if own_code and training and layer._non_trainable_variables:
        return "it may update its variables in training"
    if getattr(layer, "stateful", False):
        return "it keeps a state between batches"
    if getattr(layer, "activity_regularizer", None) is not None:
        return "it adds to the loss"
    if layer._metrics:
        return "it keeps a metric"
    if isinstance(layer, keras.layers.Masking) or getattr(layer, "mask_zero", False):
        return "it makes a mask, which the cache does not hold"
    return None


def _own_code(operation: Any) -> bool:
    """Whether what an operation does is written outside Keras."""
    if isinstance(operation, keras.layers.Layer):
        return any(map(_own_layer, operation._flatten_layers()))
    return not type(operation).__module__.startswith("keras.")


def _own_layer(layer: Any) -> bool:
    activation = getattr(layer, "activation", None)
    foreign = callable(activation) and not str(getattr(activation, "__module__", "keras.")).startswith(
        "keras."
    )
    lambdas = isinstance(layer, keras.layers.Lambda)
    return foreign or lambdas or not type(layer).__module__.startswith("keras.")


def is_augmentation(layer: Any) -> bool:
    """Whether a layer, or one inside it, changes images at random, by Keras's own code."""
    return any(
        type(one).__module__.startswith(_AUGMENTATION)
        and (bool(one._seed_generators) or hasattr(one, "seed_generator"))
        for one in getattr(layer, "_flatten_layers", list)()
    )


def _refuse_augmentation(graph: Graph, fixed: set[Key]) -> None:
    """Refuse random augmentation in front of frozen layers that have weights.

    Raises:
        OptionError: names the layer and the ways out. Dropping it in silence would change what is trained.
    """
    after: dict[Key, str] = {}
    for call in graph.calls:
        if fixed.issuperset(call.outputs):
            continue
        blame = next((after[key] for key in call.inputs.values() if key in after), None)
        layer = call.operation
        if blame is None and is_augmentation(layer) and why_not(call) is not None:
            blame = call.name
        if blame is None:
            continue
        if getattr(layer, "weights", None) and not is_augmentation(layer) and why_not(call) is None:
            raise OptionError(
                f"layer '{blame}' augments at random in front of the frozen layer '{call.name}', so what "
                "that computes differs in every epoch and cannot be cached; put fixed views into x instead "
                "(for a flip: np.concatenate([x, x[:, :, ::-1]])), or move the augmentation behind the "
                "frozen layers, or train uncached: headstart.keras.fit(..., cache=False)"
            )
        if why_not(call) is None or is_augmentation(layer):
            after.update(dict.fromkeys(call.outputs, blame))


def multiply_adds(graph: Graph) -> int:
    """Multiply-adds of one image's forward pass: every kernel's size times the positions it is applied at.

    Kernels are all weights of two or more dimensions; unknown output dimensions count as 1.
    """
    total = 0
    for call in graph.calls:
        kernels = [
            prod(weight.shape) for weight in getattr(call.operation, "weights", ()) if len(weight.shape) > 1
        ]
        shape = graph.specs[call.outputs[0]].shape if call.outputs else ()
        total += sum(kernels) * prod(size or 1 for size in shape[1:-1])
    return total


def _bytes(spec: Any) -> int | None:
    if any(size is None for size in spec.shape[1:]):
        return None
    width = {"float16": 2, "bfloat16": 2, "float64": 8, "int64": 8, "uint8": 1, "bool": 1}.get(spec.dtype, 4)
    return int(prod(spec.shape[1:])) * width
