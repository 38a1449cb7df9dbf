"""Pages of the challenge and its problems; every rule is the engine's.

A page gets nothing but `attempts.public_view`, so what has not closed cannot leak.

Pages that only read the log and compute are coroutines, see `headstart.lesson.pages.app`; what writes is done
in threads, as a commit waits for the disk.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime
from functools import partial
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import JSONResponse, Response

from headstart.errors import LessonError
from headstart.lesson.engine import attempts, badges, placeholders, review, scores
from headstart.lesson.engine import badge_images as pictures
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import Challenge, Chose, Closed, Event, HintTaken, Opened, Submitted
from headstart.lesson.pages import tour
from headstart.lesson.pages.catalogue import Shown
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import inline, markdown, page, parts_of, plots_of, quoted_in
from headstart.web.app import leave
from headstart.web.security import SessionOf

router = APIRouter()

TIMERS = {"1": 1.0, "2": 2.0, "5": 5.0, "10": 10.0, "off": None}
REVIEW = "review"
"""The mode whose questions come back shortly before they would be forgotten."""

EXPERIMENT = "experiment"
"""The kind of jobs that run experiments."""

_NONCE = re.compile(r"[0-9a-f]{32}")
_LONGEST_NAME = 80


# Starting -------------------------------------------------------------------------------------------------


@router.get("/modes/challenge")
async def start_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """What awaits the learner; the choice of time; a challenge already begun; earlier ones."""
    taken = mine(site, session.learner, "challenge")
    mode = site.pack.mode("challenge")
    current = unfinished(site, taken)
    results = shown_to(site, session.learner, taken=taken).results()
    rules, factor = site.rules_of(session.learner), _factor(site, session.learner)
    return page(
        request,
        "challenge_start.html",
        mode=mode,
        parts=parts_of(mode, results),
        problems=site.pack.problems("challenge"),
        current=current,
        finished=[
            (state, scores.score(state))
            for state in reversed(taken)
            if state.finished_at and not state.reset_at
        ],
        timers={
            name: _time(site, rules.timer_for(chosen, factor))
            for name, chosen in TIMERS.items()
            if chosen == 1.0 or not rules.timer_is_fixed
        },
        rules=rules,
        gate=rules.gate(site.clock()),
    )


def _factor(site: LessonSite, learner: str) -> float | None:
    """More time for one learner, from their teacher."""
    found = site.standing(learner)
    return found[1].factor if found is not None else 1.0


def _time(site: LessonSite, factor: float | None) -> str:
    """What a choice of the clock means for the problems of this lesson: `2 minutes`, `No clock`."""
    text = attempts.spoken(factor and factor * problem.seconds for problem in site.pack.problems("challenge"))
    return text[:1].upper() + text[1:]


def mine(site: LessonSite, learner: str, mode: str) -> list[Challenge]:
    """A learner's challenges of this lesson and mode, oldest first."""
    states = site.store.challenges(learner=learner, pack=site.pack.slug)
    return [state for state in states if state.mode == mode]


def unfinished(site: LessonSite, states: Sequence[Challenge]) -> Challenge | None:
    """The latest one still open, of this very version of the lesson."""
    begun = [
        state
        for state in states
        if state.finished_at is None and state.reset_at is None and state.fingerprint == site.pack.fingerprint
    ]
    return begun[-1] if begun else None


def held_in(site: LessonSite, state: Challenge | None) -> frozenset[str]:
    """The experiments that settle a problem which is open now; not those that a closed one has shown.

    While reviews are held back, those of every problem that was opened.
    """
    if state is None or state.mode != "challenge":
        return frozenset()
    shown = site.reviews(state.learner)
    experiments: dict[bool, set[str]] = {True: set(), False: set()}
    for item in state.items:
        if item.opened_at is not None:
            problem = attempts.problem_of(item, site.pack, state.mode)
            experiments[item.closed_at is not None and shown].add(problem.experiment)
    return frozenset(experiments[False] - experiments[True])


def shown_to(site: LessonSite, learner: str, *, taken: Sequence[Challenge] | None = None) -> Shown:
    """The results that a learner may see now: all but those that settle a problem which is open.

    ``taken`` are the learner's challenges of the mode, where they are known.
    """
    states = mine(site, learner, "challenge") if taken is None else taken
    current = unfinished(site, states)
    if current is None and states and not site.reviews(learner):
        current = states[-1]
    return Shown(site.catalogue, held_in(site, current))


@router.post("/modes/{mode}/begin")
def begin(
    request: Request, site: SiteOf, session: SessionOf, mode: str, timer: Annotated[str, Form()] = "off"
) -> Response:
    """Begins a challenge, or goes on with the one that is open."""
    if mode not in site.pack.problem_sets:
        raise HTTPException(404)
    if timer not in TIMERS:
        raise HTTPException(400, f"The time {timer!r} is none of those offered.")
    if tour.is_asked_about(site.pack, mode) and tour.of(site, session.learner) is None:
        return leave(request, f"/modes/{mode}#tour")
    taken = mine(site, session.learner, mode)
    state, rules = unfinished(site, taken), site.rules_of(session.learner)
    if state is None and mode == "challenge" and rules.gate(site.clock()):
        return leave(request, f"/modes/{mode}")
    if state is None:
        only = due_questions(site, taken) if mode == REVIEW else None
        if only == []:
            return leave(request, f"/modes/{mode}")
        event = attempts.begin(
            site.pack,
            challenge=_identity(site, session.learner, mode, len(taken)),
            learner=session.learner,
            seed=secrets.token_hex(16),
            mode=mode,
            timer=rules.timer_for(TIMERS[timer], _factor(site, session.learner))
            if mode == "challenge"
            else None,
            only=only,
            earlier=taken,
        )
        state = site.store.start(event, site.clock())
        first = Opened(state.items[0].problem)
        state, _ = site.store.record(state.id, first, site.clock())
    return leave(request, _next(state) or f"/challenges/{state.id}")


def due_questions(site: LessonSite, rounds: list[Challenge]) -> list[str]:
    """The short questions of the review to ask now, by their slugs.

    Args:
        site: the lesson.
        rounds: the learner's rounds of short questions so far.
    """
    memories = review.replay(review.answered(rounds))
    return [one.slug for one in review.due(site.pack.problem_sets.get(REVIEW, ()), memories, site.clock())]


def _identity(site: LessonSite, learner: str, mode: str, count: int) -> str:
    """The id of a learner's next challenge: a double click names it twice, and the store keeps the first."""
    name = f"challenge/{learner}/{site.pack.slug}/{mode}/{count}".encode()
    return str(uuid.UUID(bytes=hmac.digest(site.secret, name, "sha256")[:16], version=4))


# A problem ------------------------------------------------------------------------------------------------


async def _own(site: SiteOf, session: SessionOf, identity: str) -> Challenge:
    try:
        state = site.store.challenge(identity)
        until, now = _until(site, state), site.clock()
        if attempts.overdue(state, now) or attempts.rings(state, until, now):
            state = await run_in_threadpool(site.store.settle, identity, now, until=until)
    except LessonError:
        raise HTTPException(404) from None
    if state.learner != session.learner or state.pack != site.pack.slug:
        raise HTTPException(404)
    return state


def _until(site: LessonSite, state: Challenge) -> datetime | None:
    """When a learner's challenge ends for all of their class."""
    return site.rules_of(state.learner).until if state.mode == "challenge" else None


OwnChallenge = Annotated[Challenge, Depends(_own)]


async def _current(site: SiteOf, state: OwnChallenge) -> Challenge:
    if state.fingerprint != site.pack.fingerprint:
        raise HTTPException(410, "The lesson has changed since this challenge began; begin a new one.")
    if state.reset_at is not None:
        raise HTTPException(410, "Your teacher has reset this challenge; begin a new one.")
    return state


async def _earned(state: OwnChallenge) -> Challenge:
    """A badge stays, even where the lesson has changed since."""
    if not state.earns_badge:
        raise HTTPException(404, "This challenge has not earned the badge.")
    return state


ChallengeOf = Annotated[Challenge, Depends(_current)]
EarnedOf = Annotated[Challenge, Depends(_earned)]


@router.get("/challenges/{identity}")
async def result_page(request: Request, site: SiteOf, state: ChallengeOf) -> Response:
    """How the challenge stands: every problem, the points, the way to the badge."""
    return page(
        request,
        "result.html",
        view=_view(site, state),
        score=scores.score(state),
        next=_next(state),
        varied=any(item.layout.variant for item in state.items),
        badge=site.store.badge(state.id) is not None,
        reread={
            item.problem: _to_reread(site, attempts.problem_of(item, site.pack, state.mode).experiment)
            for item in state.items
            if item.closed_at is not None and not item.correct and site.reviews(state.learner)
        },
        opens=_opens(site, state),
    )


def _to_reread(site: LessonSite, experiment: str) -> list[tuple[str, str]]:
    """Where the lesson explains what a problem asks: sections that quote its experiment, else that itself."""
    if not experiment:
        return []
    found = site.pack.experiments[experiment]
    return quoted_in(site.pack, experiment) or [(found.heading, f"/experiments/{experiment}")]


@router.get("/challenges/{identity}/{number:int}")
async def problem_page(
    request: Request, site: SiteOf, session: SessionOf, state: ChallengeOf, number: int, note: str = ""
) -> Response:
    """One problem, as much of it as may be seen now."""
    item, view = _item(site, state, number)
    return page(
        request,
        "problem.html",
        view=view,
        item=item,
        number=number,
        asks_about_tour=tour.is_asked_about(site.pack, state.mode),
        tour=tour.of(site, session.learner),
        next=_next(state),
        nonce=secrets.token_hex(16),
        note=_NOTES.get(note, ""),
        version=_version(item),
        grace=attempts.GRACE.total_seconds(),
        opens=_opens(site, state),
        **(_evidence(site, session.learner, state, number) if item.get("experiment") else {"job": None}),
    )


def _evidence(site: LessonSite, learner: str, state: Challenge, number: int) -> dict[str, Any]:
    """The experiment of a problem that has closed: its result, or the way to one."""
    problem = attempts.problem_of(state.items[number - 1], site.pack, state.mode)
    name, runs_with = problem.experiment, dict(problem.runs_with)
    drawn = plots_of(_shown_in(site, state), site.pack)(name)
    jobs = [job for job in site.jobs.history(EXPERIMENT, learner=learner) if job.name == name]
    done = (job for job in jobs if job.state == "done" and job.body.get("parameters", {}) == runs_with)
    if runs_with and not drawn.held:
        found = site.catalogue.find(str(next((job.result.get("result") for job in done), "")))
        drawn = replace(drawn, plots=found.plots, data=found.data, notes=found.notes) if found else drawn
    return {
        "drawn": drawn,
        "job": next((job for job in jobs if not job.over), None),
        "about": site.catalogue.about(name, parameters=runs_with),
        "runs_with": runs_with,
    }


_NOTES = {
    "incomplete": "Choose an answer first, for every line and each place once.",
    "no-number": "That is no number. Write digits, such as 12.5.",
    "tried": "That answer was tried already. Choose another one.",
    "closed": "This problem was closed meanwhile.",
}


@router.get("/challenges/{identity}/{number:int}/state")
async def problem_state(site: SiteOf, state: ChallengeOf, number: int) -> Response:
    """What the page's script asks to keep the timer true and two tabs in step."""
    raw = _view(site, state)["items"][_place(state, number)]
    shown = ("status", "seconds_left", "worth", "chosen", "tried", "attempts_left")
    return JSONResponse({name: raw.get(name) for name in shown} | {"version": _version(raw)})


@router.post("/challenges/{identity}/{number:int}/{action}")
async def act(
    request: Request,
    site: SiteOf,
    state: ChallengeOf,
    number: int,
    action: str,
    option: Annotated[list[str] | None, Form()] = None,
    key: Annotated[str, Form()] = "",
) -> Response:
    """Opens a problem, marks a choice, takes the hint, submits, or gives up."""
    problem = state.items[_place(state, number)].problem
    address = f"/challenges/{state.id}/{number}"
    answer = " ".join(option or ())
    try:
        for event in _events(action, problem, answer=answer, key=key):
            await run_in_threadpool(
                site.store.record, state.id, event, site.clock(), until=_until(site, state)
            )
    except AnswerRefused as refused:
        if refused.reason not in _NOTES:
            raise HTTPException(409, f"{str(refused).capitalize()}.") from None
        return leave(request, f"{address}?note={refused.reason}")
    return leave(request, address)


def _events(action: str, problem: str, *, answer: str, key: str) -> list[Event]:
    # What was marked when the hint was asked for is kept, also without JavaScript.
    marked: list[Event] = [Chose(problem, answer)] if answer.strip() else []
    match action:
        case "open":
            return [Opened(problem)]
        case "choose":
            return [Chose(problem, answer)]
        case "hint":
            return [*marked, HintTaken(problem)]
        case "give-up":
            return [Closed(problem)]
        case "submit" if _NONCE.fullmatch(key):
            # The key names this form and this answer: sent twice it counts once, yet an old form that
            # comes back with another answer is not lost.
            told = hashlib.blake2b(answer.encode(), digest_size=16).hexdigest()
            return [Submitted(problem, answer, f"{key}-{told}")]
    raise HTTPException(400, "This form is incomplete. Reload the page and try again.")


def _place(state: Challenge, number: int) -> int:
    if not 1 <= number <= len(state.items):
        raise HTTPException(404)
    return number - 1


def _next(state: Challenge) -> str | None:
    for number, item in enumerate(state.items, 1):
        if item.closed_at is None:
            return f"/challenges/{state.id}/{number}"
    return None


def _item(site: LessonSite, state: Challenge, number: int) -> tuple[dict[str, Any], dict[str, Any]]:
    """The item with its texts rendered, and the whole view."""
    view = _view(site, state)
    item = dict(view["items"][_place(state, number)])
    shown = _shown_in(site, state)
    results = shown.results()
    if "prompt" in item:
        item["prompt"] = markdown(item["prompt"], results)
        item["marked"] = (item["chosen"] or "").split()
        for rows in ("options", "partners"):
            item[rows] = [one | {"text": inline(one["text"], results)} for one in item[rows]]
    if item.get("hint_taken") and item["status"] != "closed":
        item["hint"] = attempts.hint(state, site.pack, item["problem"])
    if "hint" in item:
        item["hint"] = markdown(item["hint"], results)
    if "feedback" in item:
        item["feedback"] = {key: inline(text, results) for key, text in item["feedback"].items()}
    if "explanation" in item:
        item["footnote"] = placeholders.footnote(item["explanation"], results)
        item["explanation"] = markdown(item["explanation"], results, plots=plots_of(shown, site.pack))
    return item, view


def _view(site: LessonSite, state: Challenge) -> dict[str, Any]:
    reviews = state.mode != "challenge" or site.reviews(state.learner)
    return attempts.public_view(state, site.pack, site.clock(), reviews=reviews)


def _opens(site: LessonSite, state: Challenge) -> datetime | None:
    """From when on what is right is shown, where it is not yet."""
    held = state.mode == "challenge" and not site.reviews(state.learner)
    return site.rules_of(state.learner).reviews_from if held else None


def _shown_in(site: LessonSite, state: Challenge) -> Shown:
    return Shown(site.catalogue, held_in(site, state))


def _version(item: dict[str, Any]) -> str:
    """Changes when another tab has opened, tried, taken the hint or closed, and when a teacher has."""
    return f"{item['status'] == 'unopened':d}{item.get('hint_taken', 0):d}" + (
        f"{len(item.get('tried', ()))}{item['status'] == 'closed':d}{item.get('held', 0):d}{item['seconds']}"
    )


# The badge ------------------------------------------------------------------------------------------------


@router.get("/challenges/{identity}/badge")
async def badge_page(request: Request, site: SiteOf, state: EarnedOf) -> Response:
    """The badge, or the form that asks which name it shall bear."""
    credential = site.store.badge(state.id)
    checked = _verified(site, credential) if credential else None
    rests_on = badges.rests_on(state, site.pack)
    unmeasured = [
        (name, site.pack.experiments[name].heading)
        for name in rests_on
        if site.catalogue.latest(name, as_declared=True) is None
    ]
    return page(request, "badge.html", state=state, checked=checked, unmeasured=unmeasured)


@router.post("/challenges/{identity}/badge/issue")
async def issue_badge(
    request: Request, site: SiteOf, state: EarnedOf, name: Annotated[str, Form()] = ""
) -> Response:
    """Signs the badge. A challenge has one; asking again gives the same."""
    holder = " ".join(name.split())[:_LONGEST_NAME]
    if not holder:
        raise HTTPException(400, "The badge needs a name.")
    await run_in_threadpool(
        badges.award,
        state,
        site.pack,
        site.store,
        name=holder,
        home=site.home,
        latest=partial(site.catalogue.latest, as_declared=True),
        now=site.clock(),
    )
    return leave(request, f"/challenges/{state.id}/badge")


@router.get("/challenges/{identity}/badge.{kind}")
async def badge_file(site: SiteOf, state: EarnedOf, kind: str, show: bool = False) -> Response:
    """The badge to keep: a picture with the credential baked in, or the credential alone."""
    credential = site.store.badge(state.id)
    if credential is None or kind not in _KINDS:
        raise HTTPException(404)
    content = await run_in_threadpool(_baked, site, credential, kind)
    headers = {} if show else {"content-disposition": f'attachment; filename="headstart-badge.{kind}"'}
    return Response(content, media_type=_KINDS[kind], headers=headers)


_KINDS = {"png": "image/png", "svg": "image/svg+xml", "jwt": "application/jwt"}


def _verified(site: LessonSite, credential: str) -> badges.Verified:
    return badges.verify(credential, now=site.clock(), trusted=[badges.load_issuer(site.home).id])


def _baked(site: LessonSite, credential: str, kind: str) -> str | bytes:
    title, holder = site.pack.badge.title, _verified(site, credential).holder
    match kind:
        case "png":
            return pictures.bake_png(pictures.draw_png(title, holder), credential)
        case "svg":
            return pictures.bake_svg(pictures.draw_svg(title, holder), credential)
        case _:
            return credential
