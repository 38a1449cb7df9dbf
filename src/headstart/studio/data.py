"""The page of a data set: its classes, and findings with their images."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import Response

from headstart.curation import Corrections, corrections_for
from headstart.errors import DatasetError, RunError, printable
from headstart.files.spreadsheets import as_csv
from headstart.studio import groups, image_answers
from headstart.studio.datasets import Collection
from headstart.studio.home import look
from headstart.studio.jobs import job_of, told_of
from headstart.studio.run_names import families
from headstart.studio.state import CollectionOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.web import downloads

router = APIRouter()

_GROUPS_SHOWN = 12
_FILES_SHOWN = 6


@router.get("/data/{identity}")
def data_page(request: Request, studio: StudioOf, collection: CollectionOf) -> Response:
    """A data set: a few pictures of each class, and everything that was found, with its pictures."""
    facts = studio.collections.read(collection, "report")
    classes = facts["report"]["classes"] if facts else {}
    refused = studio.collections.read(collection, "refused") or {"files": []}
    problem = ""
    try:
        collection.dataset()
    except DatasetError as error:
        # Where the studio keeps what was sent says nothing to whoever sent it.
        problem, facts = str(error).replace(printable(collection.path), collection.name), None
    return page(
        request,
        "data.html",
        collection=collection,
        **told_of(job_of(studio, "check", collection.id)),
        problem=problem,
        report=facts["report"] if facts else None,
        gallery=facts["gallery"] if facts else {},
        largest=max((sum(sides.values()) for sides in classes.values()), default=1),
        findings=findings(facts["report"]) if facts else [],
        refused=refused["files"],
        grouped=groups.is_grouped(studio, collection),
        corrected=len(_corrections(collection).changes()) if not problem else 0,
    )


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


def findings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings of a check, the worst first: title, meaning, groups of images."""
    told = [*report["contradictions"], *report["leaks"]]  # each of them is a copy too; once is enough
    found = [
        _groups(
            report["contradictions"],
            "with conflicting labels",
            "The same photograph with different labels: at least one of them is wrong.",
        ),
        _groups(
            report["leaks"],
            "in both training and held-out images",
            "Testing on images that were trained on makes the accuracy too high.",
        ),
        {
            "title": f"{len(report['skipped']):,} skipped",
            "meaning": "These files cannot be read as images.",
            "count": len(report["skipped"]),
            "files": report["skipped"][:_GROUPS_SHOWN],
        },
        _groups(
            [group for group in report["exact_duplicates"] if group not in told],
            "with exact duplicates",
            "Duplicates stay on one side of the split, so they do no harm.",
        ),
        _groups(
            [group for group in report["near_duplicates"] if group not in told],
            "with near-duplicates",
            "Shots of one scene, or one image saved twice. They stay on one side of the split.",
        ),
        {
            "title": f"{len(report['odd_sizes']):,} of odd size",
            "meaning": "Much smaller or much longer than the others: check whether they belong.",
            "count": len(report["odd_sizes"]),
            "groups": [
                {"files": [{"name": item["name"], "label": f"{item['width']} × {item['height']}"}]}
                for item in report["odd_sizes"][:_GROUPS_SHOWN]
            ],
        },
    ]
    imbalance = report["imbalance"]
    if imbalance is None or imbalance >= 5:
        counts = {name: sum(sides.values()) for name, sides in report["classes"].items()}
        least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
        found.append(
            {
                "title": "Classes are imbalanced",
                "meaning": f"{counts[most]:,} of {most}, {counts[least]:,} of {least}: rare classes are "
                "recognised worse. Class weights are an option of the training.",
                "count": 1,
            }
        )
    return [each for each in found if each["count"]]


def _groups(groups: list[dict[str, Any]], title: str, meaning: str) -> dict[str, Any]:
    shown = [
        {
            "files": [
                {
                    "name": file["name"],
                    "label": " · ".join(str(part) for part in (file["label"], file["split"]) if part),
                }
                for file in group["files"][:_FILES_SHOWN]
            ],
            "more": max(0, len(group["files"]) - _FILES_SHOWN),
        }
        for group in groups[:_GROUPS_SHOWN]
    ]
    noun = "photograph" if len(groups) == 1 else "photographs"
    return {
        "title": f"{len(groups):,} {noun} {title}",
        "meaning": meaning,
        "count": len(groups),
        "groups": shown,
        "more": max(0, len(groups) - _GROUPS_SHOWN),
    }
