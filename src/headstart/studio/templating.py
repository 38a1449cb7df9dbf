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
}


@cache
def _environment() -> Environment:
    environment = new_environment(
        "headstart.studio",
        percent=percent,
        headline=headline,
        span=lambda pair: f"{pair[0]:.0%} to {pair[1]:.0%}",
        seconds=human_seconds,
        when=when,
        frozen=frozen,
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
    values["told"] = studio_of(request).recent.peek(name) if name else None
    return render(request, _environment(), template, status=status, **values)


def score(run: Any) -> Mapping[str, Any] | None:
    """The evaluation that a run is judged by: validation, else test."""
    found: Mapping[str, Any] | None = run.evaluation.get("validation") or run.evaluation.get("test")
    return found


def frozen(run: Any) -> str:
    """How much of the network was left as it is."""
    config = run.config
    if not run.trained:
        return "trained elsewhere"
    if not config.pretrained:
        return "from scratch"
    return "all frozen" if config.depth == config.stages else f"{config.depth} of {config.stages} frozen"
