"""Measures a saved classifier on other labelled images, and records that as a run where there is none."""

import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import Classifier
from headstart.data import checks
from headstart.data.dataset import Dataset, Sample, Skipped, describe, read_dataset
from headstart.data.images import ImageFacts
from headstart.distributed import Carried, place
from headstart.errors import DatasetError, RunError
from headstart.features import Progress
from headstart.heads.decisions import decide
from headstart.heads.tasks import MULTI_LABEL, SINGLE_LABEL, AnyEvaluation
from headstart.heads.tasks import evaluate as measure
from headstart.runs import (
    CLASSIFIER_FILE,
    RUN_FILE,
    FitConfig,
    Run,
    answer,
    fingerprint,
    new_id,
    read_images,
    read_run,
    seconds_since,
    software,
    timestamp,
    write_images,
    write_predictions,
)
from headstart.training.saving import listed, write_record

_WINDOW = 256
"""Images decoded before they are run: bounds memory."""

_BATCH = 32
"""What `Classifier.probabilities` runs at once."""

_SIDE = "test"
"""Which side of the split recorded images are on: nothing was trained or chosen on them here."""

_TRAINED_ELSEWHERE = (
    "trained elsewhere, so there is no record of its training: every image counts as a test image, and "
    "those that it was trained on, if any, flatter the accuracy"
)


@dataclass(frozen=True)
class Answers:
    """What a classifier said of a data set.

    Attributes:
        classifier: who was asked; the data set may have fewer of its classes, and in another order.
        dataset: of what.
        probabilities: float32 [n, C], of the readable samples in their order.
        contents: what each file holds, as `content_hash`; None where it is unreadable.
        facts: of each file, likewise.
        skipped: the files that were left out.
    """

    classifier: Classifier
    dataset: Dataset
    probabilities: NDArray[np.float32]
    contents: tuple[bytes | None, ...]
    facts: tuple[ImageFacts | None, ...]
    skipped: tuple[Skipped, ...]

    @cached_property
    def readable(self) -> list[int]:
        """Indices of the samples that have an answer."""
        return [index for index, content in enumerate(self.contents) if content is not None]

    @cached_property
    def evaluation(self) -> AnyEvaluation:
        """The answers against the labels."""
        known, labels = self.classifier.classes, self.dataset.labels[self.readable]
        place = [known.index(name) for name in self.dataset.classes]
        if self.dataset.task == MULTI_LABEL:
            others, labels = labels, np.zeros((len(labels), len(known)), np.uint8)
            labels[:, place] = others
        elif self.dataset.task == SINGLE_LABEL:
            labels = np.array(place, np.int64)[labels]
        return measure(
            self.dataset.task,
            self.probabilities,
            labels,
            classes=known,
            thresholds=self.classifier.thresholds,
            errors=self.classifier.errors,
            costs=self.classifier.cost_matrix,
        )

    @property
    def trained_on(self) -> int | None:
        """How many of the images the classifier was trained on, wherever they lie now.

        None where its folder has no record of a training, as of a classifier that was trained elsewhere.
        """
        try:
            listed = read_images(self.classifier.model.parent)
        except RunError:
            return None
        known = {image.get("content") for image in listed if image["split"] == "train"}
        if not known:  # the record of an evaluation
            return None
        return sum(content is not None and content.hex() in known for content in self.contents)

    @property
    def sides(self) -> list[str | None]:
        """Each sample's side of the split; None where it has no answer."""
        return [None if content is None else _SIDE for content in self.contents]

    @property
    def report(self) -> checks.DataReport:
        """What is to be said of the data."""
        return checks.report(self.dataset, self.contents, self.facts, self.sides, self.skipped)

    def label(self, index: int) -> str:
        """The class that the data set says a sample has."""
        return self.dataset.label_of(self.dataset.samples[index])


def evaluate(
    classifier: Classifier, source: Any, *, progress: Progress | None = None, on: str | None = None
) -> tuple[AnyEvaluation, tuple[Skipped, ...]]:
    """Predict every image of a labelled data set and compare.

    Labels are matched by name, so the folder may hold fewer classes than the classifier knows.

    Args:
        classifier: from `load`, or just made.
        source: labelled images, as `read_dataset` takes them.
        progress: called with (phase, done, total).
        on: "ray" for a Ray cluster; None for this process.

    Returns:
        The scores, and the files that were left out.

    Raises:
        DatasetError: the data has a class that the classifier does not know, or no readable image.
    """
    answers = ask(classifier, source, progress=progress, on=on)
    return answers.evaluation, answers.skipped


def ask(
    classifier: Classifier, source: Any, *, progress: Progress | None = None, on: str | None = None
) -> Answers:
    """Predict every image of a labelled data set, as for `evaluate`, whose errors it has too."""
    return _ask(classifier, _known(classifier, source), progress=progress, on=on)


def record_evaluation(
    classifier: Classifier, source: Any, *, progress: Progress | None = None, on: str | None = None
) -> Run:
    """Evaluate a classifier that was trained elsewhere, and save that in its folder as a run.

    `headstart report` then has a report on it and `headstart runs` lists it. All images are its test images.
    Recording again replaces the earlier evaluation; the record of a training is never replaced.

    Args:
        classifier: one that lies in a folder: from `load`, or from `headstart.keras.to_classifier`.
        source: labelled images, as for `evaluate`.
        progress: called with (phase, done, total).
        on: as for `evaluate`.

    Raises:
        DatasetError: as for `evaluate`.
        RunError: the folder has the record of a training, or cannot be written.
    """
    started = time.perf_counter()
    folder = classifier.model.parent.absolute()
    earlier = _replaceable(folder)
    dataset = _known(classifier, source)
    seconds = {"check": seconds_since(started)}
    begun = time.perf_counter()
    answers = _ask(classifier, dataset, progress=progress, on=on)
    evaluation = answers.evaluation
    seconds["evaluate"] = seconds_since(begun)
    begun = time.perf_counter()
    report = answers.report
    seconds["check"] = round(seconds["check"] + seconds_since(begun), 3)
    config = _config(classifier, dataset)
    run = Run(
        id=earlier.id if earlier else new_id(config.backbone.replace(":", "-")),
        path=folder,
        created=timestamp(),
        config=config,
        classes=classifier.classes,
        images={
            "train": 0,
            "validation": 0,
            _SIDE: evaluation.images,
            "skipped": sum(item.files for item in answers.skipped),
        },
        accuracy={"validation": None, _SIDE: getattr(evaluation, "accuracy", None)},
        macro_f1=getattr(evaluation, "macro_f1", None),
        evaluation={_SIDE: evaluation.to_dict()},
        seconds=seconds,
        cache={},
        data=report.to_dict(),
        notes=(_TRAINED_ELSEWHERE, *report.headline()),
        versions=software(),
        trained=False,
        source=dataset.origin,
    )
    return _save(run, answers, started=started)


def _known(classifier: Classifier, source: Any) -> Dataset:
    """The labelled images, whose classes the classifier must know."""
    dataset = read_dataset(source, for_training=False, task=classifier.task)
    unknown = sorted(set(dataset.classes) - set(classifier.classes))
    if unknown:
        raise DatasetError(
            f"{dataset.name}: the classifier does not know {', '.join(unknown[:3])}; "
            f"it knows {', '.join(classifier.classes[:8])}"
        )
    return dataset


# ------------------------------------------------------------------------------------------------ asking


def _ask(classifier: Classifier, dataset: Dataset, *, progress: Progress | None, on: str | None) -> Answers:
    rows: list[NDArray[np.float32]] = []
    contents: list[bytes | None] = []
    facts: list[ImageFacts | None] = []
    skipped = list(dataset.skipped)
    with place(on) as where:
        starts = range(0, len(dataset.samples), _WINDOW)
        windows = [where.sent(dataset.samples[start : start + _WINDOW]) for start in starts]
        for found, seen in where.map(partial(_window, where.carried(classifier, "model")), windows):
            rows.append(found)
            for sample, look in zip(dataset.samples[len(contents) :], seen, strict=False):
                if isinstance(look, str):
                    skipped.append(Skipped(sample.name, look))
                contents.append(None if isinstance(look, str) else look[0])
                facts.append(None if isinstance(look, str) else look[1])
            if progress:
                progress("evaluate", len(contents), len(dataset.samples))
    if not any(map(len, rows)):
        raise DatasetError(f"{dataset.name}: no readable image; {skipped[0].name}: {skipped[0].reason}")
    return Answers(
        classifier=classifier,
        dataset=dataset,
        probabilities=np.concatenate(rows),
        contents=tuple(contents),
        facts=tuple(facts),
        skipped=tuple(skipped),
    )


def _window(
    carried: Carried[Classifier], samples: Sequence[Sample]
) -> tuple[NDArray[np.float32], list[tuple[bytes, ImageFacts] | str]]:
    """Of some images the answers to those that can be read; of each its hash and facts, or why it cannot."""
    classifier = carried.here
    looks = classifier.look(samples)
    good = [look.pixels for look in looks if not isinstance(look, str)]
    found = classifier.probabilities(np.stack(good) if good else np.zeros((0,), np.uint8))
    return found, [look if isinstance(look, str) else (look.content, look.facts) for look in looks]


# ---------------------------------------------------------------------------------------------- recording


def _replaceable(folder: Path) -> Run | None:
    """The evaluation that lies in the folder already; asked before the work, or the work would be lost."""
    if not (folder / CLASSIFIER_FILE).exists():
        raise RunError(f"{folder} has no {CLASSIFIER_FILE}; save the classifier first (classifier.save)")
    earlier = read_run(folder) if (folder / RUN_FILE).exists() else None
    if earlier and earlier.trained:
        raise RunError(
            f"{folder / RUN_FILE} is the record of this classifier's training, which an evaluation does not "
            "replace; leave --record out to see the numbers alone"
        )
    if not os.access(folder, os.W_OK | os.X_OK):
        raise RunError(f"{folder} cannot be written; copy it to a folder of yours, or leave --record out")
    return earlier


def _config(classifier: Classifier, dataset: Dataset) -> FitConfig:
    """What the classifier says of itself; what it does not say was decided elsewhere."""
    about = classifier.about
    layers = tuple(about.get("layers", ()))
    return FitConfig(
        data=dataset.name,
        backbone=str(about.get("backbone", "unknown")),
        size=classifier.preprocess.size,
        depth=int(about.get("depth", 0)),
        stages=int(about.get("stages", 0)),
        head=str(about.get("head", "unknown")),
        task=classifier.task,
        layers=None if layers in ((), ("features",)) else layers,
        architecture=about.get("architecture"),
        runtime="openvino",
        precision=classifier.precision,
        batch_size=_BATCH,
        validation=0.0,
        test=1.0,
    )


def _save(run: Run, answers: Answers, *, started: float) -> Run:
    """Write the record, `run.json` last: a folder that has one has all of it."""
    begun = time.perf_counter()
    images = _images(answers)
    contents, sides = answers.contents, answers.sides
    split = fingerprint((contents[i], sides[i], answers.label(i)) for i in range(len(contents)))
    try:
        (run.path / RUN_FILE).unlink(missing_ok=True)  # of an earlier evaluation
        write_images(run.path, images, skipped=[(item.name, item.reason) for item in answers.skipped])
        write_predictions(run.path, _said(answers, images), split=split)
        took = {"save": seconds_since(begun), "total": seconds_since(started)}
        run = replace(run, seconds={**run.seconds, **took})
        write_record(run.path, run)
    except OSError as error:
        raise RunError(f"{run.path}: {error.strerror}; make room or copy the classifier elsewhere") from error
    return listed(run)


def _images(answers: Answers) -> list[dict[str, Any]]:
    seen = enumerate(zip(answers.dataset.samples, answers.sides, answers.contents, strict=True))
    return [
        describe(sample, label=answers.label(index), split=side, content=content)
        for index, (sample, side, content) in seen
    ]


def _said(answers: Answers, images: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Those that have an answer, with it."""
    known = answers.classifier
    said = partial(answer, classes=known.classes, task=known.task, thresholds=known.thresholds)
    calls = decide(answers.probabilities, known.cost_matrix)
    rows = zip(answers.readable, answers.probabilities.tolist(), calls.tolist(), strict=True)
    return [{**images[index], **said(row, called=call)} for index, row, call in rows]
