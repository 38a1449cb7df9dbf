"""The page of a data set: its classes, and findings with their images."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from headstart.curation import Corrections, corrections_for
from headstart.data.dataset import Dataset
from headstart.errors import DatasetError, RunError, printable
from headstart.files.spreadsheets import as_csv
from headstart.studio import folders, groups, image_answers
from headstart.studio.datasets import Collection
from headstart.studio.findings import findings
from headstart.studio.home import look
from headstart.studio.jobs import job_of, told_of
from headstart.studio.run_names import families
from headstart.studio.state import CollectionOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.web import downloads

router = APIRouter()

_NAMES_SHOWN = 6


@router.get("/data/{identity}")
def data_page(request: Request, studio: StudioOf, collection: CollectionOf) -> Response:
    """A data set: a few pictures of each class, and everything that was found, with its pictures."""
    facts = studio.collections.read(collection, "report")
    classes = facts["report"]["classes"] if facts else {}
    refused = studio.collections.read(collection, "refused") or {"files": []}
    problem, changed = "", ""
    try:
        dataset = collection.dataset()
        changed = _changed(dataset, facts["report"]) if facts else ""
    except DatasetError as error:
        # Where the studio keeps what was sent says nothing to whoever sent it.
        problem, facts = str(error).replace(printable(collection.path), collection.name), None
    return page(
        request,
        "data.html",
        collection=collection,
        **told_of(job_of(studio, "check", collection.id)),
        problem=problem,
        changed=changed,
        loose=bool(problem) and collection.sent and groups.is_unlabelled(collection),
        inner=[] if problem else _inner(studio, collection, dataset),
        report=facts["report"] if facts else None,
        gallery=facts["gallery"] if facts else {},
        largest=max((sum(sides.values()) for sides in classes.values()), default=1),
        findings=findings(facts["report"]) if facts else [],
        refused=refused["files"],
        grouped=groups.is_grouped(studio, collection),
        corrected=len(_corrections(collection).changes()) if not problem else 0,
    )


def _changed(dataset: Dataset, report: dict[str, Any]) -> str:
    """How the classes differ from those that were checked; empty where they are the same."""
    now, then = set(dataset.classes), set(report["classes"])
    said = [
        f"{', '.join(sorted(names)[:_NAMES_SHOWN])} {verb}"
        for names, verb in ((now - then, "came"), (then - now, "went"))
        if names
    ]
    return " and ".join(said)


def _inner(studio: Studio, collection: Collection, dataset: Dataset) -> list[tuple[str, str]]:
    """Name and place of each class, where all of them look like data sets: folders of folders."""
    if collection.sent or not collection.path.is_dir():
        return []
    below: dict[str, set[str]] = {name: set() for name in dataset.classes}
    for sample in dataset.samples:
        first, _, rest = sample.name.partition("/")
        if first not in below or "/" not in rest:
            return []
        below[first].add(rest.split("/", 1)[0])
    if not below or min(map(len, below.values())) < 2:
        return []
    return [(name, folders.below(studio.root, collection.path / name)) for name in sorted(below)]


@router.get("/data/{identity}/runs")
def data_runs(request: Request, studio: StudioOf, collection: CollectionOf) -> Response:
    """The runs on this data set, to compare and use."""
    runs = families(runs_on(studio, collection.id, collection.name))
    return page(request, "data_runs.html", collection=collection, runs=runs)


def _corrections(collection: Collection) -> Corrections:
    return corrections_for(collection.dataset())


@router.get("/data/{identity}/corrections.csv")
def corrections_table(collection: CollectionOf) -> Response:
    """Every label that was corrected, added or found right: a row each, the last word on it."""
    said = _corrections(collection).current().values()
    rows = ((each.path, each.label, each.was, each.created, each.content) for each in said)
    table = as_csv(("path", "label", "was", "when", "content"), rows)
    return downloads.table(table, f"{collection.name} corrections.csv")


@router.post("/data/{identity}/look")
def look_again(request: Request, studio: StudioOf, identity: str) -> Response:
    """Looks at the images once more, as they are now."""
    return look(request, studio, studio.collection(identity))


@router.get("/data/{identity}/picture")
def picture(studio: StudioOf, identity: str, name: str, side: int = 256) -> Response:
    """One image of the data set, small. The name is looked up in the listing; it is no path."""
    sample = studio.collections.sample(studio.collection(identity), name)
    return image_answers.answer(sample.source if sample else None, side=side)


def runs_on(studio: Studio, identity: str, name: str) -> list[Any]:
    """Runs on this data set: those started here, and those of the terminal on data of that name."""
    started = {
        str(job.result["run"])
        for job in studio.work.history("fit", learner="studio")
        if job.body.get("data") == identity and "run" in job.result
    }
    found = {run.id: run for run in studio.runs.on(name)}
    for run in started - found.keys():
        with suppress(HTTPException, RunError):
            found[run] = studio.run(run)
    return sorted(found.values(), key=lambda run: (run.created, run.id), reverse=True)
