"""The feature cache, and the pipelined extraction that fills it.

A frozen layer computes the same thing in every epoch, so what a frozen part computes for one view of one
image is computed once and kept. The cache is addressed by content: an image's bytes, the weights, the
preprocessing, the view, the depth, the runtime and the precision; change any of them and the lookup misses.
"""

from headstart.features.cache import CachePartition, FeatureCache, PartitionInfo
from headstart.features.coverage import missing_share
from headstart.features.extraction import (
    CacheUse,
    Extraction,
    FeatureSpec,
    Progress,
    cache_bytes,
    extract,
    record_key,
)

__all__ = [
    "CachePartition",
    "CacheUse",
    "Extraction",
    "FeatureCache",
    "FeatureSpec",
    "PartitionInfo",
    "Progress",
    "cache_bytes",
    "extract",
    "missing_share",
    "record_key",
]
