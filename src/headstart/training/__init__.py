"""Training: labelled images in, a classifier and the record of its run out.

`fit` is the main job; each of its steps is a function that a caller may take alone: `prepare` looks at every
image once and splits the data set, `train` trains what is not frozen, `score` evaluates, `save` writes.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone, backbone_of
from headstart.backbones.runtimes import Runtime, select
from headstart.classifier import Classifier, load
from headstart.costs import Budget, ImageCounts
from headstart.costs.timings import machine_digits
from headstart.data.dataset import Dataset, read_dataset
from headstart.distributed import HERE, place
from headstart.errors import OptionError
from headstart.runs import FitConfig, Run, check_place, new_id, software, timestamp
from headstart.runs.callbacks import Callback, Callbacks
from headstart.training.backbone_choice import choose_backbone, smaller_backbone
from headstart.training.depth_choice import deeper_config, try_deeper
from headstart.training.fitting import Trained, predict_images, train
from headstart.training.notebook import notebook_bars
from headstart.training.preparation import Prepared, prepare
from headstart.training.recorder import Recorder
from headstart.training.resolving import for_task, resolve
from headstart.training.saving import facts, save
from headstart.training.scores import Scores, score

__all__ = [
    "Prepared",
    "Scores",
    "Trained",
    "fit",
    "predict_images",
    "prepare",
    "resolve",
    "save",
    "score",
    "train",
]


def fit(
    source: Any,
    *,
    strict: bool = False,
    out: str | Path | None = None,
    budget: float | str | None = None,
    on: str | None = None,
    callbacks: Sequence[Callback] = (),
    listed: bool = True,
    **options: Any,
) -> tuple[Classifier, Run]:
    """Train, evaluate and save a classifier.

    Args:
        source: a folder of class folders (or of ``train``/``val``/``test``), a CSV or Parquet file, a zip of
            either, a pair of arrays ``(X, y)`` with X uint8 [N, H, W, 3], or a `Dataset`.
        strict: unreadable images are an error instead of being skipped.
        out: the run's folder; None for ``runs/ID`` in the working directory.
        budget: seconds, or "30s", "2m": epochs, views, the backbone's size and at last images are cut to keep
            it; a note says so.
        on: "ray" for a Ray cluster: the one at ``RAY_ADDRESS``, or the cores of this machine; None for this
            process.
        callbacks: what watches the job.
        listed: whether `headstart runs` shall know of it; False where its folder will not stay.
        options: which training, by the names of `FitConfig`'s fields, such as ``backbone``, ``freeze`` or
            ``epochs``; besides them ``scratch`` for random weights, and ``views`` is 1, "flip" or a number.

    Raises:
        UserError: the input or an option cannot work; the message says how to mend it.
    """
    asked = FitConfig.from_options(**options).checked()
    check_place((Path(out) if out else Path("runs") / new_id("run")).absolute())
    limit, recorder = Budget(budget), Recorder()
    watch = Callbacks([recorder, limit, *notebook_bars(), *callbacks])

    with place(on) as where:
        dataset = read_dataset(
            source, groups=asked.groups, weights_column=asked.weights_column, task=asked.task
        )
        asked = for_task(asked, dataset.task)
        runtime = select(asked.runtime, precision=asked.precision)
        name, backbone, reasons = _backbone(asked, dataset, runtime=runtime, budget=limit, watch=watch)
        config = resolve(replace(asked, backbone=name), dataset, backbone, runtime=runtime)
        idle = asked.idle(config)
        deeper = _deeper(asked, config, dataset, backbone)
        config, dataset, cost = limit.fit_into(config, dataset, backbone, runtime=runtime, deeper=deeper)
        cost = where.estimated(cost, images=len(dataset))
        watch.on_estimate(cost.range(spent=recorder.elapsed), cost.phases)

        prepared = prepare(
            dataset, backbone, config=config, runtime=runtime, strict=strict, watch=watch, place=where
        )
        trained = train(prepared, config=config, watch=watch)
        judged: tuple[str, ...] = ()
        if epochs := asked.deeper_epochs:
            prepared, trained, judged = try_deeper(
                prepared, trained, epochs=epochs, runtime=runtime, budget=limit, watch=watch
            )
        scores = score(prepared, trained, watch=watch)
    notes = (*reasons, *idle, *([where.said] if where.said else []), *limit.notes, *judged)
    whole = where is HERE and not (limit.cut_short or watch.stopped or recorder.resumed)
    run = _record(scores, recorder, out=out, notes=notes, whole=whole)
    run = save(run, scores, timer=recorder, watch=watch, lists=listed)
    return load(run.path), run


def _backbone(
    asked: FitConfig, dataset: Dataset, *, runtime: Runtime, budget: Budget, watch: Callback
) -> tuple[str, Backbone, tuple[str, ...]]:
    """The network that is named, or the best of those that are here; its name, and why it was chosen."""
    if not asked.chooses:
        return smaller_backbone(
            asked, dataset, backbone_of(asked, seed=asked.seed), runtime=runtime, budget=budget
        )
    chosen = choose_backbone(dataset, asked, runtime=runtime, seconds=budget.left, watch=watch)
    return chosen.candidate.name, chosen.backbone, chosen.reasons


def _deeper(asked: FitConfig, config: FitConfig, dataset: Dataset, backbone: Backbone) -> FitConfig | None:
    """What ``freeze="auto"`` will try after the head; None where that can be known to come to nothing."""
    if not asked.deeper_epochs:
        return None
    validation = ImageCounts.of(dataset, replace(config, test=0.0)).held_out
    try:
        return deeper_config(config, backbone, epochs=asked.deeper_epochs, validation_images=validation)
    except OptionError:
        return None


def _record(
    scores: Scores, recorder: Recorder, *, out: str | Path | None, notes: tuple[str, ...], whole: bool
) -> Run:
    """The record of the run, as far as it is known before it is saved."""
    prepared, trained = scores.prepared, scores.trained
    run_id = new_id(trained.config.backbone)
    predicted = recorder.predicted
    return Run(
        id=run_id,
        path=(Path(out) if out else Path("runs") / run_id).absolute(),
        created=timestamp(),
        **facts(scores),
        seconds=recorder.rounded("choice", "check", "features", "train", "folds", "evaluate"),
        data=prepared.report.to_dict(),
        notes=(
            *notes,
            *prepared.report.headline(),
            *prepared.extraction.backbone.notes,
            *trained.notes,
            *(scores.folds.notes if scores.folds else ()),
        ),
        versions=software(),
        predicted_seconds=predicted.to_dict() if predicted else {},
        predicted_phases={name: round(each, 3) for name, each in recorder.predicted_phases.items()},
        source=prepared.dataset.origin,
        corrections=prepared.dataset.corrections,
        whole=whole,
        machine=machine_digits(),
    )
