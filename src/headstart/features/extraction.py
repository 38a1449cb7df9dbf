"""One pass over the images: hash, decode, check, render, run the frozen part, store.

Decoding threads and inference overlap, and what is in the cache already is neither decoded nor computed anew.
"""

import hashlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache, partial
from itertools import chain
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.data.dataset import Sample, Skipped, content_hash
from headstart.data.images import ImageFacts, View, decode, pixels_version, shortest_side_needed
from headstart.data.sources import reads
from headstart.errors import CacheError, ImageError, OptionError
from headstart.features.cache import CachePartition, FeatureCache, MissingEntriesError, pack
from headstart.heads.threads import decoding_threads
from headstart.runs import FitConfig

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.backbones.runtimes import Runtime

Progress = Callable[[str, int, int], object]
"""Called with (phase, done, total); True ends a pass over images with those so far."""

Images = Sequence[int] | NDArray[np.int64]
"""Indices into a data set's samples."""

_T = TypeVar("_T")
_R = TypeVar("_R")

FACTS: dict[str, str | int] = {"kind": "facts"}
"""The partition of what was found out about images themselves."""

_IMAGES_PER_TASK = 8
_TASKS_IN_FLIGHT_PER_WORKER = 4
_BYTES_PER_LOOKUP = 8 << 20
"""Files that are looked up together are in memory together."""
_BYTES_PER_TRANSACTION = 8 << 20
"""A commit costs a disk flush of some milliseconds; 8 MiB of features make it negligible."""

_HALF_MAX = float(np.finfo(np.float16).max)


@dataclass(frozen=True)
class FeatureSpec:
    """Which features a job needs of each image.

    Args:
        depth: how many stages are frozen; below `all`, the activations at the cut are wanted.
        views: the renderings of each image.
        pooled: the last layer's vector is wanted.
        layers: the pooled maps of every stage are wanted too.
        also: further depths whose activations the same pass shall store, for jobs that share it.
    """

    depth: int
    views: tuple[View, ...]
    pooled: bool = True
    layers: bool = False
    also: tuple[int, ...] = ()

    @classmethod
    def of(cls, config: FitConfig) -> "FeatureSpec":
        """What a training with these settings reads."""
        views = tuple(View(name) for name in config.views)
        return cls(config.depth, views, pooled=config.pretrained, layers=bool(config.layers))

    def cuts(self, stages: int) -> tuple[int, ...]:
        """The depths whose activations are stored, rising; `all` has none beside the pooled vector."""
        return tuple(sorted({depth for depth in (self.depth, *self.also) if depth < stages}))

    def records(self, stages: int) -> tuple[str, ...]:
        """Names of the records that one view of one image has in the cache."""
        activations = tuple(f"activation-{depth}" for depth in self.cuts(stages))
        return activations + (("features",) if self.pooled else ()) + (("taps",) if self.layers else ())


def record_key(content: bytes, view: View, record: str) -> bytes:
    """24 bytes: 16 of the image's content hash, 8 of the view's and the record's names."""
    return content + _record_hash(view.name, record)


@lru_cache(maxsize=1024)
def _record_hash(view: str, record: str) -> bytes:
    return hashlib.blake2b(f"{view}/{record}".encode(), digest_size=8).digest()


@dataclass(frozen=True)
class CacheUse:
    """How the cache was used: views of images found and computed, bytes written."""

    hits: int = 0
    misses: int = 0
    bytes: int = 0


@dataclass(frozen=True)
class Extraction:
    """What one pass over a data set's images gave.

    ``hashes`` and ``facts`` run parallel to the samples; None where a file could not be read. ``again`` makes
    the pass once more, for what vanished from the cache meanwhile.
    """

    hashes: tuple[bytes | None, ...]
    facts: tuple[ImageFacts | None, ...]
    skipped: tuple[Skipped, ...]
    use: CacheUse
    partition: CachePartition
    backbone: "Backbone"
    spec: FeatureSpec
    again: "Callable[[], Extraction] | None" = None

    def features(
        self, images: Images, *, layers: Sequence[str] | None = None, view: View
    ) -> NDArray[np.float32]:
        """Pooled features of some images.

        Args:
            images: indices into the samples; each must have been readable.
            layers: names of layers, concatenated in this order; None for the last vector alone.
            view: one of the views that were extracted.

        Returns:
            float32 [len(images), D].
        """
        last = self.backbone.feature_layers()[-1].name
        names = [last] if layers is None else list(layers)
        parts = {}
        if last in names:
            parts[last] = self._rows(images, view=view, record="features")
        if set(names) - {last}:
            rows = self._rows(images, view=view, record="taps")
            parts |= {name: rows[:, span] for name, span in self.layer_spans.items() if name in names}
        chosen = [parts[name] for name in names]
        return np.concatenate(chosen, axis=1, dtype=np.float32)

    def by_layer(self, images: Images, *, view: View) -> dict[str, NDArray[np.float32]]:
        """Pooled features of some images by layer, in their order, each float32 [n, its width]."""
        everything = self.features(
            images, layers=[layer.name for layer in self.backbone.feature_layers()], view=view
        )
        ends = np.cumsum([layer.width(self.backbone) for layer in self.backbone.feature_layers()])
        parts = np.split(everything, ends[:-1], axis=1)
        return {
            layer.name: np.ascontiguousarray(part)
            for layer, part in zip(self.backbone.feature_layers(), parts, strict=True)
        }

    @cached_property
    def layer_spans(self) -> dict[str, slice]:
        """Where each layer but the last one lies in a record of layers."""
        spans, start = {}, 0
        for layer in self.backbone.feature_layers()[:-1]:
            width = layer.width(self.backbone)
            spans[layer.name] = slice(start, start + width)
            start += width
        return spans

    def at(self, depth: int) -> "Extraction":
        """The same pass seen by a job that freezes ``depth`` stages, which must be among those of the pass.

        Raises:
            OptionError: the pass did not store that depth.
        """
        stages = len(self.backbone.stages)
        if depth != stages and depth not in self.spec.cuts(stages):
            raise OptionError(f"depth {depth} was not extracted; this pass has {self.spec.cuts(stages)}")
        also = tuple(cut for cut in self.spec.cuts(stages) if cut != depth)
        return replace(self, spec=replace(self.spec, depth=depth, also=also))

    def activations(self, images: Images, *, view: View) -> NDArray[Any]:
        """Maps at the cut, [n, …] float16 or float32; at depth 0 the rendered pixels, uint8 [n, S, S, 3]."""
        return self._rows(images, view=view, record=f"activation-{self.spec.depth}")

    def _rows(self, images: Images, *, view: View, record: str) -> NDArray[Any]:
        keys = [record_key(self._hash(image), view, record) for image in images]
        try:
            return self.partition.read(keys)
        except MissingEntriesError:
            if self.again is None:
                raise
            return self.again().partition.read(keys)

    def _hash(self, image: int) -> bytes:
        found = self.hashes[image]
        if found is None:
            raise CacheError(f"image {image} could not be read, so it has no features")
        return found


@dataclass(frozen=True)
class _Rendered:
    """One sample after decoding: ``pixels`` has the views that are not in the cache."""

    index: int
    content: bytes | None
    facts: ImageFacts | None
    fresh_facts: bool = False
    problem: str | None = None
    missing: tuple[View, ...] = ()
    pixels: tuple[NDArray[np.uint8], ...] = ()


@dataclass
class _Ledger:
    """What the pass has learnt so far; written by the consuming thread alone."""

    hashes: list[bytes | None]
    facts: list[ImageFacts | None]
    views: int
    skipped: list[Skipped] = field(default_factory=list)
    hits: int = 0
    misses: int = 0
    done: int = 0


def extract(
    samples: Sequence[Sample],
    backbone: "Backbone",
    *,
    spec: FeatureSpec,
    runtime: "Runtime",
    cache: FeatureCache,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Extraction:
    """Look at every image once: hash, decode, check, render, run the frozen part, store.

    Decoding threads and inference overlap; a bounded number of images is in memory, however many there are.
    Views that are in the cache already are not rendered. An interrupted call keeps what it has stored.

    Where the cache cannot be written, the features are kept until the process ends.

    Raises:
        CacheError: another process kept the cache's lock, or what cannot be stored cannot be kept either.
        OptionError: neither the cache's disk nor memory and temporary files have room for the features.
    """
    partition = cache.partition(partition_identity(backbone, runtime))
    facts_partition = cache.partition(FACTS)
    partition.absorb_shards()
    facts_partition.absorb_shards()
    ledger = _Ledger([None] * len(samples), [None] * len(samples), views=len(spec.views))
    writer = _Writer(partition, facts_partition)
    render_task = _render_task(
        samples, backbone, spec=spec, partition=partition, facts_partition=facts_partition
    )
    fitting_room = _room_check(backbone, spec=spec, partition=partition, images=len(samples))
    threads = workers or decoding_threads()
    pool = ThreadPoolExecutor(threads, thread_name_prefix="decode")
    try:
        chunks = (
            range(i, min(i + _IMAGES_PER_TASK, len(samples)))
            for i in range(0, len(samples), _IMAGES_PER_TASK)
        )
        in_flight = _TASKS_IN_FLIGHT_PER_WORKER * threads
        tasks = _bounded(pool, render_task, chunks, in_flight=in_flight)
        rendered = _account(tasks, samples=samples, ledger=ledger, writer=writer, progress=progress)
        rendered = fitting_room(rendered)
        _compute(rendered, backbone, spec=spec, runtime=runtime, writer=writer)
    except BaseException:
        writer.hurry.set()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
        writer.close()
    samples = samples[: ledger.done]
    return Extraction(
        hashes=tuple(ledger.hashes[: ledger.done]),
        facts=tuple(ledger.facts[: ledger.done]),
        skipped=tuple(ledger.skipped),
        use=CacheUse(ledger.hits, ledger.misses, writer.bytes),
        partition=partition,
        backbone=backbone,
        spec=spec,
        again=partial(extract, samples, backbone, spec=spec, runtime=runtime, cache=cache, workers=workers),
    )


def partition_identity(backbone: "Backbone", runtime: "Runtime") -> dict[str, str | int]:
    """Everything that could change a feature's value, but for the image, the view and the depth."""
    return {
        "kind": "features",
        "backbone": backbone.name,
        "weights": backbone.weights_hash,
        "preprocess": backbone.preprocess.fingerprint(),
        "pixels": pixels_version(),
        "size": backbone.preprocess.size,
        "runtime": runtime.name,
        "precision": runtime.precision,
        # One record holds all layers in a row, so another choice of layers is another layout.
        "taps": " ".join(layer.name for layer in backbone.feature_layers()),
    }


_Read = tuple[int, bytes, bytes | NDArray[Any]]
"""A sample's index, its content's hash, and what its source gave."""


def _render_task(
    samples: Sequence[Sample],
    backbone: "Backbone",
    *,
    spec: FeatureSpec,
    partition: CachePartition,
    facts_partition: CachePartition,
) -> Callable[[range], list[_Rendered]]:
    """What a decoding thread does with some samples, which it looks up together."""
    preprocess = backbone.preprocess
    side = shortest_side_needed(preprocess, spec.views)
    records = spec.records(len(backbone.stages))

    def looked_up(files: Sequence[_Read]) -> Iterator[_Rendered]:
        keys = {
            (content, view): [record_key(content, view, record) for record in records]
            for _, content, _ in files
            for view in spec.views
        }
        facts_known = facts_partition.get_many([content for _, content, _ in files])
        present = partition.present(chain.from_iterable(keys.values()))
        for (index, content, data), known in zip(files, facts_known, strict=True):
            missing = tuple(view for view in spec.views if not present.issuperset(keys[content, view]))
            if known is not None and not missing:
                yield _Rendered(index, content, ImageFacts.from_bytes(known))
                continue
            try:
                image = decode(data, shortest_side=side)
                facts = image.facts if known is None else ImageFacts.from_bytes(known)
                pixels = tuple(image.render(preprocess, view) for view in missing)
                yield _Rendered(index, content, facts, known is None, None, missing, pixels)
            except ImageError as error:
                yield _Rendered(index, None, None, problem=str(error))

    def task(chunk: range) -> list[_Rendered]:
        done: list[_Rendered] = []
        files: list[_Read] = []
        held = 0
        for index, read in zip(chunk, reads([samples[index].source for index in chunk]), strict=True):
            try:
                data = read()
                files.append((index, content_hash(data), data))
                held += data.nbytes if isinstance(data, np.ndarray) else len(data)
            except ImageError as error:
                done.append(_Rendered(index, None, None, problem=str(error)))
            if held > _BYTES_PER_LOOKUP:
                done += looked_up(files)
                files, held = [], 0
        done += looked_up(files)
        return sorted(done, key=lambda item: item.index)

    return task


def _bounded(
    pool: ThreadPoolExecutor, work: Callable[[_T], _R], items: Iterable[_T], *, in_flight: int
) -> Iterator[_R]:
    """``map`` in order with at most ``in_flight`` tasks submitted and not yet consumed."""
    waiting: deque[Future[_R]] = deque()
    for item in items:
        waiting.append(pool.submit(work, item))
        if len(waiting) >= in_flight:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _account(
    tasks: Iterable[list[_Rendered]],
    *,
    samples: Sequence[Sample],
    ledger: _Ledger,
    writer: "_Writer",
    progress: Progress | None,
) -> Iterator[_Rendered]:
    """Enter every decoded sample into the ledger; pass on those that need computing."""
    for chunk in tasks:
        for item in chunk:
            ledger.hashes[item.index], ledger.facts[item.index] = item.content, item.facts
            if item.content is None or item.facts is None:
                ledger.skipped.append(Skipped(samples[item.index].name, item.problem or "unreadable"))
                continue
            if item.fresh_facts:
                writer.put_facts(item.content, item.facts)
            ledger.misses += len(item.missing)
            ledger.hits += ledger.views - len(item.missing)
            if item.missing:
                yield item
        ledger.done += len(chunk)
        if progress and progress("features", ledger.done, len(samples)) is True:
            return


def _room_check(
    backbone: "Backbone", *, spec: FeatureSpec, partition: CachePartition, images: int
) -> Callable[[Iterator[_Rendered]], Iterator[_Rendered]]:
    """Refuse before the first byte is written where there is no place for what is coming."""

    def check(rendered: Iterator[_Rendered]) -> Iterator[_Rendered]:
        for count, item in enumerate(rendered):
            if count == 0:
                needed = cache_bytes(backbone, spec=spec, images=images - item.index)
                if not partition.has_room(needed):
                    raise OptionError(
                        f"the features of {images - item.index:,} images need up to {needed / 1e6:,.1f} MB, "
                        f"which neither {partition.path.parent} nor the folder for temporary files has free; "
                        "prune (headstart cache prune), set HEADSTART_CACHE to a larger disk, or freeze more "
                        "stages"
                    )
            yield item

    return check


def cache_bytes(backbone: "Backbone", *, spec: FeatureSpec, images: int) -> int:
    """Bytes that ``images`` images will take in the cache at two bytes a value, an upper bound.

    Values: [C, H, W] at the cut, D pooled, and the sum of the layers' widths; 64 bytes of key and header
        each.
    """
    per_view = 64 * len(spec.records(len(backbone.stages)))
    for depth in spec.cuts(len(backbone.stages)):
        pixels = 3 * backbone.preprocess.size**2
        per_view += backbone.stages[depth - 1].bytes_per_image if depth else pixels
    if spec.pooled:
        per_view += 2 * backbone.dimensions
    if spec.layers:
        per_view += 2 * sum(layer.width(backbone) for layer in backbone.feature_layers()[:-1])
    return per_view * images * len(spec.views)


def _compute(
    rendered: Iterator[_Rendered],
    backbone: "Backbone",
    *,
    spec: FeatureSpec,
    runtime: "Runtime",
    writer: "_Writer",
) -> None:
    """Run the frozen part over what is not in the cache. Nothing is compiled when nothing is missing."""
    first = next(rendered, None)
    if first is None:
        return
    rendered = chain([first], rendered)
    cuts = spec.cuts(len(backbone.stages))
    if 0 in cuts:
        rendered = _store_pixels(rendered, writer=writer)
        cuts = cuts[1:]
        if not spec.pooled and not cuts:
            deque(rendered, maxlen=0)
            return
    layers = backbone.feature_layers() if spec.layers else backbone.feature_layers()[-1:]
    batch_size = runtime.best_batch_size(backbone.preprocess.size)
    prefix = runtime.compile(
        backbone,
        depth=cuts[-1] if cuts else len(backbone.stages),
        layers=layers if spec.pooled else (),
        batch_size=batch_size,
        also=cuts[:-1],
    )
    maps = dict(zip(prefix.outputs, reversed(cuts), strict=False))  # the deepest cut's map comes first
    dtype = np.dtype(np.float16 if runtime.precision == "bf16" else np.float32)
    last = backbone.feature_layers()[-1].name
    for token, outputs in prefix.stream(_batches(rendered, batch_size)):
        for row, (content, view) in enumerate(token):
            for output, depth in maps.items():
                writer.put(content, view, f"activation-{depth}", _narrow(outputs[output][row], dtype))
            if spec.pooled:
                writer.put(content, view, "features", _narrow(outputs[last][row], dtype))
            if spec.layers:
                others = np.concatenate([outputs[layer.name][row] for layer in layers[:-1]])
                writer.put(content, view, "taps", _narrow(others, dtype))


def _narrow(array: NDArray[np.float32], dtype: np.dtype[Any]) -> NDArray[Any]:
    """To the stored dtype; values beyond half precision's range (65,504) keep single precision."""
    if dtype == np.float16 and bool((np.abs(array) > _HALF_MAX).any()):  # true beside NaN, where max is not
        return array.astype(np.float32)
    return array.astype(dtype)


def _store_pixels(rendered: Iterator[_Rendered], *, writer: "_Writer") -> Iterator[_Rendered]:
    for item in rendered:
        for view, pixels in zip(item.missing, item.pixels, strict=True):
            if item.content is not None:
                writer.put(item.content, view, "activation-0", pixels)
        yield item


_Token = list[tuple[bytes, View]]


def _batches(rendered: Iterator[_Rendered], batch_size: int) -> Iterator[tuple[_Token, NDArray[np.uint8]]]:
    """Group rendered views into batches: ([(content hash, view)], uint8 [n, S, S, 3])."""
    token: _Token = []
    pixels: list[NDArray[np.uint8]] = []
    for item in rendered:
        for view, image in zip(item.missing, item.pixels, strict=True):
            token.append((item.content or b"", view))
            pixels.append(image)
            if len(pixels) == batch_size:
                yield token, np.stack(pixels)
                token, pixels = [], []
    if pixels:
        yield token, np.stack(pixels)


class _Writer:
    """Collects records and commits them in large transactions on a thread of its own."""

    def __init__(self, partition: CachePartition, facts_partition: CachePartition) -> None:
        self.bytes = 0
        self._partition, self._facts_partition = partition, facts_partition
        self._records: list[tuple[bytes, bytes]] = []
        self._facts: list[tuple[bytes, bytes]] = []
        self._waiting = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="cache-writer")
        self._commit: Future[None] | None = None
        self.hurry = threading.Event()  # set when the pass was interrupted: wait for nobody for long

    def put(self, content: bytes, view: View, record: str, array: NDArray[Any]) -> None:
        value = pack(array)
        self._records.append((record_key(content, view, record), value))
        self.bytes += len(value)
        self._waiting += len(value)
        if self._waiting >= _BYTES_PER_TRANSACTION:
            self._flush()

    def put_facts(self, content: bytes, facts: ImageFacts) -> None:
        self._facts.append((content, facts.to_bytes()))

    def _flush(self) -> None:
        if self._commit is not None:
            self._commit.result()  # at most one transaction waits, so memory stays bounded
        records, facts = self._records, self._facts
        self._records, self._facts, self._waiting = [], [], 0

        def commit() -> None:
            self._partition.put_many(records, hurry=self.hurry)
            self._facts_partition.put_many(facts, hurry=self.hurry)

        self._commit = self._thread.submit(commit)

    def close(self) -> None:
        """Commit what is left; also after an interruption, so that finished work is kept."""
        try:
            self._flush()
            if self._commit is not None:
                self._commit.result()
        finally:
            self._thread.shutdown(wait=True)
