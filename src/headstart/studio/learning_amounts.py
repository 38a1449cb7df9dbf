"""Would more photographs help? A run's training again on fewer of them, and what that says of more."""

from __future__ import annotations

import math
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import Response

from headstart.errors import OptionError
from headstart.runs import Run
from headstart.studio.jobs import job_of, told_of
from headstart.studio.state import RunOf, Studio, StudioOf
from headstart.studio.workers import Result, Teller, corrected_data, path_of
from headstart.web.app import leave
from headstart.web.jobs import Job
from headstart.web.plots import Plot, Series, draw

router = APIRouter()

_SHARES = (8, 4, 2)
"""Trained on all photographs, and on one part in so many."""

_SEEDS = 3
_WORTH_IT = 0.01
"""A gain of the last doubling below which more of the same kind will hardly be noticed."""


def amounts(studio: Studio, run: Run) -> dict[str, Any]:
    """What a run's page says of more photographs: whether that can be asked, the job, or the answer."""
    job = job_of(studio, "amounts", run.id)
    found = {"possible": _source(studio, run) is not None, "curve": None, "said": "", **told_of(job)}
    if job is not None and job.state == "done":
        points = job.result["points"]
        series = Series("validation", tuple((images, 100 * accuracy) for images, accuracy in points))
        plot = Plot("line", "Would more photographs help?", "training photographs", "accuracy, %", (series,))
        said = _said(points, math.sqrt(job.result["variance"]))
        found |= {"curve": draw(plot, tabled=False), "said": said, "comparison": job.result["comparison"]}
    return found


def _said(points: list[list[float]], spread: float) -> str:
    (few, before), (all_, now) = points[-2:]
    gain = now - before
    first = f"From {few:,.0f} to {all_:,.0f} training photographs the validation accuracy went from "
    first += f"{before:.1%} to {now:.1%}. "
    if gain > max(_WORTH_IT, spread):
        return f"{first}It still rises, so more photographs of the same kind will probably help."
    if gain > _WORTH_IT:
        return f"{first}It seems to rise still, which so few held-out photographs cannot say for certain."
    if gain > -_WORTH_IT:
        return f"{first}That is hardly more: better labels or a more thorough training are likelier to help."
    return f"{first}That is less, which chance alone can do with so few held-out photographs."


@router.post("/runs/{identity}/amounts")
def ask(request: Request, studio: StudioOf, run: RunOf) -> Response:
    """Queues the trainings on fewer photographs."""
    source = _source(studio, run)
    if source is None:
        raise OptionError(
            "this can be asked of runs that were trained here on a data set that is still open, with all "
            "layers frozen; headstart compare --images draws it for others"
        )
    body = {**{name: source.body[name] for name in ("data", "title", "path")}, "run": run.id}
    return leave(request, f"/jobs/{studio.add('amounts', name=run.id, body=body).id}")


def amounts_job(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: the same training on an eighth, a quarter, half and all of the photographs."""
    from headstart.comparisons import accuracy_by_images, compare, grid

    run = studio.run(job.name)
    config, dataset = run.config, corrected_data(path_of(job))
    sizes = [len(rows) for rows in _by_class(dataset.samples)]
    most = int(max(sizes) * run.images["train"] / max(1, len(dataset.samples)))
    counts = sorted({most // share for share in _SHARES if most // share >= 1})
    if not counts:
        raise OptionError("too few photographs of each class to train on fewer of them; add some")
    candidates = grid(
        backbones=[config.backbone],
        size=config.size,
        heads=[config.head],
        images=[*counts, None],
        layers="auto" if config.layers else "last",
        views=len(config.views),
        epochs=config.epochs or None,
        preprocess=config.preprocess,
        architecture=config.architecture,
    )
    comparison = compare(dataset, candidates, seeds=_SEEDS, callbacks=[teller])
    (rows,) = accuracy_by_images(comparison).values()
    points = [[row.images, row.accuracy] for row in rows]
    held_out, last = len(comparison.labels), rows[-1].accuracy
    return {
        "points": points,
        "variance": last * (1 - last) / held_out,
        "comparison": comparison.id,
    }


def _by_class(samples: Any) -> list[list[Any]]:
    found: dict[int, list[Any]] = {}
    for sample in samples:
        found.setdefault(sample.label, []).append(sample)
    return list(found.values())


def _source(studio: Studio, run: Run) -> Job | None:
    """The training that made a run here, or what it was retrained from; None where there is no way back."""
    if run.config.fine_tuned or not run.evaluation.get("validation"):
        return None
    first = {run.id, run.head_fit.get("retrained_from")}
    jobs = studio.work.history("fit", learner="studio")
    return next(
        (
            job
            for job in jobs
            if job.result.get("run") in first and studio.collections.get(str(job.body.get("data")))
        ),
        None,
    )
