"""A teacher's pages: who of a class is where, what they answer, how to let them in.

They are for who has brought the class's token, and on a machine of one's own for its owner. Everybody else
finds nothing here.
"""

from __future__ import annotations

import hashlib
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, HTTPException, Request
from starlette.responses import Response

from headstart.lesson.engine import classes as engine
from headstart.lesson.engine import classroom, placeholders, scores
from headstart.lesson.engine.answers import in_words, is_right_in_keys
from headstart.lesson.engine.attempts import Challenge
from headstart.lesson.engine.classes import Class, Member
from headstart.lesson.engine.pack import Problem
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


async def _rows(form: Any) -> list[engine.Row]:
    """The lines of a roster, of a text field or a file; none where both are empty."""
    text = text_of(form, "roster")
    for sent in files_of(form):
        text += "\n" + (await sent.read()).decode("utf-8", "replace")
    return engine.roster(text.strip()) if text.strip() else []


# Now ------------------------------------------------------------------------------------------------------


def states_of(site: LessonSite, members: list[Member]) -> list[Challenge]:
    """The challenges of a class, oldest first."""
    learners = [one.learner for one in members]
    return site.store.taken_by(learners, pack=site.pack.slug, mode=CHALLENGE)


@router.get("/classes/{identity}")
def now_page(request: Request, site: SiteOf, one: ClassOf, names: str = "") -> Response:
    """Who is where, how much time is left, what came of each problem."""
    members = site.classes.members(one.id)
    latest = site.store.latest_lines([member.learner for member in members])
    seats = classroom.seats(members, states_of(site, members), latest, now=site.clock())
    return page(
        request,
        "class_now.html",
        one=one,
        seats=seats,
        hidden=names == "hidden",
        problems=site.pack.problems(CHALLENGE),
        now=site.clock(),
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
    found = classroom.given(states_of(site, site.classes.members(one.id)), problem.slug)
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
    found = scores.item_statistics(states_of(site, site.classes.members(one.id)))
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
