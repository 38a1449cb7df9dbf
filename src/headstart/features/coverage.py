"""How much of a data set is in the feature cache already, from a sample."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headstart.data.dataset import Sample, content_hash
from headstart.errors import ImageError
from headstart.features.cache import FeatureCache
from headstart.features.extraction import FeatureSpec, partition_identity, record_key

if TYPE_CHECKING:
    from headstart.backbones import Backbone
    from headstart.backbones.runtimes import Runtime


def missing_share(
    samples: Sequence[Sample],
    backbone: "Backbone",
    *,
    spec: FeatureSpec,
    runtime: "Runtime",
    cache: FeatureCache,
    most: int = 24,
) -> float:
    """Share of the images of which some feature is not cached, 0 to 1, estimated from evenly spread ones.

    Reads and hashes at most ``most`` files, so it takes milliseconds whatever the number of images. What
    cannot be read counts as cached: nothing will be computed for it.
    """
    few = spread(samples, most)
    if not few:
        return 0.0
    partition = cache.partition(partition_identity(backbone, runtime))
    if partition.empty:
        return 1.0
    records = spec.records(len(backbone.stages))
    missing = 0
    for sample in few:
        try:
            content = content_hash(sample.source.read())
        except ImageError:
            continue
        keys = (record_key(content, view, record) for view in spec.views for record in records)
        missing += not partition.contains(keys)
    return missing / len(few)


def spread(samples: Sequence[Sample], most: int) -> list[Sample]:
    """At most so many samples, evenly spread over the list."""
    if len(samples) <= most:
        return list(samples)
    return [samples[(2 * i + 1) * len(samples) // (2 * most)] for i in range(most)]
