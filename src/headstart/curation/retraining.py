"""Train a run's head again under corrected labels, from the cache alone: nothing is decoded or compiled.

What a fit does besides is not repeated: images are neither listed nor hashed where their files have not
changed, sides and taps stay as they are, near-duplicates are not looked for again, and the new model, which
differs from the checked one in two constants, is compared with it instead of being compiled to be compared.
"""

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from headstart.checks import DataReport
from headstart.classifier import MODEL_FILE, Classifier, load
from headstart.curation.corrections import Corrections
from headstart.curation.images import AS_GIVEN_FILE, Collected, as_given, collect
from headstart.dataset import Dataset, Sample, Skipped
from headstart.errors import DatasetError, RunError
from headstart.files import write_whole
from headstart.runs import (
    RUN_FILE,
    Run,
    RunStore,
    new_folder,
    new_id,
    read_skipped,
    seconds_since,
    timestamp,
)
from headstart.training.predictions import save_predictions
from headstart.training.prepared import Prepared
from headstart.training.saving import check_saved, save_model
from headstart.training.scores import Scores, score
from headstart.training.trained import Trained, train_head


def retrain(run: Run, corrections: Corrections, *, out: str | Path | None = None) -> tuple[Classifier, Run]:
    """The same classifier with its head trained again under corrected labels.

    Args:
        run: whose stages were all frozen.
        corrections: on the data set as it was given; those of an earlier retraining are among them.
        out: the new run's folder; None for one beside the run's.

    Raises:
        OptionError: the run trained stages too.
        RunError: the run does not remember where its images lie; its folder is damaged.
        DatasetError: fewer than two classes, or a class without a training image, is left.
    """
    started = time.perf_counter()
    collected = collect(run, corrections)
    prepared, notes = _prepared(run, collected)
    features_seconds = seconds_since(started)
    begun = time.perf_counter()
    trained = train_head(prepared, config=run.config)
    seconds = {"check": 0.0, "features": features_seconds, "train": seconds_since(begun)}
    notes = (_sentence(run, corrections), *notes)
    run = replace(run, corrections=str(corrections.file.absolute()))
    new = _save(run, prepared, trained, notes=notes, seconds=seconds, started=started, out=out)
    return load(new.path), new


def _sentence(run: Run, corrections: Corrections) -> str:
    current = corrections.current().values()
    left_out = sum(each.label is None for each in current)
    noun = "correction" if len(current) == 1 else "corrections"
    tail = f", of which {left_out} leave an image out" if left_out else ""
    return f"the head of run {run.id}, trained again with {len(current)} {noun}{tail}"


def _prepared(run: Run, collected: Collected) -> tuple[Prepared, tuple[str, ...]]:
    """What a fit would have prepared, made of what is known; and what to say of the classes."""
    labels = [collected.labels[index] for index in collected.usable]
    gone = [name for name in run.classes if name not in labels]
    classes = (
        *(name for name in run.classes if name not in gone),
        *sorted(set(labels) - set(run.classes)),
    )
    _check_trainable(collected, classes)
    number = {name: index for index, name in enumerate(classes)}
    samples = tuple(
        Sample(sample.name, number.get(label, 0), side, sample.source)
        for sample, label, side in zip(collected.samples, collected.labels, collected.splits, strict=True)
    )
    hashes = collected.extraction.hashes
    splits = tuple(
        side if content is not None else None for side, content in zip(collected.splits, hashes, strict=True)
    )
    report = DataReport(
        name=run.config.data,
        images=len(labels),
        classes={name: _sides(name, collected) for name in classes},
        skipped=collected.extraction.skipped,
        exact_duplicates=(),
        near_duplicates=(),
        odd_sizes=(),
    )
    skipped = _skipped(run)
    dataset = Dataset(run.config.data, classes, samples, skipped)
    prepared = Prepared(dataset, collected.extraction, splits, report, {})
    return prepared, tuple(f"no image of {name} is left, so the class is gone" for name in gone)


def _sides(name: str, collected: Collected) -> dict[str, int]:
    sides = (collected.splits[i] or "unassigned" for i in collected.usable if collected.labels[i] == name)
    return dict(Counter(sides))


def _check_trainable(collected: Collected, classes: Sequence[str]) -> None:
    trained = {collected.labels[i] for i in collected.usable if collected.splits[i] == "train"}
    if len(classes) < 2:
        raise DatasetError(f"only {', '.join(classes) or 'no class'} is left; a classifier needs two classes")
    absent = [name for name in classes if name not in trained]
    if absent:
        raise DatasetError(
            f"no training image is {', '.join(absent[:3])}; label some that are on the training side, "
            "or add new ones"
        )


def _skipped(run: Run) -> tuple[Skipped, ...]:
    return tuple(Skipped(item["path"], item["reason"]) for item in read_skipped(run.path))


def _save(
    run: Run,
    prepared: Prepared,
    trained: Trained,
    *,
    notes: tuple[str, ...],
    seconds: dict[str, float],
    started: float,
    out: str | Path | None,
) -> Run:
    """Evaluate, write the folder, enter it into the runs store."""
    begun = time.perf_counter()
    scores = score(prepared, trained)
    seconds = {**seconds, "evaluate": seconds_since(begun)}
    begun = time.perf_counter()
    identity = new_id(run.config.backbone)
    path = (Path(out) if out else run.path.parent / identity).absolute()
    with new_folder(path) as folder:
        save_model(folder, prepared, prepared.extraction.backbone, trained, config=run.config)
        save_predictions(folder, prepared, scores.probabilities)
        write_whole(folder / AS_GIVEN_FILE, json.dumps(as_given(run)))
        if not same_network(folder / MODEL_FILE, run.path / MODEL_FILE):
            check_saved(folder, prepared, trained, precision=run.config.precision)
        seconds |= {"save": seconds_since(begun), "total": seconds_since(started)}
        new = _record(run, identity, path, prepared, trained, scores=scores, seconds=seconds, notes=notes)
        write_whole(folder / RUN_FILE, json.dumps(new.to_dict(), indent=1, default=str))
    try:
        RunStore().add(new)
    except RunError as error:  # the folder is the truth and is complete; only the index lacks it
        new = replace(new, notes=(*new.notes, f"saved, but not listed among the runs: {error}"))
    return new


def _record(
    run: Run,
    identity: str,
    path: Path,
    prepared: Prepared,
    trained: Trained,
    *,
    scores: Scores,
    seconds: dict[str, float],
    notes: tuple[str, ...],
) -> Run:
    return replace(
        run,
        id=identity,
        path=path,
        created=timestamp(),
        classes=prepared.dataset.classes,
        images=prepared.counts,
        **scores.record,
        seconds=seconds,
        cache=asdict(prepared.extraction.use),
        history=trained.history,
        head_fit={**trained.fit, **_choice(run), "retrained_from": run.id},
        notes=notes,
        predicted_seconds={},
        predicted_phases={},
    )


def _choice(run: Run) -> dict[str, Any]:
    """The choice of taps, which was not made again."""
    return {"taps": run.head_fit["taps"]} if "taps" in run.head_fit else {}


def same_network(model: Path, checked: Path) -> bool:
    """Whether two saved classifiers differ in nothing but the numbers of their heads and names of classes.

    The one that was compiled and compared when it was saved then vouches for the other.

    Raises:
        RunError: a file is missing or is no such model.
    """
    from headstart.classifier.onnx_graph import SavedGraph

    return SavedGraph.read(model).without_head() == SavedGraph.read(checked).without_head()
