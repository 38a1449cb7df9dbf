"""The only writer of runs: a folder whole or not at all, checked by what lies on the disk, and listed."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import FeatureLayer
from headstart.classifier import MODEL_FILE, WEIGHTS_FILE, Classifier, check_parity
from headstart.classifier.onnx_graph import compose
from headstart.data.dataset import describe
from headstart.errors import RunError
from headstart.files import write_whole
from headstart.heads import Task, right_probabilities
from headstart.heads.decisions import decide
from headstart.heads.tasks import Regression
from headstart.runs import (
    FOLDS_FILE,
    RUN_FILE,
    Run,
    RunStore,
    answer,
    new_folder,
    write_images,
    write_predictions,
)
from headstart.runs.callbacks import Callback, PhaseTimer
from headstart.training.decisions import copy_tables
from headstart.training.fitting import Trained, familiarity, fine_tuned_graph, predict_images
from headstart.training.preparation import Prepared
from headstart.training.scores import Scores

_PARITY_IMAGES = 8


def facts(scores: Scores) -> dict[str, Any]:
    """The fields of a `Run` that its images, its training and its evaluation decide."""
    prepared, trained = scores.prepared, scores.trained
    return {
        # Fine-tuning starts from ridge and ends in softmax.
        "config": replace(trained.config, layers=trained.layers, head=trained.head.kind),
        "classes": prepared.dataset.classes,
        "images": prepared.counts,
        **scores.record,
        "cache": asdict(prepared.extraction.use),
        "history": trained.history,
        "head_fit": trained.fit,
    }


def save(
    run: Run,
    scores: Scores,
    *,
    timer: PhaseTimer,
    watch: Callback | None = None,
    extra: Mapping[str, str] | None = None,
    same_as: Path | None = None,
    lists: bool = True,
) -> Run:
    """Write a run's folder, compare what was written with what is in memory, and list the run.

    Args:
        run: its record, without the seconds of saving.
        scores: the images, what was trained, and what that says of them.
        timer: says what saving and all of it took.
        watch: told of the phase ``save``.
        extra: further files of the folder, by name.
        same_as: a model that was checked when it was saved; one that differs from it in its head's numbers
            alone is not compiled to be checked again.
        lists: whether to enter it into the store.

    Raises:
        ParityError: the saved model says something else than the one in memory.
        RunError: the folder cannot be written.
    """
    watch = watch or timer
    watch.on_phase_begin("save")
    prepared, trained = scores.prepared, scores.trained
    with new_folder(run.path) as folder:
        _save_model(folder, scores)
        copy_tables(trained.config, folder)
        write_predictions(folder, _predictions(scores), split=prepared.fingerprint)
        if scores.folds:
            write_predictions(folder, scores.folds.predictions(), split=prepared.fingerprint, name=FOLDS_FILE)
        for name, text in (extra or {}).items():
            write_whole(folder / name, text)
        difference = None
        if same_as is None or not same_network(folder / MODEL_FILE, same_as):
            difference = _check_saved(folder, prepared, trained)
        taken = timer.elapsed - (timer.phases["save"].begun - timer.begun)
        took = {"save": round(taken, 3), "total": round(timer.elapsed, 3)}
        run = replace(run, seconds={**run.seconds, **took})
        write_record(folder, run, parity=difference)
    run = listed(run) if lists else run
    watch.on_phase_end("save", run)
    return run


def write_record(folder: Path, run: Run, *, parity: float | None = None) -> None:
    """Write `run.json`, the last file of a run's folder: one that has it has all of it."""
    record = run.to_dict() | ({} if parity is None else {"parity": parity})
    write_whole(folder / RUN_FILE, json.dumps(record, indent=1, default=str))


def listed(run: Run) -> Run:
    """Enter a run into the store; the folder is the truth, so one that only the store lacks gets a note."""
    try:
        RunStore().add(run)
    except RunError as error:
        return replace(run, notes=(*run.notes, f"saved, but not listed among the runs: {error}"))
    return run


def _predictions(scores: Scores) -> Iterator[dict[str, Any]]:
    """What was said of each held-out image, for reports and comparisons image by image."""
    prepared = scores.prepared
    samples = prepared.dataset.samples
    said = partial(
        answer,
        classes=prepared.dataset.classes,
        task=prepared.task.name,
        thresholds=scores.trained.head.thresholds,
    )
    for split, rows in scores.probabilities.items():
        calls = decide(rows, scores.trained.costs)
        for row, image, called in zip(rows, prepared.images(split), calls, strict=True):
            content = prepared.extraction.hashes[image]
            label = prepared.dataset.label_of(samples[image])
            known = describe(samples[image], label=label, split=split, content=content)
            yield {**known, **said(row.tolist(), called=called)}


def same_network(model: Path, checked: Path) -> bool:
    """Whether two saved classifiers differ in nothing but the numbers of their heads and names of classes.

    Raises:
        RunError: a file is missing or is no such model.
    """
    from headstart.classifier.onnx_graph import SavedGraph

    return SavedGraph.read(model).without_head() == SavedGraph.read(checked).without_head()


def _save_model(folder: Path, scores: Scores) -> None:
    """Write the classifier: its graph, what was trained, its images."""
    prepared, trained = scores.prepared, scores.trained
    config, backbone = trained.config, prepared.extraction.backbone
    layers = [FeatureLayer.parse(name) for name in trained.layers or ("features",)]
    graph = None
    if trained.trainable is not None:
        graph = fine_tuned_graph(backbone, trained, depth=config.depth, path=folder / "stages.onnx")
    known = familiarity(prepared, trained)
    model = compose(backbone, layers=layers, head=trained.head, familiarity=known, graph=graph)
    (folder / MODEL_FILE).write_bytes(model)
    if graph is not None:
        graph.unlink()
    _save_weights(folder, trained)
    _save_details(folder, prepared)
    classifier = Classifier(
        classes=prepared.dataset.classes,
        preprocess=backbone.preprocess,
        model=folder / MODEL_FILE,
        about={
            "backbone": config.backbone,
            "architecture": backbone.architecture,
            "weights": backbone.weights_hash,
            "depth": config.depth,
            "stages": config.stages,
            "in_rows": all(stage.in_rows for stage in backbone.stages),
            "head": trained.head.kind,
            "layers": [layer.name for layer in layers],
            "temperature": trained.head.temperature,
            "familiarity": None if known is None else len(known.known),
            **_spread(prepared.task),
        },
        right=_right(scores),
        task=prepared.task.name,
        thresholds=trained.head.thresholds,
        errors=trained.head.errors,
        costs=None if trained.costs is None else tuple(map(tuple, trained.costs.tolist())),
    )
    classifier.save(folder)


def _right(scores: Scores) -> tuple[float, ...]:
    """What held-out images were given for their right label, where they have one each."""
    if not scores.prepared.task.one_of:
        return ()
    labels = scores.prepared.labels(scores.prepared.images("validation"))
    return right_probabilities(scores.probabilities["validation"], labels)


def _spread(task: Task) -> dict[str, float]:
    """The deviation of the training images' numbers, where numbers are predicted."""
    return {"spread": task.scale} if isinstance(task, Regression) else {}


def _save_weights(folder: Path, trained: Trained) -> None:
    """`model.safetensors`: what was trained, and nothing else."""
    from safetensors.numpy import save_file

    tensors = {"head.weight": trained.head.weight, "head.bias": trained.head.bias}
    if trained.trainable is not None:
        tensors |= {f"tail.{name}": value.numpy() for name, value in trained.trainable.state_dict().items()}
    metadata = {
        "temperature": repr(trained.head.temperature),
        "layers": ",".join(trained.layers or ("features",)),
    }
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        folder / WEIGHTS_FILE,
        metadata,
    )


def _save_details(folder: Path, prepared: Prepared) -> None:
    samples, hashes = prepared.dataset.samples, prepared.extraction.hashes
    images = (
        describe(sample, label=prepared.dataset.label_of(sample), split=split, content=content)
        for sample, split, content in zip(samples, prepared.splits, hashes, strict=True)
    )
    write_images(folder, images, skipped=[(item.name, item.reason) for item in prepared.skipped])


def _check_saved(folder: Path, prepared: Prepared, trained: Trained) -> float:
    """Reload from disk and compare the probabilities of a few images with those in memory.

    Returns:
        The largest difference of a probability.

    Raises:
        ParityError: it is more than the precision explains.
    """
    train_images = prepared.images("train")
    few: NDArray[np.int64] = train_images[:: max(1, len(train_images) // _PARITY_IMAGES)][:_PARITY_IMAGES]
    samples = [prepared.dataset.samples[i] for i in few]
    expected = predict_images(prepared, trained, images=few)
    # What was saved computes in float32; the precision of the features decides what may differ.
    return check_parity(samples, expected, where=folder, computed=trained.config.precision)
