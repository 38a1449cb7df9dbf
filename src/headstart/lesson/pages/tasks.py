"""Pages of the hands-on tasks and the project.

What a learner tried and which hints were asked for is in the log; hints, mistakes and the solution come from
`Task.public_view`, which gives them no earlier than the learner may see them.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import APIRouter, Depends, HTTPException, Request
from starlette.responses import JSONResponse, Response

from headstart.errors import LessonError
from headstart.lesson.engine.pack import Control, Goal, Task
from headstart.lesson.engine.progress import Line
from headstart.lesson.pages.challenges import shown_to
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import inline, markdown, page, parts_of
from headstart.runs.formatting import seconds_range
from headstart.web.app import FormOf, leave, text_of
from headstart.web.jobs import Job, Tell
from headstart.web.plots import Plot
from headstart.web.security import SessionOf

router = APIRouter()

KIND = "try"
"""The kind of these pages' jobs, with the lesson's slug behind it; earlier versions left that out."""

LONGEST_WHY = 300
"""Letters of the sentence that a project asks for."""

FORECAST = "Predicted with these values: {} s"

_queueing = threading.Lock()
"""Held from asking whether a task runs until it is queued, so that two forms queue it once."""

RELATIONS = {"at_least": "at least", "at_most": "at most", "above": "above", "below": "below"}


@router.get("/modes/try")
async def try_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """The five tasks and how each stands."""
    return _list_page(request, site, session.learner, "try")


@router.get("/modes/project")
async def project_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """The project and how it stands."""
    return _list_page(request, site, session.learner, "project")


def _list_page(request: Request, site: LessonSite, learner: str, name: str) -> Response:
    if name not in {mode.name for mode in site.pack.modes}:
        raise HTTPException(404)
    mode, results = site.pack.mode(name), shown_to(site, learner).results()
    return page(
        request,
        "tasks.html",
        mode=mode,
        parts=parts_of(mode, results),
        tasks=[
            {"task": task, "lacks": _lacks(site, task), **_standing(_log(site, learner, task), task)}
            for task in _tasks(site)[name]
        ],
    )


def _task(site: LessonSite, slug: str) -> Task:
    found = _find(site, slug)
    if found is None:
        raise HTTPException(404)
    return found


def _find(site: LessonSite, slug: str) -> Task | None:
    tasks = (task for some in _tasks(site).values() for task in some)
    return next((task for task in tasks if task.slug == slug), None)


async def _task_of(site: SiteOf, slug: str) -> Task:
    return _task(site, slug)


TaskOf = Annotated[Task, Depends(_task_of)]


@router.get("/tasks/{slug}")
async def task_page(request: Request, site: SiteOf, session: SessionOf, task: TaskOf) -> Response:
    """One task: goals, controls, what earlier tries gave, hints asked for."""
    log = _log(site, session.learner, task)
    standing = _standing(log, task)
    shown = shown_to(site, session.learner)
    results, held = shown.results(), task.experiment in shown.held
    view = task.public_view(hints_taken=standing["hints"], done=standing["done"])
    last = log["try"][-1] if log["try"] else None
    controls = [_shown(control, last) for control in task.controls]
    return page(
        request,
        "task.html",
        task=task,
        text=markdown(task.text, results),
        hints=[inline(text, results) for text in view["hints"]],
        hints_left=view["hints_left"],
        mistakes=[inline(text, results) for text in view.get("mistakes", ())],
        solution=markdown(view.get("solution", ""), results),
        goals=[_goal(site, task, goal, None if held else last) for goal in task.goals],
        controls=controls,
        tries=[] if held else log["try"],
        held=held,
        standing=standing,
        job=_job(site, session.learner, task),
        last_job=site.jobs.last(_kind(site), name=task.slug, learner=session.learner),
        about=site.catalogue.about(
            task.experiment, parameters={one["control"].name: one["value"] for one in controls}
        ),
        asks_why=task is site.pack.project,
        measures=_measures(site, task),
        changed=[] if held else [_plots(site, one) for one in reversed(log["try"][-2:])],
    )


@router.get("/tasks/{slug}/forecast")
def forecast(request: Request, site: SiteOf, task: TaskOf) -> Response:
    """What a run would take with the values in the query, for the page's script."""
    given = request.query_params
    values = {one.name: _value(one, given.get(one.name, str(one.start))) for one in task.controls}
    about = site.catalogue.about(task.experiment, parameters=values)
    return JSONResponse({"text": FORECAST.format(seconds_range(about.predicted_range)) if about else ""})


@dataclass(frozen=True)
class Reached:
    """How the tasks of a mode stand: how many are reached, and how many are over, reached or not."""

    reached: int
    over: int
    of: int


def reached(site: LessonSite, learner: str, mode: str, *, lines: Sequence[Line]) -> Reached | None:
    """How far a learner has come in the tasks or the project; None for any other mode.

    ``lines`` are all of the learner's: the first page has read them already.
    """
    tasks = _tasks(site).get(mode)
    if tasks is None:
        return None
    standings = [_standing(_sorted(lines, _stream(site, learner, task)), task) for task in tasks]
    return Reached(
        sum(one["reached"] for one in standings), sum(one["done"] for one in standings), len(tasks)
    )


def _tasks(site: LessonSite) -> dict[str, tuple[Task, ...]]:
    project = (site.pack.project,) if site.pack.project else ()
    return {"try": site.pack.tasks, "project": project}


def _lacks(site: LessonSite, task: Task) -> str:
    """The extra to install before a task can run, or empty."""
    about = site.catalogue.about(task.experiment)
    return about.missing if about else ""


def _measures(site: LessonSite, task: Task) -> list[tuple[str, str]]:
    """(field, its meaning) of what the goals look at, each once."""
    meaning = site.pack.experiments[task.experiment].fields
    names = [name for goal in task.goals for name in (goal.field, goal.of) if name]
    return [(name, meaning.get(name, name)) for name in dict.fromkeys(names)]


def _plots(site: LessonSite, one: dict[str, Any]) -> Sequence[Plot]:
    """Of a try's result, where it is still on this machine."""
    result = site.catalogue.find(one.get("result", ""))
    return result.plots if result else ()


@router.post("/tasks/{slug}/hint")
def hint(request: Request, site: SiteOf, session: SessionOf, task: TaskOf) -> Response:
    """Shows one more hint."""
    log = _log(site, session.learner, task)
    taken, resets = len(log["hint"]), len(log["reset"])
    if taken < len(task.hints):
        key = f"hint-{taken + 1}" + (f"-{resets}" if resets else "")
        _write(site, session.learner, task, "hint", {"number": taken + 1}, key=key)
    return leave(request, f"/tasks/{task.slug}")


@router.post("/tasks/{slug}/reset")
def reset(request: Request, site: SiteOf, session: SessionOf, task: TaskOf) -> Response:
    """Begins a task anew: every try and every hint is there again, and new images are drawn."""
    log = _log(site, session.learner, task)
    if log["try"] or log["hint"]:
        _write(site, session.learner, task, "reset", {}, key=f"reset-{len(log['reset']) + 1}")
    return leave(request, f"/tasks/{task.slug}")


@router.post("/tasks/{slug}/run")
def run(request: Request, site: SiteOf, session: SessionOf, task: TaskOf, form: FormOf) -> Response:
    """Queues a run with the learner's values; it becomes a try when it has ended."""
    values = {control.name: _value(control, text_of(form, control.name)) for control in task.controls}
    why = " ".join(text_of(form, "why").split())[:LONGEST_WHY]
    if task is site.pack.project and not why:
        raise HTTPException(400, "Say in one sentence why you chose these values; go back and try again.")
    standing = _standing(_log(site, session.learner, task), task)
    if standing["done"] and not standing["reached"]:
        raise HTTPException(409, "Every try of this task is used; begin the task anew for more.")
    if task.experiment not in site.catalogue.known():
        raise HTTPException(409, f"Experiment {task.experiment} is not part of this installation.")
    with _queueing:
        if _job(site, session.learner, task) is None:
            body = {"parameters": values, "why": why}
            site.jobs.add(_kind(site), name=task.slug, learner=session.learner, body=body)
    return leave(request, f"/tasks/{task.slug}")


def serve(site: LessonSite) -> None:
    """Lets the queue of a site run tasks; what has run becomes a try in the learner's log, once.

    The seed of a try is its number, those before a reset included, so that each draws its images anew; digits
    come from one pool, and some return. A try that missed while other work kept the machine busy is not
    charged.
    """

    def work(job: Job, tell: Tell) -> None:
        task = _find(site, job.name)
        if task is None:
            raise LessonError(f"{site.pack.title} has no task {job.name!r}")
        values = job.body["parameters"]
        log = _log(site, job.learner, task)
        seed = len(log["earlier"]) + len(log["try"]) + 1
        with site.waiting.timed(job):
            result = site.catalogue.run(task.experiment, parameters=values, seed=seed, progress=tell)
        fields = dict(result.fields)
        body = {"parameters": values, "fields": fields, "reached": _reached(task, fields), "seed": seed}
        body |= {"result": str(getattr(result, "id", "")), "seconds": result.seconds}
        body["free"] = bool(getattr(result, "busy", False)) and not body["reached"]
        if predicted := getattr(result, "predicted", None):
            body["predicted"] = [predicted["low"], predicted["high"]]
        if job.body.get("why"):
            body["why"] = job.body["why"]
        _write(site, job.learner, task, "try", body, key=job.id)

    site.jobs.serve(_kind(site), work)
    if not site.at and any(job.kind == KIND and _find(site, job.name) for job in site.jobs.unfinished()):
        site.jobs.serve(KIND, work)


def _kind(site: LessonSite) -> str:
    """Of the lesson's jobs: two lessons may have tasks of the same name, and servers of their own."""
    return f"{KIND} {site.pack.slug}"


def _stream(site: LessonSite, learner: str, task: Task) -> str:
    return f"task:{site.pack.slug}:{task.slug}:{learner}"


def _log(site: LessonSite, learner: str, task: Task) -> dict[str, list[dict[str, Any]]]:
    stream = _stream(site, learner, task)
    return _sorted(site.store.lines(stream, learner=learner), stream)


def _sorted(lines: Sequence[Line], stream: str) -> dict[str, list[dict[str, Any]]]:
    """What a task's log holds since it was last begun anew, by kind; and the tries of before."""
    log: dict[str, list[dict[str, Any]]] = {"hint": [], "try": [], "reset": [], "earlier": []}
    for line in lines:
        if line.stream == stream:
            log[line.kind].append({"free": False, **line.body})  # tries of before do not say
            if line.kind == "reset":
                log |= {"hint": [], "try": [], "earlier": log["earlier"] + log["try"]}
    return log


def _write(site: LessonSite, learner: str, task: Task, kind: str, body: dict[str, Any], *, key: str) -> None:
    site.store.append(Line(_stream(site, learner, task), learner, kind, site.clock(), body, key))


def _standing(log: dict[str, list[dict[str, Any]]], task: Task) -> dict[str, Any]:
    """How a task stands; runs after the first try that reached it are free, and those that were disturbed."""
    charged = [one for one in log["try"] if not one.get("free")]
    first = next((number for number, one in enumerate(charged, 1) if one["reached"]), None)
    reached, used = first is not None, first or len(charged)
    return {
        "hints": len(log["hint"]),
        "used": used,
        "reached": reached,
        "done": reached or used >= task.tries,
    }


def _value(control: Control, text: str) -> str | float:
    value: str | float = text
    if not control.choices:
        try:
            number = float(text)
        except ValueError:
            raise HTTPException(400, f"{control.label}: {text!r} is no number.") from None
        value = int(number) if number.is_integer() else number
    if not control.accepts(value):
        raise HTTPException(400, f"{control.label}: {text!r} is not among what may be set.")
    return value


def _reached(task: Task, fields: dict[str, Any]) -> bool:
    return all(_met(goal, fields) for goal in task.goals)


def _met(goal: Goal, fields: dict[str, Any]) -> bool:
    try:
        return goal.met(fields)
    except (LessonError, TypeError):  # a field that was not measured, such as a target never reached
        return False


def _goal(site: LessonSite, task: Task, goal: Goal, last: dict[str, Any] | None) -> dict[str, Any]:
    meaning = site.pack.experiments[task.experiment].fields
    bound = f"{goal.value:g}" if goal.value is not None else meaning.get(goal.of or "", goal.of or "")
    if goal.times != 1.0:
        bound = f"{goal.times:g} × {bound}"
    fields = last["fields"] if last else {}
    return {
        "text": goal.says or f"{meaning.get(goal.field, goal.field)}: {RELATIONS[goal.relation]} {bound}",
        "value": fields.get(goal.field),
        "bound": _bound(goal, fields),
        "relation": RELATIONS[goal.relation],
        "met": _met(goal, fields) if last else None,
    }


def _bound(goal: Goal, fields: Mapping[str, Any]) -> float | None:
    """What a goal asks for, as a number; None where the result lacks the field that it rests on."""
    if goal.of is None:
        return goal.value
    found = fields.get(goal.of)
    return None if found is None else float(found) * goal.times


def _shown(control: Control, last: dict[str, Any] | None) -> dict[str, Any]:
    value = (last["parameters"].get(control.name) if last else None) or control.start
    return {"control": control, "value": value}


def _job(site: LessonSite, learner: str, task: Task) -> Job | None:
    return site.jobs.running(_kind(site), name=task.slug, learner=learner)
