"""The studio's templates, their filters and words."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import cache
from typing import Any

from fastapi import Request
from jinja2 import Environment
from starlette.responses import HTMLResponse

from headstart.runs.formatting import human_seconds, percent
from headstart.runs.scores import headline
from headstart.studio.state import studio_of
from headstart.web.app import new_environment, render

DOING = {
    "checking": "Checking every photograph",
    "features": "Extracting features",
    "training": "Training the head",
    "epochs": "Fine-tuning",
    "saving": "Evaluating and saving",
    "trials": "Training the candidates",
    "ranking": "Ranking photographs by usefulness",
    "predicting": "Classifying",
    "convert": "Converting",
    "check": "Comparing with the original",
}

KINDS = {
    "check": "Checking",
    "plan": "Planning",
    "fit": "Training on",
    "compare": "Comparing on",
    "export": "Exporting",
    "rank": "Ranking photographs for",
    "predict": "Classifying",
    "group": "Grouping",
    "amounts": "Training on fewer photographs of",
}


HEADS = {"ridge": "quick head", "softmax": "trained head"}
"""The words for what is trained on top of the layers; the terms stand in the details."""


@cache
def _environment() -> Environment:
    environment = new_environment(
        "headstart.studio",
        percent=percent,
        headline=headline,
        span=lambda pair: f"{pair[0]:.0%} to {pair[1]:.0%}",
        seconds=human_seconds,
        when=when,
        how=how,
        about=about,
        score=score,
        baseline=baseline,
        last=lambda path: str(path).rsplit("/", 1)[-1],
        count=lambda number: f"{number:,}",
        sentence=lambda text: f"{text[:1].upper()}{text[1:].removesuffix('.')}.",
        holds=holds,
    )
    environment.globals |= {"doing": DOING, "kinds": KINDS}
    return environment


def holds(entry: Any) -> str:
    """What a folder has directly in it: 5 folders, 1 picture; or how a file ends."""
    if entry.kind == "file":
        return str(entry.name.rsplit(".", 1)[-1])
    parts = [
        f"{number:,} {noun if number == 1 else noun + 's'}"
        for number, noun in ((entry.folders, "folder"), (entry.pictures, "picture"))
        if number
    ]
    return ", ".join(parts) or "empty"


def when(stamp: str) -> str:
    """An ISO time as people here say it: 23 Nov, 22:57."""
    try:
        return f"{datetime.fromisoformat(stamp).astimezone():%-d %b, %H:%M}"
    except ValueError:
        return stamp


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> HTMLResponse:
    """A page from its template in `templates`, with a word on what was just done."""
    name = request.query_params.get("told", "")
    values["names"] = studio_of(request).run_names.all()
    values["told"] = studio_of(request).recent.peek(name) if name else None
    return render(request, _environment(), template, status=status, **values)


def score(run: Any) -> tuple[str, Mapping[str, Any]] | None:
    """The split and evaluation that a run is first judged by: test, whose mistakes nobody works on here."""
    return next(
        ((side, run.evaluation[side]) for side in ("test", "validation") if run.evaluation.get(side)), None
    )


def baseline(evaluation: Mapping[str, Any]) -> float:
    """What always naming the most common class would reach on the same photographs."""
    return float(max(each["support"] for each in evaluation["per_class"]) / evaluation["images"])


def about(share: float) -> str:
    """An accuracy as people say it: about 7 in 10 right."""
    if share in (0, 1):
        return "all right" if share else "none right"
    if share >= 0.945 or share < 0.05:
        return f"about {max(1, min(99, round(100 * share)))} in 100 right"
    return f"about {round(10 * share)} in 10 right"


def how(run: Any) -> str:
    """What was trained, in a word or two."""
    config = run.config
    if not run.trained:
        return "trained elsewhere"
    if not config.pretrained:
        return "from scratch"
    retrained = config.stages - config.depth
    return f"last {retrained} layers retrained" if retrained else HEADS.get(config.head, config.head)
