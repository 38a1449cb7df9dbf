"""The command that trains a comparison's candidate, or repeats a run."""

import shlex
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from headstart.comparisons.values import Candidate
from headstart.errors import printable
from headstart.heads.tasks import SINGLE_LABEL
from headstart.runs import FitConfig, Method, Run

SETTINGS = (
    "class_weights",
    "runtime",
    "precision",
    "batch_size",
    "learning_rate",
    "validation",
    "test",
    "near_duplicates",
    "groups",
)
"""What decides a training besides its candidate, its images and its seed."""

_OF_EPOCHS = ("batch_size", "learning_rate")


def fit_command(candidate: Candidate, *, source: str, settings: Mapping[str, Any]) -> str:
    """The command that trains the candidate on all images and keeps the classifier.

    Args:
        candidate: what to train.
        source: the folder, table or zip of the images.
        settings: see `settings_of`; besides them ``seed`` and ``corrections``. What is None or absent is
            left to the defaults.
    """
    words = ["headstart", "fit", source, "--backbone", candidate.backbone, "--size", str(candidate.size)]
    for name in ("architecture", "preprocess"):
        if value := getattr(candidate, name):
            words += [f"--{name}", value]
    if not candidate.pretrained:
        words += ["--scratch"]
    elif candidate.fine_tuned:
        words += ["--freeze", str(candidate.depth)]
    else:
        words += ["--head", candidate.head]
    if candidate.closed_form:
        words += ["--layers", str(candidate.layers)]
        settings = {name: value for name, value in settings.items() if name not in _OF_EPOCHS}
    elif candidate.epochs is not None:
        words += ["--epochs", str(candidate.epochs)]
    words += ["--views", "flip" if candidate.views == ("centre", "flip") else str(len(candidate.views))]
    for name, value in settings.items():
        words += [] if value is None else [f"--{name.replace('_', '-')}", str(value)]
    return _line(words)


def run_command(run: Run, *, source: str) -> str:
    """The command that repeats a run, on the images of ``source``."""
    if not run.trained:
        return _line(["headstart", "evaluate", str(run.path), source, "--record"])
    config = run.config
    settings = {
        **settings_of(config),
        **{name: getattr(config, name) for name in ("weights_column", "costs", "priors", "folds")},
        "task": None if config.task == SINGLE_LABEL else config.task,
        "seed": config.seed,
        "corrections": run.corrections,
    }
    return fit_command(candidate_of(run), source=source, settings=settings)


def settings_of(config: FitConfig) -> dict[str, Any]:
    """What decides a training besides its candidate, its images and its seed, by the name of the option."""
    found = {name: getattr(config, name) for name in SETTINGS}
    return found | ({"near_duplicates": None} if config.near_duplicates == "group" else {})


def candidate_of(run: Run) -> Candidate:
    """What a run trained, as a candidate; its layers are as they were asked for."""
    own: dict[str, Any] = {each.name: getattr(run.config, each.name) for each in fields(Method)}
    return Candidate(
        **{**own, "layers": "auto" if "layers" in run.head_fit else "all" if own["layers"] else "last"}
    )


def _line(words: list[str]) -> str:
    return printable(" ".join(map(shlex.quote, words)))
