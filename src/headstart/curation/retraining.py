"""Train a run's head again under corrected labels, from the cache alone: nothing is decoded or compiled.

What a fit does besides is not repeated: images are neither listed nor hashed where their files have not
changed, sides and layers stay as they are, near-duplicates are not looked for again, and the new model, which
differs from the checked one in two constants, is compared with it instead of being compiled to be compared.
"""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.classifier import MODEL_FILE, Classifier, load
from headstart.curation.corrections import Corrections
from headstart.curation.images import AS_GIVEN_FILE, Collected, as_given, collect
from headstart.data.checks import DataReport
from headstart.data.dataset import Dataset, Skipped
from headstart.errors import DatasetError
from headstart.runs import FOLDS_FILE, Run, new_id, read_predictions, read_skipped, timestamp
from headstart.runs.callbacks import PhaseTimer
from headstart.training import Prepared, save, score, train
from headstart.training.decisions import with_copies
from headstart.training.preparation import NO_FOLD
from headstart.training.saving import facts


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
    timer = PhaseTimer()
    timer.on_phase_begin("features")
    collected = collect(run, corrections)
    prepared, notes = _prepared(run, collected)
    timer.on_phase_end("features", prepared)
    config = with_copies(run.config, run.path)
    scores = score(prepared, train(prepared, config=config, watch=timer), watch=timer)
    identity = new_id(run.config.backbone)
    decided = facts(scores)
    new = replace(
        run,
        id=identity,
        path=(Path(out) if out else run.path.parent / identity).absolute(),
        created=timestamp(),
        **decided,
        seconds={"check": 0.0, **timer.rounded("features", "train", "folds", "evaluate")},
        notes=(_sentence(run, corrections), *notes, *(scores.folds.notes if scores.folds else ())),
        predicted_seconds={},
        predicted_phases={},
        corrections=str(corrections.file.absolute()),
    )
    new = replace(new, head_fit={**decided["head_fit"], **_choice(run), "retrained_from": run.id})
    extra = {AS_GIVEN_FILE: json.dumps(as_given(run))}
    new = save(new, scores, timer=timer, extra=extra, same_as=run.path / MODEL_FILE)
    return load(new.path), new


def _sentence(run: Run, corrections: Corrections) -> str:
    current = corrections.changes().values()
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
        replace(sample, label=number.get(label, 0), split=side)
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
    prepared = Prepared(dataset, collected.extraction, splits, report, _folds(run, hashes))
    return prepared, tuple(f"no image of {name} is left, so the class is gone" for name in gone)


def _folds(run: Run, hashes: Sequence[bytes | None]) -> tuple[int | None, ...]:
    """The folds of the run's cross-validation, where it had one; added images are judged by none, see there.

    They were picked for their use, so they would bend its accuracy as they would that on held-out images.
    """
    if not run.config.folds or not (run.path / FOLDS_FILE).exists():
        return ()
    known = {each["content"]: each["fold"] for each in read_predictions(run.path, name=FOLDS_FILE)["images"]}
    return tuple(None if content is None else known.get(content.hex(), NO_FOLD) for content in hashes)


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


def _choice(run: Run) -> dict[str, Any]:
    """The choice of layers, which was not made again."""
    return {"layers": run.head_fit["layers"]} if "layers" in run.head_fit else {}
