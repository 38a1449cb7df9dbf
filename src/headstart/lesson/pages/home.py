"""The lesson's first page and its reading pages."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from headstart.lesson.engine import placeholders, review, scores
from headstart.lesson.engine.attempts import Challenge
from headstart.lesson.engine.badge_images import draw_svg
from headstart.lesson.engine.pack import Mode
from headstart.lesson.engine.progress import History
from headstart.lesson.engine.reference import conclusion_of
from headstart.lesson.pages import experiments, runs, tasks, tour
from headstart.lesson.pages.catalogue import Shown
from headstart.lesson.pages.challenges import due_questions, shown_to, unfinished
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import Drawn, inline, markdown, page, plots_of, sections
from headstart.web.app import leave
from headstart.web.security import SessionOf

router = APIRouter()

PICTURE = ("panel", "picture")
"""Of a text's pieces: a photograph that becomes a label. The first page shows it where a text does."""

OPENS_RUNS = ("visualize", "metrics")
"""Modes that show the learner's stored runs."""

PATH = {
    "Understand": ("learn", "why", "deep", "visualize"),
    "Do": ("try", "project", "metrics"),
    "Prove": ("challenge", "review"),
}
"""The path through the modes, in three parts; the badge stands at its end."""

_REACHED = {False: "not reached", True: "reached"}


@router.get("/")
async def first_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """What the lesson is, its modes, and how far the learner has come in each."""
    history = site.store.history(session.learner)
    states = history.challenges(pack=site.pack.slug)
    days = {line.at.astimezone().date() for line in history.lines}
    modes = [_standing(site, session.learner, mode, states, history) for mode in site.pack.modes]
    taken = [state for state in states if state.mode == "challenge"]
    shown = shown_to(site, session.learner, taken=taken)
    newest = _newest(site, shown)
    results = shown.results()
    headline = [
        one
        for one in site.pack.headline
        if shown.held.isdisjoint(found.experiment for found in placeholders.find(one.number))
    ]
    parts = {title: [one for one in modes if one["mode"].name in names] for title, names in PATH.items()}
    return page(
        request,
        "home.html",
        path=[(title, ways) for title, ways in parts.items() if ways],
        go_on=_go_on(modes),
        picture=any(PICTURE in placeholders.panels(mode.body) for mode in site.pack.modes),
        headline=[(inline(one.number, results), inline(one.label, results)) for one in headline],
        footnote=placeholders.footnote(" ".join(one.number for one in headline), results),
        shown=newest,
        finding=conclusion_of(shown.catalogue.results().get(newest, {})) if newest else "",
        drawn=plots_of(shown, site.pack)(newest) if newest else Drawn(),
        missing=experiments.missing_for(site, session.learner),
        job=experiments.first_running(site, session.learner),
        minutes=sum(mode.minutes for mode in site.pack.modes),
        streak=scores.streak(days, site.clock().astimezone().date()),
        experiments=len(site.pack.experiments),
        measured=len(set(site.catalogue.results()) & set(site.pack.experiments)),
    )


def _newest(site: LessonSite, shown: Shown) -> str:
    """The experiment that ran last on this machine as the lesson declares it, or empty."""
    found = {
        name: result.created
        for name in site.pack.experiments
        if (result := shown.latest(name, as_declared=True)) is not None
    }
    return max(found, key=lambda name: found[name], default="")


@router.get("/badge.svg")
async def badge_picture(site: SiteOf, session: SessionOf) -> Response:
    """What the badge looks like, with nobody's name on it."""
    return Response(draw_svg(site.pack.badge.title, ""), media_type="image/svg+xml")


@router.get("/pictures/{name}")
async def picture(site: SiteOf, session: SessionOf, name: str) -> Response:
    """A picture of the pack."""
    found = site.pack.pictures.get(f"pictures/{name}")
    if found is None:
        raise HTTPException(404)
    return Response(
        found.data, media_type=found.media_type, headers={"cache-control": "private, max-age=300"}
    )


def _go_on(modes: list[dict[str, Any]]) -> dict[str, Any] | None:
    """Where to go on: the first mode that is begun and not over, else the first that is not over."""
    left = [one for one in modes if one["over"] < (one["of"] or 1) and one["mode"].name != "review"]
    return next((one for one in left if one["done"]), next(iter(left), None))


def _standing(
    site: LessonSite, learner: str, mode: Mode, states: list[Challenge], history: History
) -> dict[str, Any]:
    """How far a learner has come in a mode: done and over, of how many, and that in words.

    What is over leaves nothing to do, done or not, such as a task whose tries are used.
    """
    own = [state for state in states if state.mode == mode.name and state.reset_at is None]
    if mode.name == "challenge":
        standing = _challenge_standing(site, own)
        return {"mode": mode, "over": standing["done"]} | standing
    if (found := tasks.reached(site, learner, mode.name, lines=history.lines)) is not None:
        text = f"{found.reached} of {found.of} reached" if found.of > 1 else _REACHED[found.reached > 0]
        return {"mode": mode, "done": found.reached, "over": found.over, "of": found.of, "text": text}
    if mode.name == "review":
        memories = review.replay(history.reviews(site.pack.slug))
        cards = len(review.due(site.pack.cards, memories, site.clock()))
        questions = len(due_questions(site, own))
        counts = [
            _count(number, word) for number, word in ((cards, "card"), (questions, "question")) if number
        ]
        text = f"{' and '.join(counts)} waiting" if counts else "nothing due"
        of = len(site.pack.cards) + len(site.pack.problem_sets.get(mode.name, ()))
        done = of - cards - questions
        return {"mode": mode, "done": done, "over": done, "of": of, "text": text}
    read = history.read_sections(site.pack.slug)
    done, of = len(read.get(mode.name, set()) & set(mode.sections)), len(mode.sections)
    return {"mode": mode, "done": done, "over": done, "of": of, "text": f"{done} of {of} sections"}


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"


def _challenge_standing(site: LessonSite, own: list[Challenge]) -> dict[str, Any]:
    problems = len(site.pack.problems("challenge"))
    if any(state.earns_badge for state in own):
        return {"done": problems, "of": problems, "text": "badge earned"}
    current = unfinished(site, own)
    if current:
        closed = sum(item.closed_at is not None for item in current.items)
        return {"done": closed, "of": problems, "text": f"under way, {closed} of {problems}"}
    best = max((state.correct for state in own), default=0)
    return {"done": best, "of": problems, "text": f"best: {best} of {problems}" if own else "not begun"}


@router.get("/modes/{name}")
async def reading_page(
    request: Request, site: SiteOf, session: SessionOf, name: str, run: str = ""
) -> Response:
    """A mode to read: its sections, each with a button that notes it as read."""
    mode = _mode(site, name)
    read = site.store.read_sections(session.learner, site.pack.slug).get(name, set())
    shown = shown_to(site, session.learner)
    results = shown.results()
    names = [one.name for one in site.pack.modes]
    following = names[names.index(name) + 1 :]
    own = None
    if name in OPENS_RUNS:  # many files
        own = await run_in_threadpool(runs.context, site, session.learner, run)
    return page(
        request,
        "reading.html",
        mode=mode,
        parts=[
            {
                "title": inline(title, results),
                "pieces": [
                    {"panel": piece[1]}
                    if isinstance(piece, tuple)
                    else {"panel": "", "text": markdown(piece, results, plots=plots_of(shown, site.pack))}
                    for piece in placeholders.panels(text)
                ],
                "read": title in read,
            }
            for title, text in sections(mode.body)
        ],
        footnote=placeholders.footnote(mode.body, results),
        placed=placeholders.placed(mode.body),
        problems=len(site.pack.problem_sets.get(name, ())),
        tour=tour.of(site, session.learner),
        followed_in=tour.MODE,
        asks_about_tour=tour.is_asked_about(site.pack, name),
        own=own,
        local=site.learner is not None,
        following=site.pack.mode(following[0]) if following else None,
    )


@router.post("/modes/{name}/read")
def note_section(
    request: Request, site: SiteOf, session: SessionOf, name: str, section: Annotated[int, Form()]
) -> Response:
    """Notes a section as read and goes on to the next."""
    mode = _mode(site, name)
    if not 1 <= section <= len(mode.sections):
        raise HTTPException(404)
    title = mode.sections[section - 1]
    site.store.mark_read(session.learner, site.pack.slug, mode=name, section=title, now=site.clock())
    target = f"section-{section + 1}" if section < len(mode.sections) else "end"
    return leave(request, f"/modes/{name}#{target}")


def _mode(site: LessonSite, name: str) -> Mode:
    if name not in {mode.name for mode in site.pack.modes}:
        raise HTTPException(404)
    return site.pack.mode(name)
