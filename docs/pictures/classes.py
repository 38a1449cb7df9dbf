"""Makes the pictures of a class: python docs/pictures/classes.py (Chromium).

Serves the lesson in an empty home to a class of made-up names, whose answers are drawn by dice.
"""

import os
import random
import tempfile
from dataclasses import replace
from datetime import timedelta

from camera import chromium, keep, open_page, serve

from headstart.lesson.engine import attempts
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import Opened, Submitted
from headstart.lesson.engine.classes import Class
from headstart.lesson.engine.rosters import Row
from headstart.lesson.pages import joining
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.server import prepare
from headstart.lesson.pages.site import LessonSite

NAMES = (
    "Ada",
    "Barbara",
    "Charles",
    "Donald",
    "Edsger",
    "Frances",
    "Grace",
    "Hedy",
    "Ivan",
    "Jean",
    "Katherine",
)
"""Who is in the class; the last is not here yet."""


def learn(site: LessonSite, one: Class, name: str, *, dice: random.Random) -> None:
    """Takes the challenge, or a part of it."""
    learner = site.classes.join(one, name, now=site.clock()).learner
    now = site.clock() - timedelta(minutes=4)
    begun = attempts.begin(site.pack, challenge=f"of-{name}", learner=learner, seed=name)
    state = site.store.start(begun, now)
    for place in range(dice.choice((2, 3, 4, 5, 5))):
        item = state.items[place]
        site.store.record(state.id, Opened(item.problem), now)
        ids = [identity for identity, _ in item.layout.options]
        tries = (
            [item.layout.answer, item.layout.answer] if dice.random() < 0.6 else [ids[0], item.layout.answer]
        )
        for key, answer in enumerate(tries):
            now += timedelta(seconds=dice.randint(5, 25))
            try:
                site.store.record(state.id, Submitted(item.problem, answer, f"{place}{key}"), now)
            except AnswerRefused:
                continue  # closed, or not whole
    waiting = [each for each in site.store.challenge(state.id).items if each.opened_at is None]
    if waiting:
        ago = timedelta(seconds=dice.randint(5, 90))
        site.store.record(state.id, Opened(waiting[0].problem), site.clock() - ago)


def main() -> None:
    """Make them all."""
    with tempfile.TemporaryDirectory() as home:
        os.environ["HEADSTART_HOME"] = home
        site = replace(prepare(None, host="127.0.0.1", door=joining.DOOR), learner=None)
        one, token = site.classes.create("Biology 10b", pack=site.pack.slug, now=site.clock())
        site.classes.enrol(one, [Row(name) for name in NAMES])
        dice = random.Random(3)
        for name in NAMES[:-1]:
            learn(site, one, name, dice=dice)
        address = serve(create_app(site))
        with chromium() as browser:
            page = open_page(browser, width=1200)
            page.goto(f"{address}/classes/{one.id}?token={token}")
            page.goto(f"{address}/classes/{one.id}")
            keep(page, "class-now", height=1000)
            page.goto(f"{address}/classes/{one.id}/problems/1?answer=true")
            keep(page, "class-answers", height=1000)
        site.jobs.close()
        site.store.close()


if __name__ == "__main__":
    main()
