"""The lesson's pages, asked over HTTP: what they show, what they keep to themselves, whom they answer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from html import unescape
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from fastapi.testclient import TestClient
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from headstart.errors import RunError
from headstart.lesson.engine import badge_images as pictures
from headstart.lesson.engine import badges
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.pack import Mode
from headstart.lesson.engine.reference import references
from headstart.lesson.pages import (
    challenges,
    classes,
    experiments,
    flashcards,
    home,
    joining,
    runs,
    server,
    tasks,
    tour,
)
from headstart.lesson.pages.templating import Drawn, inline, markdown, sections, show
from headstart.web.addresses import names_for
from headstart.web.plots import Plot, Series
from headstart.web.security import SessionMiddleware
from headstart.web.site import load_secret
from lesson_packs import secret_pack
from lesson_worlds import HOME, World, finished, lesson_worlds

SECRETS = re.compile(r"SECRET\w+|secretkey-[\w-]+")


CAT = Path(home.__file__).parent / "static" / "cat.jpg"


@pytest.fixture
def make_world(tmp_path: Path) -> Iterator[Callable[..., World]]:
    with lesson_worlds(tmp_path) as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


# Secrets --------------------------------------------------------------------------------------------------


def test_before_an_item_closes_no_response_holds_more_than_the_feedback_on_what_was_tried(
    world: World,
) -> None:
    said: list[str] = []
    world.browser.event_hooks = {
        "response": [lambda response: (response.read(), said.append(f"{response.headers}{response.text}"))]
    }
    world.browser.get("/")
    challenge = world.begin()
    world.browser.get(challenge)
    for number in range(1, 6):
        world.browser.get(f"{challenge}/{number}")
        world.open(challenge, number)
        world.browser.get(f"{challenge}/{number}/state")
        world.answer(challenge, number, right=False)
        world.clock.forward(300)
        world.browser.get(f"{challenge}/{number}")
        world.browser.get(f"{challenge}/{number}/badge")
    assert len(said) > 40
    told = "\n".join(said)
    assert set(SECRETS.findall(told)) == {"SECRETFEEDBACK"}
    of = set(re.findall(r"SECRETFEEDBACK (\d)/(\d)", told))  # of the one option tried in each problem
    assert len(of) == 5 and all(option != "0" for _, option in of)
    # The same search does find what is told once an item is closed, so it can fail.
    world.answer(challenge, 1, right=False)
    closed = world.browser.get(f"{challenge}/1").text
    assert set(SECRETS.findall(closed)) == {"SECRETFEEDBACK", "SECRETEXPLANATION", "SECRETHINT"}
    assert set(SECRETS.findall(world.browser.get(f"{challenge}/2").text)) == {"SECRETFEEDBACK"}


def test_an_unopened_problem_shows_no_question(world: World) -> None:
    page = world.browser.get(f"{world.begin()}/2").text
    assert "Prompt 1?" not in page and "Text 1/" not in page


def test_a_hint_comes_by_its_own_request_and_is_free(world: World) -> None:
    challenge = world.begin()
    before = world.open(challenge, 1).text
    after = world.post(f"{challenge}/1/hint").text
    assert "SECRETHINT 0" not in before and "SECRETHINT 0" in after
    assert "worth <span data-worth>100</span> points" in after


def test_a_stranger_cannot_see_or_answer_a_challenge(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None)
    challenge = world.begin()
    stranger = world.another()
    token = re.search(r'name="csrf" value="(\w+)"', stranger.get("/modes/challenge").text)
    assert token
    assert stranger.get(f"{challenge}/1").status_code == 404
    assert stranger.post(f"{challenge}/1/open", data={"csrf": token[1]}).status_code == 404
    assert world.browser.get(f"{challenge}/1").status_code == 200


# A challenge ----------------------------------------------------------------------------------------------


def test_a_learner_goes_from_the_first_page_to_a_badge_that_verifies(world: World) -> None:
    assert "/modes/challenge" in world.browser.get("/").text
    challenge = world.begin()
    for number in range(1, 6):
        world.open(challenge, number)
        assert "✓ Correct" in world.answer(challenge, number).text
    assert "All 5 correct" in world.browser.get(challenge).text
    page = world.post(f"{challenge}/badge/issue", name="Ada <b>Lovelace</b>").text
    assert "✓ Verified" in page and "<b>Lovelace" not in page
    for kind in ("png", "svg"):
        data = world.browser.get(f"{challenge}/badge.{kind}").content
        verified = badges.verify(pictures.extract(data), now=world.clock(), trusted=())
        assert verified.holder == "Ada <b>Lovelace</b>"
    world.post(f"{challenge}/badge/issue", name="Someone Else")
    assert "Someone Else" not in world.browser.get(f"{challenge}/badge").text


def test_a_badge_says_what_lacks_as_evidence_and_holds_what_was_measured(world: World) -> None:
    challenge = world.begin()
    for number in range(1, 6):
        world.open(challenge, number)
        world.answer(challenge, number)
    assert "Not measured here yet" in world.browser.get(f"{challenge}/badge").text
    world.experiments.gate.set()
    for name in {problem.experiment for problem in world.site.pack.problems("challenge")}:
        world.site.catalogue.run(name, progress=lambda *told: None)
    assert "Not measured here yet" not in world.browser.get(f"{challenge}/badge").text
    world.post(f"{challenge}/badge/issue", name="Ada")
    credential = world.browser.get(f"{challenge}/badge.jwt").text
    evidence = badges.verify(credential, now=world.clock()).credential["evidence"]
    assert "data: digits; seed: 0" in evidence[-1]["narrative"] and evidence[-1]["genre"] == "Experiment"


def test_no_badge_without_five_correct(world: World) -> None:
    challenge = world.begin()
    for number in range(1, 6):
        world.open(challenge, number)
        world.answer(challenge, number, right=number > 1)
    world.answer(challenge, 1, right=False)
    assert world.browser.get(f"{challenge}/badge").status_code == 404
    assert world.post(f"{challenge}/badge/issue", name="Ada").status_code == 404
    assert world.browser.get(f"{challenge}/badge.png").status_code == 404


def test_submitting_twice_costs_one_attempt(world: World) -> None:
    challenge = world.begin()
    world.open(challenge, 1)
    state = world.site.store.challenge(challenge.rsplit("/", 1)[1])
    wrong = next(i for i, _ in state.items[0].layout.options if i != state.items[0].layout.answer)
    form = {"csrf": world.csrf(), "option": wrong, "key": "a" * 32}
    with ThreadPoolExecutor(4) as pool:
        tries = list(pool.map(lambda _: world.browser.post(f"{challenge}/1/submit", data=form), range(4)))
    assert {response.status_code for response in tries} == {200}
    assert world.browser.get(f"{challenge}/1/state").json()["attempts_left"] == 1


def test_beginning_twice_at_once_begins_one_challenge(world: World) -> None:
    form = {"csrf": world.csrf(), "timer": "1"}
    with ThreadPoolExecutor(4) as pool:
        pages = pool.map(lambda _: world.browser.post("/modes/challenge/begin", data=form), range(4))
        assert len({str(page.url) for page in pages}) == 1
    assert len(world.site.store.challenges()) == 1


def test_an_old_form_with_another_answer_is_not_lost(world: World) -> None:
    challenge = world.begin()
    world.open(challenge, 1)
    world.answer(challenge, 1, right=False, key="a" * 32)
    assert "✓ Correct" in world.answer(challenge, 1, key="a" * 32).text


def test_a_choice_is_there_after_a_reload_and_in_a_second_tab(world: World) -> None:
    challenge = world.begin()
    page = world.open(challenge, 1).text
    option = re.findall(r'name="option" value="(\w+)"', page)[2]
    world.post(f"{challenge}/1/choose", option=option)
    checked = re.search(r'value="(\w+)"\s+checked', world.another().get(f"{challenge}/1").text)
    assert checked and checked[1] == option


def test_a_second_tab_learns_that_the_problem_was_answered(world: World) -> None:
    challenge = world.begin()
    world.open(challenge, 1)
    before = world.browser.get(f"{challenge}/1/state").json()["version"]
    world.answer(challenge, 1)
    assert world.another().get(f"{challenge}/1/state").json()["version"] != before
    assert "closed meanwhile" in world.answer(challenge, 1, right=False, key="b" * 32).text
    assert len(world.site.store.challenge(challenge.rsplit("/", 1)[1]).items[0].tried) == 1


def test_time_is_the_servers_and_a_reload_gives_none_back(world: World) -> None:
    challenge = world.begin()
    world.open(challenge, 1)
    world.clock.forward(50)
    assert 'data-left="70.0"' in world.browser.get(f"{challenge}/1").text
    world.open(challenge, 1)
    assert world.browser.get(f"{challenge}/1/state").json()["seconds_left"] == 70
    world.clock.forward(100)
    assert "Time is up" in world.browser.get(f"{challenge}/1").text
    assert "70 points, late" in world.answer(challenge, 1).text


@pytest.mark.parametrize(("timer", "left"), [("off", None), ("10", 1200.0)])
def test_the_time_can_be_stretched_or_switched_off(world: World, timer: str, left: float | None) -> None:
    challenge = world.begin(timer)
    page = world.open(challenge, 1).text
    assert ('role="timer"' in page) == (left is not None)
    assert world.browser.get(f"{challenge}/1/state").json()["seconds_left"] == left


def test_the_offered_times_are_those_of_the_lesson(make_world: Callable[..., World]) -> None:
    pack = secret_pack()
    problems = pack.problem_sets["challenge"]
    short = replace(problems[1], seconds=90)
    world = make_world(replace(pack, problem_sets={"challenge": (problems[0], short, *problems[2:])}))
    offered = world.browser.get("/modes/challenge").text
    assert (
        "90 seconds to 2 minutes" in offered
        and "15 minutes to 20 minutes" in offered
        and "No clock" in offered
    )
    challenge = world.begin("2")
    assert "You have 3 minutes." in world.browser.get(f"{challenge}/2").text


def test_what_was_accepted_is_there_when_the_server_starts_anew(make_world: Callable[..., World]) -> None:
    first = make_world()
    challenge = first.begin()
    first.open(challenge, 1)
    first.answer(challenge, 1)
    second = make_world()
    second.browser.cookies = first.browser.cookies
    assert "✓ Correct" in second.browser.get(f"{challenge}/1").text


@pytest.mark.parametrize(
    ("action", "form", "status"),
    [
        ("submit", {"option": "nonsense", "key": "0" * 32}, 409),
        ("submit", {"option": "x", "key": "../../etc"}, 400),
        ("choose", {"option": ["nonsense", "more"]}, 409),
        ("explode", {}, 400),
    ],
)
def test_a_form_that_no_page_made_changes_nothing(
    world: World, action: str, form: dict[str, Any], status: int
) -> None:
    challenge = world.begin()
    world.open(challenge, 1)
    before = len(world.site.store.entries(challenge.rsplit("/", 1)[1]))
    assert world.post(f"{challenge}/1/{action}", **form).status_code == status
    assert len(world.site.store.entries(challenge.rsplit("/", 1)[1])) == before


def test_submitting_nothing_asks_for_an_answer(world: World) -> None:
    challenge = world.begin()
    world.open(challenge, 1)
    assert "Choose an answer first" in world.post(f"{challenge}/1/submit", key="0" * 32).text


# Whom the server answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "169.254.169.254", "localhost.evil"]
)
def test_another_name_in_the_host_header_is_refused(world: World, host: str) -> None:
    assert world.browser.get("/", headers={"host": host}).status_code == 421


def test_two_host_headers_are_refused(world: World) -> None:
    for hosts in (["127.0.0.1", "evil.example"], ["127.0.0.1", "127.0.0.1"]):
        answer = world.browser.get("/", headers=[("host", host) for host in hosts])
        assert answer.status_code == 421


@pytest.mark.parametrize("host", ["127.0.0.1:8421", "localhost", "LOCALHOST:1", "[::1]:8421"])
def test_the_names_of_this_machine_are_answered(world: World, host: str) -> None:
    assert world.browser.get("/", headers={"host": host}).status_code == 200


@pytest.mark.parametrize(("charset", "status"), [("utf-7", 403), ("undefined", 400)])
def test_a_form_in_an_odd_charset_is_refused(world: World, charset: str, status: int) -> None:
    form = '--b\r\ncontent-disposition: form-data; name="csrf"\r\n\r\n+2AA-\r\n--b--\r\n'
    heads = {"content-type": f"multipart/form-data; boundary=b; charset={charset}"}
    found = world.browser.post("/experiments/one-pass/run", content=form, headers=heads)
    assert found.status_code == status


def test_every_form_needs_the_token_of_its_own_session(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None)
    foreign = make_world(learner=None).csrf()
    for token in ("", "x", foreign):
        response = world.browser.post("/modes/challenge/begin", data={"csrf": token, "timer": "1"})
        assert response.status_code == 403
    assert world.site.store.challenges() == []


def test_no_route_that_writes_is_left_without_the_token(world: World) -> None:
    rooms = (challenges, classes, home, joining, tour, experiments, flashcards, runs, tasks)
    posts = [route for room in rooms for route in room.router.routes if "POST" in route.methods]  # type: ignore[attr-defined]
    assert len(posts) >= 7
    for route in posts:
        address = re.sub(r"\{[^}]*int\}", "1", route.path)
        address = re.sub(r"\{\w+\}", "x", address)
        assert (
            world.browser.post(
                address, data={"section": "1", "card": "x", "rating": "x", "seen": "0"}
            ).status_code
            == 403
        )


def test_a_form_from_another_site_is_refused_by_its_origin(world: World) -> None:
    form = {"csrf": world.csrf(), "timer": "1"}
    refused = world.browser.post(
        "/modes/challenge/begin", data=form, headers={"origin": "http://evil.example"}
    )
    assert refused.status_code == 403
    assert (
        world.browser.post("/modes/challenge/begin", data=form, headers={"origin": HOME}).status_code == 200
    )


def test_a_forged_session_is_replaced_by_a_new_one(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None)
    challenge = world.begin()
    [(name, cookie)] = world.browser.cookies.items()
    for forged in (cookie[:-3] + "abc", "eyJsZWFybmVyIjoiYWRhIn0.x", "", "null"):
        stranger = world.another()
        stranger.cookies.set(name, forged)
        assert stranger.get(challenge).status_code == 404


def test_no_longer_cookies_are_remembered_than_a_browser_sends(world: World) -> None:
    keeper = SessionMiddleware(world.browser.app, site=world.site, name="lesson")
    for number in range(3):
        assert keeper._session(f"{number}" + "x" * 4096) is None
    assert keeper._known_session.cache_info().currsize == 0
    world.browser.get("/")
    session = keeper._session(world.browser.cookies[keeper.cookie])
    assert session is not None and session.learner == world.site.learner
    assert keeper._session("") is None


def test_our_cookie_is_found_beside_those_of_other_servers(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None)
    challenge = world.begin()
    [(name, cookie)] = world.browser.cookies.items()
    beside = {"cookie": f'a="b; {name}x=1;{name}={cookie} ; c'}
    assert world.another().get(challenge, headers=beside).status_code == 200
    assert world.another().get(challenge, headers={"cookie": f"x{name}={cookie}"}).status_code == 404


def test_on_loopback_too_a_lesson_is_served_with_a_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    told: list[str] = []
    served: list[Any] = []
    opened: list[str] = []
    monkeypatch.setattr("headstart.web.server.open_browser", opened.append)
    monkeypatch.setattr("headstart.web.front.run", lambda app, **options: served.append(app))
    server.serve(None, host="127.0.0.1", port=0, browser=True, say=told.append)
    printed = re.search(r"http://127\.0\.0\.1:\d+(/\?token=(\S+))", told[0])
    assert printed and len(printed[2]) > 20
    [once] = opened  # other users can read the command line of the browser that is opened
    ticket = once.partition("/?")[2]
    assert printed[2] not in once
    owner, late, copied = (TestClient(served[0], base_url=HOME) for _ in range(3))
    assert owner.get("/").status_code == 401
    assert owner.get(f"/?{ticket}").status_code == 200 and owner.get("/experiments").status_code == 200
    assert late.get(f"/?{ticket}").status_code == 401
    assert copied.get(printed[1]).status_code == 200
    served[0].state.site.jobs.close()
    served[0].state.site.store.close()


def test_what_admits_is_a_cookie_that_no_script_and_no_other_site_can_use(
    make_world: Callable[..., World],
) -> None:
    world = make_world(token="open-sesame")
    assert "set-cookie" not in world.browser.get("/").headers
    answer = world.browser.get("/modes/challenge?a=b&token=open-sesame", follow_redirects=False)
    assert answer.status_code == 303 and answer.headers["location"] == "/modes/challenge?a=b"
    assert answer.headers["set-cookie"].endswith("HttpOnly; SameSite=Strict")
    again = world.browser.get("/?token=whatever", follow_redirects=False)
    assert again.status_code == 303 and again.headers["location"] == "/"


def test_a_link_on_another_sites_page_reaches_the_page_of_who_was_admitted(
    make_world: Callable[..., World],
) -> None:
    world = make_world(learner=None, token="open-sesame")
    from_elsewhere = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}
    answer = world.another().get('/modes/challenge?a="b"&token=open-sesame', headers=from_elsewhere)
    assert answer.status_code == 200 and "set-cookie" not in answer.headers
    # The browser asks again for itself, with the cookie that it keeps from other sites.
    found = re.search(r'content="0;url=([^"]*)"', answer.text)
    assert found and unescape(found[1]) == "/modes/challenge?a=%22b%22&token=open-sesame"
    assert world.browser.get(unescape(found[1])).url.path == "/modes/challenge"


def test_beyond_loopback_a_browser_needs_the_access_token_once(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None, token="open-sesame", names=names_for("0.0.0.0"))
    assert world.browser.get("/").status_code == 401
    assert world.browser.get("/?token=wrong").status_code == 401
    assert world.browser.get("/experiments").status_code == 401
    admitted = world.browser.get("/?token=open-sesame")
    assert admitted.status_code == 200 and "token" not in str(admitted.url)
    assert world.browser.get("/modes/challenge").status_code == 200
    assert world.another().get("/", headers={"host": "192.168.1.5:8421"}).status_code == 401
    assert (
        world.another()
        .get(f"{HOME}//evil.example/?token=open-sesame", follow_redirects=False)
        .headers["location"]
        == "/evil.example/"
    )


def test_what_admitted_a_browser_admits_it_to_no_other_server_of_this_home(
    make_world: Callable[..., World],
) -> None:
    beyond = {"learner": None, "names": names_for("0.0.0.0")}
    world = make_world(token="open-sesame", **beyond)
    world.browser.get("/?token=open-sesame")
    again = make_world(token="another-day", **beyond).browser
    again.cookies = world.browser.cookies  # a browser sends them to every port of a host
    assert again.get("/").status_code == 401
    assert again.get("/?token=another-day").status_code == 200

    async def studio(scope: Scope, receive: Receive, send: Send) -> None:
        await Response()(scope, receive, send)

    site = replace(world.site, token="open-sesame")
    beside = TestClient(SessionMiddleware(studio, site=site, name="studio"), base_url=HOME)
    beside.cookies = world.browser.cookies
    assert beside.get("/").status_code == 401


def test_a_form_larger_than_any_of_ours_is_refused(world: World) -> None:
    assert world.post("/modes/challenge/begin", timer="x" * 70_000).status_code == 413


@pytest.mark.parametrize(
    "address", ["/", "/modes/challenge", "/nowhere", "/static/style.css", "/experiments"]
)
def test_every_page_forbids_what_is_not_its_own(world: World, address: str) -> None:
    response = world.browser.get(address)
    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'self'") and "unsafe" not in policy
    assert response.headers["x-content-type-options"] == "nosniff"
    assert not re.search(r"<script(?![^>]*src=)|\sstyle=|\son\w+=|https?://(?!www\.w3\.org)", response.text)


def test_the_session_key_is_made_once_and_readable_by_its_owner_alone(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: load_secret(tmp_path), range(8)))
    assert len(keys) == 1
    assert (tmp_path / "keys/session.key").stat().st_mode & 0o077 == 0


# Reading --------------------------------------------------------------------------------------------------


def test_every_page_of_the_bundled_lesson_opens(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    pack = world.site.pack
    addresses = [f"/modes/{mode.name}" for mode in pack.modes] + [
        f"/experiments/{name}" for name in pack.experiments
    ]
    addresses += [f"/tasks/{task.slug}" for task in (*pack.tasks, pack.project) if task]
    for address in ["/", "/experiments", *addresses]:
        response = world.browser.get(address)
        assert response.status_code == 200, address
        assert "{{" not in response.text and "{%" not in response.text, address
        assert "not measured yet" not in response.text and 'class="unmeasured"' not in response.text, address
        links = set(re.findall(r'href="(/[^"#?]*)', response.text))
        assert all(world.browser.get(link).status_code == 200 for link in links - set(addresses)), address


def test_numbers_are_measured_or_said_to_be_missing() -> None:
    text = "It took {{ experiment:one-pass.ratio }}. {{ claim:one-pass }}\n\n{{ plot:one-pass }}\n"
    pending = markdown(text, {})
    assert "not measured yet" in pending and "has not run yet on this machine" in pending
    assert ">3.46<" in markdown(text, {"one-pass": {"ratio": 3.4567}})
    assert ">none here<" in markdown(text, {"one-pass": {"ratio": None}})
    assert "<p></p>" not in pending and "<p><div" not in pending


def test_a_number_is_the_reference_machines_until_this_one_has_measured(
    make_world: Callable[..., World],
) -> None:
    world = make_world(library.load_pack())
    world.experiments.fields = {"ratio": 3.5}
    before = world.browser.get("/modes/deep").text
    known = references()["one-pass"]
    assert f'{show(known.values["ratio"])}<sup aria-hidden="true">†</sup>' in before
    assert f"{known.machine}), {known.day}" in before
    world.post("/experiments/one-pass/run")
    finished(world)
    after = world.browser.get("/modes/deep").text
    assert '">3.5</a>' in after  # replaced, while what this run did not give stays as it was
    assert f"{show(known.values['difference'])}<sup" in after
    assert f"{show(known.values['ratio'])}<sup" not in after


def test_the_reference_machine_has_a_value_for_all_that_the_lesson_may_quote() -> None:
    pack = library.load_pack()
    lacking = {
        name: left
        for name, one in pack.experiments.items()
        if (left := set(one.fields) - set(references()[name].values if name in references() else ()))
    }
    assert lacking == {}, f"run python benchmarks/reference.py {' '.join(lacking)}"


def test_the_way_from_the_text_to_a_result_and_back_is_one_click_each(
    make_world: Callable[..., World],
) -> None:
    world = make_world(library.load_pack())
    text = world.browser.get("/modes/deep").text
    for name in set(re.findall(r'href="/experiments/([\w-]+)"', text)):
        back = re.findall(r'href="/modes/deep#(section-\d+)"', world.browser.get(f"/experiments/{name}").text)
        assert back and all(f'id="{section}"' in text for section in back), name


def test_a_caption_says_which_images_and_what_one_must_know() -> None:
    plot = Plot("line", "Title", "x", "y", (Series("once", ((1, 7.0),)),))
    drawn = Drawn((plot, plot), "8x8 digits", ("a bound of MobileNetV2",))
    shown = markdown("{{ plot:one-pass }}", {}, plots=lambda name: drawn)
    assert shown.count("8x8 digits") == 1 and "A bound of MobileNetV2." in shown
    assert shown.count("As a table") == shown.count("<svg viewBox") == 2 and "<td>7</td>" in shown


def test_a_pack_cannot_smuggle_markup() -> None:
    text = (
        "<script>alert(1)</script> [x](javascript:alert(1)) <img src=x onerror=alert(1)> {{ experiment:a.b }}"
    )
    html = markdown(text, {"a": {"b": "<b>"}}) + inline(text, {})
    assert (
        "<script" not in html and "<img" not in html and 'href="javascript' not in html and "<b>" not in html
    )


def test_a_heading_inside_code_begins_no_section() -> None:
    body = "## One\n\n```\n## not a heading\n```\n\n## Two\n\ntext"
    assert [title for title, _ in sections(body)] == ["One", "Two"]
    assert [title for title, _ in sections(body)] == list(Mode("learn", "t", 1, body).sections)


def test_reading_a_section_is_remembered(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    page = world.post("/modes/learn/read", section=1)
    assert page.url.path == "/modes/learn" and "1 of 4 sections read" in page.text
    assert "1 of 4 sections" in world.browser.get("/").text
    assert world.post("/modes/learn/read", section=99).status_code == 404


# Review ---------------------------------------------------------------------------------------------------


def test_a_card_shows_its_back_only_when_turned_and_returns_later(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    card = world.site.pack.cards[0]
    assert card.back[:20] not in world.browser.get("/modes/review").text
    assert card.back[:20] in world.browser.get(f"/modes/review?turn={card.slug}").text
    for _ in range(2):  # a double click
        world.post("/modes/review/rate", card=card.slug, rating="easy", seen=0)
    assert len(world.site.store.reviews("ada", world.site.pack.slug)) == 1
    assert card.front[:30] not in world.browser.get("/modes/review").text
    world.clock.forward(60 * 86_400)
    assert "12 cards waiting" in world.browser.get("/modes/review").text


def test_short_questions_have_no_clock(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    challenge = str(world.post("/modes/review/begin").url.path).rsplit("/", 1)[0]
    assert 'role="timer"' not in world.open(challenge, 1).text


def test_short_questions_return_by_how_they_were_answered(make_world: Callable[..., World]) -> None:
    world = make_world(library.load_pack())
    count = len(world.site.pack.problems("review"))
    assert f"12 cards and {count} questions waiting" in world.browser.get("/").text
    questions = str(world.post("/modes/review/begin").url.path).rsplit("/", 1)[0]
    for number in range(1, count + 1):
        world.open(questions, number)
        if number == 1:
            world.post(f"{questions}/1/give-up")
            assert "Go on with the short questions" in world.browser.get("/modes/review").text
        else:
            world.answer(questions, number)
    assert "No short question is due" in world.browser.get("/modes/review").text
    assert world.post("/modes/review/begin").url.path == "/modes/review"
    world.clock.forward(120)
    assert "Answer 1 short question<" in world.browser.get("/modes/review").text, (
        "the one given up comes first"
    )
    again = str(world.post("/modes/review/begin").url.path).rsplit("/", 1)[0]
    items = world.site.store.challenge(again.rsplit("/", 1)[1]).items
    assert [item.problem for item in items] == [world.site.pack.problems("review")[0].slug]
    world.open(again, 1)
    world.answer(again, 1)
    world.clock.forward(60 * 86_400)
    assert f"Answer {count} short questions" in world.browser.get("/modes/review").text


# At once ---------------------------------------------------------------------------------------------------


def test_results_that_cannot_be_read_are_said_by_pages_and_keep_no_server_from_starting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str, *, as_declared: bool = False) -> None:
        raise RunError("experiments.db: file is not a database")

    monkeypatch.setattr(world.experiments, "latest", broken)
    with world.browser as browser:
        assert browser.get("/static/icon.svg").status_code == 200
        assert "file is not a database" in browser.get("/").text


def test_the_server_comes_up_with_every_template_compiled(world: World) -> None:
    with TestClient(world.browser.app, base_url=HOME) as browser:  # runs what a server runs at its start
        assert browser.get("/").status_code == 200


def test_learners_at_once_lose_and_double_nothing(make_world: Callable[..., World]) -> None:
    world = make_world(learner=None)

    def play(number: int) -> int:
        browser = world.another()
        token = re.search(r'name="csrf" value="(\w+)"', browser.get("/modes/challenge").text)
        assert token
        form = {"csrf": token[1]}
        challenge = str(browser.post("/modes/challenge/begin", data={**form, "timer": "off"}).url.path)[:-2]
        for place in (1, 2):
            page = browser.post(f"{challenge}/{place}/open", data=form).text
            option = re.findall(r'name="option" value="(\w+)"', page)[number % 4]
            browser.post(f"{challenge}/{place}/submit", data={**form, "option": option, "key": "c" * 32})
        return len(world.site.store.challenge(challenge.rsplit("/", 1)[1]).answered)

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(play, range(24))) == [2] * 24
    assert len({state.learner for state in world.site.store.challenges()}) == 24
