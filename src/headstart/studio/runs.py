"""Pages of runs, reports and comparisons."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Form, Query, Request
from starlette.responses import HTMLResponse, Response

from headstart.comparisons import Comparison, compare_runs, summaries
from headstart.errors import OptionError, RunError
from headstart.heads.tasks import SINGLE_LABEL
from headstart.reports import report
from headstart.reports.run_facts import run_facts
from headstart.runs import Run, read_predictions
from headstart.studio import image_answers, predictions
from headstart.studio.jobs import curve
from headstart.studio.labels import corrected
from headstart.studio.learning_amounts import amounts
from headstart.studio.run_names import Family, families
from headstart.studio.state import AnyRunOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.web.app import leave

router = APIRouter()

_REPORT_POLICY = (
    "sandbox allow-same-origin allow-popups; default-src 'none'; img-src data:; style-src 'unsafe-inline'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""A report is one file with its styles inside: it may show itself and nothing else, and runs no script."""

MOST_COMPARED = 12

_MOST_PAGES = 1_000_000


@router.get("/runs")
def runs_page(request: Request, studio: StudioOf, number: int = 1, find: str = "") -> Response:
    """Every run on this machine, wherever it was started, a page at a time; and the newest comparisons."""
    number = min(max(number, 1), _MOST_PAGES)
    runs, more = studio.runs.page(number - 1, contains=find)
    if number == 1 and not find:
        pinned = studio.run_names.pinned()
        runs = [*_those(studio, pinned), *(run for run in runs if run.id not in pinned)]
    return page(
        request,
        "runs.html",
        runs=families(runs),
        number=number,
        more=more,
        find=find,
        comparisons=studio.comparisons() if number == 1 and not find else [],
    )


def _those(studio: Studio, identities: list[str]) -> list[Run]:
    """The runs of these ids that are still there and can be read."""
    found = []
    for identity in identities:
        with suppress(RunError):
            found += [run] if (run := studio.runs.get(identity)) else []
    return found


@router.get("/runs/{identity}")
def run_page(request: Request, studio: StudioOf, run: AnyRunOf) -> Response:
    """A run: how good, how sure, what it took, its mistakes with a way to put labels right."""
    pinned = run.id in studio.run_names.pinned()
    if run.config.task != SINGLE_LABEL:
        return page(request, "run_plain.html", run=run, facts=run_facts(run), pinned=pinned)
    from headstart.training.depth_choice import HEAD_KEPT

    corrections = corrected(run)
    facts = run_facts(run, looked_at=corrections["looked_at"] if corrections else ())
    facts["scores"].sort(key=lambda found: found["split"] != "test")
    not_kept = next((note for note in run.notes if note.startswith(HEAD_KEPT)), "")
    return page(
        request,
        "run.html",
        run=run,
        pinned=pinned,
        facts=facts,
        not_kept=not_kept.removeprefix(HEAD_KEPT),
        curve=curve(run.history, tabled=True),
        corrections=corrections,
        more=amounts(studio, run),
    )


@router.post("/runs/{identity}/name")
def give_name(
    request: Request,
    studio: StudioOf,
    run: AnyRunOf,
    name: Annotated[str, Form()] = "",
    pinned: Annotated[bool, Form()] = False,
) -> Response:
    """Names the run, and pins it to the top of the list."""
    studio.run_names.give(run.id, name=name, pinned=pinned)
    return leave(request, f"/runs/{run.id}")


@router.post("/runs/{identity}/remove")
def remove(
    request: Request, studio: StudioOf, run: AnyRunOf, sure: Annotated[bool, Form()] = False
) -> Response:
    """Deletes a run's folder, with the classifier and its exports; features and corrections stay."""
    if not sure:
        raise OptionError("nothing was deleted; tick the box to delete this run")
    studio.servings.stop(run.id)
    predictions.forget(studio, run)
    with studio.turn:
        shutil.rmtree(run.path)
    studio.run_names.give(run.id, name="", pinned=False)
    return leave(request, "/runs")


@router.get("/runs/{identity}/picture/{content}")
def picture(run: AnyRunOf, content: str, side: int = 256) -> Response:
    """An image of a run, small, where it still is what it was."""
    image = image_answers.image_of(run, content)
    return image_answers.answer(image_answers.remembered(image) if image else None, side=side)


@router.get("/runs/{identity}/report")
def report_page(studio: StudioOf, run: AnyRunOf) -> Response:
    """The run's report, as a page of its own with the way back."""
    at = f"/runs/{run.id}"
    download = (f"{at}/report.html", "Download the report")
    return _rendered(studio, run, places=[("/runs", "Runs"), (at, "Result"), download])


@router.get("/runs/{identity}/report.html")
def report_file(studio: StudioOf, run: AnyRunOf) -> Response:
    """The report as a file."""
    answer = _rendered(studio, run)
    answer.headers["content-disposition"] = f'attachment; filename="{run.id}.html"'
    return answer


def _rendered(studio: Studio, thing: Run | Comparison, *, places: Sequence[tuple[str, str]] = ()) -> Response:
    with studio.turn:  # matplotlib is not made for several threads
        text = report(thing).html(explain=True, places=places)
    return HTMLResponse(text, headers={"content-security-policy": _REPORT_POLICY})


# Comparisons ------------------------------------------------------------------------------------------------


@router.get("/compare")
def compare_page(
    request: Request, studio: StudioOf, run: Annotated[list[str] | None, Query()] = None
) -> Response:
    """Saved runs side by side; they must have been measured on the same split."""
    runs = [studio.run(identity) for identity in (run or [])[:MOST_COMPARED]]
    groups = _by_split(runs)
    if len(groups) > 1:
        several = [group for group in groups if len(group) > 1]
        single = [group[0] for group in groups if len(group) == 1]
        return page(
            request,
            "splits.html",
            status=400,
            groups=[[Family(run) for run in group] for group in several],
            single=[Family(run) for run in single],
        )
    comparison = compare_runs(runs)
    frame = "/compare/report.html?" + "&".join(f"run={each.id}" for each in runs)
    return _comparison_page(request, comparison, frame=frame)


def _by_split(runs: list[Run]) -> list[list[Run]]:
    """Runs that were judged by the same photographs with the same labels, the largest group first."""
    groups: dict[str, list[Run]] = {}
    for each in runs:
        groups.setdefault(str(read_predictions(each.path)["split"]), []).append(each)
    return sorted(groups.values(), key=len, reverse=True)


@router.get("/compare/report.html")
def compared_file(studio: StudioOf, run: Annotated[list[str] | None, Query()] = None) -> Response:
    """The report on saved runs."""
    found = compare_runs([studio.run(each) for each in (run or [])[:MOST_COMPARED]])
    back = "/compare?" + "&".join(f"run={each}" for each in (run or [])[:MOST_COMPARED])
    return _rendered(studio, found, places=[("/runs", "Runs"), (back, "Comparison")])


@router.get("/comparisons/{identity}")
def comparison_page(request: Request, studio: StudioOf, identity: str) -> Response:
    """A saved comparison."""
    comparison = studio.comparison(identity)
    return _comparison_page(request, comparison, frame=f"/comparisons/{comparison.id}/report.html")


@router.get("/comparisons/{identity}/report.html")
def comparison_file(studio: StudioOf, identity: str) -> Response:
    """Its report."""
    found = studio.comparison(identity)
    return _rendered(studio, found, places=[("/runs", "Runs"), (f"/comparisons/{found.id}", "Comparison")])


def _comparison_page(request: Request, comparison: Comparison, *, frame: str) -> Response:
    rows = summaries(comparison)
    return page(
        request,
        "comparison.html",
        comparison=comparison,
        rows=rows,
        chosen=comparison.choice.candidate.name if comparison.choice else "",
        slowest=max(row.seconds for row in rows),
        frame=frame,
    )


@router.post("/compare")
def choose_runs(
    request: Request, studio: StudioOf, run: Annotated[list[str] | None, Form()] = None
) -> Response:
    """From ticked rows to an address that can be kept."""
    chosen = [each.id for each in map(studio.run, run or [])]
    return leave(request, "/compare?" + "&".join(f"run={each}" for each in chosen))
