"""Flashcards, scheduled by FSRS.

Short questions return by the same schedule; how it went is what the answer was.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import Response

from headstart.lesson.engine import review
from headstart.lesson.pages.challenges import REVIEW, due_questions, mine, shown_to, unfinished
from headstart.lesson.pages.site import SiteOf
from headstart.lesson.pages.templating import inline, markdown, page, parts_of
from headstart.web.app import leave
from headstart.web.security import SessionOf

if TYPE_CHECKING:
    import fsrs

router = APIRouter()


@router.get("/modes/review")
async def review_page(request: Request, site: SiteOf, session: SessionOf, turn: str = "") -> Response:
    """The next card, its front or, once turned, both sides; then the short questions."""
    log = site.store.reviews(session.learner, site.pack.slug)
    memories = review.replay(log)
    now = site.clock()
    waiting = review.due(site.pack.cards, memories, now)
    card = next((card for card in waiting if card.slug == turn), waiting[0] if waiting else None)
    results = shown_to(site, session.learner).results()
    rounds = mine(site, session.learner, REVIEW)
    questions = review.replay(review.answered(rounds))
    mode = site.pack.mode("review")
    return page(
        request,
        "flashcards.html",
        mode=mode,
        parts=parts_of(mode, results),
        card=card,
        front=inline(card.front, results) if card else "",
        back=markdown(card.back, results) if card and card.slug == turn else "",
        waiting=len(waiting),
        next_due=_next_due(memories, now),
        questions=len(due_questions(site, rounds)),
        under_way=unfinished(site, rounds) is not None,
        next_question=_next_due(questions, now),
        seen=sum(line.card == card.slug for line in log) if card else 0,
        ratings=review.RATINGS,
        problems=len(site.pack.problem_sets.get("review", ())),
    )


def _next_due(memories: Mapping[str, fsrs.Card], now: datetime) -> datetime | None:
    return min((memory.due for memory in memories.values() if memory.due > now), default=None)


@router.post("/modes/review/rate")
def rate(
    request: Request,
    site: SiteOf,
    session: SessionOf,
    card: Annotated[str, Form()],
    rating: Annotated[str, Form()],
    seen: Annotated[int, Form()],
) -> Response:
    """Notes how it went. `seen` is how often the card had been rated: a form sent twice counts once."""
    if card not in {one.slug for one in site.pack.cards} or rating not in review.RATINGS:
        raise HTTPException(400, "This card or rating does not exist. Reload the page.")
    log = site.store.reviews(session.learner, site.pack.slug)
    if sum(line.card == card for line in log) == seen:
        now = site.clock()
        _, line = review.review(review.replay(log).get(card), rating, now, card=card)
        site.store.log_review(session.learner, site.pack.slug, line)
    return leave(request, "/modes/review")
