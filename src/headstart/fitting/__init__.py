"""The main job: labelled images in, a classifier and the record of its run out.

The steps, each of which a caller may take alone: `prepare` looks at every image once and splits the data set;
`train` trains what is not frozen; `fit` does all of it, evaluates, saves and checks what it saved.
"""

import json
import platform
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from headstart import __version__, metrics
from headstart.backbones import load_backbone
from headstart.choice import choose_backbone
from headstart.classifier import Classifier, load
from headstart.dataset import check_shares, read_dataset
from headstart.errors import OptionError, RunError
from headstart.features import CacheUse, Progress, Wanted
from headstart.fitting.attempt import Fitted, make
from headstart.fitting.foresight import Request
from headstart.fitting.predictions import save_predictions
from headstart.fitting.preparation import Prepared, prepare
from headstart.fitting.saving import check_saved, save_model
from headstart.fitting.training import Trained, predict_images, train
from headstart.images import parse_views
from headstart.plans import parse_budget
from headstart.plans.candidates import sized
from headstart.plans.clock import ending
from headstart.runs import (
    RUN_FILE,
    Run,
    RunConfig,
    RunStore,
    check_place,
    new_folder,
    new_id,
    seconds_since,
    timestamp,
)
from headstart.runtimes import select

__all__ = ["HEADS", "TAPS", "Prepared", "Trained", "epochs_for", "fit", "predict_images", "prepare", "train"]

HEADS = ("ridge", "softmax")
TAPS = ("auto", "last", "all")
SPLITS = ("train", "validation", "test")

_CHOICE_SHARE = 0.5
"""Of a budget's remaining seconds, what choosing a backbone may take; the winner's features stay."""

_DEFAULT_EPOCHS = {"softmax": 30, "tail": 15, "scratch": 40}


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
    _check_options(
        head=head,
        taps=taps,
        class_weights=class_weights,
        scratch=scratch,
        freeze=freeze,
        backbone=backbone,
    )
    _check_numbers(batch_size=batch_size, learning_rate=learning_rate, seed=seed)
    check_shares(validation=validation, test=test)
    check_place((Path(out) if out else Path("runs") / new_id("run")).absolute())
    dataset = read_dataset(source)
    listing = seconds_since(called)
    limit = parse_budget(budget)
    engine = select(runtime, precision=precision)
    reads_taps = head == "ridge" and taps != "last"
    picked = None
    if str(backbone) == "auto":
        picked = choose_backbone(
            dataset,
            runtime=engine,
            candidates=sized(candidates, size=size),
            taps=reads_taps and freeze in ("all", "auto"),
            views=parse_views(views),
            validation=validation,
            test=test,
            allowance=None if limit is None else _CHOICE_SHARE * (limit + started - time.perf_counter()),
            progress=progress,
        )
        network, backbone = picked.backbone, picked.candidate.name
    else:
        network = load_backbone(
            backbone, size=size, architecture=architecture, pretrained=not scratch, seed=seed
        )
    depth = 0 if scratch else network.depth("all" if freeze == "auto" else freeze)
    if depth < len(network.stages) and network.recipe is None:
        raise OptionError(
            f"freeze={freeze}: the stages of backbone {network.name} are a Keras model's and stay frozen "
            "here; take freeze=all, or thaw them in Keras and train with headstart.keras.fit"
        )
    wanted = Wanted(
        depth=depth,
        views=parse_views(views),
        pooled=not scratch,
        taps=reads_taps and depth == len(network.stages),
    )
    config = RunConfig(
        data=dataset.name,
        backbone=str(backbone),
        size=network.preprocess.size,
        depth=depth,
        stages=len(network.stages),
        head=head,
        taps=None,
        views=tuple(view.name for view in wanted.views),
        pretrained=not scratch,
        architecture=architecture,
        runtime=engine.name,
        precision=engine.precision,
        epochs=epochs_for(epochs, head=head, thawed=depth < len(network.stages), scratch=scratch),
        batch_size=batch_size,
        learning_rate=learning_rate,
        class_weights=class_weights,
        validation=validation,
        test=test,
        seed=seed,
    )
    fitted = make(
        Request(dataset, network, wanted, engine, config, taps),
        deeper_epochs=epochs_for(epochs, head=head, thawed=True, scratch=False) if freeze == "auto" else None,
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
    reasons = picked.reasons if picked else ()
    if config.epochs is None and freeze != "auto":
        reasons += _idle(epochs=epochs, learning_rate=learning_rate)
    classifier, run = _finish(fitted, reasons=reasons, out=out, seconds=seconds, started=started)
    fitted.learn(dict(run.seconds))
    return classifier, run


def _check_options(
    *,
    head: str,
    taps: str,
    class_weights: str | None,
    scratch: bool,
    freeze: int | str,
    backbone: str | Path,
) -> None:
    for option, value, known in (
        ("head", head, HEADS),
        ("taps", taps, TAPS),
        ("class_weights", class_weights, (None, "balanced")),
    ):
        if value not in known:
            raise OptionError(f"{option}={value!r}: expected one of {', '.join(map(str, known))}")
    if scratch and str(backbone) == "auto":
        raise OptionError("scratch and backbone='auto' exclude each other: name the network to train")
    if scratch and freeze not in ("all", "none", 0, "0"):
        raise OptionError(
            f"scratch trains every stage from random weights, so freeze={freeze!r} cannot be; drop one"
        )


def _check_numbers(*, batch_size: int, learning_rate: float | None, seed: int) -> None:
    if batch_size < 1:
        raise OptionError(f"batch_size={batch_size}: expected 1 or more")
    if learning_rate is not None and not 0 < learning_rate < float("inf"):
        raise OptionError(f"learning_rate={learning_rate}: expected a number above zero")
    if seed < 0:
        raise OptionError(f"seed={seed}: expected 0 or more")


def _idle(**asked: float | None) -> tuple[str, ...]:
    """A note on each option that was given to a job without epochs; nothing is dropped in silence."""
    return tuple(
        f"{option}={value} has no effect on a ridge head, which is solved at once; take --head softmax"
        for option, value in asked.items()
        if value is not None
    )


def epochs_for(asked: int | None, *, head: str, thawed: bool, scratch: bool) -> int | None:
    """How many epochs a run trains: what was asked for or the default; None where nothing has epochs.

    Raises:
        OptionError: fewer than one.
    """
    if asked is not None and asked < 1:
        raise OptionError(f"epochs={asked}: expected 1 or more")
    if not thawed and head == "ridge":
        return None
    kind = "scratch" if scratch else "tail" if thawed else "softmax"
    return asked or _DEFAULT_EPOCHS[kind]


def _finish(
    fitted: Fitted,
    *,
    reasons: tuple[str, ...],
    out: str | Path | None,
    seconds: dict[str, float],
    started: float,
) -> tuple[Classifier, Run]:
    """Evaluate, save, reload and compare, enter into the runs store."""
    prepared, trained, config = fitted.kept.prepared, fitted.kept.trained, fitted.kept.config
    begun = time.perf_counter()
    classes = prepared.dataset.classes
    probabilities = {
        split: predict_images(prepared, trained, images=prepared.images(split))
        for split in ("validation", "test")
    }
    evaluations = {
        split: metrics.evaluate(found, prepared.labels(prepared.images(split)), classes=classes)
        for split, found in probabilities.items()
        if len(found)
    }
    seconds = {**seconds, "evaluate": seconds_since(begun)}
    run_id = new_id(config.backbone)
    path = (Path(out) if out else Path("runs") / run_id).absolute()
    begun = time.perf_counter()
    with new_folder(path) as folder:
        save_model(folder, prepared, fitted.kept.foresight.request.backbone, trained, config=config)
        save_predictions(folder, prepared, probabilities)
        difference = check_saved(folder, prepared, trained)
        seconds |= {"save": seconds_since(begun), "total": seconds_since(started)}
        run = _run(
            run_id,
            path,
            prepared,
            trained,
            config=config,
            evaluations=evaluations,
            seconds=seconds,
            use=fitted.use,
        )
        run = replace(
            run,
            predicted_seconds=fitted.predicted.to_dict(),
            notes=(*reasons, *fitted.notes, *run.notes),
        )
        (folder / RUN_FILE).write_text(
            json.dumps(run.to_dict() | {"parity": difference}, indent=1, default=str)
        )
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
    evaluations: dict[str, metrics.Evaluation],
    seconds: dict[str, float],
    use: CacheUse,
) -> Run:
    counts = {split: len(prepared.images(split)) for split in SPLITS}
    chosen_on = evaluations.get("validation") or evaluations.get("test")
    return Run(
        id=run_id,
        path=path,
        created=timestamp(),
        config=replace(
            config, head=trained.head.kind
        ),  # thawed training starts from ridge and ends in softmax
        classes=prepared.dataset.classes,
        images={**counts, "skipped": len(prepared.skipped)},
        accuracy={
            split: evaluations[split].accuracy if split in evaluations else None
            for split in ("validation", "test")
        },
        macro_f1=None if chosen_on is None else chosen_on.macro_f1,
        evaluation={split: found.to_dict() for split, found in evaluations.items()},
        seconds=seconds,
        cache={"hits": use.hits, "misses": use.misses, "bytes": use.bytes},
        history=trained.history,
        head_fit=trained.fit,
        data=prepared.report.to_dict(),
        notes=(*prepared.report.headline(), *prepared.extraction.backbone.notes, *trained.notes),
        versions={
            "headstart": __version__,
            "python": platform.python_version(),
            **{name: version(name) for name in ("numpy", "openvino", "pillow")},
        },
    )
