"""The pass over all images as tasks: each runs `headstart.features.extract` over one shard of them."""

import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones import Backbone
from headstart.backbones.runtimes import FrozenPart, Runtime, select
from headstart.data.dataset import Sample, Skipped
from headstart.data.images import ImageFacts
from headstart.distributed.carrying import Carried
from headstart.distributed.images import portable, refuse_unseen
from headstart.distributed.places import Place
from headstart.errors import CacheError, OptionError
from headstart.features import CacheUse, Extraction, FeatureCache, FeatureSpec, Progress, cache_bytes, extract
from headstart.features.extraction import FACTS, partition_identity
from headstart.features.shards import (
    Shard,
    ShardCache,
    ShardedExtraction,
    cut_shards,
    published_files,
    receive,
)

if TYPE_CHECKING:
    from headstart.backbones.backbone import FeatureLayer


@dataclass(frozen=True)
class _Work:
    """What all tasks of a pass have in common."""

    backbone: Carried[Backbone]
    spec: FeatureSpec
    runtime: str
    precision: str
    cache: Path
    token: str  # a file in the cache's folder, which whoever sees it shares
    beside: bool  # whether there are features outside of shards


@dataclass(frozen=True)
class _Item:
    """One shard, and what is known of it where its machine does not see the cache."""

    name: str
    samples: tuple[Sample, ...]
    known: dict[str, bytes]


@dataclass(frozen=True)
class _Seen:
    """What a task found out about its samples; the files of features are for a cache that it did not see."""

    hashes: tuple[bytes | None, ...]
    facts: tuple[ImageFacts | None, ...]
    skipped: tuple[Skipped, ...]
    use: CacheUse
    unsent: dict[str, bytes]
    sees_cache: bool


def extract_shards(
    place: Place,
    samples: Sequence[Sample],
    backbone: Backbone,
    *,
    spec: FeatureSpec,
    runtime: Runtime,
    cache: FeatureCache,
    progress: Progress | None,
) -> Extraction:
    """Look at every image once, wherever the place does its work; see `headstart.features.extract`.

    Features are written where they are computed and published in the cache's folder, shard by shard: what is
    lost with a machine are its unfinished shards. Workers that do not see the folder send their files.

    Raises:
        CacheError: the cache cannot be written, or has no room.
        DatasetError: a machine does not see the images.
        OptionError: a machine cannot compute in the precision that was asked for.
    """
    identity = partition_identity(backbone, runtime)
    partition, facts = cache.partition(identity), cache.partition(FACTS)
    needed = cache_bytes(backbone, spec=spec, images=len(samples))
    if not (partition.stores and facts.stores):
        raise CacheError(
            f"{cache.root}: cannot be written; set HEADSTART_CACHE to a folder that all nodes see"
        )
    if not partition.has_room(needed):
        raise OptionError(
            f"{cache.root}: {needed / 1e6:,.1f} MB are needed for the features; free some space"
        )
    shards = cut_shards([sample.name for sample in samples])
    token = cache.root / f".here-{secrets.token_hex(8)}"
    token.touch()
    work = partial(
        _look,
        _Work(
            place.carried(backbone, "graph"),
            spec,
            runtime.name,
            runtime.precision,
            cache.root.parent,
            token.name,
            beside=not (partition.empty and facts.empty),
        ),
    )
    items = _Items(shards, samples, cache, identity)
    seen: dict[int, _Seen] = {}
    done = 0
    try:
        for position, found in place.each(work, items):
            receive(cache, shards[position].name, found.unsent)
            seen[position] = replace(found, unsent={})
            done += len(found.hashes)
            if progress and progress("features", done, len(samples)) is True:
                break
    finally:
        token.unlink(missing_ok=True)
    whole = next((position for position in range(len(shards)) if position not in seen), len(shards))
    parts = [seen[position] for position in range(whole)]
    count = sum(len(part.hashes) for part in parts)
    return ShardedExtraction(
        hashes=tuple(each for part in parts for each in part.hashes),
        facts=tuple(each for part in parts for each in part.facts),
        skipped=tuple(each for part in parts for each in part.skipped),
        use=CacheUse(*(sum(values) for values in zip(*map(_use, parts), strict=True))),
        partition=partition,
        backbone=backbone,
        spec=spec,
        again=partial(extract, samples[:count], backbone, spec=spec, runtime=runtime, cache=cache),
        shards=shards[:whole],
        seen_by_all=all(part.sees_cache for part in parts),
    )


def _use(seen: _Seen) -> tuple[int, int, int]:
    return seen.use.hits, seen.use.misses, seen.use.bytes


class _Items(Sequence[_Item]):
    """The shards, each made when it is sent: a data set's samples are not doubled."""

    def __init__(
        self,
        shards: Sequence[Shard],
        samples: Sequence[Sample],
        cache: FeatureCache,
        identity: dict[str, str | int],
    ) -> None:
        self._shards, self._samples, self._cache, self._identity = shards, samples, cache, identity

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, position: Any) -> Any:
        shard = self._shards[position]
        samples = tuple(map(portable, self._samples[shard.range]))
        return _Item(shard.name, samples, published_files(self._cache, shard.name, (self._identity, FACTS)))


# ------------------------------------------------------------------------------------------ in a worker


def _look(work: _Work, item: _Item) -> _Seen:
    refuse_unseen(item.samples)
    backbone, runtime = work.backbone.here, _runtime(work.runtime, work.precision)
    shared = FeatureCache(work.cache)
    published = shared if (shared.root / work.token).exists() else None
    with tempfile.TemporaryDirectory(prefix="headstart-") as folder:
        cache = ShardCache(
            Path(folder), shard=item.name, published=published, known=item.known, beside=work.beside
        )
        found = extract(item.samples, backbone, spec=work.spec, runtime=runtime, cache=cache)
        unsent = cache.publish()
    return _Seen(found.hashes, found.facts, found.skipped, found.use, unsent, published is not None)


@lru_cache(maxsize=2)
def _runtime(name: str, precision: str) -> Runtime:
    return _Kept(select(name, precision=precision))


class _Kept(Runtime):
    """A runtime that keeps what it compiled last: a worker meets the same network in every shard."""

    def __init__(self, inner: Runtime) -> None:
        self._inner, self.name, self.precision = inner, inner.name, inner.precision
        self._compiled: dict[tuple[Any, ...], FrozenPart] = {}

    def best_batch_size(self, side: int) -> int:
        """As the runtime has it."""
        return self._inner.best_batch_size(side)

    def _compile(
        self,
        backbone: Backbone,
        *,
        cuts: tuple[int, ...],
        layers: "tuple[FeatureLayer, ...]",
        batch_size: int,
        outputs: tuple[str, ...],
    ) -> FrozenPart:
        key = (backbone.weights_hash, backbone.preprocess, cuts, layers, batch_size)
        if key not in self._compiled:
            self._compiled.clear()
            self._compiled[key] = self._inner._compile(
                backbone, cuts=cuts, layers=layers, batch_size=batch_size, outputs=outputs
            )
        return self._compiled[key]
