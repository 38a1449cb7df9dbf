"""The page of a job: progress, learning curve, time left; stop and continue."""

from __future__ import annotations

import time
from itertools import takewhile
from typing import Any

from fastapi import APIRouter, HTTPException, Request
from starlette.responses import RedirectResponse, Response

from headstart.runs.callbacks import Range
from headstart.runs.formatting import human_seconds
from headstart.studio.state import OWNER, JobOf, Live, Studio, StudioOf
from headstart.studio.templating import DOING, KINDS, page
from headstart.studio.workers import INTERRUPTED
from headstart.web.app import leave
from headstart.web.events import event, stream
from headstart.web.jobs import Job
from headstart.web.plots import learning_curve

router = APIRouter()

_SERIES = {
    "accuracy": "training",
    "validation_accuracy": "validation",
}


def curve(epochs: Any, *, tabled: bool = False) -> Any:
    """The learning curve of a run's or a job's epochs, see `learning_curve`."""
    entries = list(epochs)
    lines = {
        shown: [(entry["epoch"], 100 * entry[key]) for entry in entries if key in entry]
        for key, shown in _SERIES.items()
    }
    return learning_curve(lines, tabled=tabled)


def job_of(studio: Studio, kind: str, name: str) -> Job | None:
    """The newest job of a kind about a data set or run."""
    return studio.queue(kind).last(kind, name=name, learner=OWNER)


def told_of(job: Job | None) -> dict[str, Any]:
    """Template values for a page with a job on it: the job while it runs, or why it failed."""
    return {
        "job": job if job and not job.over else None,
        "failure": job.message if job and job.state == "failed" else "",
    }


def unfinished(studio: Studio) -> list[Job]:
    """Jobs that wait or run, then those that can be continued."""
    jobs = [job for queue in (studio.work, studio.looks) for job in queue.unfinished()]
    jobs = [job for job in jobs if job.learner == OWNER]
    for kind in ("fit", "compare"):
        settled: set[str] = set()  # what was begun again on the same photographs need not be gone on with
        for job in studio.work.history(kind, learner=OWNER, limit=10):
            if can_go_on(job) and job.name not in settled:
                jobs.append(job)
            settled.add(job.name)
    return jobs


def standing(job: Job) -> str:
    """A job's state; a job that its server's end cut off is "interrupted"."""
    if job.state == "failed" and job.message.startswith(INTERRUPTED):
        return "interrupted"
    return job.state


def can_go_on(job: Job) -> bool:
    """Whether a "continue" makes sense: what has been computed is in the feature cache."""
    return standing(job) in ("stopped", "interrupted")


@router.get("/jobs/{identity}")
def job_page(request: Request, studio: StudioOf, job: JobOf) -> Response:
    """One job: its progress while it runs; afterwards its result, or how it ended without one.

    A job may be done before the page that shall watch it is asked for.
    """
    if result := where(job):
        query = request.url.query  # what is told of a correction goes along
        return RedirectResponse(f"{result}?{query}" if query else result, 303)
    collection = studio.collections.get(str(job.body.get("data", job.name)))
    return page(
        request,
        "job.html",
        job=job,
        name=_named(studio, job),
        collection=collection,
        now=snapshot(studio, job),
        state=standing(job),
        goes_on=can_go_on(job),
    )


@router.post("/jobs/{identity}/stop")
def stop(request: Request, studio: StudioOf, job: JobOf) -> Response:
    """Asks a job to end; what has been computed is kept."""
    studio.queue(job.kind).stop(job.id)
    live = studio.live.get(job.id)
    if live is not None:
        live.stopping = True
    return leave(request, f"/jobs/{job.id}")


@router.post("/jobs/{identity}/continue")
def go_on(request: Request, studio: StudioOf, job: JobOf) -> Response:
    """Queues the same work once more; it finds everything that was computed in the feature cache."""
    if not can_go_on(job):
        raise HTTPException(409, "Only what was stopped or interrupted can go on.")
    again = studio.add(job.kind, name=job.name, body={**job.body, "continues": job.id})
    return leave(request, f"/jobs/{again.id}")


@router.get("/jobs/{identity}/events")
async def events(request: Request, studio: StudioOf, identity: str) -> Response:
    """How a job stands, whenever that changes. Each message is complete, so a lost one costs nothing."""
    said, job = "", studio.job(identity)

    def news() -> tuple[str, bool]:
        nonlocal said
        now = studio.job(job.id)
        before, said = said, event("state", snapshot(studio, now))
        return "" if said == before else said, now.over

    return stream(request, news)


def snapshot(studio: Studio, job: Job) -> dict[str, Any]:
    """Everything that a page shows of a job, as it stands now."""
    live = studio.live.get(job.id) or Live()
    elapsed = time.monotonic() - live.begun if job.id in studio.live else 0.0
    rows = phases(job, live)
    expected = live.expected
    return {
        "state": standing(job),
        "over": job.over,
        "text": studio.trouble if studio.trouble and not job.over else _text(studio, job, rows),
        "stopping": live.stopping,
        "phases": rows,
        "elapsed": _whole(elapsed) if elapsed >= 1 else "",
        "time": time_left(elapsed, expected) if job.state == "running" else "",
        "expected": str(expected) if expected else "",
        "curve": str(curve(live.epochs) or "") if not job.over else "",
        "where": where(job),
    }


def phases(job: Job, live: Live) -> list[dict[str, Any]]:
    """The phases so far, and what is being done after the last one that counts."""
    rows: list[dict[str, Any]] = [
        {"name": name, "text": DOING.get(name, name), "done": done, "of": of}
        for name, (done, of) in live.phases.items()
    ]
    if job.kind == "fit" and job.state == "running" and rows and rows[-1]["done"] >= rows[-1]["of"]:
        trains = "epochs" in live.phases
        following = "saving" if trains else "training"
        rows.append({"name": following, "text": DOING[following], "done": 0, "of": 0})
    return rows


def _text(studio: Studio, job: Job, rows: list[dict[str, Any]]) -> str:
    if job.state == "waiting":
        queue = studio.queue(job.kind).unfinished()
        ahead = list(takewhile(lambda each: each.id != job.id, queue))
        if not ahead:
            return "Waiting for its turn"
        return f"Waiting: {KINDS.get(ahead[0].kind, 'Work on').lower()} {_named(studio, ahead[0])} is running"
    if job.state == "running":
        if (studio.live.get(job.id) or Live()).stopping:
            return "Stopping at the next step; everything computed so far is kept"
        return str(rows[-1]["text"]) if rows else "Starting"
    if standing(job) == "interrupted":
        return "The server ended while this ran. What was computed is kept, and going on begins from there."
    return {"done": "Done", "stopped": "Stopped. Everything computed so far is kept."}.get(
        job.state, job.message
    )


def time_left(elapsed: float, expected: Range | None) -> str:
    """What a prediction says when so many seconds are over; empty without one."""
    if expected is None:
        return ""
    if elapsed <= expected.median:
        return f"about {_whole(max(1.0, expected.median - elapsed))} left"
    if elapsed <= expected.high:
        return f"up to {_whole(max(1.0, expected.high - elapsed))} more"
    return "longer than predicted: another program may be using the processor"


def _whole(seconds: float) -> str:
    """Whole seconds."""
    return f"{round(seconds)} s" if seconds < 120 else human_seconds(seconds)


def _named(studio: Studio, job: Job) -> str:
    """What a job is about, as people call it."""
    collection = studio.collections.get(str(job.body.get("data", job.name)))
    return str(collection.name if collection else job.body.get("title", job.name))


def where(job: Job) -> str:
    """Where a job's result is shown; empty while there is none."""
    if job.state != "done":
        return ""
    found = {
        "check": f"/data/{job.name}",
        "plan": f"/data/{job.name}/plan",
        "group": f"/data/{job.name}/groups",
        "amounts": f"/runs/{job.name}",
        "fit": f"/runs/{job.result.get('run')}",
        "compare": f"/comparisons/{job.result.get('comparison')}",
        "export": f"/runs/{job.name}/export",
        "rank": f"/runs/{job.name}/label/{job.id}",
        "predict": f"/runs/{job.name}/predictions/{job.id}",
    }
    return found.get(job.kind, "/")
