"""A teacher's pages: who of a class is where, what they answer, how to let them in.

They are for who has brought the class's token, and on a machine of one's own for its owner. Everybody else
finds nothing here.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import Response

from headstart.lesson.engine import attempts, classroom, placeholders, scores
from headstart.lesson.engine.answers import in_words, is_right_in_keys
from headstart.lesson.engine.attempts import Challenge, Event, Extended, Reopened, Reset
from headstart.lesson.engine.classes import Class, Member
from headstart.lesson.engine.pack import Problem
from headstart.lesson.engine.rosters import Row, factor_of, roster
from headstart.lesson.pages.catalogue import Shown
from headstart.lesson.pages.joining import DOOR, address_of
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.lesson.pages.templating import inline, markdown, page, plots_of
from headstart.web.app import FormOf, files_of, leave, text_of
from headstart.web.security import SessionOf

router = APIRouter()

CHALLENGE = "challenge"
"""The mode whose answers these pages show."""


async def _taught(site: SiteOf, session: SessionOf, identity: str) -> Class:
    for one in site.taught(session.teaches):
        if one.id == identity:
            return one
    raise HTTPException(404)


ClassOf = Annotated[Class, Depends(_taught)]


# Classes --------------------------------------------------------------------------------------------------


@router.get("/classes")
def list_page(request: Request, site: SiteOf, session: SessionOf) -> Response:
    """The classes that one teaches, and a form for a new one."""
    taught = _may_make(site, session.teaches)
    rows = [(one, site.classes.members(one.id)) for one in taught]
    return page(request, "classes.html", rows=rows, beyond=site.learner is None)


@router.post("/classes")
async def make(request: Request, site: SiteOf, session: SessionOf, form: FormOf) -> Response:
    """Makes a class, with the names of a roster where one is given."""
    _may_make(site, session.teaches)
    rows = await _rows(form)
    one, token = site.classes.create(text_of(form, "name"), pack=site.pack.slug, now=site.clock())
    site.classes.enrol(one, rows, only=bool(rows))
    ticket = site.tickets.issue(teaches=site.classes.proof(one))
    site.codes.keep(token, name=one.id)
    return leave(request, f"/classes/{one.id}/code?token={ticket}")


def _may_make(site: LessonSite, teaches: str) -> list[Class]:
    taught = site.taught(teaches)
    if site.learner is None and not taught:
        raise HTTPException(404)
    return taught


async def _rows(form: Any) -> list[Row]:
    """The lines of a roster, of a text field or a file; none where both are empty."""
    text = text_of(form, "roster")
    for sent in files_of(form):
        text += "\n" + (await sent.read()).decode("utf-8", "replace")
    return roster(text.strip()) if text.strip() else []


# Now ------------------------------------------------------------------------------------------------------


def states_of(site: LessonSite, one: Class, members: Sequence[Member]) -> list[Challenge]:
    """The challenges of a class, oldest first; those that its bell ends are ended."""
    learners, now, until = [member.learner for member in members], site.clock(), one.rules.until
    states = site.store.taken_by(learners, pack=site.pack.slug, mode=CHALLENGE)
    return [
        site.store.settle(state.id, now, until=until) if attempts.rings(state, until, now) else state
        for state in states
    ]


@router.get("/classes/{identity}")
def now_page(request: Request, site: SiteOf, one: ClassOf, names: str = "") -> Response:
    """Who is where, how much time is left, what came of each problem."""
    members = site.classes.members(one.id)
    seen = site.store.last_seen([member.learner for member in members])
    seats = classroom.seats(members, states_of(site, one, members), seen, now=site.clock())
    return page(
        request,
        "class_now.html",
        one=one,
        seats=seats,
        hidden=names == "hidden",
        problems=site.pack.problems(CHALLENGE),
        gate=one.rules.gate(site.clock()),
    )


@router.get("/classes/{identity}/code")
def code_page(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """How learners come in: the address, the code, and a picture of both for phones."""
    return page(
        request,
        "class_code.html",
        one=one,
        address=f"{address_of(request)}{DOOR}",
        served=bool(site.door),
        token=site.codes.peek(one.id),
    )


@router.get("/classes/{identity}/code.svg")
def code_picture(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """The address with the code as a QR picture."""
    import io

    import segno

    drawn = io.BytesIO()
    made = segno.make(f"{address_of(request)}{DOOR}?code={one.code}", micro=False)
    made.save(drawn, kind="svg", scale=8, dark="#000", light="#fff")
    return Response(drawn.getvalue(), media_type="image/svg+xml")


@router.post("/classes/{identity}/code")
def change_code(request: Request, site: SiteOf, one: ClassOf, what: Annotated[str, Form()]) -> Response:
    """Another join code, or another teacher's token, which is shown until the server ends."""
    if what == "code":
        site.classes.new_code(one.id)
        return leave(request, f"/classes/{one.id}/code")
    site.codes.keep(site.classes.new_token(one.id), name=one.id)
    changed = site.classes.get(one.id)
    ticket = site.tickets.issue(teaches=site.classes.proof(changed)) if changed else ""
    return leave(request, f"/classes/{one.id}/code?token={ticket}")


# Names ----------------------------------------------------------------------------------------------------


@router.get("/classes/{identity}/names")
def names_page(request: Request, site: SiteOf, one: ClassOf, cards: bool = False) -> Response:
    """Everybody's name; personal codes to print; a form for more names."""
    members = site.classes.members(one.id)
    codes = {member.learner: site.codes.peek(member.learner) for member in members}
    return page(
        request,
        "class_names.html",
        one=one,
        members=members,
        codes={learner: code for learner, code in codes.items() if code},
        cards=cards,
        address=f"{address_of(request)}{DOOR}",
    )


@router.post("/classes/{identity}/names")
async def add_names(request: Request, site: SiteOf, one: ClassOf, form: FormOf) -> Response:
    """Adds the names of a roster, and decides whether others may join."""
    rows = await _rows(form)
    site.classes.enrol(one, rows, only=text_of(form, "only") == "yes")
    return leave(request, f"/classes/{one.id}/names")


@router.post("/classes/{identity}/cards")
def make_cards(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """A personal code for everybody who has not come yet."""
    for member in site.classes.members(one.id):
        if member.joined is None and site.codes.peek(member.learner) is None:
            site.codes.keep(site.classes.give_code(member.learner), name=member.learner)
    return leave(request, f"/classes/{one.id}/names?cards=true")


# Answers --------------------------------------------------------------------------------------------------


@router.get("/classes/{identity}/problems/{number:int}")
def problem_page(
    request: Request, site: SiteOf, one: ClassOf, number: int, answer: bool = False, variant: str = ""
) -> Response:
    """One problem for the projector: how often each answer was given, and when asked for, what is right."""
    problems = site.pack.problems(CHALLENGE)
    if not 1 <= number <= len(problems):
        raise HTTPException(404)
    problem = problems[number - 1]
    found = classroom.given(states_of(site, one, site.classes.members(one.id)), problem.slug)
    shown_variant = next((each for each in found if each.variant == variant), found[0] if found else None)
    asked = problem.asked_as(shown_variant.variant) if shown_variant else problem
    shown = Shown(site.catalogue)
    results = shown.results()
    return page(
        request,
        "class_problem.html",
        one=one,
        number=number,
        problems=problems,
        problem=asked,
        prompt=markdown(asked.prompt, results),
        given=found,
        chosen=shown_variant,
        rows=_answers(asked, shown_variant, results),
        answer=answer,
        explanation=markdown(asked.explanation, results, plots=plots_of(shown, site.pack)),
        footnote=placeholders.footnote(asked.explanation, results),
        drawn=plots_of(shown, site.pack)(asked.experiment) if asked.experiment else None,
    )


def _answers(problem: Problem, given: classroom.Given | None, results: Any) -> list[dict[str, Any]]:
    """The answers that were given first, and of choices all that could be, in an order that tells nothing."""
    counts = dict(given.first) if given else {}
    total = sum(counts.values())
    keys = [option.key for option in problem.options] if problem.form == "one" else []
    keys += [key for key in counts if key not in keys]
    feedback = {option.key: option.feedback for option in problem.options}
    keys.sort(key=lambda key: hashlib.blake2b(f"{problem.slug}/{key}".encode()).digest())
    return [
        {
            "text": inline(in_words(problem, key), results),
            "count": counts.get(key, 0),
            "share": counts.get(key, 0) / total if total else 0.0,
            "right": is_right_in_keys(problem, key),
            "feedback": inline(feedback.get(key, ""), results),
        }
        for key in keys
    ]


@router.get("/classes/{identity}/statistics")
def statistics_page(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """How hard each problem was, how well it tells learners apart, and what was chosen instead."""
    found = scores.item_statistics(states_of(site, one, site.classes.members(one.id)))
    results = Shown(site.catalogue).results()
    rows = []
    for item in found:
        problem = site.pack.problem(CHALLENGE, item.problem).asked_as(item.variant)
        rows.append(
            {
                "item": item,
                "problem": problem,
                "wrong": [
                    (inline(in_words(problem, key), results), count)
                    for key, count in sorted(item.first_answers.items(), key=lambda each: -each[1])
                    if not is_right_in_keys(problem, key)
                ],
                "right": sum(
                    count for key, count in item.first_answers.items() if is_right_in_keys(problem, key)
                ),
            }
        )
    return page(request, "class_statistics.html", one=one, rows=rows)


# Rules ----------------------------------------------------------------------------------------------------

CLOCKS = {"": None, "1": 1.0, "1.5": 1.5, "2": 2.0, "5": 5.0, "off": None}
"""What the clock can be for all; empty leaves it to the learners."""


@router.get("/classes/{identity}/rules")
def rules_page(request: Request, site: SiteOf, one: ClassOf) -> Response:
    """What the teacher has decided, and can decide."""
    rules = one.rules
    clock = "" if not rules.timer_is_fixed else "off" if rules.timer is None else f"{rules.timer:g}"
    seconds = [problem.seconds for problem in site.pack.problems(CHALLENGE)]
    said = {
        name: attempts.spoken(timer and timer * each for each in seconds) for name, timer in CLOCKS.items()
    }
    return page(
        request,
        "class_rules.html",
        one=one,
        rules=rules,
        gate=rules.gate(site.clock()),
        clock_now=clock,
        clocks=said | {"": "Each learner chooses"},
        local=_local,
    )


@router.post("/classes/{identity}/rules")
def save_rules(request: Request, site: SiteOf, one: ClassOf, form: FormOf) -> Response:
    """Decides about the clock, the deadline, held back reviews and who runs experiments."""
    clock = text_of(form, "clock")
    if clock not in CLOCKS:
        raise HTTPException(400, f"The clock {clock!r} is none of those offered.")
    site.classes.change_rules(
        one.id,
        timer_is_fixed=bool(clock),
        timer=CLOCKS[clock] if clock else 1.0,
        deadline=_time_in(form, "deadline"),
        reviews_from=_time_in(form, "reviews_from"),
        experiments_by_teacher=text_of(form, "experiments") == "teacher",
    )
    return leave(request, f"/classes/{one.id}/rules")


def _time_in(form: Any, name: str) -> datetime | None:
    """A time of a form, as this machine's clocks show it; None where it is empty."""
    text = text_of(form, name).strip()
    try:
        return datetime.fromisoformat(text).astimezone() if text else None
    except (ValueError, OverflowError):
        raise HTTPException(400, f"{text!r:.40} is no time; write it as 2030-01-31T14:00.") from None


def _local(at: datetime | None) -> str:
    """A time as a form's field holds it."""
    return f"{at.astimezone():%Y-%m-%dT%H:%M}" if at else ""


@router.post("/classes/{identity}/challenge")
def start_and_end(request: Request, site: SiteOf, one: ClassOf, what: Annotated[str, Form()]) -> Response:
    """Starts the challenge for all, rings the bell for all, or leaves it to the learners."""
    now = site.clock()
    offered: dict[str, dict[str, Any]] = {
        "start": {"together": True, "started": now, "ended": None},
        "end": {"together": True, "started": one.rules.started or now, "ended": now},
        "wait": {"together": True, "started": None, "ended": None},
        "free": {"together": False, "started": None, "ended": None},
    }
    if what not in offered:
        raise HTTPException(400, f"{what!r:.40}: expected start, end, wait or free.")
    changed = site.classes.change_rules(one.id, **offered[what])
    if what == "end":  # what was open now is ended now, whoever looks again
        for state in states_of(site, changed, site.classes.members(one.id)):
            site.store.settle(state.id, now + 2 * attempts.GRACE, until=now)
        return leave(request, f"/classes/{one.id}/problems/1")
    return leave(request, f"/classes/{one.id}")


@router.post("/classes/{identity}/time")
def more_time_for_all(
    request: Request, site: SiteOf, one: ClassOf, factor: Annotated[str, Form()]
) -> Response:
    """More time for everybody, now and later; who has more already keeps it."""
    wanted = factor_of(factor)
    for member in site.classes.members(one.id):
        if member.factor is not None and (wanted is None or member.factor < wanted):
            _give_time(site, one, member, wanted)
    return leave(request, f"/classes/{one.id}/rules")


def _give_time(site: LessonSite, one: Class, member: Member, factor: float | None) -> None:
    """More time for one learner, also for what they have open."""
    site.classes.give_time(member.learner, factor)
    timer = one.rules.timer_for(1.0, factor)
    for state in states_of(site, one, [member]):
        if state.finished_at is None and state.fingerprint == site.pack.fingerprint:
            problems = site.pack.problems(CHALLENGE)
            events = [Extended(each.slug, timer and timer * each.seconds) for each in problems]
            site.store.intervene(state.id, events, site.clock())


# One learner ----------------------------------------------------------------------------------------------


def _member(site: SiteOf, one: ClassOf, learner: str) -> Member:
    found = site.classes.standing(learner)
    if found is None or found[0].id != one.id:
        raise HTTPException(404)
    return found[1]


MemberOf = Annotated[Member, Depends(_member)]


@router.get("/classes/{identity}/learners/{learner}")
def learner_page(request: Request, site: SiteOf, one: ClassOf, member: MemberOf) -> Response:
    """One learner: their challenges, and what a teacher can do for them."""
    states = states_of(site, one, [member])
    return page(
        request,
        "class_learner.html",
        one=one,
        member=member,
        code=site.codes.peek(member.learner),
        states=[(state, scores.score(state)) for state in reversed(states)],
        titles={each.slug: each.title for each in site.pack.problems(CHALLENGE)},
        now=site.clock(),
    )


@router.post("/classes/{identity}/learners/{learner}/{action}")
def do_for(
    request: Request,
    site: SiteOf,
    one: ClassOf,
    member: MemberOf,
    action: str,
    factor: Annotated[str, Form()] = "",
    challenge: Annotated[str, Form()] = "",
    problem: Annotated[str, Form()] = "",
) -> Response:
    """Gives time or a new code, resets a challenge, opens a problem again, erases a name, dismisses."""
    at = f"/classes/{one.id}/learners/{member.learner}"
    match action:
        case "time":
            _give_time(site, one, member, factor_of(factor))
        case "code":
            site.codes.keep(site.classes.give_code(member.learner), name=member.learner)
        case "reset" | "reopen":
            event: Event = Reset() if action == "reset" else Reopened(problem)
            if challenge not in {state.id for state in states_of(site, one, [member])}:
                raise HTTPException(404)
            site.store.record(challenge, event, site.clock())
        case "erase":
            site.classes.erase_name(member.learner)
            site.codes.drop(member.learner)
        case "dismiss":
            site.classes.dismiss(member.learner)
            at = f"/classes/{one.id}/names"
        case _:
            raise HTTPException(404)
    return leave(request, at)
