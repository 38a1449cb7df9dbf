"""The main job: labelled images in, a classifier and the record of its run out.

The steps, each of which a caller may take alone: `prepare` looks at every image once and splits the data set;
`train` trains what is not frozen; `fit` does all of it, evaluates, saves and checks what it saved.
"""

import json
import time
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from headstart.backbones import backbone_of
from headstart.classifier import Classifier, load
from headstart.costs import parse_budget
from headstart.costs.clock import ending
from headstart.costs.estimates import Range
from headstart.costs.observing import Watch
from headstart.costs.timings import machine_digits
from headstart.dataset import read_dataset
from headstart.errors import RunError
from headstart.features import CacheUse, Progress
from headstart.files import write_whole
from headstart.runs import (
    RUN_FILE,
    FitConfig,
    Run,
    RunStore,
    check_place,
    new_folder,
    new_id,
    seconds_since,
    software,
    timestamp,
)
from headstart.runtimes import select
from headstart.training.attempt import Fitted, make, worth_trying
from headstart.training.choosing import choose_backbone
from headstart.training.foresight import foresee_choosing
from headstart.training.looks import Outlook
from headstart.training.predictions import save_predictions
from headstart.training.prepared import Prepared, prepare
from headstart.training.requests import request, requests
from headstart.training.saving import check_saved, save_model
from headstart.training.scores import Scores, score
from headstart.training.trained import Trained, predict_images, train

__all__ = ["Prepared", "Trained", "fit", "predict_images", "prepare", "train"]

_CHOICE_SHARE = 0.5
"""Of a budget's remaining seconds, what choosing a backbone may take; the winner's features stay."""


def fit(
    source: Any,
    *,
    strict: bool = False,
    out: str | Path | None = None,
    budget: float | str | None = None,
    spent: float = 0.0,
    progress: Progress | None = None,
    **options: Any,
) -> tuple[Classifier, Run]:
    """Train, evaluate and save a classifier.

    Args:
        source: a folder of class folders (or of ``train``/``val``/``test``), a CSV or Parquet file, a zip of
            either, a pair of arrays ``(X, y)`` with X uint8 [N, H, W, 3], or a `Dataset`.
        strict: unreadable images are an error instead of being skipped.
        out: the run's folder; None for ``runs/ID`` in the working directory.
        budget: seconds, or "30s", "2m", of the whole job: epochs, views and at last images are cut to keep
            it; a cut is a note of the run.
        spent: seconds that the caller's process ran before this call, where they count as part of the job.
        progress: called with (phase, done, total).
        options: which training, by the names of `FitConfig`'s fields, such as ``backbone``, ``freeze`` or
            ``epochs``; besides them ``scratch`` for random weights, and ``views`` is 1, "flip" or a number.

    Raises:
        UserError: the input or an option cannot work; the message says how to mend it.
    """
    called = time.perf_counter()
    started = called - spent
    asked = FitConfig.from_options(**options).checked()
    check_place((Path(out) if out else Path("runs") / new_id("run")).absolute())
    dataset = read_dataset(source, groups=asked.groups)
    listing = seconds_since(called)
    limit = parse_budget(budget)
    engine = select(asked.runtime, precision=asked.precision)
    picked, predicted = None, None

    def expect(found: Outlook) -> None:
        """A choice is about to begin: predict all of the command."""
        nonlocal predicted
        predicted = foresee_choosing(
            found.seconds,
            [
                (each, worth_trying(each, epochs=asked.deeper_epochs))
                for each in requests(asked, dataset, found, runtime=engine)
            ],
            budget=limit,
            spent=time.perf_counter() - started + ending(spent),
        )
        Watch(progress).expect(predicted[0])

    if asked.chooses:
        left = None if limit is None else _CHOICE_SHARE * (limit + started - time.perf_counter())
        picked = choose_backbone(
            dataset, asked, runtime=engine, allowance=left, progress=progress, expect=expect
        )
    network, name = (
        (picked.backbone, picked.candidate.name)
        if picked
        else (backbone_of(asked, seed=asked.seed), asked.backbone)
    )
    requested = request(replace(asked, backbone=name), dataset, network, runtime=engine)
    fitted = make(
        requested,
        deeper_epochs=asked.deeper_epochs,
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
    reasons = (*(picked.reasons if picked else ()), *asked.idle(requested.config))
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
    config: FitConfig,
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
