"""Data sets: a folder, a table, a zip or arrays become labelled images with a class list and splits.

Layouts that `read_dataset` understands:

* a folder (or zip, or tar) of class folders; images may lie in folders within a class folder;
* `train/`, `val/`, `test/` (or what else means them) with class folders inside, or inside every class folder;
* WebDataset shards: tars of images with a `.cls`, `.json` or `.txt` beside each;
* a CSV or Parquet file with the columns `path`, `label` and, if wanted, `split`; paths are relative to it;
* a pair of arrays `(X, y)`.

Listing opens no image: what cannot be decoded is found, named and counted later, in the one decoding pass.
"""

from headstart.data.dataset.folders import are_splits
from headstart.data.dataset.reading import read_dataset
from headstart.data.dataset.unlabelled import Unlabelled, list_images, list_unlabelled
from headstart.data.dataset.values import SPLITS, Dataset, Sample, Skipped, content_hash, describe, place_of
from headstart.data.sources import ArraySource, FileSource, Source

__all__ = [
    "SPLITS",
    "ArraySource",
    "Dataset",
    "FileSource",
    "Sample",
    "Skipped",
    "Source",
    "Unlabelled",
    "are_splits",
    "content_hash",
    "describe",
    "list_images",
    "list_unlabelled",
    "place_of",
    "read_dataset",
]
