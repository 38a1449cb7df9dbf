"""Compares runs that were made one by one, where they were measured on the same split."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from headstart.comparisons.analysis import choose
from headstart.comparisons.command_lines import candidate_of, run_command, settings_of
from headstart.comparisons.values import Candidate, Comparison, Trial, disambiguate, same_split
from headstart.errors import OptionError, RunError
from headstart.files import MEBI, Unreadable, read_regular
from headstart.heads.tasks import only_single_label
from headstart.runs import Run, new_id, read_predictions, timestamp
from headstart.training.decisions import COSTS_FILE, PRIORS_FILE, UNIFORM
from headstart.training.depth_choice import HEAD_KEPT

_TABLES = (("costs", COSTS_FILE), ("priors", PRIORS_FILE))
"""Options that name a table, and their copies in a run's folder."""


def compare_runs(runs: Sequence[Run]) -> Comparison:
    """A comparison made of saved runs; nothing is trained and nothing is saved.

    Runs that differ in their seed alone are trials of one candidate. A run's seconds are what it took, which
    is less where its features were in the cache, and more where a deeper training was tried; a note says so.

    Raises:
        OptionError: fewer than two runs.
        RunError: they were measured on different splits, have no predictions, or one was trained elsewhere.
    """
    if len(runs) < 2:
        raise OptionError("a comparison needs two runs or more")
    elsewhere = next((run for run in runs if not run.trained), None)
    if elsewhere:
        raise RunError(
            f"run {elsewhere.id} evaluates a classifier that was trained elsewhere: it has no validation "
            "images and no seconds of training to compare; leave it out, its report has its accuracy"
        )
    for run in runs:
        only_single_label(run.config.task, f"comparing run {run.id}", instead="headstart runs lists scores")
    predictions = [read_predictions(run.path, classes=run.classes) for run in runs]
    same_split([(run.id, found["split"]) for run, found in zip(runs, predictions, strict=True)])
    order, labels = _validation(runs[0], predictions[0]["images"])
    candidates = _candidates(runs)
    trials = [
        _trial(run, candidate, found["images"], order=order)
        for run, candidate, found in zip(runs, candidates, predictions, strict=True)
    ]
    once = {
        (trial.candidate, trial.seed): trial for trial in trials
    }  # the same training again is no evidence
    warm = [run.id for run in runs if run.cache.get("hits")]
    notes = [f"features were in the cache already, so fewer seconds: {', '.join(warm)}"] if warm else []
    tried = [run.id for run in runs if any(note.startswith(HEAD_KEPT) for note in run.notes)]
    notes += (
        [f"a deeper training was tried and not kept, so more seconds: {', '.join(tried)}"] if tried else []
    )
    comparison = Comparison(
        id=new_id("comparison"),
        path=None,
        created=timestamp(),
        data=runs[0].config.data,
        classes=runs[0].classes,
        images=dict(runs[0].images),
        split=predictions[0]["split"],
        labels=tuple(labels),
        trials=tuple(once.values()),
        seconds=sum(trial.total for trial in once.values()),
        notes=tuple(notes),
        versions=dict(runs[0].versions),
        source=runs[0].source,
    )
    choice = choose(comparison)
    chosen = runs[candidates.index(choice.candidate)]  # which has settings that others need not share
    command = run_command(chosen, source=chosen.source or chosen.config.data)
    return replace(comparison, choice=replace(choice, command=command))


def _validation(run: Run, images: Sequence[dict[str, str]]) -> tuple[list[str], list[int]]:
    """Names and labels of the validation images, in the order that all trials are put into."""
    held_out = [entry for entry in images if entry["split"] == "validation"]
    if not held_out:
        raise RunError(f"run {run.id} has no validation images to compare on; fit with --validation above 0")
    place = {name: index for index, name in enumerate(run.classes)}
    return [entry["path"] for entry in held_out], [place[entry["label"]] for entry in held_out]


def _candidates(runs: Sequence[Run]) -> list[Candidate]:
    """What each run trained; where runs of one candidate differ otherwise, their labels say in what."""
    plain = [candidate_of(run) for run in runs]
    settings = [
        {
            **settings_of(run.config),
            "layers": len(run.config.layers) if run.config.layers else None,
            "weights_column": run.config.weights_column,
            **{option: _table_of(run, option, file, runs=runs) for option, file in _TABLES},
        }
        for run in runs
    ]
    found = []
    for candidate, own in zip(plain, settings, strict=True):
        alike = [other for each, other in zip(plain, settings, strict=True) if each == candidate]
        differing = [name for name in own if any(other[name] != own[name] for other in alike)]
        said = ", ".join(f"{name.replace('_', ' ')} {own[name] or 'as usual'}" for name in differing)
        found.append(replace(candidate, label=f"{candidate.name}, {said}") if said else candidate)
    return list(disambiguate(found))


def _table_of(run: Run, option: str, file: str, *, runs: Sequence[Run]) -> str | None:
    """What a run's table is called; its content too, where runs have other tables of that name."""
    given: str | None = getattr(run.config, option)
    if given in (None, UNIFORM):
        return given
    name = Path(given).name
    contents = {
        _content(each, file) for each in runs if Path(getattr(each.config, option) or "").name == name
    }
    return name if len(contents) == 1 else f"{name} of {_content(run, file)}"


def _content(run: Run, file: str) -> str:
    """Some digits of the hash of a file in a run's folder; none where it is not there."""
    try:
        return hashlib.blake2b(read_regular(run.path / file, limit=64 * MEBI), digest_size=3).hexdigest()
    except Unreadable:
        return ""


def _trial(
    run: Run, candidate: Candidate, images: Sequence[dict[str, str]], *, order: Sequence[str]
) -> Trial:
    place = {name: index for index, name in enumerate(run.classes)}
    said = {entry["path"]: entry["predicted"] for entry in images if entry["split"] == "validation"}
    missing = [path for path in order if path not in said]
    if missing:
        raise RunError(f"run {run.id} says nothing of {missing[0]}, which other runs were measured on")
    scores = run.evaluation.get("validation")
    if scores is None:
        raise RunError(f"run {run.id} has no evaluation on validation images; fit again to have one")
    return Trial(
        candidate=candidate,
        seed=run.config.seed,
        images=run.images["train"],
        predicted=tuple(place[said[path]] for path in order),
        accuracy=scores["accuracy"],
        macro_f1=scores["macro_f1"],
        log_loss=scores["log_loss"],
        calibration_error=scores["calibration_error"],
        seconds={phase: run.seconds.get(phase, 0.0) for phase in ("features", "train", "evaluate")},
        history=run.history,
    )
