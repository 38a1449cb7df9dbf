"""The learner's own runs: metrics, and a comparison with the same network from scratch.

Runs come from `headstart fit`, from the studio, or from here: where there is none yet, a button trains one on
digits or drawings, and one from random weights on the same split beside it. They belong to a machine of one's
own; a server for a class shows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import HTMLResponse, Response

from headstart.errors import RunError
from headstart.heads.tasks import SINGLE_LABEL
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.runs import Run, RunStore, new_id, read_predictions
from headstart.web.app import leave
from headstart.web.jobs import Job, Tell
from headstart.web.plots import Plot, Point, Series
from headstart.web.security import SessionOf

router = APIRouter()

FIRST = "first-run"
TWIN = "twin"
"""The kinds of these pages' jobs."""

SHOWN = 30
"""Runs to choose from, the newest."""

IMAGES, SIDE, EPOCHS, RATE = 40, 64, 60, 0.01
"""Of the first run: images of each class, pixels a side, epochs and learning rate of its head. So few images
need more epochs and a higher rate than usual; on kept features that still takes a fraction of a second."""

TWIN_SECONDS = 60.0
"""What a training from scratch may take; it trains fewer epochs where these are not enough."""

LEAN = 1.0
"""Points of F1 from which large and small classes are said to differ."""

SHADES = 5
"""Steps of a confusion matrix's background."""

REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
)
"""A report has its style and pictures inside it, and no script."""


# Choosing -------------------------------------------------------------------------------------------------


def listed(site: LessonSite) -> list[Run]:
    """The learner's runs whose folders are there, the newest first; none on a server for a class."""
    if site.learner is None:
        return []
    runs = RunStore(site.home).select(limit=2 * SHOWN)
    shown = (run for run in runs if run.trained and run.config.task == SINGLE_LABEL and run.path.is_dir())
    return list(shown)[:SHOWN]


def choose(runs: Iterable[Run], identity: str) -> Run | None:
    """The run of that id, else the newest pre-trained one, else any; only one that is listed can be named."""
    runs = list(runs)
    named = [run for run in runs if run.id == identity]
    return next(iter([*named, *(run for run in runs if run.config.pretrained), *runs]), None)


def label(run: Run) -> str:
    """A run in a list: what, on what, how well."""
    config = run.config
    kind = "from scratch" if not config.pretrained else f"{config.depth} of {config.stages} frozen"
    split = "validation" if run.accuracy.get("validation") is not None else "test"
    reached = run.accuracy.get(split)
    score = f", {100 * reached:.1f} % on {split} images" if reached is not None else ""
    return f"{Path(config.data).name}: {Path(config.backbone).stem} at {config.size} px, {kind}{score}"


def context(site: LessonSite, learner: str, identity: str) -> dict[str, Any]:
    """Template values for the two modes that show runs."""
    from headstart.backbones.building import has_timm

    runs = listed(site)
    run = choose(runs, identity)
    job = _job(site, learner)
    last = _last(site, learner)
    return {
        "runs": [(one.id, label(one)) for one in runs],
        "run": run,
        "run_label": label(run) if run else "",
        "judged": judge(run) if run else None,
        "trace": trace(run, twin_of(run, runs)) if run else None,
        "twin": twin_of(run, runs) if run else None,
        "twin_possible": run is not None and run.config.pretrained and Path(run.config.data).exists(),
        "torch": has_timm(),
        "job": job,
        "failure": last.message if last and last.state == "failed" and not job else "",
    }


# Judging --------------------------------------------------------------------------------------------------


def judge(run: Run) -> dict[str, Any]:
    """Accuracy, macro-F1, the confusion matrix and the calibration of a run, as its report has them."""
    from headstart.reports import report

    facts = report(run).facts
    classes = list(run.classes)
    score = next((one for one in facts["scores"] if one["split"] == facts["split"]), None)
    return {
        "facts": facts,
        "score": score,
        "setting": facts["setting"],
        "gap": _gap(score, facts["per_class"]) if score else "",
        "matrix": _matrix(facts["confusion"], classes) if facts["confusion"] and len(classes) <= 20 else None,
        "mixed": facts["confusions"][:3],
        "calibration": _reliability(facts["calibration"]) if facts["calibration"] else None,
    }


def _gap(score: Mapping[str, Any], per_class: Sequence[Mapping[str, Any]]) -> str:
    """What the distance of accuracy and macro-F1 says of this run, and which class was found worst.

    Args:
        score: of one split, with `accuracy` and `macro_f1`, 0 to 1.
        per_class: `name`, `f1` and `support` (images) of each class.
    """
    points = 100 * (score["accuracy"] - score["macro_f1"])
    images = sum(one["support"] for one in per_class)
    # By how much the mean F1 rises where classes count by their size: it falls where large ones are worse.
    lean = 100 * (sum(one["f1"] * one["support"] for one in per_class) / images - score["macro_f1"])
    reason = ""
    if abs(lean) > LEAN:
        reason = f" Here {'small' if lean > 0 else 'large'} classes are found worse than the others."
    side = "above" if points >= 0 else "below"
    worst = min((one for one in per_class if one["support"]), key=lambda one: one["f1"])
    return (
        f"Accuracy is {abs(points):.1f} points {side} macro-F1.{reason} The weakest class is "
        f"“{worst['name']}”, with an F1 of {100 * worst['f1']:.0f} % on {worst['support']} images."
    )


def _matrix(confusion: Sequence[Sequence[int]], classes: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the confusion matrix, each cell with a shade from 0 to `SHADES` by its share of the row."""
    rows = []
    for name, counts in zip(classes, confusion, strict=True):
        total = sum(counts)
        shades = [0 if not count else 1 + int((SHADES - 1) * count / total) for count in counts]
        rows.append({"name": name, "cells": list(zip(counts, shades, strict=True))})
    return rows


def _reliability(bins: Sequence[dict[str, float]]) -> Plot:
    names = [f"{100 * one['low']:.0f}+" for one in bins]  # short: there may be ten on a phone
    said = [(name, 100 * one["confidence"]) for name, one in zip(names, bins, strict=True)]
    right = [(name, 100 * one["accuracy"]) for name, one in zip(names, bins, strict=True)]
    return Plot(
        "bars",
        "Calibration",
        "predicted probability, percent and above",
        "percent",
        (Series("confidence", said), Series("accuracy", right)),
    )


# Time to accuracy -----------------------------------------------------------------------------------------


def trace(run: Run, twin: Run | None) -> Plot | None:
    """Validation accuracy against seconds of a run, and of its twin from scratch where there is one."""
    pair = sorted((one for one in (run, twin) if one), key=lambda one: not one.config.pretrained)
    series = [Series(_kind(one), points) for one in pair if (points := course(one))]
    if not series:
        return None
    kind = "line" if all(len(one.points) > 1 for one in series) else "dots"
    return Plot(kind, "Validation accuracy against seconds", "seconds", "accuracy, percent", tuple(series))


def _kind(run: Run) -> str:
    return "pre-trained" if run.config.pretrained else "from scratch"


def course(run: Run) -> list[Point]:
    """(seconds, percent) after every epoch; one point at the end where the head was solved in one step.

    Runs store the seconds of the whole training, so epochs are taken as equally long. Features come first.
    """
    before = sum(run.seconds.get(phase, 0.0) for phase in ("check", "features"))
    training = run.seconds.get("train", 0.0)
    rows = [row["validation_accuracy"] for row in run.history if row.get("validation_accuracy") is not None]
    if rows:
        return [(before + training * (i + 1) / len(rows), 100 * reached) for i, reached in enumerate(rows)]
    end = run.accuracy.get("validation")
    return [] if end is None else [(before + training, 100 * end)]


def twin_of(run: Run, runs: Iterable[Run]) -> Run | None:
    """The newest training of the same network on the very same split, the one from scratch, the other not."""
    for other in runs:
        if _network(other) == _network(run) and other.config.pretrained != run.config.pretrained:
            split = _split(run)
            if split and split == _split(other):
                return other
    return None


def _network(run: Run) -> tuple[object, ...]:
    config = run.config
    return config.data, config.backbone, config.architecture, config.size


def _split(run: Run) -> str:
    try:
        return str(read_predictions(run.path)["split"])
    except RunError:
        return ""


# Training -------------------------------------------------------------------------------------------------


@router.post("/runs/first")
def train_first(
    request: Request, site: SiteOf, session: SessionOf, mode: Annotated[str, Form()] = ""
) -> Response:
    """Trains a first run, and its twin from scratch where PyTorch is installed."""
    _only_alone(site)
    site.jobs.add(FIRST, name=FIRST, learner=session.learner)
    return leave(request, f"{_back(mode)}#runs")


@router.post("/runs/{identity}/twin")
def train_twin(
    request: Request, site: SiteOf, session: SessionOf, identity: str, mode: Annotated[str, Form()] = ""
) -> Response:
    """Trains the same network from random weights on the same split."""
    _only_alone(site)
    if identity not in {run.id for run in listed(site)}:
        raise HTTPException(404)
    site.jobs.add(TWIN, name=TWIN, learner=session.learner, body={"run": identity})
    return leave(request, f"{_back(mode)}?run={identity}#runs")


@router.get("/runs/{identity}/report")
def report_page(site: SiteOf, session: SessionOf, identity: str) -> Response:
    """The run's whole report."""
    from headstart.reports import report

    _only_alone(site)
    run = next((run for run in listed(site) if run.id == identity), None)
    if run is None:
        raise HTTPException(404)
    return HTMLResponse(report(run).html(explain=True), headers={"content-security-policy": REPORT_POLICY})


def serve(site: LessonSite) -> None:
    """Lets the queue of a site train a first run and twins."""

    def first(job: Job, tell: Tell) -> dict[str, str]:
        folder = _images(site.home)
        small = {"backbone": "builtin", "size": SIDE}
        run = _fit(
            site, folder, tell, head="softmax", layers="last", epochs=EPOCHS, learning_rate=RATE, **small
        )
        from headstart.backbones.building import has_timm

        if has_timm():
            _fit(site, folder, tell, scratch=True, budget=TWIN_SECONDS, **small)
        return {"run": run.id}

    def twin(job: Job, tell: Tell) -> dict[str, str]:
        run = RunStore(site.home).find(job.body["run"])
        config = run.config
        made = _fit(
            site,
            config.data,
            tell,
            backbone=config.backbone,
            architecture=config.architecture,
            size=config.size,
            validation=config.validation,
            test=config.test,
            seed=config.seed,
            scratch=True,
            budget=TWIN_SECONDS,
        )
        return {"run": made.id}

    site.jobs.serve(FIRST, first)
    site.jobs.serve(TWIN, twin)


def _fit(site: LessonSite, source: Any, tell: Tell, **options: Any) -> Run:
    from headstart.runs.callbacks import ProgressFunction
    from headstart.training import fit

    out = site.home / "lesson-runs" / new_id("run")
    return fit(source, out=out, callbacks=[ProgressFunction(tell)], **options)[1]


def _images(home: Path) -> Path:
    """Digits, or drawings where scikit-learn is not installed, as a folder of one's own to look into."""
    from PIL import Image

    from headstart.lesson.experiments.data import images_of

    dataset = images_of(None, per_class=IMAGES, seed=0)
    folder = home / "lesson-images" / dataset.name
    for number, sample in enumerate(dataset.samples):
        place = folder / dataset.classes[sample.label] / f"{number:04}.png"
        if not place.exists():
            place.parent.mkdir(parents=True, exist_ok=True)
            pixels: Any = sample.source.read()
            Image.fromarray(pixels).save(place)
    return folder


def _only_alone(site: LessonSite) -> None:
    if site.learner is None:
        raise HTTPException(403, "Runs can only be opened on a machine of one's own.")


def _back(mode: str) -> str:
    """The page that asked: one of the two that show runs."""
    return "/modes/metrics" if mode == "metrics" else "/modes/visualize"


def _job(site: LessonSite, learner: str) -> Job | None:
    return site.jobs.running(FIRST, name=FIRST, learner=learner) or site.jobs.running(
        TWIN, name=TWIN, learner=learner
    )


def _last(site: LessonSite, learner: str) -> Job | None:
    jobs = [site.jobs.last(kind, name=kind, learner=learner) for kind in (FIRST, TWIN)]
    return max((job for job in jobs if job), key=lambda job: job.number, default=None)
