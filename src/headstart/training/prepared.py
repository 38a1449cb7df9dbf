"""Look at every image once: features cached, problems found, splits drawn."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from headstart import checks
from headstart.backbones import Backbone
from headstart.dataset import SPLITS, Dataset, Skipped
from headstart.errors import DatasetError
from headstart.features import Extraction, FeatureCache, Progress, Wanted, extract
from headstart.files import cache_folder
from headstart.grouping import split
from headstart.runs import FitConfig, fingerprint, seconds_since
from headstart.runtimes import Runtime


@dataclass(frozen=True)
class Prepared:
    """A data set whose images have been looked at once: features cached, splits drawn, problems known."""

    dataset: Dataset
    extraction: Extraction
    splits: tuple[str | None, ...]
    report: checks.DataReport
    seconds: dict[str, float]

    @property
    def skipped(self) -> tuple[Skipped, ...]:
        """Every file that was left out, and why."""
        return (*self.dataset.skipped, *self.extraction.skipped)

    @property
    def counts(self) -> dict[str, int]:
        """How many images are on each side, and how many files were left out."""
        left_out = sum(item.files for item in self.skipped)
        return {**{split: len(self.images(split)) for split in SPLITS}, "skipped": left_out}

    @cached_property
    def fingerprint(self) -> str:
        """Hex digits that change with any image's content, label or side: results on it can be compared."""
        classes, samples = self.dataset.classes, self.dataset.samples
        seen = zip(self.extraction.hashes, self.splits, samples, strict=True)
        return fingerprint((content, split, classes[sample.label]) for content, split, sample in seen)

    def images(self, split: str) -> NDArray[np.int64]:
        """Indices of the split's samples, in the order that the data set was read in."""
        found = np.flatnonzero(np.array([s == split for s in self.splits], dtype=bool))
        return found[np.argsort([self.dataset.samples[i].place for i in found], kind="stable")]

    def labels(self, images: NDArray[np.int64]) -> NDArray[np.int64]:
        """Class indices of these samples."""
        return self.dataset.labels[images]


def prepare(
    dataset: Dataset,
    backbone: Backbone,
    *,
    wanted: Wanted,
    runtime: Runtime,
    config: FitConfig,
    strict: bool = False,
    progress: Progress | None = None,
) -> Prepared:
    """Look at every image once, find what is wrong with the data, and split it.

    Raises:
        DatasetError: nothing usable is left, or ``strict`` and some image is unreadable.
    """
    started = time.perf_counter()
    extraction = extract(
        dataset.samples,
        backbone,
        wanted=wanted,
        runtime=runtime,
        cache=FeatureCache(cache_folder()),
        progress=progress,
    )
    features_seconds = seconds_since(started)
    started = time.perf_counter()
    skipped = (*dataset.skipped, *extraction.skipped)
    if strict and (missed := [item for item in skipped if not item.litter]):
        raise DatasetError(f"{_listed(missed)}; mend or remove what is listed, or leave --strict out")
    found = split(
        dataset,
        extraction.hashes,
        extraction.facts,
        validation=config.validation,
        test=config.test,
        near_duplicates=config.near_duplicates,
    )
    report = checks.report(
        dataset,
        extraction.hashes,
        extraction.facts,
        found.sides,
        skipped,
        found.groups,
        notes=found.notes,
    )
    seconds = {"check": seconds_since(started), "features": features_seconds}
    prepared = Prepared(dataset, extraction, found.sides, report, seconds)
    _check_trainable(prepared)
    return prepared


def _listed(skipped: Sequence[Skipped], *, most: int = 3) -> str:
    shown = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:most])
    more = f" and {len(skipped) - most} more" if len(skipped) > most else ""
    return f"{len(skipped)} unusable files: {shown}{more}"


def _check_trainable(prepared: Prepared) -> None:
    train = prepared.images("train")
    present = set(prepared.labels(train).tolist())
    absent = [name for index, name in enumerate(prepared.dataset.classes) if index not in present]
    if absent:
        unusable = f" ({_listed(prepared.extraction.skipped)})" if prepared.extraction.skipped else ""
        raise DatasetError(
            f"{prepared.dataset.name}: no usable training image of {', '.join(absent[:3])}{unusable}; "
            "add images of every class, or lower --validation and --test"
        )
