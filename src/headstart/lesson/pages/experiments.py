"""Pages of the experiments: results, running them, live progress."""

from __future__ import annotations

import re
import secrets
import shutil
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Header, HTTPException, Request
from starlette.datastructures import FormData, UploadFile
from starlette.responses import Response

from headstart.errors import HeadstartError, OptionError
from headstart.lesson.engine.pack import Experiment
from headstart.lesson.pages.challenges import EXPERIMENT, shown_to
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import page, quoted_in
from headstart.web.app import FormOf, files_of, leave, text_of
from headstart.web.events import event, stream
from headstart.web.jobs import EVERYONE, WAITING_JOBS, Event, Job, Tell
from headstart.web.plots import learning_curve
from headstart.web.security import SessionOf

router = APIRouter()

KIND = EXPERIMENT
"""The kind of these pages' jobs."""

WAITING_EACH = 3
"""How many experiments each learner of a class may have waiting."""

LONGEST_GUESS = 60
"""Characters of what a learner expects of an experiment."""

QUICK_SECONDS = 15.0
"""What an experiment may take to run without being asked for."""

_TEACHERS = "Your teacher runs the experiments, once for all."

_LOCAL = re.compile(r"(/[a-z0-9-]+)+(\?[\w.=&-]*)?")
"""Addresses of this lesson's pages."""


async def _experiment(site: SiteOf, name: str) -> Experiment:
    if name not in site.pack.experiments:
        raise HTTPException(404)
    return site.pack.experiments[name]


async def _job(site: SiteOf, session: SessionOf, identity: str) -> Job:
    job = site.jobs.get(identity)
    if job is None or job.learner not in (session.learner, EVERYONE):
        raise HTTPException(404)
    return job


ExperimentOf = Annotated[Experiment, Depends(_experiment)]
JobOf = Annotated[Job, Depends(_job)]


@router.get("/experiments")
async def list_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Every experiment that the lesson's claims rest on."""
    rows, shown = [], shown_to(site, session.learner)
    for name, entry in site.pack.experiments.items():
        result = shown.latest(name)
        job = site.jobs.last(KIND, name=name, learner=session.learner)
        rows.append(
            {
                "name": name,
                "title": entry.heading,
                "shows": entry.shows,
                "result": result,
                "reference": shown.reference(name),
                "about": site.catalogue.about(name),
                "held": name in shown.held,
                "job": None if job is None or job.over else job,
                "failed": job is not None and job.state == "failed",
            }
        )
    return page(
        request,
        "experiments.html",
        rows=rows,
        waiting=sum(row["job"] is not None for row in rows),
        can_run=bool(site.catalogue.known()),
        missing=missing_for(site, session.learner),
        job=first_running(site, session.learner),
    )


@dataclass(frozen=True)
class Missing:
    """What has not been measured on this machine.

    Attributes:
        names: experiments that could run, the quickest first.
        quick: those of them that take less than `QUICK_SECONDS`.
        seconds: that they will take together.
        measured: how many others have run.
        lacking: how many cannot run without an optional part.
        extras: the parts to install for these.
    """

    names: tuple[str, ...]
    quick: tuple[str, ...]
    seconds: float
    measured: int
    lacking: int
    extras: tuple[str, ...]

    @property
    def time(self) -> str:
        """The seconds as people say them."""
        minutes = self.seconds / 60
        return "less than a minute" if minutes < 0.75 else f"about {max(1, round(minutes))} min"

    @property
    def what(self) -> str:
        """What a button that runs them all says of them."""
        count = len(self.names)
        if self.measured:
            return f"the other {count}" if count > 1 else "the last one"
        return f"the {count} that can run here" if self.lacking else "everything"


def missing(site: LessonSite) -> Missing:
    """What has not been measured on this machine: what could be, and what needs an optional part first."""
    found: dict[str, float] = {}
    measured, extras = 0, []
    for name in site.pack.experiments:
        if site.catalogue.latest(name, as_declared=True):
            measured += 1
        elif about := site.catalogue.about(name):
            if about.missing:
                extras.append(about.missing)
            else:
                found[name] = sum(about.predicted_range) / 2
    together = sum(found.values())
    quickest_first = tuple(sorted(found, key=lambda name: found[name]))
    quick = tuple(name for name in quickest_first if found[name] < QUICK_SECONDS)
    return Missing(quickest_first, quick, together, measured, len(extras), tuple(sorted(set(extras))))


def missing_for(site: LessonSite, learner: str) -> Missing:
    """The same for a page of a learner: a class measures what its teacher asks for."""
    found = missing(site)
    return found if site.standing(learner) is None else replace(found, names=(), quick=())


def first_running(site: LessonSite, learner: str) -> Job | None:
    """The learner's experiment whose turn it is, or the first that waits."""
    own = (job for job in _unfinished(site, learner) if job.name in site.pack.experiments)
    return next(own, None)


def _unfinished(site: LessonSite, learner: str) -> list[Job]:
    """Experiments that wait or run, the learner's and shared ones, in the order of their turns."""
    own = (learner, EVERYONE)
    return [job for job in site.jobs.unfinished() if job.kind == KIND and job.learner in own]


@router.post("/experiments")
def run_missing(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Queues every experiment that has not run on this machine; what somebody asks for goes before them."""
    if site.standing(session.learner) is not None:
        raise HTTPException(403, _TEACHERS)
    for name in missing(site).names:
        site.jobs.add(KIND, name=name, learner=EVERYONE, asker=session.learner, urgent=False)
    return leave(request, "/experiments")


def measure_quick(site: LessonSite) -> None:
    """Queues the quick experiments that have never been tried here, on a machine of one's own."""
    if site.learner is None:
        return
    for name in missing(site).quick:
        if site.jobs.last(KIND, name=name, learner=site.learner) is None:
            site.jobs.add(KIND, name=name, learner=EVERYONE, asker=site.learner, urgent=False)


@router.get("/experiments/{name}")
def experiment_page(request: Request, site: SiteOf, session: SessionOf, one: ExperimentOf) -> Response:
    """One experiment: what it shows, its newest result, a button to run it, and live progress."""
    name = one.name
    shown = shown_to(site, session.learner)
    result = shown.latest(name)
    return page(
        request,
        "experiment.html",
        experiment=one,
        about=site.catalogue.about(name),
        result=result,
        reference=shown.reference(name),
        quoted_in=quoted_in(site.pack, name),
        job=site.jobs.running(KIND, name=name, learner=session.learner),
        held=name in shown.held,
        ended=_ended(site, session.learner, name),
        guess=site.store.guess(session.learner, site.pack.slug, experiment=name) if one.guess else "",
        local=site.learner is not None,
    )


def serve(site: LessonSite) -> None:
    """Lets the queue of a site run experiments."""

    def work(job: Job, tell: Tell) -> dict[str, str]:
        source = job.body.get("source")
        try:
            with site.waiting.timed(job):
                result = site.catalogue.run(
                    job.name, parameters=job.body.get("parameters", {}), source=source, progress=tell
                )
        finally:
            if source and Path(source).is_relative_to(_sent(site)):
                shutil.rmtree(Path(source).parent, ignore_errors=True)
        return {"result": str(getattr(result, "id", ""))}

    site.jobs.serve(KIND, work)


def _ended(site: LessonSite, learner: str, name: str) -> str:
    """What became of the last run where it gave no result."""
    last = site.jobs.last(KIND, name=name, learner=learner)
    if last is None or last.state not in ("failed", "stopped"):
        return ""
    return f"failed: {last.message}" if last.state == "failed" else "was stopped."


@router.post("/experiments/{name}/run")
def run(request: Request, site: SiteOf, session: SessionOf, one: ExperimentOf, form: FormOf) -> Response:
    """Queues a run, on the learner's own images where a folder is named or sent (on a machine of one's own).

    Values that were changed come in fields `set-NAME`, the page to go back to in `at`. A run on the lesson's
    images is everybody's: who asks for the same one waits for it, and a class shares what comes.
    """
    if not site.may_run(session.learner):
        raise HTTPException(403, _TEACHERS)
    source, sent = text_of(form, "folder").strip(), files_of(form)
    if (source or sent) and site.learner is None:
        raise HTTPException(403, "Folders can only be named on a machine of one's own.")
    if source and not Path(source).expanduser().exists():
        raise OptionError(f"{source}: no such folder; expected one folder of images per class in it")
    if one.name not in site.catalogue.known():
        raise OptionError(f"experiment {one.name!r} cannot run here: it is not part of this installation")
    body: dict[str, Any] = {"source": str(Path(source).expanduser())} if source else {}
    if changed := _changed(site, one.name, form):
        body["parameters"] = changed
    if sent:
        body["source"] = str(_kept(site, sent))
    site.jobs.add(
        KIND,
        name=one.name,
        learner=session.learner if "source" in body else EVERYONE,
        body=body,
        asker=session.learner,
        most=WAITING_JOBS if site.learner else WAITING_EACH,
    )
    if one.guess and (guess := " ".join(text_of(form, "guess").split())[:LONGEST_GUESS]):
        site.store.log_guess(
            session.learner, site.pack.slug, experiment=one.name, guess=guess, now=site.clock()
        )
    at = text_of(form, "at")
    return leave(request, at if _LOCAL.fullmatch(at) else f"/experiments/{one.name}")


def _kept(site: LessonSite, sent: list[UploadFile]) -> Path:
    """Photographs or a zip that the browser sent, on the disk until their experiment has run.

    Raises DatasetError or OptionError for what is none.
    """
    from headstart.web import uploads

    waiting = [str(job.body.get("source", "")) for job in site.jobs.unfinished()]
    for left in _sent(site).glob("*"):  # of experiments that were stopped before they began
        if not any(source.startswith(str(left)) for source in waiting):
            shutil.rmtree(left, ignore_errors=True)
    folder = _sent(site) / secrets.token_hex(8) / uploads.name_of(sent)
    try:
        if uploads.is_zip(sent):
            return uploads.store_zip(sent[0], folder.with_name(f"{folder.name}.zip"))
        uploads.store_photographs(sent, folder)
    except HeadstartError:
        shutil.rmtree(folder.parent, ignore_errors=True)
        raise
    return folder


def _sent(site: LessonSite) -> Path:
    return site.home / "lesson" / "sent"


def _changed(site: LessonSite, name: str, form: FormData) -> dict[str, object]:
    """The values that differ from what the experiment declares, checked."""
    changed: dict[str, object] = {}
    for parameter in getattr(site.catalogue.about(name), "parameters", ()):
        text = text_of(form, f"set-{parameter.name}").strip()
        if text and text != str(parameter.normal if parameter.normal is not None else ""):
            if parameter.names_network and site.learner is None:
                raise HTTPException(403, "Networks can only be named on a machine of one's own.")
            changed[parameter.name] = parameter.read(text)
    return changed


@router.post("/experiments/stop")
def stop_all(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """Stops the learner's running experiment, and those that wait."""
    waiting_first = reversed(_unfinished(site, session.learner))  # so that none of them begins meanwhile
    for job in waiting_first:
        if site.may_stop(job, session.learner):
            site.jobs.stop(job.id)
    return leave(request, "/experiments")


@router.post("/jobs/{identity}/stop")
def stop(
    request: Request, site: SiteOf, session: SessionOf, job: JobOf, at: Annotated[str, Form()] = "/"
) -> Response:
    """Stops a job of the learner's: at once where it waits, at its next sign of progress where it runs.

    `at` is the page to go back to.
    """
    if not site.may_stop(job, session.learner):
        raise HTTPException(403, "Others wait for this experiment too.")
    site.jobs.stop(job.id)
    return leave(request, at if _LOCAL.fullmatch(at) else "/")


@router.get("/jobs/{identity}/events")
async def events(
    request: Request,
    site: SiteOf,
    session: SessionOf,
    job: JobOf,
    last_event_id: Annotated[str, Header()] = "0",
) -> Response:
    """A job's events as they come; after a broken connection, those that the browser has not seen."""
    seen = int(last_event_id) if last_event_id.isascii() and last_event_id.isdigit() else 0
    place = ""

    def news() -> tuple[str, bool]:
        nonlocal seen, place
        now = site.jobs.get(job.id)
        over = now is None or now.over  # asked before the events, so that the last one is never missed
        found = site.jobs.events(job.id, after=seen)
        seen += len(found)
        said = [event(one.kind, one.data, number=one.number) for one in found]
        if now is not None and now.state == "waiting" and (before := site.waiting.text(now)) != place:
            place = before
            said.append(event("place", {"text": place}))
        if (
            any("reached" in one.data for one in found)
            and job.name not in shown_to(site, session.learner).held
        ):
            said.append(event("curve", {"svg": curve_of(site.jobs.events(job.id))}))
        return "".join(said), over

    return stream(request, news)


def curve_of(events: Iterable[Event]) -> str:
    """What a running experiment's trainings have reached after each epoch, as SVG; empty before two."""
    lines: dict[str, list[tuple[float, float]]] = {}
    for one in events:
        if one.kind == "running":
            lines.clear()  # begun again
        elif one.kind == "progress" and "reached" in one.data:
            line = lines.setdefault(str(one.data["text"]), [])
            if line and one.data["done"] <= line[-1][0]:
                line.clear()  # another training of that name
            line.append((one.data["done"], one.data["reached"]))
    return str(learning_curve(lines) or "")
