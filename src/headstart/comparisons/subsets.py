"""Fewer training images of each class: which ones a seed decides, and fewer are always among more."""

import hashlib
from dataclasses import replace

import numpy as np

from headstart.training import Prepared


def limit_images(prepared: Prepared, *, per_class: int | None, seed: int) -> Prepared:
    """The same data set with at most ``per_class`` training images of each class; None changes nothing.

    The images are ranked by a hash of their content and the seed, so the order of files does not matter and
    adding images moves none of the others' ranks. Validation and test images stay as they are.
    """
    if per_class is None:
        return prepared
    train = prepared.images("train")
    salt = seed.to_bytes(8, "little")
    rank = [
        hashlib.blake2b(prepared.extraction.hashes[i] or b"", digest_size=8, key=salt).digest() for i in train
    ]
    ranked = train[np.argsort(rank, kind="stable")]
    labels = prepared.labels(ranked)
    kept = {int(i) for label in np.unique(labels) for i in ranked[labels == label][:per_class]}
    splits = tuple(
        None if split == "train" and index not in kept else split
        for index, split in enumerate(prepared.splits)
    )
    return replace(prepared, splits=splits)
