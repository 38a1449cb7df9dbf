"""A class over HTTP: how learners come in, what a teacher sees, and that nobody else sees it."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from click.testing import CliRunner
from fastapi.testclient import TestClient

from headstart import cli
from headstart.errors import LessonError
from headstart.lesson.engine.classes import Class, Classes
from headstart.lesson.engine.pack import FORMS
from headstart.lesson.engine.progress import Progress
from headstart.lesson.engine.rosters import Row
from headstart.lesson.pages import joining, server
from headstart.web import guesses
from headstart.web.addresses import names_for
from lesson_packs import forms_pack, right_answer, wrong_answer
from lesson_worlds import HOME, World, finished, lesson_worlds


@dataclass
class Served:
    """A class that is open, and browsers in front of it."""

    world: World
    one: Class
    token: str

    def stranger(self) -> TestClient:
        return self.world.another()

    def teacher(self) -> World:
        browser = self.world.another()
        assert browser.get(f"/classes/{self.one.id}?token={self.token}").status_code == 200
        return replace(self.world, browser=browser, token="")

    def learner(self, name: str = "Ada") -> World:
        browser = self.world.another()
        page = browser.get("/join").text
        form = {"csrf": csrf_in(page), "code": self.one.code.lower(), "name": name}
        page = browser.post("/join", data=form)
        assert page.url.path == "/me"
        return replace(self.world, browser=browser, token=csrf_in(page.text))

    def changed(self, **rules: Any) -> None:
        self.world.site.classes.change_rules(self.one.id, **rules)

    def member(self, name: str) -> str:
        members = self.world.site.classes.members(self.one.id)
        return next(each.learner for each in members if each.name == name)


def csrf_in(page: str) -> str:
    found = re.search(r'name="csrf" value="(\w+)"', page)
    assert found
    return found[1]


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with lesson_worlds(tmp_path) as make:
        world = make(learner=None, door=joining.DOOR, token="of-this-server", names=names_for("0.0.0.0"))
        one, token = world.site.classes.create("Biology 10b", pack="secrets", now=world.clock.now)
        yield Served(world, one, token)


def test_who_is_in_no_class_sees_the_door_and_nothing_else(served: Served) -> None:
    browser = served.stranger()
    for address in ("/", "/modes/challenge", "/experiments", f"/classes/{served.one.id}", "/me"):
        found = browser.get(address, follow_redirects=False)
        assert (found.status_code, found.headers["location"]) == (303, "/join")
    page = browser.get("/")
    assert page.url.path == "/join" and "Biology" not in page.text and served.one.code not in page.text
    form = {"csrf": csrf_in(page.text), "timer": "1"}
    assert browser.post("/modes/challenge/begin", data=form).status_code == 401
    assert browser.post("/me/code", data=form).status_code == 401
    forms = re.findall(r'action="([^"]+)"', page.text)
    assert forms == ["/join", "/join/again"]


def test_a_learner_joins_with_the_code_and_a_name_and_is_known_when_the_server_starts_anew(
    served: Served,
) -> None:
    ada = served.learner()
    page = ada.browser.get("/me").text
    assert "Biology 10b" in page and "<h1>Ada</h1>" in page
    challenge = ada.begin()
    again = replace(served.world.site, token="another-day", store=served.world.site.store)
    from headstart.lesson.pages.app import create_app

    later = TestClient(create_app(again), base_url=HOME)
    later.cookies = ada.browser.cookies
    assert later.get(challenge + "/1").status_code == 200


@pytest.mark.parametrize(
    ("form", "status", "says"),
    [
        ({"code": "BBBBBB", "name": "Ada"}, 400, "No class has this code"),
        ({"name": " "}, 409, "Expected a name of 1 to 80 characters"),
        ({"name": "eve"}, 409, "somebody of that name has joined already"),
        ({"name": "\u202eadA"}, 409, "Expected a name"),
    ],
)
def test_who_cannot_join_is_told_why_and_keeps_what_was_typed(
    served: Served, form: dict[str, str], status: int, says: str
) -> None:
    served.learner("Eve")
    browser = served.stranger()
    sent = {"csrf": csrf_in(browser.get("/join").text), "code": served.one.code, **form}
    answer = browser.post("/join", data=sent)
    assert answer.status_code == status and says.lower() in answer.text.lower()
    assert f'value="{sent["code"]}"' in answer.text
    assert browser.get("/", follow_redirects=False).headers["location"] == "/join"


def test_who_guesses_codes_has_to_wait(served: Served, monkeypatch: pytest.MonkeyPatch) -> None:
    browser = served.stranger()
    form = {"csrf": csrf_in(browser.get("/join").text), "name": "Mallory"}
    answers = [
        browser.post("/join", data={**form, "code": "BBBBBB"}).status_code for _ in range(guesses.WRONG_CODES)
    ]
    assert set(answers) == {400}
    assert browser.post("/join", data={**form, "code": served.one.code}).status_code == 429
    assert browser.post("/join/again", data={**form, "personal": "BBBBBBBB"}).status_code == 429
    monkeypatch.setattr(guesses, "WRONG_SECONDS", 0.0)
    assert browser.post("/join", data={**form, "code": served.one.code}).status_code == 200


def test_guesses_are_counted_for_an_address_and_for_a_network_of_ipv6(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def sent_from(host: str) -> Any:
        return SimpleNamespace(client=SimpleNamespace(host=host))

    wrong = guesses.Guesses()
    for host in ("192.168.1.5", "2001:db8::1"):
        for _ in range(guesses.WRONG_CODES):
            wrong.note(sent_from(host))
    waits = {host: wrong.too_many(sent_from(host)) for host in ("192.168.1.5", "2001:db8::ffff")}
    assert all(waits.values()), waits
    free = {host: wrong.too_many(sent_from(host)) for host in ("192.168.1.6", "2001:db8:0:1::1", "unix")}
    assert not any(free.values()), free
    monkeypatch.setattr(guesses, "ADDRESSES_KEPT", 5)
    for number in range(9):
        wrong.note(sent_from(str(number)))
    assert len(wrong._wrong) == 5


def test_a_personal_code_goes_on_at_another_device_and_the_older_one_does_not(served: Served) -> None:
    ada = served.learner()
    challenge = ada.begin()
    code = re.search(r'code-shown">([^<]+)<', ada.browser.get("/me").text)
    assert code
    device = served.stranger()
    form = {"csrf": csrf_in(device.get("/join").text), "personal": code[1].lower()}
    assert device.post("/join/again", data=form).url.path == "/"
    assert device.get(f"{challenge}/1").status_code == 200, "the same challenge"
    ada.browser.post("/me/code", data={"csrf": csrf_in(ada.browser.get("/me").text)})
    third = served.stranger()
    form = {"csrf": csrf_in(third.get("/join").text), "personal": code[1]}
    assert third.post("/join/again", data=form).status_code == 400


def test_leaving_a_browser_leaves_nothing_of_the_learner_in_it(served: Served) -> None:
    ada = served.learner()
    challenge = ada.begin()
    ada.browser.post("/me/leave", data={"csrf": csrf_in(ada.browser.get("/me").text)})
    assert ada.browser.get(f"{challenge}/1", follow_redirects=False).status_code == 303
    assert served.member("Ada")


def test_who_was_dismissed_is_out_at_once(served: Served) -> None:
    ada = served.learner()
    assert ada.browser.get("/?token=anything").url.path == "/"
    served.world.site.classes.dismiss(served.member("Ada"))
    assert ada.browser.get("/?token=anything").url.path == "/join"


def test_a_session_of_before_joining_has_no_valid_form_afterwards(served: Served) -> None:
    browser = served.stranger()
    before = csrf_in(browser.get("/join").text)
    browser.post("/join", data={"csrf": before, "code": served.one.code, "name": "Ada"})
    assert browser.post("/modes/challenge/begin", data={"csrf": before, "timer": "1"}).status_code == 403


def test_a_teachers_pages_are_nothing_to_anybody_else(served: Served) -> None:
    other, token = served.world.site.classes.create("10c", pack="secrets", now=served.world.clock.now)
    ada, teacher = served.learner(), served.teacher()
    colleague = served.stranger()
    colleague.get(f"/classes/{other.id}?token={token}")
    addresses = ["", "/code", "/code.svg", "/names", "/problems/1", "/statistics"]
    addresses += ["/rules", f"/learners/{served.member('Ada')}"]
    for address in addresses:
        address = f"/classes/{served.one.id}{address}"
        assert teacher.browser.get(address).status_code == 200
        for browser in (ada.browser, colleague):
            assert browser.get(address).status_code == 404, address
    assert ada.browser.get("/classes").status_code == 404
    assert "Biology" not in colleague.get("/classes").text and "10c" in colleague.get("/classes").text
    own = f"learners/{served.member('Ada')}"
    for path in ("code", "names", "cards", "rules", "challenge", "time", f"{own}/time", f"{own}/reset"):
        assert ada.post(f"/classes/{served.one.id}/{path}", what="code").status_code == 404
    assert ada.browser.get(f"/classes/{served.one.id}?token=wrong").status_code == 404


def test_another_token_is_told_to_its_teacher_and_puts_out_who_came_with_the_one_before(
    served: Served,
) -> None:
    teacher, elsewhere = served.teacher(), served.teacher()
    address = f"/classes/{served.one.id}/code"
    page = teacher.browser.post(address, data={"csrf": teacher.csrf(), "what": "token"})
    assert page.status_code == 200 and "token" not in str(page.url)
    told = re.search(r"\?token=([\w-]{22})<", page.text)
    assert told and teacher.browser.get(address).status_code == 200
    assert elsewhere.browser.get(address).url.path == "/join"
    third = served.stranger()
    assert third.get(f"{address}?token={served.token}", follow_redirects=False).headers["location"] == "/join"
    assert third.get(f"{address}?token={told[1]}").status_code == 200
    code = teacher.post(address, what="code")
    assert served.one.code not in code.text


def test_a_teacher_sees_who_is_where_and_what_came_of_each_problem(served: Served) -> None:
    teacher, ada, eve = served.teacher(), served.learner("Ada"), served.learner("Eve <b>")
    served.world.site.classes.enrol(served.one, [Row("Zoe")])
    challenge = ada.begin()
    ada.answer(challenge, 1, right=False)
    ada.answer(challenge, 1, key="1" * 32)
    ada.open(challenge, 2)
    served.world.clock.forward(30)
    address = f"/classes/{served.one.id}"
    page = teacher.browser.get(address).text
    rows = {
        re.sub(r"<[^>]+>", "", row[0]): row[1]
        for row in re.findall(r'scope="row">(.*?)</th>(.*?)</tr>', page, re.S)
    }
    assert list(rows) == ["Ada", "Eve &lt;b&gt;", "Zoe"]
    assert "problem 2" in rows["Ada"] and "1:30" in rows["Ada"] and "70" in rows["Ada"]
    assert "✓" in rows["Ada"] and "nd attempt" in rows["Ada"]
    assert "not begun" in rows["Eve &lt;b&gt;"] and "not here yet" in rows["Zoe"]
    served.world.clock.forward(95)
    assert "over" in teacher.browser.get(address).text
    hidden = teacher.browser.get(f"{address}?names=hidden").text
    assert "Ada" not in hidden and "Eve" not in hidden and "Learner 1" in hidden
    eve.begin()
    assert "2 in a problem" in teacher.browser.get(address).text


def test_answers_come_as_counts_and_what_is_right_only_when_it_is_asked_for(served: Served) -> None:
    teacher, ada, eve = served.teacher(), served.learner("Ada"), served.learner("Eve")
    for who, right in ((ada, True), (eve, False)):
        who.answer(who.begin(), 1, right=right)
    served.learner("Zoe").begin()
    address = f"/classes/{served.one.id}/problems/1"
    page = teacher.browser.get(address).text
    assert "2 first answers" in page and "1 still thinking" in page
    assert "SECRET" not in page and "✓" not in page and "Ada" not in page
    assert re.findall(r'class="share">(\d)<', page).count("1") == 2
    shown = teacher.browser.get(f"{address}?answer=true").text
    assert "SECRETEXPLANATION 0" in shown and "SECRETFEEDBACK 0/0" in shown and shown.count("✓") == 1
    assert teacher.browser.get(f"/classes/{served.one.id}/problems/6").status_code == 404


def test_statistics_name_the_wrong_answers_that_were_chosen_first(served: Served) -> None:
    teacher = served.teacher()
    address = f"/classes/{served.one.id}/statistics"
    assert "Nobody has closed a problem yet" in teacher.browser.get(address).text
    for place in range(4):
        who = served.learner(f"Learner {place}")
        challenge = who.begin()
        served.world.clock.forward(10)
        layout = who.site.store.challenge(challenge.rsplit("/", 1)[1]).items[0].layout
        ids = {key: identity for identity, key in layout.options}
        who.post(f"{challenge}/1/submit", option=ids[f"secretkey-0-{min(place, 1)}"], key="0" * 32)
        who.post(f"{challenge}/1/give-up")
    page = teacher.browser.get(address).text
    assert "25 %" in page and "0:10" in page
    assert re.search(r"Text 0/1 <em>more often than what is right</em>.*?>3</span>", page)
    assert "Learner" not in page.split("What was chosen first")[1]


@pytest.mark.parametrize("form", FORMS)
def test_answers_of_every_form_are_shown_in_words(tmp_path: Path, form: str) -> None:
    with lesson_worlds(tmp_path) as make:
        world = make(forms_pack())
        one, _ = world.site.classes.create("10b", pack="secrets", now=world.clock.now)
        number = FORMS.index(form) + 1
        for name, answer in (("Ada", right_answer), ("Eve", wrong_answer)):
            member = world.site.classes.join(one, name, now=world.clock.now)
            own = make(forms_pack(), learner=member.learner)
            challenge = own.begin()
            own.open(challenge, number)
            state = own.site.store.challenge(challenge.rsplit("/", 1)[1])
            own.post(
                f"{challenge}/{number}/submit", option=answer(state.items[number - 1].layout), key="0" * 32
            )
        page = world.browser.get(f"/classes/{one.id}/problems/{number}?answer=true").text
    assert page.count("> right</span></b>") == 1 and "2 first answers" in page
    assert "secretkey" not in page and page.count('class="right"') == 1


def test_on_a_machine_of_ones_own_a_class_is_made_on_its_page(tmp_path: Path) -> None:
    with lesson_worlds(tmp_path) as make:
        world = make(token="t")
        world.browser.get("/?token=t")
        roster = [("files", ("names.csv", b"name,time\nAda,none\nEve,1.5\n"))]
        form = {"csrf": world.csrf(), "name": "10b", "roster": ""}
        page = world.browser.post("/classes", data=form, files=roster)
        [one] = world.site.classes.all()
        assert page.url.path == f"/classes/{one.id}/code" and "headstart class open" in page.text
        members = world.site.classes.members(one.id)
        assert [(each.name, each.factor) for each in members] == [("Ada", None), ("Eve", 1.5)]
        assert one.rules.listed_only
        again = world.post("/classes", name="10B")
        assert again.status_code == 400 and "already" in again.text
        cards = world.post(f"/classes/{one.id}/cards").text
        codes = re.findall(r'class="letters">([B-Z]{4}-[B-Z]{4})<', cards)
        assert len(set(codes)) == 2
        assert world.post(f"/classes/{one.id}/cards").text.count(codes[0]) == 1, "cards printed stay valid"
        found = world.site.classes.by_personal_code(codes[0], now=world.clock.now)
        assert found is not None and found.name == "Ada"
        world.post(f"/classes/{one.id}/names", roster="Zoe")
        assert (
            len(world.site.classes.members(one.id)) == 3 and not world.site.classes.all()[0].rules.listed_only
        )
        assert world.browser.get("/join").status_code == 404, "nobody joins here"


def test_names_and_codes_are_in_no_log(served: Served, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        ada = served.learner("Ada Verylongname")
        code = re.search(r'code-shown">([^<]+)<', ada.browser.get("/me").text)
        challenge = ada.begin()
        ada.answer(challenge, 1)
        served.teacher().browser.get(f"/classes/{served.one.id}")
        assert ada.browser.get("/join/nowhere").status_code == 404
    assert code
    ours = "\n".join(record.getMessage() for record in caplog.records if not record.name.startswith("httpx"))
    for secret in ("Verylongname", code[1], served.token, served.one.code):
        assert secret not in ours
    lines = repr(served.world.site.store.lines(""))
    assert "Verylongname" not in lines and served.member("Ada Verylongname") in lines


def test_a_teacher_gives_more_time_to_one_and_to_all_at_once_and_later(served: Served) -> None:
    teacher, ada, eve = served.teacher(), served.learner("Ada"), served.learner("Eve")
    mine, other = ada.begin(), eve.begin()
    address, one = f"/classes/{served.one.id}", served.member("Ada")

    def left(who: World, challenge: str) -> Any:
        return who.browser.get(f"{challenge}/1/state").json()["seconds_left"]

    before = ada.browser.get(f"{mine}/1/state").json()["version"]
    served.world.clock.forward(130)
    assert left(ada, mine) == 0 and ada.browser.get(f"{mine}/1/state").json()["status"] == "overtime"
    page = teacher.post(f"{address}/learners/{one}/time", factor="1.5")
    assert "more time" in page.text
    state = ada.browser.get(f"{mine}/1/state").json()
    assert (state["seconds_left"], state["status"]) == (50, "open") and state["version"] != before
    assert left(eve, other) == 0
    teacher.post(f"{address}/time", factor="2")
    assert (left(ada, mine), left(eve, other)) == (110, 110)
    teacher.post(f"{address}/learners/{one}/time", factor="1")
    assert left(ada, mine) == 110, "what was given stays given"
    teacher.post(f"{address}/time", factor="none")
    assert left(eve, other) is None
    assert {each.factor for each in served.world.site.classes.members(served.one.id)} == {None}
    assert teacher.post(f"{address}/time", factor="0.5").status_code == 400
    zoe = served.learner("Zoe")
    served.world.site.classes.give_time(served.member("Zoe"), 1.5)
    assert "3 minutes" in zoe.browser.get("/modes/challenge").text
    assert left(zoe, zoe.begin("2")) == 360, "what was chosen, and half as much again"


def test_a_fixed_clock_leaves_no_choice_and_more_time_still_counts(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada")
    page = teacher.post(f"/classes/{served.one.id}/rules", clock="1.5").text
    assert re.search(r'value="1.5" checked', page)
    assert 'name="timer"' not in ada.browser.get("/modes/challenge").text
    assert "3 minutes for each problem" in ada.browser.get("/modes/challenge").text
    challenge = ada.begin("off")
    assert ada.browser.get(f"{challenge}/1/state").json()["seconds_left"] == 180
    served.changed(timer=None)
    eve = served.learner("Eve")
    assert "There is no clock" in eve.browser.get("/modes/challenge").text
    assert teacher.post(f"/classes/{served.one.id}/rules", clock="7").status_code == 400


def test_at_the_deadline_what_is_open_ends_and_nothing_begins(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada")
    ends = served.world.clock.now.astimezone() + timedelta(minutes=1)
    page = teacher.post(f"/classes/{served.one.id}/rules", clock="", deadline=f"{ends:%Y-%m-%dT%H:%M}").text
    assert f'value="{ends:%Y-%m-%dT%H:%M}"' in page
    assert "It ends on" in ada.browser.get("/modes/challenge").text
    challenge = ada.begin()
    ada.answer(challenge, 1)
    ada.open(challenge, 2)
    served.world.clock.forward(62)
    assert ada.browser.get(f"{challenge}/2/state").json()["status"] == "open", "two seconds of grace"
    served.world.clock.forward(1)
    assert ada.answer(challenge, 2).url.query == b"note=closed"
    assert ada.site.store.challenge(challenge.rsplit("/", 1)[1]).points == 100
    assert "finished" in teacher.browser.get(f"/classes/{served.one.id}").text
    eve = served.learner("Eve")
    assert "The challenge is over" in eve.browser.get("/modes/challenge").text
    assert eve.post("/modes/challenge/begin", timer="1").url.path == "/modes/challenge"
    assert teacher.post(f"/classes/{served.one.id}/rules", deadline="tomorrow").status_code == 400


def test_all_begin_and_end_together(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada")
    address = f"/classes/{served.one.id}"
    assert "Everybody waits" in teacher.post(f"{address}/challenge", what="wait").text
    assert "Your teacher starts the challenge" in ada.browser.get("/modes/challenge").text
    assert ada.post("/modes/challenge/begin", timer="1").url.path == "/modes/challenge"
    teacher.post(f"{address}/challenge", what="start")
    challenge = ada.begin()
    ada.answer(challenge, 1)
    served.world.clock.forward(20)
    page = teacher.post(f"{address}/challenge", what="end")
    assert page.url.path == f"{address}/problems/1" and "1 first answers" in page.text
    state = ada.site.store.challenge(challenge.rsplit("/", 1)[1])
    assert state.finished_at is not None and state.points == 100
    assert ada.browser.get(f"{challenge}/2/state").json()["status"] == "closed"
    assert "SECRETEXPLANATION 3" in ada.browser.get(f"{challenge}/4").text, (
        "the bell shows what was not opened"
    )
    assert "The challenge is over" in served.learner("Eve").browser.get("/modes/challenge").text
    teacher.post(f"{address}/challenge", what="free")
    assert "Each learner begins" in teacher.browser.get(f"{address}/rules").text
    assert teacher.post(f"{address}/challenge", what="x").status_code == 400
    assert served.learner("Zoe").begin()


def test_reviews_are_held_back_until_their_time_and_so_are_experiments(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada")
    served.world.experiments.gate.set()
    served.world.experiments.run("one-pass", progress=lambda *told: None)
    served.changed(reviews_from=served.world.clock.now + timedelta(hours=1))
    challenge = ada.begin()
    for number in range(1, 6):
        ada.open(challenge, number)
        page = ada.answer(challenge, number, right=number > 1)
        if number == 1:
            page = ada.answer(challenge, 1, right=False, key="1" * 32)
        assert "SECRET" not in page.text and "is shown from" in page.text
        assert ("✓ Correct" in page.text) == (number > 1)
    for address in (challenge, "/", "/experiments", "/experiments/one-pass", "/modes/challenge"):
        text = ada.browser.get(address).text
        assert "SECRET" not in text and "Seconds &lt;both&gt;" not in text and "Reread" not in text, address
    assert (
        "SECRETEXPLANATION 0" in teacher.browser.get(f"/classes/{served.one.id}/problems/1?answer=true").text
    )
    served.world.clock.forward(3600)
    assert "SECRETEXPLANATION 0" in ada.browser.get(f"{challenge}/1").text
    assert "Seconds &lt;both&gt;" in ada.browser.get("/experiments/one-pass").text


def test_a_challenge_that_is_reset_counts_no_longer_and_another_one_begins(served: Served) -> None:
    teacher, ada, eve = served.teacher(), served.learner("Ada"), served.learner("Eve")
    challenge, foreign = ada.begin(), eve.begin()
    ada.answer(challenge, 1)
    address = f"/classes/{served.one.id}/learners/{served.member('Ada')}"
    identity = challenge.rsplit("/", 1)[1]
    assert teacher.post(f"{address}/reset", challenge=foreign.rsplit("/", 1)[1]).status_code == 404
    assert "reset, counts no longer" in teacher.post(f"{address}/reset", challenge=identity).text
    for page in (ada.browser.get(f"{challenge}/1"), ada.answer(challenge, 2), ada.browser.get(challenge)):
        assert page.status_code == 410 and "Your teacher has reset this challenge" in page.text
    assert "0 first answers" in teacher.browser.get(f"/classes/{served.one.id}/problems/1").text
    again = ada.begin()
    assert again != challenge and ada.browser.get(f"{again}/1").status_code == 200


def test_a_problem_that_is_opened_again_can_be_answered_also_after_the_end(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada")
    challenge = ada.begin()
    first = ada.answer(challenge, 1, right=False)
    old = re.search(r'name="key" value="(\w+)"', first.text)
    teacher.post(f"/classes/{served.one.id}/challenge", what="end")
    identity = challenge.rsplit("/", 1)[1]
    state = ada.site.store.challenge(identity)
    assert state.finished_at and old
    address = f"/classes/{served.one.id}/learners/{served.member('Ada')}"
    served.world.clock.forward(100)
    page = teacher.post(f"{address}/reopen", challenge=identity, problem=state.items[0].problem)
    assert "opened again" in page.text
    ada.open(challenge, 1)
    served.world.clock.forward(50)
    assert "✓ Correct" in ada.answer(challenge, 1, key="2" * 32).text
    state = ada.site.store.challenge(identity)
    assert state.points == 100 and state.items[0].reopened == 1
    assert teacher.post(f"{address}/reopen", challenge=identity, problem="none").status_code == 400


def test_a_class_measures_what_its_teacher_asks_for(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada")
    assert "Measure" in teacher.browser.get("/experiments").text
    assert "Measure" not in ada.browser.get("/experiments").text + ada.browser.get("/").text
    assert ada.post("/experiments").status_code == 403
    assert 'action="/experiments/one-pass/run"' in ada.browser.get("/experiments/one-pass").text
    served.changed(experiments_by_teacher=True)
    assert 'action="/experiments/one-pass/run"' not in ada.browser.get("/experiments/one-pass").text
    assert "once for all" in ada.post("/experiments/one-pass/run").text
    assert served.world.site.jobs.unfinished() == []
    teacher.post("/experiments")
    assert len(served.world.site.jobs.unfinished()) == 1
    finished(served.world)
    assert "As a table" in ada.browser.get("/experiments/one-pass").text


def test_a_learners_page_gives_codes_erases_names_and_dismisses(served: Served) -> None:
    teacher, ada = served.teacher(), served.learner("Ada Verylongname")
    challenge = ada.begin()
    learner = served.member("Ada Verylongname")
    address = f"/classes/{served.one.id}/learners/{learner}"
    told = re.search(r'class="letters">([B-Z]{4}-[B-Z]{4})<', teacher.post(f"{address}/code").text)
    assert told
    page = teacher.post(f"{address}/erase").text
    assert "Verylongname" not in page and "<h2>Learner 1</h2>" in page and told[1] not in page
    assert "Learner 1" in ada.browser.get("/me").text and ada.browser.get(f"{challenge}/1").status_code == 200
    assert teacher.post(f"{address}/dismiss").url.path == f"/classes/{served.one.id}/names"
    assert ada.browser.get("/").url.path == "/join"
    assert teacher.browser.get(address).status_code == 404
    assert teacher.post(f"{address}/fly").status_code == 404


def test_the_command_makes_opens_lists_and_erases_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    apps: list[Any] = []
    opened: list[str] = []
    monkeypatch.setattr("headstart.web.server.open_browser", opened.append)
    monkeypatch.setattr("headstart.web.front.run", lambda app, **options: apps.append(app))

    def headstart(*words: str) -> str:
        done = CliRunner().invoke(cli.cli, ["class", *words])
        return done.output if done.exit_code == 0 else f"{type(done.exception).__name__}: {done.exception}"

    assert "headstart class new NAME makes one" in headstart("open")
    (tmp_path / "names.csv").write_text("name,time\nAda,1.5\nEve,\n")
    (tmp_path / "token").write_text("the-teachers-own\n")
    names = ("--roster", str(tmp_path / "names.csv"))
    said = headstart("new", "10 b", *names, "--token-file", str(tmp_path / "token"))
    code = re.search(r"join with  ([B-Z]{6})\n", said)
    assert code and "the-teachers-own" in said
    assert "already" in headstart("new", "10 B")
    (tmp_path / "names.csv").write_text("name,time\nAda,fast\n")
    refused = headstart("new", "10 c", *names)
    assert "time 'fast'" in refused and "10 c" not in headstart("list")
    assert re.search(rf"10 b .* {code[1]} +0 +2", headstart("list"))

    said = headstart("open", "--port", "0", "--host", "127.0.0.1", "--allow-host", "school.example")
    address = re.search(r"learners open  (http://127\.0\.0\.1:\d+/)join  and type  (\w+)", said)
    once = re.search(r"once: http://127\.0\.0\.1:\d+(/classes/\S+\?token=\S+)", said)
    assert address and address[2] == code[1] and once and "the-teachers-own" not in said
    [ticket] = opened
    assert ticket.startswith(f"{address[1]}classes/") and ticket.split("token=")[1] not in said
    teacher, late, other = (TestClient(apps[0], base_url=HOME) for _ in range(3))
    assert "Ada" in teacher.get(once[1]).text
    assert late.get(once[1]).url.path == "/join"
    assert "Ada" in other.get(once[1].split("=")[0] + "=the-teachers-own").text
    site = apps[0].state.site
    by_proxy = {"host": "school.example"}
    assert "http://school.example/join" in teacher.get(f"{once[1].split('?')[0]}/code", headers=by_proxy).text
    assert site.others == () and site.door == "/join", "a class learns one lesson"

    told = re.search(r"once:  (\S{22})", headstart("token"))
    assert told and other.get("/classes").url.path == "/join", "the token of before counts no longer"
    assert headstart("erase", "10 B") == "10 b: erased\n" and headstart("list") == "no class yet\n"
    assert teacher.get("/classes").url.path == "/join"
    site.jobs.close()
    site.store.close()


def test_a_class_of_another_lesson_needs_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    store = Progress.open()
    Classes(store, b"").create("10 b", pack="of-a-folder", now=datetime(2030, 1, 1, tzinfo=UTC))
    store.close()
    where: Any = {"host": "127.0.0.1", "port": 0, "browser": False, "say": str}
    with pytest.raises(LessonError, match="'of-a-folder'; give the lesson's folder with --pack"):
        server.serve_class("10 b", None, draw=str, **where)
    with pytest.raises(LessonError, match="learns 'of-a-folder', and why-pre"):
        server.serve_class("10 b", "why-pretrained-models-save-time", draw=str, **where)
