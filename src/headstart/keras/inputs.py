"""What ``model.fit`` accepts as data, and the same with features in the images' place.

Sources are wrapped, never walked through in advance: an extra pass would advance their random generators, and
the order of the batches would not be ``model.fit``'s any more.
"""

from __future__ import annotations

import contextlib
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from headstart.backbones.keras_graph import functional_of
from headstart.errors import OptionError
from headstart.keras.execution import Array

Transform = Callable[[list[Array]], list[Array]]
"""From the model's inputs to the tail's, each [n, …]."""

_SAMPLES = 8
"""Items of a data set that are read twice, to see whether it gives the same both times."""

_WAYS_OUT = (
    "so the frozen part cannot be cached; put fixed views into the data instead, or move the augmentation "
    "into the model behind the frozen layers, or train uncached: headstart.keras.fit(..., cache=False)"
)


def flat_arrays(model: Any, x: Any) -> list[Array] | None:
    """``x`` as arrays in the order of the model's inputs; None if it is a source of batches.

    Raises:
        OptionError: a dictionary lacks one of the model's inputs.
    """
    if x is None or not all(_is_array(leaf) for leaf in keras.tree.flatten(x)):
        return None
    return [_to_numpy(leaf) for leaf in in_order(model, x)]


def in_order(model: Any, x: Any) -> list[Any]:
    """The leaves of ``x`` in the order of the model's inputs, as Keras reads them."""
    functional = functional_of(model)
    structure = functional.input if functional is not None else None
    if isinstance(x, dict) and not isinstance(structure, dict):
        names = [tensor.name for tensor in keras.tree.flatten(structure)]
        if not set(names) <= set(x):
            raise OptionError(f"x: expected inputs {', '.join(names)}; got {', '.join(map(str, x))}")
        return [x[name] for name in names]
    found: list[Any] = keras.tree.flatten(x)
    return found


def _is_array(leaf: Any) -> bool:
    return isinstance(leaf, np.ndarray) or (hasattr(leaf, "__array__") and hasattr(leaf, "shape"))


def _to_numpy(leaf: Any) -> Array:
    return leaf if isinstance(leaf, np.ndarray) else np.asarray(keras.ops.convert_to_numpy(leaf))


def one_or_list(arrays: Sequence[Any]) -> Any:
    """How a model with so many inputs is fed."""
    return arrays[0] if len(arrays) == 1 else list(arrays)


def number_of_steps(settings: dict[str, Any]) -> int | None:
    """Batches per epoch as Keras counts them; None where it cannot know."""
    x = settings["x"]
    if settings["steps_per_epoch"]:
        return int(settings["steps_per_epoch"])
    leaves = keras.tree.flatten(x)
    if all(_is_array(leaf) for leaf in leaves):
        count = int(leaves[0].shape[0])
        if settings["validation_split"] and settings["validation_data"] is None:
            count = int(np.floor(count * (1.0 - settings["validation_split"])))
        return -(-count // int(settings["batch_size"] or 32))
    if isinstance(x, keras.utils.PyDataset):
        return None if x.num_batches is None else int(x.num_batches)
    if is_tf_dataset(x):
        count = int(x.cardinality())
        return count if count >= 0 else None
    return len(x) if hasattr(x, "__len__") else None


# Sources


def is_tf_dataset(source: Any) -> bool:
    """Whether it is a ``tf.data.Dataset``, found out without importing TensorFlow."""
    return any(base.__name__ == "DatasetV2" for base in type(source).__mro__)


def is_torch_loader(source: Any) -> bool:
    """Whether it is a PyTorch ``DataLoader``, found out without importing PyTorch."""
    return any(
        base.__name__ == "DataLoader" and base.__module__.startswith("torch.")
        for base in type(source).__mro__
    )


def why_not_source(source: Any) -> str | None:
    """Why a source of batches cannot be wrapped; None if it can."""
    if is_tf_dataset(source):
        spec = source.element_spec
        if not isinstance(spec, tuple) or len(spec) not in (2, 3):
            return "the data set does not give (x, y) batches"
        if any(None in leaf.shape.as_list()[1:] for leaf in keras.tree.flatten(spec[0])):
            return "the data set's images have no fixed shape"
        return None
    if isinstance(source, keras.utils.PyDataset) or is_torch_loader(source) or hasattr(source, "__next__"):
        return None
    return f"a source of type {type(source).__name__}"


def refuse_random(source: Any) -> None:
    """Refuse a source that gives different images every time.

    A ``tf.data`` pipeline is read for random operations, other data sets are asked twice for a few items,
    and random generators are put back to where they were: what they give next is the training's.

    Raises:
        OptionError: names what is random, and the ways out.
    """
    if is_tf_dataset(source):
        name = _random_operation(source)
        if name is not None:
            raise OptionError(f"the data set's step '{name}' is random, {_WAYS_OUT}")
        return
    items: Any = getattr(source, "dataset", None) if is_torch_loader(source) else source
    if isinstance(source, keras.utils.PyDataset):
        count = min(2, source.num_batches or 1)
    elif items is not None and hasattr(items, "__getitem__") and hasattr(items, "__len__"):
        count = min(_SAMPLES, len(items))
    else:
        return
    with _generators_put_back():
        for i in range(count):
            once, again = (keras.tree.flatten(items[i]) for _ in range(2))
            if not all(
                np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(once, again, strict=True)
            ):
                raise OptionError(
                    f"{type(items).__name__} gives different images for item {i} each time, {_WAYS_OUT}"
                )


@contextlib.contextmanager
def _generators_put_back() -> Iterator[None]:
    """Leave Python's, NumPy's and PyTorch's global random generators as they were."""
    torch = sys.modules.get("torch")  # not imported: nobody drew from it
    python, numpy, pytorch = random.getstate(), np.random.get_state(), torch and torch.get_rng_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        if torch is not None:
            torch.set_rng_state(pytorch)


def _random_operation(dataset: Any) -> str | None:
    """The name of a random operation in a pipeline's functions (shuffling is no function, and harmless)."""
    pending, seen = [dataset], set()
    while pending:
        step = pending.pop()
        if id(step) in seen:
            continue
        seen.add(id(step))
        pending.extend(step._inputs())
        for wrapped in step._functions():
            graph = wrapped.function.graph
            bodies = [graph.as_graph_def().node, *(f.node_def for f in graph.as_graph_def().library.function)]
            for body in bodies:
                for node in body:
                    if "Random" in node.op:
                        return str(node.name)
    return None


def wrap_source(source: Any, transform: Transform, *, model: Any, outputs: Sequence[Any]) -> Any:
    """The same batches in the same order, with the tail's inputs in place of the model's.

    Args:
        source: one for which `why_not_source` has no objection.
        transform: computes the tail's inputs.
        model: the user's, which knows the order of the inputs.
        outputs: dtype and shape, without the batch, of each of the tail's inputs.
    """
    transform = _one_at_a_time(transform)
    if is_tf_dataset(source):
        return _wrap_tf(source, transform, model=model, outputs=outputs)
    if isinstance(source, keras.utils.PyDataset):
        return _wrap_py_dataset(source, transform, model=model)
    if is_torch_loader(source):
        return _wrap_loader(source, transform, model=model)
    return (_wrap_batch(batch, transform, model=model) for batch in source)


def _one_at_a_time(transform: Transform) -> Transform:
    """Data sets call from threads of theirs."""
    lock = threading.Lock()

    def locked(arrays: list[Array]) -> list[Array]:
        with lock:
            return transform(arrays)

    return locked


def _wrap_batch(batch: Any, transform: Transform, *, model: Any) -> tuple[Any, ...]:
    if not isinstance(batch, tuple | list) or len(batch) not in (1, 2, 3):
        raise OptionError("the data: expected batches of (x,), (x, y) or (x, y, sample_weight)")
    arrays = [_to_numpy(leaf) for leaf in in_order(model, batch[0])]
    return (one_or_list(transform(arrays)), *batch[1:])


def _wrap_tf(dataset: Any, transform: Transform, *, model: Any, outputs: Sequence[Any]) -> Any:
    import tensorflow as tf

    def features(x: Any, *rest: Any) -> tuple[Any, ...]:
        leaves = in_order(model, x)
        found = tf.numpy_function(
            lambda *arrays: transform(list(arrays)), leaves, [tf.as_dtype(dtype) for dtype, _ in outputs]
        )
        for tensor, (_, shape) in zip(found, outputs, strict=True):
            tensor.set_shape([leaves[0].shape[0], *shape])
        return (found[0] if len(found) == 1 else tuple(found), *rest)

    return dataset.map(features).prefetch(tf.data.AUTOTUNE)


def _wrap_py_dataset(dataset: Any, transform: Transform, *, model: Any) -> Any:
    class Features(keras.utils.PyDataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> Any:
            return _wrap_batch(dataset[index], transform, model=model)

        @property
        def num_batches(self) -> Any:
            return dataset.num_batches

        def on_epoch_begin(self) -> None:
            dataset.on_epoch_begin()

        def on_epoch_end(self) -> None:
            dataset.on_epoch_end()

    # Processes would each need a runtime of their own; threads share this one.
    return Features(workers=dataset.workers, use_multiprocessing=False, max_queue_size=dataset.max_queue_size)


def _wrap_loader(loader: Any, transform: Transform, *, model: Any) -> Any:
    import torch

    class Features(torch.utils.data.DataLoader):  # type: ignore[type-arg,misc,unused-ignore]
        def __init__(self) -> None:
            self.__dict__.update(loader.__dict__)

        def __iter__(self) -> Any:
            # At once, not at the first batch: it draws a seed, and Keras starts passes that it never reads.
            return map(features, iter(loader))

    def features(batch: Any) -> tuple[Any, ...]:
        x, *rest = _wrap_batch(batch, transform, model=model)
        return keras.tree.map_structure(torch.from_numpy, x), *rest

    return Features()
