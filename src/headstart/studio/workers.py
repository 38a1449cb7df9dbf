"""The work of the studio's jobs, one function for each kind; the queue runs them in a thread."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.data.dataset import Dataset, read_dataset
from headstart.errors import DatasetError, HeadstartError, OptionError, RunError, printable
from headstart.files import held_below
from headstart.runs.callbacks import Callback, Range
from headstart.studio.state import Live, Studio
from headstart.web.jobs import Job, Tell

INTERRUPTED = "interrupted: the server ended while this ran"
"""Begins the message of such a job; what had been computed is in the feature cache."""

TOLD_SECONDS = 0.15
"""How often a job's progress is written down, and so how soon it can be stopped."""

_GALLERY = 5
"""Pictures of each class that the first look shows."""

_RESUMABLE = ("fit", "compare", "export", "rank")
"""Kinds that are long enough for the person to decide whether to go on."""

Result = Mapping[str, Any]


@dataclass
class Teller(Callback):
    """Keeps what a page wants to show, and lets the queue stop the work."""

    tell: Tell
    live: Live
    told: float = 0.0

    def on_progress(self, phase: str, done: int, total: int) -> None:
        """Notes it; every now and then asks the queue whether to go on."""
        begins = phase not in self.live.phases
        self.live.phases[phase] = (done, total)
        now = time.monotonic()
        if begins or done >= total or now - self.told > TOLD_SECONDS:
            self.told = now
            self.tell(phase, done, total)

    def on_estimate(self, seconds: Range, phases: Mapping[str, float]) -> None:
        """Keeps the prediction, made before the work."""
        self.live.expected = seconds

    def on_epoch_end(self, epoch: Mapping[str, Any]) -> None:
        """Keeps one point of the learning curve."""
        self.live.epochs.append(dict(epoch))


Kind = Callable[[Studio, Job, Teller], Result]
"""Does one kind of work."""


def serve(studio: Studio, further: Mapping[str, Kind]) -> None:
    """Lets both queues begin with what waits for them on disk; ``further`` kinds belong to other modules."""
    for kind, do in {**_KINDS, **further}.items():
        studio.queue(kind).serve(kind, _worker(studio, do))


def _worker(studio: Studio, do: Kind) -> Callable[[Job, Tell], Result]:
    def work(job: Job, tell: Tell) -> Result:
        begun = sum(event.kind == "running" for event in studio.queue(job.kind).events(job.id))
        if begun > 1 and job.kind in _RESUMABLE:
            raise RunError(INTERRUPTED)
        live = studio.live[job.id] = Live()
        with held_below(*studio.roots):
            try:
                return do(studio, job, Teller(tell, live))
            except HeadstartError as error:
                if "data" not in job.body or (place := path_of(job)).exists():
                    raise
                name = printable(place.name)
                raise DatasetError(
                    f"{name} was moved or deleted while this ran; put it back, then try again"
                ) from error

    return work


# One function for each kind --------------------------------------------------------------------------------


def _check(studio: Studio, job: Job, teller: Teller) -> Result:
    from headstart.data.checks import check

    collection = studio.collections.get(job.name)
    if collection is None:
        raise OptionError("this data set is not open any more")
    dataset = collection.dataset()
    report = check(dataset, progress=teller.on_progress)
    gallery: dict[str, list[str]] = {name: [] for name in dataset.classes}
    unusable = {item.name for item in report.skipped}
    for sample in dataset.samples:
        shown = gallery[dataset.classes[sample.label]]
        if len(shown) < _GALLERY and sample.name not in unusable:
            shown.append(sample.name)
    facts = {"report": report.to_dict(), "headline": report.headline(), "gallery": gallery}
    studio.collections.write(collection, "report", facts)
    return {}


def _plan(studio: Studio, job: Job, teller: Teller) -> Result:
    from headstart.training.planning import plan

    collection = studio.collections.get(job.name)
    if collection is None:
        raise OptionError("this data set is not open any more")
    found = plan(collection.path, **_options(job.body, "backbones", "preprocess", "head", "views", "epochs"))
    studio.collections.write(collection, "plan", {"plan": found.to_dict(), "asked": dict(job.body)})
    return {}


def _fit(studio: Studio, job: Job, teller: Teller) -> Result:
    from headstart.training import fit

    method = "backbone", "size", "preprocess", "freeze", "head", "views", "epochs", "class_weights"
    options = _options(job.body, *method, "budget")
    _, run = fit(corrected_data(path_of(job)), **options, callbacks=[teller])
    return {"run": run.id}


def _compare(studio: Studio, job: Job, teller: Teller) -> Result:
    from headstart.comparisons import compare, grid

    candidates = [
        candidate
        for each in job.body["candidates"]
        for candidate in grid(
            backbones=[each["backbone"]],
            size=each["size"],
            depths=each["depths"],
            heads=[job.body["head"]],
            **_options(job.body, "views", "epochs"),
            **_options(each, "preprocess"),
        )
    ]
    comparison = compare(
        corrected_data(path_of(job)), candidates, seeds=job.body["seeds"], callbacks=[teller]
    )
    return {"comparison": comparison.id}


def corrected_data(path: Path) -> Dataset:
    """The data set under the labels that were corrected in the studio."""
    from headstart.curation import corrections_for

    dataset = read_dataset(path)
    corrections = corrections_for(dataset)
    return corrections.apply(dataset) if corrections.changes() else dataset


def path_of(job: Job) -> Path:
    """The place that a job's body names; a path need not be text, and JSON is."""
    return Path(os.fsdecode(bytes.fromhex(job.body["path"])))


def _options(body: Mapping[str, Any], *names: str) -> dict[str, Any]:
    """What of a job's body is set and is one of these."""
    return {name: body[name] for name in names if body.get(name) not in (None, "")}


_KINDS: dict[str, Kind] = {
    "check": _check,
    "plan": _plan,
    "fit": _fit,
    "compare": _compare,
}
