"""The features of a prefix, through the feature cache.

An image is known by its content, a prefix by its layers, their settings and their weights: change any of them
and the lookup misses. What several tensors cross the cut for one image is kept as one record.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np

from headstart.backbones.keras_graph import Graph
from headstart.features.cache import FeatureCache, Shelf
from headstart.keras.cutting import Cut
from headstart.keras.execution import (
    BATCH,
    PROBE,
    Array,
    KerasRunner,
    Runner,
    check_inputs,
    openvino_name,
    openvino_runner,
    reference,
)
from headstart.places import cache_folder

_LAYOUT = b"layout"
"""The key under which a shelf says what its records hold and which runtime computed them."""

_KEY_BYTES = 16

_WINDOW_BYTES = 64 << 20
"""Features computed between two writes: what is lost at most when the process is killed."""


@dataclass
class Counts:
    """What the cache did."""

    reused: int = 0
    computed: int = 0
    bytes_per_image: int = 0
    runtime: str = ""


@dataclass(eq=False)
class Features:
    """Computes a prefix's features, each image's once.

    Attributes:
        cut: whose prefix.
        dtype_policy: the user's model's.
        runtime: "openvino", which gives way to Keras where the two differ, or "keras".
        batch: images in a batch of the training, which is how many Keras then computes at once.
        counts: what the cache did so far.
    """

    cut: Cut
    dtype_policy: Any
    runtime: str
    batch: int = BATCH
    counts: Counts = field(default_factory=Counts)
    _stores: dict[tuple[Any, ...], _Store] = field(default_factory=dict)
    _fingerprint: str | None = None

    def of(
        self, arrays: Sequence[Array], *, announce: Callable[[int, int], None] | None = None
    ) -> list[Array]:
        """The cut's tensors for n images, each [n, …], from the model's inputs, each [n, …].

        Before anything is written, ``announce`` is told of how many images and how many bytes.
        """
        keys = content_keys(arrays)
        store = self._store(arrays)
        self.counts.bytes_per_image, self.counts.runtime = store.record.itemsize, store.runtime
        found = store.read(keys)
        missing = list({key: i for i, key in enumerate(keys) if key not in found}.values())
        self.counts.reused += len(keys) - len(missing)
        self.counts.computed += len(missing)
        if announce is not None and missing:
            announce(len(missing), len(missing) * store.record.itemsize)
        step = max(self.batch, _WINDOW_BYTES // max(1, store.record.itemsize) // self.batch * self.batch)
        for start in range(0, len(missing), step):
            rows = missing[start : start + step]
            records = store.compute([array[rows] for array in arrays])
            store.write(keys, rows, records, found)
        table = np.frombuffer(b"".join(found[key] for key in keys), store.record)
        return [np.array(table[name]) for name in store.record.names or ()]

    def missing(self, arrays: Sequence[Array]) -> int:
        """How many different images the cache does not hold."""
        keys = list(set(content_keys(arrays)))
        shelf = self._shelf(tuple(array.shape[1:] for array in arrays))
        if shelf is None or shelf.get_many([_LAYOUT]) == [None]:
            return len(keys)
        return sum(value is None for value in shelf.get_many(keys))

    def _store(self, arrays: Sequence[Array]) -> _Store:
        """What keeps records for images of this shape."""
        shapes = tuple(array.shape[1:] for array in arrays)
        if shapes not in self._stores:
            self._stores[shapes] = _Store(self, arrays, shelf=self._shelf(shapes))
        return self._stores[shapes]

    def _shelf(self, shapes: tuple[Any, ...]) -> Shelf | None:
        """None where a layer's code is not Keras's: its changes would not change the fingerprint."""
        if self.cut.own_code:
            return None
        self._fingerprint = self._fingerprint or fingerprint(self.cut.prefix)
        if self._fingerprint is None:
            return None
        description = {
            "keras prefix": self._fingerprint,
            "inputs": repr(shapes),
            "precision": "f32",
            "keras": f"{keras.__version__} {keras.backend.backend()}",
            "runtime": openvino_name() if self.runtime == "openvino" else "keras",
        }
        return FeatureCache(cache_folder()).shelf(description)


class _Store:
    """Records for images of one shape: on a shelf, or, without one, in memory only."""

    def __init__(self, features: Features, arrays: Sequence[Array], *, shelf: Shelf | None) -> None:
        self._features, self._shelf = features, shelf
        self._memory: dict[bytes, bytes] = {}
        self._runner: Runner | None = None
        layout = shelf.get_many([_LAYOUT])[0] if shelf else None
        if layout is None:
            self._choose(arrays)
        else:
            facts = json.loads(layout)
            self.record, self.runtime = _record(facts["tensors"]), str(facts["runtime"])

    def _choose(self, arrays: Sequence[Array]) -> None:
        """Try a few images, and write down what a record holds."""
        self._runner, expected = self._probe(arrays)
        tensors = [[str(array.dtype), list(array.shape[1:])] for array in expected]
        self.record, self.runtime = _record(tensors), self._runner.name
        if self._shelf:
            facts = {"tensors": tensors, "runtime": self.runtime}
            self._shelf.put_many([(_LAYOUT, json.dumps(facts).encode())])

    def _probe(self, arrays: Sequence[Array]) -> tuple[Runner, list[Array]]:
        """A runner, and what Keras computes for the first few images."""
        prefix, policy = self._features.cut.prefix, self._features.dtype_policy
        probe = check_inputs([array[:PROBE] for array in arrays], prefix)
        expected = reference(prefix, probe)
        keras_runner = KerasRunner(prefix, dtype_policy=policy, batch=self._features.batch)
        if self._features.runtime == "keras":
            return keras_runner, expected
        at_once = min(BATCH, len(arrays[0]))
        return openvino_runner(prefix, probe, expected=expected, batch=at_once) or keras_runner, expected

    def compute(self, arrays: Sequence[Array]) -> Array:
        """Records for images the cache does not hold."""
        inputs = check_inputs(arrays, self._features.cut.prefix)
        if self._runner is None:  # the shelf knew what a record holds
            self._runner, _ = self._probe(inputs)
        outputs = self._runner.run(inputs)
        records = np.empty(len(inputs[0]), self.record)
        for name, output in zip(self.record.names or (), outputs, strict=True):
            records[name] = output
        return records

    def read(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """What there is."""
        if self._shelf is None:
            return {key: self._memory[key] for key in keys if key in self._memory}
        found = zip(keys, self._shelf.get_many(keys), strict=True)
        return {key: value for key, value in found if value is not None}

    def write(
        self, keys: Sequence[bytes], rows: Sequence[int], records: Array, found: dict[bytes, bytes]
    ) -> None:
        """Keep new records, all or none, and add them to ``found``."""
        new = {keys[row]: records[i].tobytes() for i, row in enumerate(rows)}
        found.update(new)
        if self._shelf is None:
            self._memory.update(new)
        else:
            self._shelf.put_many(new.items())


def _record(tensors: Sequence[Sequence[Any]]) -> np.dtype[Any]:
    fields = [(f"tensor{i}", np.dtype(dtype), tuple(shape)) for i, (dtype, shape) in enumerate(tensors)]
    return np.dtype(fields)


def content_keys(arrays: Sequence[Array]) -> list[bytes]:
    """16 bytes for each of n images, from the content of its rows in ``arrays``, each [n, …].

    SHA-256, because processors have instructions for it: decoded images are large, and a second `fit` spends
    much of its time here.
    """
    count = len(arrays[0])
    solid = [np.ascontiguousarray(array) for array in arrays]
    head = repr([(array.dtype.str, array.shape[1:]) for array in solid]).encode()

    def work(span: range) -> list[bytes]:
        keys = []
        for i in span:
            state = hashlib.sha256(head)
            for array in solid:
                state.update(array[i : i + 1].data)
            keys.append(state.digest()[:_KEY_BYTES])
        return keys

    threads = os.cpu_count() or 1
    step = -(-count // threads) or 1
    with ThreadPoolExecutor(threads) as pool:  # hashing releases the interpreter lock
        return [key for part in pool.map(work, _spans(count, step)) for key in part]


def _spans(count: int, step: int) -> Iterator[range]:
    for start in range(0, count, step):
        yield range(start, min(start + step, count))


def fingerprint(graph: Graph) -> str | None:
    """Hex; changes with a layer, a setting, the wiring or a weight. Layers' names are not part of it.

    None if a layer's settings cannot be written down, so that a change of them could go unseen.
    """
    state = hashlib.blake2b(digest_size=16)
    numbers = {key: i for i, key in enumerate(graph.inputs)}
    for call in graph.calls:
        operation = call.operation
        args, kwargs = call.arguments.fill_in({i: f"tensor {numbers[key]}" for i, key in call.inputs.items()})
        for key in call.outputs:
            numbers[key] = len(numbers)
        settings = _settings(operation)
        if settings is None:
            return None
        facts = [type(operation).__module__, type(operation).__qualname__, settings]
        state.update(repr([*facts, args, kwargs]).encode())
        for weight in getattr(operation, "weights", ()):
            values = np.ascontiguousarray(keras.ops.convert_to_numpy(weight))
            state.update(repr((str(values.dtype), values.shape)).encode())
            state.update(values.tobytes())
    state.update(repr([numbers[key] for key in graph.outputs]).encode())
    return state.hexdigest()


def _settings(operation: Any) -> str | None:
    """A layer's configuration as text; None if it cannot be written down."""
    try:
        config = operation.get_config()
        for irrelevant in ("name", "trainable"):
            config.pop(irrelevant, None)
        return json.dumps(config, sort_keys=True)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None
