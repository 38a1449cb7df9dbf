"""Looks at every image once: features cached, problems found, splits drawn."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.backbones.runtimes import Runtime
from headstart.costs.budgets import beginning
from headstart.data import checks
from headstart.data.dataset import SPLITS, Dataset, Skipped
from headstart.data.folds import assign_folds
from headstart.data.splits import split
from headstart.distributed import HERE, Place
from headstart.errors import DatasetError
from headstart.features import Extraction, FeatureCache, FeatureSpec
from headstart.files import cache_folder
from headstart.heads import Task, task_of
from headstart.runs import FitConfig, fingerprint
from headstart.runs.callbacks import Callback

NO_FOLD = -1
"""Of an image that every head of a cross-validation is trained on, and none judges."""


@dataclass(frozen=True)
class Prepared:
    """A data set whose images have been looked at once: features cached, splits drawn, problems known."""

    dataset: Dataset
    extraction: Extraction
    splits: tuple[str | None, ...]
    report: checks.DataReport
    folds: tuple[int | None, ...] = ()
    """Of a cross-validation: each sample's; None where it was unreadable, `NO_FOLD` where it trains alone."""
    place: Place = HERE  # where its features were computed, and heads are

    @cached_property
    def task(self) -> Task:
        """What is predicted, for the labels of the training images."""
        return task_of(self.dataset.task, self.labels(self.images("train")))

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
        seen = zip(self.extraction.hashes, self.splits, self.dataset.samples, strict=True)
        label_of = self.dataset.label_of
        return fingerprint((content, split, label_of(sample)) for content, split, sample in seen)

    def images(self, split: str) -> NDArray[np.int64]:
        """Indices of the split's samples, in the order that the data set was read in."""
        return self._as_read(np.array([s == split for s in self.splits], dtype=bool))

    @cached_property
    def weighted(self) -> bool:
        """Whether images have weights of their own."""
        return any(sample.weight != 1 for sample in self.dataset.samples)

    def weights(self, images: NDArray[np.int64]) -> NDArray[np.float64]:
        """Of these samples, one on average: penalties are in units of images."""
        found = np.array([self.dataset.samples[image].weight for image in images])
        return np.asarray(found / found.mean(), dtype=np.float64)

    def fold(self, number: int | None, *, inside: bool) -> NDArray[np.int64]:
        """Indices of the samples of a fold, or of all others that could be read, in the same order."""
        return self._as_read(
            np.array([f is not None and (f == number) == inside for f in self.folds], dtype=bool)
        )

    @property
    def fold_numbers(self) -> list[int]:
        """The folds that there are, ascending."""
        return sorted({fold for fold in self.folds if fold is not None and fold != NO_FOLD})

    def _as_read(self, wanted: NDArray[np.bool_]) -> NDArray[np.int64]:
        found = np.flatnonzero(wanted)
        return found[np.argsort([self.dataset.samples[i].place for i in found], kind="stable")]

    def labels(self, images: NDArray[np.int64]) -> NDArray[Any]:
        """What these samples have of `Dataset.labels`: class indices, 0 and 1 for each label, or numbers."""
        return self.dataset.labels[images]


def prepare(
    dataset: Dataset,
    backbone: Backbone,
    *,
    config: FitConfig,
    runtime: Runtime,
    spec: FeatureSpec | None = None,
    cache: FeatureCache | None = None,
    strict: bool = False,
    watch: Callback | None = None,
    place: Place = HERE,
) -> Prepared:
    """Look at every image once, find what is wrong with the data, and split it.

    Args:
        dataset: the labelled images.
        backbone: the network; its frozen part computes the features.
        config: the training, settled.
        runtime: what executes the frozen part.
        spec: the features, where other trainings read them too; None for what the config needs.
        cache: where features are kept; None for the user's.
        strict: unreadable images are an error.
        watch: told of the phases ``features`` and ``check``; may end reading with the images so far.
        place: where features are computed.

    Raises:
        DatasetError: nothing usable is left, or ``strict`` and some image is unreadable.
    """
    watch = watch or Callback()
    dataset, extraction = _look(
        dataset,
        backbone,
        spec=spec or FeatureSpec.of(config),
        runtime=runtime,
        cache=cache or FeatureCache(cache_folder()),
        watch=watch,
        place=place,
    )
    watch.on_phase_begin("check")
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
    folds = (
        assign_folds(dataset, extraction.hashes, found.together, folds=config.folds) if config.folds else ()
    )
    prepared = Prepared(dataset, extraction, found.sides, report, folds, place)
    _check_trainable(prepared)
    watch.on_phase_end("check", prepared)
    return prepared


def _look(
    dataset: Dataset,
    backbone: Backbone,
    *,
    spec: FeatureSpec,
    runtime: Runtime,
    cache: FeatureCache,
    watch: Callback,
    place: Place,
) -> tuple[Dataset, Extraction]:
    """The features of all images, or of as many as there is time for."""
    watch.on_phase_begin("features")
    extraction = place.extract(
        dataset.samples, backbone, spec=spec, runtime=runtime, cache=cache, progress=watch.on_progress
    )
    watch.on_phase_end("features", extraction)
    return beginning(dataset, len(extraction.hashes)), extraction


def _listed(skipped: Sequence[Skipped], *, most: int = 3) -> str:
    shown = "; ".join(f"{item.name}: {item.reason}" for item in skipped[:most])
    more = f" and {len(skipped) - most} more" if len(skipped) > most else ""
    return f"{len(skipped)} unusable files: {shown}{more}"


def _check_trainable(prepared: Prepared) -> None:
    train = prepared.images("train")
    dataset = prepared.dataset
    present = {label for image in train for label in dataset.classes_of(dataset.samples[image])}
    absent = [name for index, name in enumerate(prepared.dataset.classes) if index not in present]
    if absent:
        unusable = f" ({_listed(prepared.extraction.skipped)})" if prepared.extraction.skipped else ""
        raise DatasetError(
            f"{prepared.dataset.name}: no usable training image of {', '.join(absent[:3])}{unusable}; "
            "add images of every class, or lower --validation and --test"
        )
