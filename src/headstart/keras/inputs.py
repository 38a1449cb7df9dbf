"""What ``model.fit`` accepts as data, and the same with features in the images' place.

Sources are wrapped, never walked through in advance: an extra pass would advance their random generators, and
the order of the batches would not be ``model.fit``'s any more.
"""

from __future__ import annotations

import contextlib
import copy
import random
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import keras
import numpy as np

from headstart.backbones.keras.graph import functional_of
from headstart.errors import OptionError
from headstart.keras.execution import Array

Transform = Callable[[list[Array]], list[Array]]
"""From the model's inputs to the tail's, each [n, …]."""

_SAMPLES, _BATCHES = 8, 2
"""Items, and whole batches, of a data set that are read twice, to see whether both times are the same."""

_WAYS_OUT = (
    "so the frozen part cannot be cached; put fixed views into the data instead, or move the augmentation "
    "into the model behind the frozen layers, or train uncached: headstart.keras.fit(..., cache=False)"
)


def flat_arrays(model: Any, x: Any) -> list[Array] | None:
    """``x`` as arrays in the order of the model's inputs; None if it is a source of batches.

    Raises:
        OptionError: a dictionary lacks one of the model's inputs.
    """
    if x is None or not all(map(_is_array, keras.tree.flatten(x))):
        return None
    return [_to_numpy(leaf) for leaf in in_order(model, x)]


def in_order(model: Any, x: Any) -> list[Any]:
    """The leaves of ``x`` in the order of the model's inputs, as Keras reads them.

    Raises:
        OptionError: a dictionary lacks one of them, or brings what a model of named inputs has not.
    """
    functional = functional_of(model)
    structure = functional.input if functional is not None else None
    if not isinstance(x, dict) or structure is None:
        return list(keras.tree.flatten(x))
    own = isinstance(structure, dict)
    names = sorted(structure) if own else [tensor.name for tensor in keras.tree.flatten(structure)]
    if not set(names) <= set(x) or (own and len(x) > len(names)):
        raise OptionError(f"x: expected inputs {', '.join(names)}; got {', '.join(map(str, x))}")
    return [leaf for name in names for leaf in keras.tree.flatten(x[name])]


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
    return len(x) if is_torch_loader(x) and hasattr(x.dataset, "__len__") else None


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
        shapes = [getattr(leaf, "shape", None) for leaf in keras.tree.flatten(spec[0])]
        if any(shape is None or shape.rank is None or None in shape.as_list()[1:] for shape in shapes):
            return "the data set's images have no fixed shape (tf.ensure_shape in a map gives them one)"
        return None
    if isinstance(source, keras.utils.PyDataset) or is_torch_loader(source) or hasattr(source, "__next__"):
        return None
    return f"a source of type {type(source).__name__}"


def refuse_misfit(source: Any, *, model: Any, inputs: Sequence[Any]) -> None:
    """Refuse a ``tf.data`` pipeline whose batches the model cannot take: found out in it, the error is long.

    Args:
        source: what gives batches.
        model: the user's, which knows the order of the inputs.
        inputs: the symbolic tensor of each.

    Raises:
        OptionError: says what the model wants and what it would get.
    """
    if not is_tf_dataset(source):
        return
    for leaf, spec in zip(in_order(model, source.element_spec[0]), inputs, strict=False):
        want, got = tuple(spec.shape), leaf.shape.as_list()
        alike = len(got) == len(want)
        fits = all(None in pair or pair[0] == pair[1] for pair in zip(want[1:], got[1:], strict=False))
        squeezed = 1 in (want[-1], got[-1]) and abs(len(got) - len(want)) == 1  # Keras adds or drops it
        if not ((fits and alike) or squeezed):
            help = "; batch it: .batch(32)" if len(got) == len(want) - 1 else ""
            raise OptionError(
                f"the data set: the model's input '{spec.name}' wants {want}, got {tuple(got)}{help}"
            )


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
    items, count = _items(source)
    with _generators_put_back():
        for i in range(count):
            once, again = (keras.tree.flatten(items[i]) for _ in range(2))
            if not all(
                np.array_equal(np.asarray(a), np.asarray(b)) for a, b in zip(once, again, strict=True)
            ):
                raise OptionError(
                    f"{type(items).__name__} gives different images for item {i} each time, {_WAYS_OUT}"
                )


def _items(source: Any) -> tuple[Any, int]:
    """What can be looked at without reading the source: something to index, and how many of its items.

    A `PyDataset` is copied (not what it holds), because some count how often they are asked.
    """
    if isinstance(source, keras.utils.PyDataset):
        return copy.copy(source), min(_BATCHES, source.num_batches or 1)
    items = getattr(source, "dataset", None) if is_torch_loader(source) else None
    if hasattr(items, "__getitem__") and hasattr(items, "__len__"):
        return items, min(_SAMPLES, len(items))  # type: ignore[arg-type]
    return None, 0


def shape_of_one(x: Any) -> tuple[int | None, ...] | None:
    """The shape of one image, for a model with one input; None where that is not known before reading."""
    if hasattr(x, "shape"):
        return tuple(x.shape[1:])
    if is_tf_dataset(x):
        leaves = keras.tree.flatten(x.element_spec)
        return tuple(leaves[0].shape[1:]) if leaves and leaves[0].shape.rank else None
    items, count = _items(x)
    if not count:
        return None
    with _generators_put_back():
        image = keras.tree.flatten(items[0])[0]
    shape = tuple(np.shape(image))
    return shape[1:] if isinstance(x, keras.utils.PyDataset) else shape


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
