"""The main job: labelled images in, a classifier and the record of its run out.

The steps, each of which a caller may take alone: `prepare` looks at every image once and splits the data set;
`train` trains what is not frozen; `fit` does all of it, evaluates, saves and checks what it saved.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from headstart.choice import Outlook
from headstart.classifier import Classifier, load
from headstart.dataset import read_dataset
from headstart.errors import RunError
from headstart.features import CacheUse, Progress
from headstart.files import write_whole
from headstart.fitting.attempt import Fitted, make, worth_trying
from headstart.fitting.foresight import foresee_choosing
from headstart.fitting.options import HEADS, TAPS, Options
from headstart.fitting.predictions import save_predictions
from headstart.fitting.preparation import Prepared, prepare
from headstart.fitting.saving import check_saved, save_model
from headstart.fitting.scores import Scores, score
from headstart.fitting.training import Trained, predict_images, train
from headstart.plans import parse_budget
from headstart.plans.clock import ending
from headstart.plans.estimates import Range
from headstart.plans.jobs import epochs_for
from headstart.plans.memory import machine_digits
from headstart.plans.observing import Watch
from headstart.runs import (
    RUN_FILE,
    Run,
    RunConfig,
    RunStore,
    check_place,
    new_folder,
    new_id,
    seconds_since,
    software,
    timestamp,
)
from headstart.runtimes import select

__all__ = ["HEADS", "TAPS", "Prepared", "Trained", "epochs_for", "fit", "predict_images", "prepare", "train"]


def fit(
    source: Any,
    *,
    backbone: str | Path = "builtin",
    size: int | None = None,
    freeze: int | str = "all",
    head: str = "ridge",
    taps: str = "auto",
    views: int | str = 1,
    epochs: int | None = None,
    batch_size: int = 32,
    learning_rate: float | None = None,
    class_weights: str | None = None,
    scratch: bool = False,
    candidates: Sequence[str] | None = None,
    architecture: str | None = None,
    runtime: str = "auto",
    precision: str = "auto",
    validation: float = 0.15,
    test: float = 0.15,
    near_duplicates: str = "group",
    groups: str | None = None,
    seed: int = 0,
    strict: bool = False,
    out: str | Path | None = None,
    budget: float | str | None = None,
    spent: float = 0.0,
    progress: Progress | None = None,
) -> tuple[Classifier, Run]:
    """Train, evaluate and save a classifier.

    Args:
        source: a folder of class folders (or of ``train``/``val``/``test``), a CSV or Parquet file, a zip of
            either, a pair of arrays ``(X, y)`` with X uint8 [N, H, W, 3], or a `Dataset`.
        backbone: a built-in's name, a timm name, a weights or Keras file; "auto" to choose among candidates.
        size: pixels a side that the backbone sees; None for the backbone's own.
        freeze: how many stages to freeze: a number, a stage's name, "none" or "all"; "auto" to go deeper than
            the head where validation says so.
        head: "ridge" (closed form) or "softmax" (a dense layer trained with Adam).
        taps: what the ridge head reads: "last", "all", or "auto" to choose by leave-one-out error.
        views: renderings of each training image: 1, "flip", or a number.
        epochs: of the softmax head or the thawed stages; None for a default.
        batch_size: images per step of the softmax head or the thawed stages.
        learning_rate: None for a default.
        class_weights: "balanced" to weigh classes by the inverse of their share.
        scratch: the same network from random weights, every stage trained, for comparison.
        candidates: what "auto" chooses from: names and files, each with ``@SIZE`` for another size; None for
            all that are on this machine.
        architecture: for files that do not say: a timm name, or what the pixels of a .keras file are.
        runtime: "auto", "openvino" or "torch".
        precision: "auto", "bf16" or "f32".
        validation: share of the images to choose on, where the data does not say.
        test: share of the images that is read once, at the end, where the data does not say.
        near_duplicates: "group" keeps pictures that are the same but for size or compression on one side of
            the split, as long as a group is no more than a tenth of a class; "ignore" splits each by itself.
        groups: a column of the table (camera, patient, day): images that it gives the same value stay on one
            side, and near-duplicates are not looked for in splitting.
        seed: of whatever is random.
        strict: unreadable images are an error instead of being skipped.
        out: the run's folder; None for ``runs/ID`` in the working directory.
        budget: seconds, or "30s", "2m", of the whole job: epochs, views and at last images are cut to keep
            it; a cut is a note of the run.
        spent: seconds that the caller's process ran before this call, where they count as part of the job.
        progress: called with (phase, done, total).

    Raises:
        UserError: the input or an option cannot work; the message says how to mend it.
    """
    called = time.perf_counter()
    started = called - spent
    options = Options(
        backbone=backbone,
        size=size,
        freeze=freeze,
        head=head,
        taps=taps,
        views=views,
        epochs=epochs,
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weights=class_weights,
        scratch=scratch,
        candidates=candidates,
        architecture=architecture,
        validation=validation,
        test=test,
        near_duplicates=near_duplicates,
        groups=groups,
        seed=seed,
    )
    options.check()
    check_place((Path(out) if out else Path("runs") / new_id("run")).absolute())
    dataset = read_dataset(source, groups=groups)
    listing = seconds_since(called)
    limit = parse_budget(budget)
    engine = select(runtime, precision=precision)
    picked, predicted = None, None

    def expect(found: Outlook) -> None:
        """A choice is about to begin: predict all of the command."""
        nonlocal predicted
        requests = options.requests(dataset, found, runtime=engine)
        predicted = foresee_choosing(
            found.seconds,
            [(each, worth_trying(each, epochs=options.deeper_epochs)) for each in requests],
            budget=limit,
            spent=time.perf_counter() - started + ending(spent),
        )
        Watch(progress).expect(predicted[0])

    if options.chooses:
        left = None if limit is None else limit + started - time.perf_counter()
        picked = options.choose(dataset, runtime=engine, seconds=left, expect=expect, progress=progress)
    network, name = (picked.backbone, picked.candidate.name) if picked else (options.load(), str(backbone))
    request = options.request(dataset, network, name=name, runtime=engine)
    fitted = make(
        request,
        deeper_epochs=options.deeper_epochs,
        budget=limit,
        started=started - ending(spent),  # the end of the process counts as spent
        strict=strict,
        progress=progress,
    )
    seconds = {
        **({"startup": round(spent, 3)} if spent else {}),
        **({"choice": round(picked.seconds, 3)} if picked else {}),
        **fitted.seconds,
    }
    seconds["check"] = round(seconds["check"] + listing, 3)
    reasons = (*(picked.reasons if picked else ()), *options.idle(request.config))
    classifier, run = _finish(
        fitted,
        predicted=predicted or (fitted.predicted, fitted.predicted_phases),
        reasons=reasons,
        out=out,
        seconds=seconds,
        started=started,
    )
    fitted.learn(dict(run.seconds))
    return classifier, run


def _finish(
    fitted: Fitted,
    *,
    predicted: tuple[Range, Mapping[str, float]],
    reasons: tuple[str, ...],
    out: str | Path | None,
    seconds: dict[str, float],
    started: float,
) -> tuple[Classifier, Run]:
    """Evaluate, save, reload and compare, enter into the runs store."""
    prepared, trained, config = fitted.kept.prepared, fitted.kept.trained, fitted.kept.config
    begun = time.perf_counter()
    scores = score(prepared, trained)
    seconds = {**seconds, "evaluate": seconds_since(begun)}
    run_id = new_id(config.backbone)
    path = (Path(out) if out else Path("runs") / run_id).absolute()
    begun = time.perf_counter()
    with new_folder(path) as folder:
        save_model(folder, prepared, fitted.kept.foresight.request.backbone, trained, config=config)
        save_predictions(folder, prepared, scores.probabilities)
        difference = check_saved(folder, prepared, trained, precision=config.precision)
        seconds |= {"save": seconds_since(begun), "total": seconds_since(started)}
        run = _run(
            run_id,
            path,
            prepared,
            trained,
            config=config,
            scores=scores,
            seconds=seconds,
            use=fitted.use,
        )
        run = replace(
            run,
            predicted_seconds=predicted[0].to_dict(),
            predicted_phases={phase: round(each, 3) for phase, each in predicted[1].items()},
            whole=fitted.whole,
            machine=machine_digits(),
            notes=(*reasons, *fitted.notes, *run.notes),
        )
        record = json.dumps(run.to_dict() | {"parity": difference}, indent=1, default=str)
        write_whole(folder / RUN_FILE, record)
    try:
        RunStore().add(run)
    except RunError as error:  # the folder is the truth and is complete; only the index lacks it
        run = replace(run, notes=(*run.notes, f"saved, but not listed among the runs: {error}"))
    return load(path), run


def _run(
    run_id: str,
    path: Path,
    prepared: Prepared,
    trained: Trained,
    *,
    config: RunConfig,
    scores: Scores,
    seconds: dict[str, float],
    use: CacheUse,
) -> Run:
    return Run(
        id=run_id,
        path=path,
        created=timestamp(),
        config=replace(
            config, head=trained.head.kind
        ),  # thawed training starts from ridge and ends in softmax
        classes=prepared.dataset.classes,
        images=prepared.counts,
        **scores.record,
        seconds=seconds,
        cache=asdict(use),
        history=trained.history,
        head_fit=trained.fit,
        data=prepared.report.to_dict(),
        notes=(*prepared.report.headline(), *prepared.extraction.backbone.notes, *trained.notes),
        versions=software(),
        source=prepared.dataset.origin,
        corrections=prepared.dataset.corrections,
    )
