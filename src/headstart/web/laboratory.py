"""Experiments: what each shows, its newest result, and a run that can be watched live."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated

from fastapi import APIRouter, Form, Header, HTTPException, Request
from starlette.responses import Response, StreamingResponse

from headstart.errors import OptionError
from headstart.web.drawing import draw
from headstart.web.jobs import Job, Jobs, Tell
from headstart.web.rendering import leave, page
from headstart.web.security import SessionOf, SiteOf
from headstart.web.site import Site

router = APIRouter()

KIND = "experiment"
"""This room's jobs."""

LOOK_SECONDS = 0.2
"""How often a stream looks for news."""

QUIET_SECONDS = 15.0
"""After how long a silent stream says that it is alive, so that nobody between takes it for dead."""


@router.get("/experiments")
def list_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Every experiment that the lesson's claims rest on."""
    rows = [
        {
            "name": name,
            "shows": entry.shows,
            "result": site.evidence.latest(name),
            "job": site.jobs.running(KIND, name=name, learner=session.learner),
        }
        for name, entry in site.pack.experiments.items()
    ]
    return page(request, "experiments.html", rows=rows, can_run=bool(site.evidence.known()))


@router.get("/experiments/{name}")
def experiment_page(request: Request, site: SiteOf, session: SessionOf, name: str) -> Response:
    """One experiment: what it shows, its newest result, a button to run it, and live progress."""
    if name not in site.pack.experiments:
        raise HTTPException(404)
    result = site.evidence.latest(name)
    return page(
        request,
        "experiment.html",
        experiment=site.pack.experiments[name],
        about=site.evidence.about(name),
        result=result,
        plots=[(plot, draw(plot)) for plot in result.plots] if result else [],
        job=site.jobs.running(KIND, name=name, learner=session.learner),
        failure=_failure(site, session.learner, name),
        local=site.learner is not None,
    )


def serve(site: Site) -> None:
    """Lets the queue of a site run experiments."""

    def work(job: Job, tell: Tell) -> dict[str, str]:
        result = site.evidence.run(job.name, parameters={}, source=job.body.get("source"), progress=tell)
        return {"result": str(getattr(result, "id", ""))}

    site.jobs.serve(KIND, work)


def _failure(site: Site, learner: str, name: str) -> str:
    last = site.jobs.last(KIND, name=name, learner=learner)
    return last.message if last and last.state == "failed" else ""


@router.post("/experiments/{name}/run")
def run(
    request: Request,
    site: SiteOf,
    session: SessionOf,
    name: str,
    folder: Annotated[str, Form()] = "",
) -> Response:
    """Queues a run, on the learner's own images where a folder is named (on a machine of one's own only)."""
    if name not in site.pack.experiments:
        raise HTTPException(404)
    source = folder.strip() or None
    if source and site.learner is None:
        raise HTTPException(403, "Folders can only be named on a machine of one's own.")
    if source and not Path(source).expanduser().exists():
        raise OptionError(f"{source}: no such folder; expected one folder of images per class in it")
    if name not in site.evidence.known():
        raise OptionError(f"experiment {name!r} cannot run here: it is not part of this installation")
    body = {"source": str(Path(source).expanduser())} if source else {}
    site.jobs.add(KIND, name=name, learner=session.learner, body=body)
    return leave(request, f"/experiments/{name}")


@router.get("/jobs/{identity}/events")
async def events(
    request: Request,
    site: SiteOf,
    session: SessionOf,
    identity: str,
    last_event_id: Annotated[str, Header()] = "0",
) -> Response:
    """A job's events as they come; after a broken connection, those that the browser has not seen."""
    job = site.jobs.get(identity)
    if job is None or job.learner != session.learner:
        raise HTTPException(404)
    seen = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else 0
    headers = {"x-accel-buffering": "no"}
    return StreamingResponse(
        _stream(request, site.jobs, identity, seen), media_type="text/event-stream", headers=headers
    )


async def _stream(request: Request, jobs: Jobs, identity: str, seen: int) -> AsyncIterator[str]:
    quiet = 0.0
    yield "retry: 1000\n\n"
    while not await request.is_disconnected():
        job = jobs.get(identity)
        over = job is None or job.over  # asked before the events, so that the last one is never missed
        news = jobs.events(identity, after=seen)
        for event in news:
            yield f"id: {event.number}\nevent: {event.kind}\ndata: {json.dumps(event.data)}\n\n"
        seen += len(news)
        if over:
            return
        quiet = 0.0 if news else quiet + LOOK_SECONDS
        if quiet > QUIET_SECONDS:
            quiet = 0.0
            yield ": still here\n\n"
        await asyncio.sleep(LOOK_SECONDS)
