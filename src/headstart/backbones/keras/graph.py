"""A Keras model as one flat list of calls.

Functional and Sequential models nest. Here every nested model is opened up, so that a cut may fall anywhere:
inside a base model, between branches, through several tensors at once.

The layers are the user's own objects: nothing is cloned and no layer is called symbolically, so the model in
the user's hands keeps its graph (a symbolic call would add nodes to it) and its weights are the ones that
train.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import keras

from headstart.errors import OptionError

Key = tuple[int, int]
"""Names one tensor: which opening of a nested model, which symbolic tensor in it. A base model that is
called twice is opened twice."""


@dataclass(frozen=True, eq=False)
class Call:
    """One layer or operation, applied once."""

    operation: Any
    arguments: Any  # Keras's own record of args and kwargs; fill_in({id: tensor}) puts tensors in
    inputs: Mapping[int, Key]  # id of the symbolic tensor in `arguments` -> the tensor it stands for here
    outputs: tuple[Key, ...]
    training: bool | None  # what it is given whatever the model is told; None: what the model is told

    @property
    def name(self) -> str:
        """The layer's name, as in ``model.summary()``."""
        return str(self.operation.name)


@dataclass(frozen=True, eq=False)
class Graph:
    """A model opened up: calls in an order in which they can run."""

    calls: tuple[Call, ...]
    inputs: tuple[Key, ...]
    outputs: tuple[Key, ...]
    specs: Mapping[Key, Any]  # the symbolic tensor of each key: shape and dtype

    def run(self, values: Sequence[Any], *, training: bool | None) -> list[Any]:
        """Compute the outputs, flat, from the flat inputs."""
        tensors: dict[Key, Any] = dict(zip(self.inputs, values, strict=True))
        for call in self.calls:
            tensors.update(zip(call.outputs, apply(call, tensors, training=training), strict=True))
        return [tensors[key] for key in self.outputs]

    def part(self, calls: Sequence[Call], *, inputs: Sequence[Key], outputs: Sequence[Key]) -> Graph:
        """Some of the calls, with other ends."""
        return Graph(tuple(calls), tuple(inputs), tuple(outputs), self.specs)


def needed(calls: Sequence[Call], outputs: Sequence[Key]) -> list[Call]:
    """The calls that ``outputs`` depend on, in order."""
    wanted, kept = set(outputs), []
    for call in reversed(calls):
        if wanted.intersection(call.outputs):
            wanted.update(call.inputs.values())
            kept.append(call)
    return kept[::-1]


def apply(call: Call, tensors: Mapping[Key, Any], *, training: bool | None) -> list[Any]:
    """One call's outputs, flat."""
    args, kwargs = call.arguments.fill_in({i: tensors[key] for i, key in call.inputs.items()})
    told = training if call.training is None else call.training
    if told is not None and takes_training(call.operation):
        kwargs = {**kwargs, "training": told}
    found: list[Any] = keras.tree.flatten(call.operation(*args, **kwargs))
    return found


def open_model(model: Any) -> Graph:
    """The graph of a Functional or Sequential model, nested models opened.

    Raises:
        OptionError: the model is neither (a subclassed model's graph is hidden in its code), or is not built.
    """
    functional = functional_of(model)
    if functional is None:
        raise OptionError(
            f"model '{model.name}' ({type(model).__name__}): expected a built Functional or Sequential "
            "model, whose graph can be read; build it, or call model.fit"
        )
    opening = _Opening()
    inputs = tuple(opening.key(tensor, scope=0) for tensor in functional.inputs)
    outputs = opening.open(functional, inputs, training=None)
    return Graph(tuple(opening.calls), inputs, tuple(outputs), opening.specs)


def functional_of(model: Any) -> Any | None:
    """The Functional that runs ``model``, or None if its graph cannot be read."""
    if not isinstance(model, keras.Model) or type(model).call is not _plain_call(model):
        return None
    if isinstance(model, keras.Sequential):
        return getattr(model, "_functional", None)
    return model if hasattr(model, "_nodes_by_depth") else None


def _plain_call(model: Any) -> Any:
    """The ``call`` that a model has if its author did not write one."""
    if isinstance(model, keras.Sequential):
        return keras.Sequential.call
    for base in type(model).__mro__:
        if base.__name__ == "Functional" and base.__module__.startswith("keras."):
            return base.__dict__["call"]
    return None


def takes_training(operation: Any) -> bool:
    """Whether a layer's ``call`` has a ``training`` argument."""
    return bool(getattr(operation, "_call_has_training_arg", False))


class _Opening:
    """Collects calls while nested models are opened."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.specs: dict[Key, Any] = {}
        self._scopes = 0
        self._kept: list[Any] = []  # ids name tensors, so the tensors must outlive them

    def key(self, tensor: Any, *, scope: int) -> Key:
        key = (scope, id(tensor))
        self.specs.setdefault(key, tensor)
        self._kept.append(tensor)
        return key

    def open(self, functional: Any, inputs: Sequence[Key], *, training: bool | None) -> list[Key]:
        scope, self._scopes = self._scopes, self._scopes + 1
        names = {id(tensor): key for tensor, key in zip(functional.inputs, inputs, strict=True)}
        for node in _nodes(functional):
            if any(id(tensor) not in names for tensor in node.input_tensors):
                continue  # an optional input that is absent, as in Keras
            told = _told(node, outer=training)
            inner = functional_of(node.operation)
            ends = _plain_ends(node, inner)
            if inner is not None and ends is not None:
                found = self.open(inner, [names[id(tensor)] for tensor in ends], training=told)
            else:
                found = [self.key(tensor, scope=scope) for tensor in node.outputs]
                used = {id(tensor): names[id(tensor)] for tensor in node.input_tensors}
                self.calls.append(Call(node.operation, node.arguments, used, tuple(found), told))
            names.update(zip((id(tensor) for tensor in node.outputs), found, strict=True))
        return [names[id(tensor)] for tensor in functional.outputs]


def _nodes(functional: Any) -> Iterator[Any]:
    """The calls of one model in the order in which Keras makes them."""
    by_depth = functional._nodes_by_depth
    for depth in sorted(by_depth, reverse=True):
        for node in by_depth[depth]:
            if node.operation is not None and not node.is_input:
                yield node


def _plain_ends(node: Any, inner: Any | None) -> list[Any] | None:
    """What a nested model is called on, in the order of its inputs; None if it must stay closed.

    A call that Keras would first cast, squeeze or reorder is left to Keras: the model stays one call.
    """
    if inner is None or len(node.arguments.args) != 1:
        return None
    given = node.arguments.args[0]
    ends = keras.tree.flatten(given)
    if isinstance(given, dict) or len(ends) != len(inner.inputs):
        return None
    alike = all(
        isinstance(end, keras.KerasTensor) and end.dtype == own.dtype and len(end.shape) == len(own.shape)
        for end, own in zip(ends, inner.inputs, strict=True)
    )
    return ends if alike else None


def _told(node: Any, *, outer: bool | None) -> bool | None:
    """What a call is told about training whatever the whole model is told; None if it follows the model."""
    if outer is not None:
        return outer
    own = node.arguments.kwargs.get("training")
    return None if own is None or model_overrides_training() else bool(own)


@functools.cache
def model_overrides_training() -> bool:
    """Whether the outermost ``training`` wins over the one in ``base_model(x, training=False)``.

    Versions of Keras differ, so this one is asked with a model of one layer that writes down what it is told.
    """

    class Witness(keras.layers.Layer):  # type: ignore[misc]
        told: bool | None = None

        def call(self, x: Any, training: bool | None = None) -> Any:
            self.told = training
            return x

    # Names are given because made-up ones would count towards the names of the user's next layers.
    witness = Witness(name="headstart_witness")
    inputs = keras.Input((1,), name="headstart_witness_input")
    model = keras.Model(inputs, witness(inputs, training=False), name="headstart_witness_model")
    model(keras.ops.zeros((1, 1)), training=True)
    return bool(witness.told)
