"""The lesson in a real browser, with every network but the server's own blocked.

What it needs is said in `browsing`; the check of accessibility needs axe-core, see `axe_core`.
"""

from __future__ import annotations

import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")
pytest.importorskip("playwright", reason="needs the package playwright")

from playwright.sync_api import Page, Route, expect

from browsing import Visit, inspector, served_by_a_thread
from children import started
from headstart.lesson import experiments
from headstart.lesson.engine import badge_images as pictures
from headstart.lesson.engine import badges
from headstart.lesson.engine.attempts import Item
from headstart.lesson.engine.pack import FORMS
from headstart.lesson.engine.progress import Line
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.server import prepare
from headstart.lesson.pages.site import LessonSite
from lesson_packs import forms_pack, plain, right_answer, wrong_answer


class MovingClock:
    """The true time, and what a test adds to it."""

    def __init__(self) -> None:
        self.ahead = timedelta()

    def __call__(self) -> datetime:
        return datetime.now(UTC) + self.ahead


@dataclass
class Served:
    """A running server with a clock that tests can move."""

    address: str
    site: LessonSite
    clock: MovingClock
    app: Any

    def item(self, number: int) -> Item:
        """A problem of the latest challenge, as the server knows it."""
        return self.site.store.challenges()[-1].items[number - 1]

    def right(self, number: int) -> str:
        return self.item(number).layout.answer

    def wrong(self, number: int) -> list[str]:
        item = self.item(number)
        return [i for i, _ in item.layout.options if i != item.layout.answer and i not in item.tried]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path))
    clock = MovingClock()
    site = replace(prepare(None, host="127.0.0.1"), learner="ada", clock=clock)
    site = replace(site, pack=plain(site.pack))
    app = create_app(site)
    with served_by_a_thread(app) as address:
        yield Served(address, site, clock, app)
    site.jobs.close()
    site.store.close()


@pytest.fixture
def visit(visit: Callable[..., Visit], served: Served) -> Callable[..., Visit]:
    """A browser that has opened the address that the terminal printed."""

    def begin(**options: Any) -> Visit:
        made = visit(**options)
        made.page.goto(f"{served.address}/?token={served.site.token}")
        return made

    return begin


def begin(page: Page, address: str, *, timer: str = "2 minutes") -> None:
    page.goto(address + "/")
    page.get_by_role("link", name="The challenge").click()
    page.get_by_label(timer, exact=True).check()
    page.get_by_role("button", name="Begin").click()


def open_problem(page: Page, *, number: int = 1) -> None:
    """The first is open once the challenge has begun."""
    if number > 1:
        page.get_by_role("button", name="Open the problem").click()
    expect(page.get_by_role("group", name="Your answer")).to_be_visible()
    page.wait_for_load_state()  # the script has run by then


def choose(page: Page, option: str) -> None:
    page.locator(f"input[value='{option}']").check()


def submit(page: Page) -> None:
    page.get_by_role("button", name="Submit").click()


@pytest.fixture
def opened(served: Served, visit: Callable[..., Visit]) -> Visit:
    """A browser with the first problem open."""
    made = visit()
    begin(made.page, served.address)
    open_problem(made.page)
    return made


@pytest.mark.parametrize("javascript", [True, False])
def test_from_the_first_page_to_a_badge_that_verifies(
    served: Served, visit: Callable[..., Visit], photos: Path, javascript: bool, tmp_path: Path
) -> None:
    size = {"width": 1280 if javascript else 360, "height": 800}  # without a script, on a phone
    page = visit(java_script_enabled=javascript, viewport=size).page
    found, check = inspector(page) if javascript else ([], lambda name: None)  # axe-core is a script
    if javascript:
        pytest.importorskip("openvino")
        fill(served, photos)
    begin(page, served.address)
    for number in range(1, 6):
        open_problem(page, number=number)
        if number == 2:  # both attempts and the hint
            choose(page, served.wrong(2)[0])
            page.get_by_role("button", name="Hint").click()
            expect(page.get_by_label("Hint")).to_be_visible()
            expect(page.locator("input:checked")).to_have_count(1)
            submit(page)
            expect(page.get_by_role("alert")).to_contain_text("1 attempt is left")
            check("second attempt")
        choose(page, served.right(number))
        submit(page)
        expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()
        check(f"closed problem {number}")
        page.get_by_role("link", name="Next problem" if number < 5 else "See the result").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("All 5 correct")
    check("result")
    page.get_by_role("link", name="Take your badge").click()
    name = page.get_by_label("The name on the badge")
    name.wait_for()
    check("badge, unsigned")
    name.fill("Ada")
    page.get_by_role("button", name="Sign the badge").click()
    expect(page.get_by_text("✓ Verified")).to_be_visible()
    check("badge")
    with page.expect_download() as download:
        page.get_by_role("link", name="PNG").click()
    target = tmp_path / "badge.png"
    download.value.save_as(target)
    checked = badges.verify(pictures.extract(target.read_bytes()), now=datetime.now(UTC), trusted=())
    assert checked.holder == "Ada" and found == []


def test_a_reload_keeps_the_choice_and_gives_no_time_back(served: Served, opened: Visit) -> None:
    page = opened.page
    option = served.wrong(1)[1]
    with page.expect_response(lambda response: response.url.endswith("/choose")):
        choose(page, option)
    served.clock.ahead += timedelta(seconds=60)
    page.reload()
    expect(page.locator(f"input[value='{option}']")).to_be_checked()
    left = re.match(r"(\d+):(\d+)", page.locator("[data-clock]").inner_text())
    assert left and int(left[1]) * 60 + int(left[2]) <= 61


def test_a_connection_lost_in_the_middle_of_an_answer_costs_nothing(served: Served, opened: Visit) -> None:
    page = opened.page
    opened.online = False
    choose(page, served.right(1))
    expect(page.get_by_role("status")).to_contain_text("No connection")
    submit(page)
    expect(page.get_by_role("status")).to_contain_text("nothing is lost")
    assert served.item(1).tried == ()
    opened.online = True
    submit(page)
    expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()
    assert len(served.item(1).tried) == 1


def test_a_choice_made_offline_is_saved_when_the_connection_returns(served: Served, opened: Visit) -> None:
    opened.online = False
    choose(opened.page, served.right(1))
    expect(opened.page.get_by_role("status")).to_contain_text("No connection")
    with opened.page.expect_response(lambda response: response.url.endswith("/choose")):
        opened.online = True
    assert served.item(1).chosen == served.right(1)


def test_the_clock_warns_runs_out_and_the_answer_still_counts(
    served: Served, visit: Callable[..., Visit]
) -> None:
    page = visit().page
    page.clock.install()
    begin(page, served.address)
    open_problem(page)
    announced = page.locator("[data-announce]")
    expect(announced).to_be_empty()
    for seconds, text in ((61, "60 seconds left"), (30, "30 seconds left"), (20, "10 seconds left")):
        served.clock.ahead += timedelta(seconds=seconds)  # first, as the page may ask at any moment
        page.clock.run_for(seconds * 1000)
        expect(announced).to_have_text(text)
    served.clock.ahead += timedelta(seconds=20)
    page.clock.run_for(15_000)
    expect(page.get_by_role("timer")).to_contain_text("Time is up")
    expect(page.get_by_text("worth 70 points now")).to_be_visible()
    choose(page, served.right(1))
    submit(page)
    expect(page.get_by_text("70 points, late")).to_be_visible()


def test_a_second_tab_follows_the_first(served: Served, opened: Visit) -> None:
    other = opened.context.new_page()
    other.goto(opened.page.url)
    choose(opened.page, served.right(1))
    submit(opened.page)
    expect(opened.page.get_by_role("heading", name="✓ Correct")).to_be_visible()
    other.evaluate("dispatchEvent(new Event('focus'))")
    expect(other.get_by_role("heading", name="✓ Correct")).to_be_visible()


def test_a_choice_in_one_window_is_marked_in_the_other(served: Served, opened: Visit) -> None:
    other = opened.context.new_page()
    other.goto(opened.page.url)
    option = served.wrong(1)[2]
    with opened.page.expect_response(lambda response: response.url.endswith("/choose")):
        choose(opened.page, option)
    other.evaluate("dispatchEvent(new Event('focus'))")
    expect(other.locator(f"input[value='{option}']")).to_be_checked()


def test_a_hint_that_fails_never_submits_the_answer(served: Served, opened: Visit) -> None:
    page = opened.page
    with page.expect_response(lambda response: response.url.endswith("/choose")):
        choose(page, served.wrong(1)[0])
    failures = iter([503])

    def fail_once(route: Route) -> None:
        status = next(failures, None)
        route.fulfill(status=status, body="busy") if status else route.fallback()

    page.route("**/hint", fail_once)
    page.get_by_role("button", name="Hint").click()
    expect(page.get_by_label("Hint")).to_be_visible()
    assert served.item(1).hint_taken and served.item(1).tried == ()


def test_the_latest_of_hasty_choices_is_saved_even_where_the_server_failed(
    served: Served, opened: Visit
) -> None:
    page = opened.page
    first, second, third = served.wrong(1)
    failures = iter([500])

    def slow_and_failing(route: Route) -> None:
        time.sleep(0.1)
        status = next(failures, None) if third in (route.request.post_data or "") else None
        route.fulfill(status=status, body="no") if status else route.fallback()

    page.route("**/choose", slow_and_failing)
    for option in (first, second, third):
        choose(page, option)
    for _ in range(200):
        if served.item(1).chosen == third:
            break
        page.wait_for_timeout(50)
    assert served.item(1).chosen == third
    expect(page.get_by_role("status")).to_be_empty()


def test_keys_choose_and_the_clock_and_submit_stay_in_sight(served: Served, opened: Visit) -> None:
    page = opened.page
    page.set_viewport_size({"width": 1024, "height": 768})
    for key, place in (("2", 1), ("d", 3), ("5", 3)):
        page.keyboard.press(key)
        expect(page.locator("input[name=option]").nth(place)).to_be_checked()
    for place in (0, 10_000):  # pixels from the top
        page.evaluate(f"scrollTo(0, {place})")
        expect(page.get_by_role("timer")).to_be_in_viewport()
        expect(page.get_by_role("button", name="Submit")).to_be_in_viewport()
    choose(page, served.wrong(1)[0])
    submit(page)
    expect(page.get_by_role("alert")).to_contain_text("Not that one.")
    choose(page, served.right(1))
    submit(page)
    expect(page.get_by_role("link", name="Next problem")).to_be_in_viewport()
    page.evaluate("scrollTo(0, 10000)")
    expect(page.get_by_role("link", name="Next problem")).to_be_in_viewport()
    expect(page.get_by_role("navigation", name="Problems")).to_contain_text("✓")


def test_a_double_click_costs_one_attempt(served: Served, opened: Visit) -> None:
    page = opened.page
    choose(page, served.wrong(1)[0])
    page.get_by_role("button", name="Submit").dblclick()
    expect(page.get_by_text("1 attempt left")).to_be_visible()
    assert len(served.item(1).tried) == 1


def test_the_keyboard_alone_is_enough(served: Served, visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto(served.address + "/modes/challenge")

    def tab_to(name: str) -> None:
        for _ in range(60):
            page.keyboard.press("Tab")
            focused = page.evaluate(
                "(document.activeElement.innerText || document.activeElement.value || '')"
            )
            if name in str(focused):
                seen = "(document.activeElement.closest('label') ?? document.activeElement)"
                assert page.evaluate(f"getComputedStyle({seen}).outlineStyle") != "none"
                return
        raise AssertionError(f"no way to {name!r} by keyboard")

    tab_to("Begin")
    page.keyboard.press("Enter")
    for number in range(1, 6):
        if number > 1:
            expect(page.get_by_role("button", name="Open the problem")).to_be_visible()
            tab_to("Open the problem")
            page.keyboard.press("Enter")
        expect(page.get_by_role("group", name="Your answer")).to_be_visible()
        page.locator("body").press("Tab")
        first = page.locator("input[type=radio]").first.get_attribute("value")
        tab_to(str(first))
        page.keyboard.press("Space")
        while page.evaluate("document.activeElement.value") != served.right(number):
            page.keyboard.press("ArrowDown")
        tab_to("Submit")
        page.keyboard.press("Enter")
        expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()
        tab_to("Next problem" if number < 5 else "See the result")
        page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("All 5 correct")
    tab_to("Take your badge")
    page.keyboard.press("Enter")
    page.get_by_label("The name on the badge").wait_for()
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id") == "name":
            break
    page.keyboard.type("Ada")
    page.keyboard.press("Enter")
    expect(page.get_by_text("✓ Verified")).to_be_visible()


def fill(served: Served, photos: Path) -> None:
    """Results of an experiment, a run, and a graded try of the project."""
    from headstart import fit

    home = served.site.home
    assert Path(os.environ["HEADSTART_HOME"]) == home
    experiments.run("five-images-one-epoch", size="small")
    fit(photos, head="softmax", layers="last", epochs=6, backbone="builtin", size=64, out=home / "run")
    project = served.site.pack.project
    assert project is not None
    values = {control.name: control.start for control in project.controls}
    fields = {"accuracy": 80.0, "slow_accuracy": 85.0, "seconds": 1.0, "slow_seconds": 9.0}
    body = {"parameters": values, "fields": fields, "reached": False, "why": "Small is quick."}
    stream = f"task:{served.site.pack.slug}:{project.slug}:ada"
    served.site.store.append(Line(stream, "ada", "try", served.clock(), body, "one"))


def test_an_empty_home_shows_no_blank_and_the_first_question_after_two_clicks(
    served: Served, visit: Callable[..., Visit]
) -> None:
    page = visit(viewport={"width": 360, "height": 768}).page
    for address in ("/", "/experiments", *(f"/modes/{mode.name}" for mode in served.site.pack.modes)):
        page.goto(served.address + address)
        expect(page.locator("main h1")).to_be_visible()
        assert not re.search("not measured yet|to be measured", page.inner_text("main"))
    page.goto(served.address)
    expect(page.locator(".headline dd")).to_have_text([re.compile(r"^[\d.]+†? % in [\d.]+†? s$")] * 2)
    page.get_by_role("link", name="The challenge").click()
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("group", name="Your answer")).to_be_visible()


def test_axe_finds_nothing_and_nothing_overflows(
    served: Served, visit: Callable[..., Visit], photos: Path
) -> None:
    page = visit(viewport={"width": 1280, "height": 800}).page
    found, check = inspector(page)
    begin(page, served.address)
    open_problem(page)
    check("open problem")
    page.goto(page.url.removesuffix("1") + "2")
    check("unopened problem")
    pack = served.site.pack
    for address in (
        ["/", "/experiments", "/experiments/layers", "/tasks/beat-scratch", "/nowhere"]
        + [f"/modes/{mode.name}" for mode in pack.modes]
        + [f"/modes/review?turn={pack.cards[0].slug}"]
    ):
        page.goto(served.address + address)
        check(address)
    fill(served, photos)
    for address in ("/experiments/five-images-one-epoch", "/tasks/enough-in-time", "/modes/metrics"):
        page.goto(served.address + address)
        check(f"{address}, full")
    page.goto(served.address + "/modes/visualize")
    page.get_by_role("button", name=re.compile("^Follow")).click()
    page.wait_for_url("**#tour")
    page.get_by_role("heading", name="Prediction").wait_for()
    check("tour")
    assert found == []


def test_a_killed_server_loses_no_accepted_answer(visit: Callable[..., Visit]) -> None:
    with learning() as (server, printed):
        page = visit().page
        page.goto(printed)
        address = printed.partition("/?")[0]
        begin(page, address)
        open_problem(page)
        options = page.locator("input[name=option]").evaluate_all("all => all.map((one) => one.value)")
        with page.expect_response(lambda response: response.url.endswith("/choose")):
            choose(page, options[2])
        server.kill()
        left = page.url
    with learning(int(address.rsplit(":", 1)[1])) as (_, printed):
        page.goto(printed)
        page.goto(left)
        expect(page.locator(f"input[value='{options[2]}']")).to_be_checked()
        submit(page)
        expect(page.locator("input:disabled, .answered")).to_have_count(1)


_SERVER = """
from headstart.cli import main
from headstart.lesson.engine import answers
from headstart.lesson.pages import server

answers._draw = lambda problem, seed, seen: problem  # the variant with one right option
server.measure_quick = lambda site: None  # no experiments beside the tests
main()
"""


@contextmanager
def learning(port: int = 0) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A lesson's server in a process of its own, and the address that it prints."""
    command = [sys.executable, "-c", _SERVER, "learn", "--no-browser", "--port", str(port)]
    with started(command, stderr=subprocess.PIPE) as server:
        assert server.stderr
        line = server.stderr.readline()
        found = re.search(r"http://127\.0\.0\.1:(\d+)/\?token=\S+", line)
        assert found, line
        wait_until_it_listens(int(found[1]))
        yield server, found[0]


def wait_until_it_listens(port: int) -> None:
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise AssertionError("the server does not listen")


def test_every_form_is_answered_with_the_mouse_missed_once_and_shown(
    served: Served, visit: Callable[..., Visit]
) -> None:
    """Several, an order, pairs and a number beside one; axe-core finds nothing on their pages."""
    served.app.state.site = replace(served.site, pack=forms_pack())
    page = visit(viewport={"width": 1280, "height": 768}).page
    found, check = inspector(page)
    page.goto(f"{served.address}/modes/challenge")
    page.get_by_role("button", name="Begin").click()
    for number, form in enumerate(FORMS, 1):
        if number > 1:
            page.get_by_role("button", name="Open the problem").click()
        page.locator("form[data-answer]").wait_for()
        page.wait_for_load_state()
        layout = served.item(number).layout
        with page.expect_response(lambda response: response.url.endswith("/choose")):
            give(page, wrong_answer(layout))
        page.locator("[data-status]").wait_for(state="attached")
        expect(page.get_by_role("button", name="Submit")).to_be_in_viewport()
        if form == "several":
            page.locator("input[type=checkbox]").first.focus()
            before = page.locator("input[type=checkbox]").nth(1).is_checked()
            page.keyboard.press("b")
            page.keyboard.press("2")
            assert page.locator("input[type=checkbox]").nth(1).is_checked() == before, "once on, once off"
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("alert")).to_contain_text("1 attempt is left")
        page.evaluate("scrollTo(0, 0)")
        check(f"{form}, missed")
        if form == "several":
            for box in page.locator("input[type=checkbox]:checked").all():
                box.uncheck()
        give(page, right_answer(layout))
        page.get_by_role("button", name="Submit").click()
        expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()
        if form in ("order", "number"):
            page.evaluate(
                "scrollTo(0, 0)"
            )  # else the verdict, which stays in sight, covers half of the header
            check(f"{form}, closed")
        if number < len(FORMS):
            page.get_by_role("link", name="Next problem").click()
    assert found == []


def give(page: Page, answer: str) -> None:
    """Marks, chooses or types an answer."""
    for piece in answer.split():
        field = page.locator(f"[name=option][value='{piece}'], select:has(option[value='{piece}'])")
        if not field.count():
            page.locator("input[name=option]").fill(piece)
            page.locator("input[name=option]").blur()
        elif field.evaluate("field => field.tagName") == "SELECT":
            field.select_option(piece)
        else:
            field.check()
