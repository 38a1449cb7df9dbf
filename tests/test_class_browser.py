"""A teacher and ten learners in eleven browsers; axe-core on every page of a class. See `browsing`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")
pytest.importorskip("playwright", reason="needs the package playwright")

from playwright.sync_api import Page, expect

from browsing import Visit, inspector, served_by_a_thread
from headstart.lesson.engine.attempts import Challenge, Submitted
from headstart.lesson.engine.classes import Class
from headstart.lesson.engine.rosters import roster
from headstart.lesson.pages import joining
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.server import prepare
from headstart.lesson.pages.site import LessonSite
from lesson_packs import plain, right_answer, wrong_answer

NAMES = ("Ada", "Barbara", "Charles", "Donald", "Edsger", "Frances", "Grace", "Hedy", "Ivan", "Jean")
PLAIN, PHONE = 1, 2
"""Who of them has no JavaScript, and who has a phone of 360 px."""


@dataclass
class Served:
    """A class that is open, with a clock that can be set ahead."""

    address: str
    site: LessonSite
    one: Class
    token: str
    ahead: timedelta = timedelta()

    def state(self, name: str) -> Challenge:
        """The learner's latest challenge, as the server knows it."""
        members = self.site.classes.members(self.one.id)
        learner = next(each.learner for each in members if each.name == name)
        return self.site.store.challenges(learner=learner)[-1]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    prepared = prepare(None, host="127.0.0.1", door=joining.DOOR)
    made: list[Served] = []
    site = replace(
        prepared,
        learner=None,
        pack=plain(prepared.pack),
        clock=lambda: datetime.now(UTC) + (made[0].ahead if made else timedelta()),
    )
    one, token = site.classes.create("Biology 10b", pack=site.pack.slug, now=site.clock())
    site.classes.enrol(one, roster("\n".join(NAMES)), only=True)
    with served_by_a_thread(create_app(site)) as address:
        made.append(Served(address, site, one, token))
        yield made[0]
    site.jobs.close()
    site.store.close()


def join(page: Page, served: Served, name: str, *, by_keyboard: bool = False) -> None:
    page.goto(f"{served.address}/join?code={served.one.code}")
    if by_keyboard:
        page.get_by_label("Your name").focus()
        page.keyboard.type(name)
        page.keyboard.press("Enter")
    else:
        page.get_by_label("Your name").fill(name)
        page.get_by_role("button", name="Join", exact=True).click()
    expect(page.get_by_role("heading", level=1)).to_have_text(name)


def answer(page: Page, served: Served, name: str, number: int, *, right: bool) -> None:
    item = served.state(name).items[number - 1]
    option = right_answer(item.layout) if right else wrong_answer(item.layout, tried=item.tried)
    page.locator(f"input[value='{option}']").check()
    page.get_by_role("button", name="Submit").click()
    expect(
        page.get_by_role("heading", name="✓ Correct") if right else page.get_by_text("Not that one")
    ).to_be_visible()


def test_a_teacher_and_ten_learners_from_the_door_to_the_discussion(
    served: Served, visit: Callable[..., Visit]
) -> None:
    teacher = visit()
    board = teacher.page
    board.goto(f"{served.address}/classes/{served.one.id}?token={served.token}")
    board.get_by_role("link", name="Rules").click()
    board.get_by_role("button", name="Let all wait for me").click()
    visits = [
        visit(
            java_script_enabled=place != PLAIN,
            viewport={"width": 360 if place == PHONE else 1280, "height": 800},
        )
        for place in range(len(NAMES))
    ]
    pages = dict(zip(NAMES, (each.page for each in visits), strict=True))
    for name, page in pages.items():
        join(page, served, name, by_keyboard=name == "Charles")
        page.goto(f"{served.address}/modes/challenge")
        expect(page.get_by_role("heading", name="Your teacher starts the challenge")).to_be_visible()
    code = served.site.codes.peek(served.site.classes.members(served.one.id)[0].learner)
    expect(board.get_by_text("10 of 10 here")).to_be_visible()
    board.get_by_role("button", name="Start it for all").click()
    expect(pages["Ada"].get_by_role("button", name="Begin")).to_be_visible()  # the page has looked by itself
    pages["Barbara"].reload()  # without a script it is asked to every five seconds
    for name, page in pages.items():
        page.get_by_role("button", name="Begin").click()
        if page is pages["Charles"]:
            page.wait_for_load_state()
            page.keyboard.press("a")
            page.keyboard.press("Enter")
            expect(page.locator("h2, p.note[role=alert]").first).to_be_visible()
        else:
            answer(page, served, name, 1, right=name != "Jean")

    # A reload keeps what was marked; a second device goes on where the first is.
    ada = pages["Ada"]
    ada.get_by_role("link", name="Next problem").click()
    ada.get_by_role("button", name="Open the problem").click()
    marked = served.state("Ada").items[1].layout.options[0][0]
    with ada.expect_response(lambda response: response.url.endswith("/choose")):
        ada.locator(f"input[value='{marked}']").check()
    ada.reload()
    expect(ada.locator(f"input[value='{marked}']")).to_be_checked()
    device = visit().page
    device.goto(f"{served.address}/join")
    device.get_by_text("Go on from another device").click()
    device.get_by_label("Your personal code").fill(str(code).lower())
    device.get_by_role("button", name="Go on", exact=True).click()
    device.goto(ada.url)
    expect(device.locator(f"input[value='{marked}']")).to_be_checked()

    _cheat(served, visits)

    # The bell, and the round after it.
    board.goto(f"{served.address}/classes/{served.one.id}")
    expect(board.get_by_role("row").filter(has_text="Ada")).to_contain_text("problem 2")
    board.get_by_role("button", name="End it for all").click()
    expect(board.get_by_text("10 first answers")).to_be_visible()
    expect(board.get_by_text("Ada", exact=True)).to_have_count(0)
    board.get_by_role("link", name="Show what is right").click()
    expect(board.get_by_role("heading", name="The measurement")).to_be_visible()
    device.goto(f"{served.address}/modes/challenge")
    expect(device.get_by_role("heading", name="The challenge is over")).to_be_visible()
    assert all(served.state(name).finished_at for name in NAMES)
    assert [each.complaints for each in (teacher, *visits)] == [[]] * 11


def _cheat(served: Served, visits: list[Visit]) -> None:
    """A post that is sent again, a clock that is set on the page, another's cookie, form and challenge."""
    grace, hedy = visits[6].page, visits[7].page
    for page in (grace, hedy):
        page.get_by_role("link", name="Next problem").click()
        page.get_by_role("button", name="Open the problem").click()
        page.get_by_role("group", name="Your answer").wait_for()
    before = served.state("Hedy")
    with hedy.expect_request(lambda request: request.url.endswith("/submit")) as sent:
        hedy.locator(f"input[value='{wrong_answer(before.items[1].layout)}']").check()
        hedy.get_by_role("button", name="Submit").click()
    expect(hedy.get_by_text("Not that one")).to_be_visible()
    form = {"content-type": "application/x-www-form-urlencoded", "origin": served.address}
    for _ in range(2):
        again = visits[7].context.request.post(sent.value.url, data=sent.value.post_data, headers=form)
        assert again.ok
    assert len(served.state("Hedy").items[1].tried) == 1, "sent three times, counted once"
    stolen = visits[6].context.request.post(sent.value.url, data=sent.value.post_data, headers=form)
    assert stolen.status == 403, "the form of another session"
    assert visits[6].context.request.get(hedy.url).status == 404, "the challenge of another learner"

    served.ahead += timedelta(seconds=200)
    grace.evaluate("document.querySelector('[data-left]').dataset.left = 9999")
    answer(grace, served, "Grace", 2, right=True)
    assert served.state("Grace").items[1].points == 70, "late, whatever the page says"

    [cookie] = [one for one in visits[7].context.cookies() if one["name"].startswith("headstart_lesson")]
    forged = visits[8].context
    forged.clear_cookies()
    value = cookie["value"].replace(cookie["value"][:4], "AAAA", 1)
    forged.add_cookies([{"name": cookie["name"], "value": value, "url": served.address}])
    visits[8].page.goto(hedy.url)
    assert visits[8].page.url == f"{served.address}/join", "a cookie that was changed is nobody's"
    entries = [entry.event for entry in served.site.store.entries(before.id)]
    assert sum(isinstance(event, Submitted) for event in entries) == 2


def test_every_page_of_a_class_is_accessible_in_light_dark_wide_and_narrow(
    served: Served, visit: Callable[..., Visit]
) -> None:
    page = visit().page
    found, check = inspector(page)
    join(page, served, "Ada")
    check("a learner's own page")
    served.site.classes.change_rules(served.one.id, together=True)
    page.goto(f"{served.address}/modes/challenge")
    check("waiting")
    served.site.classes.change_rules(served.one.id, together=False)
    page.goto(f"{served.address}/modes/challenge")
    page.get_by_role("button", name="Begin").click()
    answer(page, served, "Ada", 1, right=True)
    page.context.clear_cookies()
    page.goto(f"{served.address}/join")
    page.get_by_label("The code").fill("BBBBBB")
    page.get_by_label("Your name").fill("Eve")
    page.get_by_role("button", name="Join", exact=True).click()
    page.get_by_text("Go on from another device").click()
    check("the door")
    class_page = f"{served.address}/classes/{served.one.id}"
    page.goto(f"{class_page}?token={served.token}")
    learner = served.site.classes.members(served.one.id)[0].learner
    views: dict[str, Any] = {
        "": "Now",
        "/problems/1?answer=true": "Answers",
        "/statistics": "Statistics",
        "/names": "Names",
        "/rules": "Rules",
        "/code": "Join code",
        f"/learners/{learner}": "Ada",
    }
    for place, name in views.items():
        page.goto(class_page + place)
        expect(page.get_by_role("heading", level=1)).to_have_text("Biology 10b")
        check(name)
    page.goto(f"{served.address}/classes")
    check("classes")
    page.goto(f"{class_page}/names")
    page.get_by_role("button", name="Cards with personal codes").click()
    check("cards")
    assert found == [], "\n".join(found)
