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

from headstart.backbones.keras.graph import Graph
from headstart.features.cache import CachePartition, FeatureCache
from headstart.files import cache_folder
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

_LAYOUT = b"layout"
"""The key under which a partition says what its records hold and which runtime computed them."""

_KEY_BYTES = 16

_WINDOW_IMAGES, _WINDOW_BYTES = 2048, 64 << 20
"""Images, and bytes of features, between two writes: what is lost at most when the process is killed."""

Watch = Callable[[int, int, int], None]
"""Told how many images are done, of how many, and how many bytes of features they all have."""


@dataclass
class Counts:
    """What the cache did during one call of `fit`."""

    reused: int = 0
    computed: int = 0
    bytes_per_image: int = 0
    runtime: str = ""


class _Memory(dict[bytes, bytes]):
    """What a partition of the cache does, for features that no later process may use."""

    put_many = dict.update

    def get_many(self, keys: Sequence[bytes]) -> list[bytes | None]:
        return [self.get(key) for key in keys]


@dataclass(eq=False)
class Features:
    """Computes a prefix's features, each image's once.

    Attributes:
        cut: whose prefix.
        dtype_policy: the user's model's.
        runtime: "openvino", which gives way to Keras where the two differ, or "keras".
        batch: images in a batch of the training, which is how many Keras then computes at once.
        counts: what the cache did since they were set to naught.
    """

    cut: Cut
    dtype_policy: Any
    runtime: str
    batch: int = BATCH
    counts: Counts = field(default_factory=Counts)
    _stores: dict[tuple[Any, ...], _Store] = field(default_factory=dict)
    _fingerprint: str | None = None

    def of(self, arrays: Sequence[Array], *, watch: Watch | None = None) -> list[Array]:
        """The cut's tensors for n images, each [n, …], from the model's inputs, each [n, …].

        Where anything must be computed, ``watch`` is told before and after every part of it.
        """
        keys = content_keys(arrays)
        store = self._store(arrays)
        self.counts.bytes_per_image, self.counts.runtime = store.record.itemsize, store.runtime
        records = np.empty(len(keys), store.record)
        missing = store.read_into(records, keys)
        first = {keys[row]: row for row in reversed(missing)}  # of each image, where there are several alike
        rows = sorted(first.values())
        self.counts.reused += len(keys) - len(rows)
        self.counts.computed += len(rows)
        step = max(1, min(_WINDOW_IMAGES, _WINDOW_BYTES // max(1, store.record.itemsize)) // self.batch)
        for span in _spans(len(rows), step * self.batch):
            if watch is not None:
                watch(span.start, len(rows), len(rows) * store.record.itemsize)
            part = rows[span.start : span.stop]
            records[part] = store.compute([array[part] for array in arrays])
            store.write([keys[row] for row in part], records[part])
        if watch is not None and rows:
            watch(len(rows), len(rows), len(rows) * store.record.itemsize)
        for row in missing:
            records[row] = records[first[keys[row]]]
        return [np.ascontiguousarray(records[name]) for name in store.record.names or ()]

    def missing(self, arrays: Sequence[Array]) -> int:
        """How many different images the cache does not hold."""
        keys = list(set(content_keys(arrays)))
        partition = self._partition(tuple(array.shape[1:] for array in arrays))
        if partition.get_many([_LAYOUT]) == [None]:
            return len(keys)
        return sum(value is None for value in partition.get_many(keys))

    def _store(self, arrays: Sequence[Array]) -> _Store:
        """What keeps records for images of this shape."""
        shapes = tuple(array.shape[1:] for array in arrays)
        if shapes not in self._stores:
            self._stores[shapes] = _Store(self, arrays, partition=self._partition(shapes))
        return self._stores[shapes]

    def _partition(self, shapes: tuple[Any, ...]) -> CachePartition | _Memory:
        """In memory where a layer's code is not Keras's: its changes would not change the fingerprint."""
        if not self.cut.own_code:
            self._fingerprint = self._fingerprint or fingerprint(self.cut.prefix)
        if self._fingerprint is None:
            return _Memory()
        description = {
            "keras prefix": self._fingerprint,
            "inputs": repr(shapes),
            "precision": "f32",
            "keras": f"{keras.__version__} {keras.backend.backend()}",
            "runtime": openvino_name() if self.runtime == "openvino" else "keras",
        }
        return FeatureCache(cache_folder()).partition(description)


class _Store:
    """Records for images of one shape."""

    def __init__(
        self, features: Features, arrays: Sequence[Array], *, partition: CachePartition | _Memory
    ) -> None:
        self._features, self._partition = features, partition
        self._runner: Runner | None = None
        layout = partition.get_many([_LAYOUT])[0]
        if layout is None:
            self._choose(arrays)
        else:
            facts = json.loads(layout)
            self._tensors: list[list[Any]] = facts["tensors"]
            self.record, self.runtime = _record(self._tensors), str(facts["runtime"])

    def _choose(self, arrays: Sequence[Array]) -> None:
        """Try a few images, and write down what a record holds."""
        self._runner, expected = self._probe(arrays)
        self._tensors = [[str(array.dtype), list(array.shape[1:])] for array in expected]
        self.record, self.runtime = _record(self._tensors), self._runner.name
        self._partition.put_many([self._layout()])

    def _layout(self) -> tuple[bytes, bytes]:
        return _LAYOUT, json.dumps({"tensors": self._tensors, "runtime": self.runtime}).encode()

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
        if self._runner is None:  # the partition knew what a record holds
            self._runner, _ = self._probe(inputs)
        outputs = self._runner.run(inputs)
        records = np.empty(len(inputs[0]), self.record)
        for name, output in zip(self.record.names or (), outputs, strict=True):
            records[name] = output
        return records

    def read_into(self, records: Array, keys: Sequence[bytes]) -> list[int]:
        """Fill the rows of ``records`` for which there is something; the rows that are missing."""
        missing = []
        for span in _spans(len(keys), max(1, _WINDOW_BYTES // max(1, self.record.itemsize))):
            for row, value in zip(span, self._partition.get_many(keys[span.start : span.stop]), strict=True):
                if value is None:
                    missing.append(row)
                else:
                    records[row] = np.frombuffer(value, self.record)[0]
        return missing

    def write(self, keys: Sequence[bytes], records: Array) -> None:
        """Keep new records, all or none."""
        new = [(key, record.tobytes()) for key, record in zip(keys, records, strict=True)]
        self._partition.put_many([self._layout(), *new])  # a damaged partition gave way to an empty one


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
        state.update(repr([*facts, *keras.tree.map_structure(_written, (args, kwargs))]).encode())
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
        return json.dumps(config, sort_keys=True, default=_written_array)
    except (NotImplementedError, TypeError, ValueError, AttributeError):
        return None


def _written(value: Any) -> Any:
    """A value that a layer is called with: arrays whole, by their hash, for ``repr`` shortens them."""
    return _written_array(value) if hasattr(value, "__array__") and hasattr(value, "shape") else value


def _written_array(value: Any) -> list[Any]:
    """Raises TypeError where ``value`` holds no numbers."""
    array = np.asarray(keras.ops.convert_to_numpy(value))
    if array.dtype.hasobject:
        raise TypeError(f"no numbers: {type(value).__name__}")
    return [str(array.dtype), array.shape, hashlib.blake2b(array.tobytes(), digest_size=16).hexdigest()]
