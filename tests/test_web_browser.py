"""The lesson in a real browser, with every network but the server's own blocked.

Needs Playwright's Python package and Chromium (`HEADSTART_CHROMIUM`, or `chromium` on the path). The check of
accessibility needs axe-core, see `axe_core`.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")
pytest.importorskip("playwright", reason="needs the package playwright")

import uvicorn
from playwright.sync_api import Browser, BrowserContext, Page, expect, sync_playwright

from axe_core import axe_source
from headstart.lessons import badges, experiments, library, pictures
from headstart.lessons.attempts import Item
from headstart.lessons.progress import Line, Progress
from headstart.web.app import create_app
from headstart.web.evidence import Evidence
from headstart.web.jobs import Jobs
from headstart.web.site import Site, load_secret

CHROMIUM = os.environ.get("HEADSTART_CHROMIUM") or shutil.which("chromium") or ""
pytestmark = pytest.mark.skipif(not Path(CHROMIUM).is_file(), reason="needs Chromium: set HEADSTART_CHROMIUM")

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking")


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
    site: Site
    clock: MovingClock

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
    store = Progress.open(tmp_path / "progress.db")
    secret = load_secret(tmp_path)
    pack = library.load_pack()
    site = Site(
        pack=pack,
        store=store,
        home=tmp_path,
        secret=secret,
        jobs=Jobs(tmp_path / "jobs.db"),
        evidence=Evidence(experiments),
        learner="ada",
        clock=clock,
    )
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(create_app(site), log_level="warning", lifespan="off"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}", site, clock)
    server.should_exit = True
    thread.join(10)
    listener.close()
    store.close()


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@dataclass
class Visit:
    """One browser context; `complaints` holds script errors and requests that left for elsewhere."""

    context: BrowserContext
    page: Page
    online: bool = True
    complaints: list[str] = field(default_factory=list)


@pytest.fixture
def visit(browser: Browser) -> Iterator[Callable[..., Visit]]:
    contexts: list[Visit] = []

    def begin(**options: Any) -> Visit:
        context = browser.new_context(accept_downloads=True, **options)
        context.set_default_timeout(20_000)
        made = Visit(context, context.new_page())
        contexts.append(made)

        def only_ours(route: Any) -> None:
            if not made.online:
                route.abort("internetdisconnected")
            elif route.request.url.startswith("http://127.0.0.1:"):
                route.continue_()
            else:
                made.complaints.append(f"left for {route.request.url}")
                route.abort()

        context.route("**/*", only_ours)
        made.page.on("pageerror", lambda error: made.complaints.append(str(error)))
        made.page.on(
            "console",
            lambda told: (
                made.complaints.append(told.text) if "Content Security Policy" in told.text else None
            ),
        )
        return made

    yield begin
    for made in contexts:
        assert made.complaints == []
        made.context.close()


def begin(page: Page, address: str, *, timer: str = "2 minutes") -> None:
    page.goto(address + "/")
    page.get_by_role("link", name="The challenge").click()
    page.get_by_label(timer, exact=True).check()
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("button", name="Open the problem")).to_be_visible()


def open_problem(page: Page) -> None:
    page.get_by_role("button", name="Open the problem").click()
    expect(page.get_by_role("group", name="Your answer")).to_be_visible()
    page.wait_for_load_state()  # the script has run by then


def choose(page: Page, option: str) -> None:
    page.locator(f"input[value='{option}']").check()


def submit(page: Page) -> None:
    page.get_by_role("button", name="Submit").click()


@pytest.mark.parametrize("javascript", [True, False])
def test_from_the_first_page_to_a_badge_that_verifies(
    served: Served, visit: Callable[..., Visit], javascript: bool, tmp_path: Path
) -> None:
    page = visit(java_script_enabled=javascript).page
    begin(page, served.address)
    for number in range(1, 6):
        open_problem(page)
        if number == 2:  # both attempts and the hint
            choose(page, served.wrong(2)[0])
            page.get_by_role("button", name="Hint").click()
            expect(page.get_by_label("Hint")).to_be_visible()
            expect(page.locator("input:checked")).to_have_count(1)
            submit(page)
            expect(page.get_by_role("alert")).to_contain_text("One attempt is left")
        choose(page, served.right(number))
        submit(page)
        expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()
        page.get_by_role("link", name="Next problem" if number < 5 else "See the result").click()
    expect(page.get_by_role("heading", level=1)).to_have_text("All 5 correct")
    page.get_by_role("link", name="Take your badge").click()
    page.get_by_label("The name on the badge").fill("Ada")
    page.get_by_role("button", name="Sign the badge").click()
    expect(page.get_by_text("✓ Verified")).to_be_visible()
    with page.expect_download() as download:
        page.get_by_role("link", name="PNG").click()
    target = tmp_path / "badge.png"
    download.value.save_as(target)
    checked = badges.verify(pictures.extract(target.read_bytes()), now=datetime.now(UTC), trusted=())
    assert checked.holder == "Ada"


def test_a_reload_keeps_the_choice_and_gives_no_time_back(
    served: Served, visit: Callable[..., Visit]
) -> None:
    page = visit().page
    begin(page, served.address)
    open_problem(page)
    option = served.wrong(1)[1]
    with page.expect_response(lambda response: response.url.endswith("/choose")):
        choose(page, option)
    served.clock.ahead += timedelta(seconds=60)
    page.reload()
    expect(page.locator(f"input[value='{option}']")).to_be_checked()
    left = re.match(r"(\d+):(\d+)", page.locator("[data-clock]").inner_text())
    assert left and int(left[1]) * 60 + int(left[2]) <= 61


def test_a_connection_lost_in_the_middle_of_an_answer_costs_nothing(
    served: Served, visit: Callable[..., Visit]
) -> None:
    made = visit()
    page = made.page
    begin(page, served.address)
    open_problem(page)
    made.online = False
    choose(page, served.right(1))
    expect(page.get_by_role("status")).to_contain_text("No connection")
    submit(page)
    expect(page.get_by_role("status")).to_contain_text("nothing is lost")
    assert served.item(1).tried == ()
    made.online = True
    submit(page)
    expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()
    assert len(served.item(1).tried) == 1


def test_a_choice_made_offline_is_saved_when_the_connection_returns(
    served: Served, visit: Callable[..., Visit]
) -> None:
    made = visit()
    begin(made.page, served.address)
    open_problem(made.page)
    made.online = False
    choose(made.page, served.right(1))
    expect(made.page.get_by_role("status")).to_contain_text("No connection")
    with made.page.expect_response(lambda response: response.url.endswith("/choose")):
        made.online = True
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
    choose(page, served.right(1))
    submit(page)
    expect(page.get_by_text("70 points, late")).to_be_visible()


def test_a_second_tab_follows_the_first(served: Served, visit: Callable[..., Visit]) -> None:
    made = visit()
    begin(made.page, served.address)
    open_problem(made.page)
    other = made.context.new_page()
    other.goto(made.page.url)
    choose(made.page, served.right(1))
    submit(made.page)
    expect(made.page.get_by_role("heading", name="✓ Correct")).to_be_visible()
    other.evaluate("dispatchEvent(new Event('focus'))")
    expect(other.get_by_role("heading", name="✓ Correct")).to_be_visible()


def test_a_double_click_costs_one_attempt(served: Served, visit: Callable[..., Visit]) -> None:
    page = visit().page
    begin(page, served.address)
    open_problem(page)
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
                outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
                assert outline != "none" or page.evaluate("document.activeElement.matches('input')")
                return
        raise AssertionError(f"no way to {name!r} by keyboard")

    tab_to("Begin")
    page.keyboard.press("Enter")
    expect(page.get_by_role("button", name="Open the problem")).to_be_visible()
    tab_to("Open the problem")
    page.keyboard.press("Enter")
    expect(page.get_by_role("group", name="Your answer")).to_be_visible()
    page.locator("body").press("Tab")
    first = page.locator("input[type=radio]").first.get_attribute("value")
    tab_to(str(first))
    page.keyboard.press("Space")
    while page.evaluate("document.activeElement.value") != served.right(1):
        page.keyboard.press("ArrowDown")
    tab_to("Submit")
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="✓ Correct")).to_be_visible()


RULES = "{runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']}"


def inspector(page: Page) -> tuple[list[str], Callable[[str], None]]:
    """What axe-core and the window's width object to, and a function that asks them about the open page."""
    source, found = axe_source(), list[str]()

    def check(name: str) -> None:
        page.evaluate(source)
        for violation in page.evaluate(f"axe.run({RULES})")["violations"]:
            places = [node["html"] for node in violation["nodes"]]
            found.append(f"{name}: {violation['id']}: {places[:2]}")
        if page.evaluate("document.documentElement.scrollWidth > innerWidth"):
            found.append(f"{name}: wider than the window")

    return found, check


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_on_pages_full_of_results(
    served: Served, visit: Callable[..., Visit], scheme: str, width: int, photos: Path, tmp_path: Path
) -> None:
    pytest.importorskip("openvino")
    fill(served, photos)
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 800}).page
    found, check = inspector(page)
    begin(page, served.address)
    for number in range(1, 6):
        open_problem(page)
        choose(page, served.right(number))
        submit(page)
        page.get_by_role("heading", name="✓ Correct").wait_for()
        check(f"closed problem {number}")
        page.get_by_role("link", name="Next problem" if number < 5 else "See the result").click()
    page.get_by_role("heading", name="All 5 correct").wait_for()
    check("result")
    page.get_by_role("link", name="Take your badge").click()
    page.get_by_label("The name on the badge").wait_for()
    check("badge, unsigned")
    page.get_by_label("The name on the badge").fill("Ada")
    page.get_by_role("button", name="Sign the badge").click()
    page.get_by_text("✓ Verified").wait_for()
    check("badge")
    for address in ("/experiments/five-images-one-epoch", "/tasks/enough-in-time", "/modes/metrics"):
        page.goto(served.address + address)
        check(address)
    page.goto(served.address + "/modes/visualize")
    page.get_by_role("button", name=re.compile("^Follow")).click()
    page.wait_for_url("**#journey")
    page.get_by_role("heading", name="What the head makes of it").wait_for()
    check("journey")
    assert found == []


def fill(served: Served, photos: Path) -> None:
    """Results of an experiment, a run, and a graded try of the project."""
    from headstart import fit

    home = served.site.home
    assert Path(os.environ["HEADSTART_HOME"]) == home
    experiments.run("five-images-one-epoch", size="small")
    fit(photos, head="softmax", taps="last", epochs=6, size=64, out=home / "run")
    project = served.site.pack.project
    assert project is not None
    values = {control.name: control.start for control in project.controls}
    fields = {"accuracy": 80.0, "slow_accuracy": 85.0, "seconds": 1.0, "slow_seconds": 9.0}
    body = {"parameters": values, "fields": fields, "reached": False, "why": "Small is quick."}
    stream = f"task:{served.site.pack.slug}:{project.slug}:ada"
    served.site.store.append(Line(stream, "ada", "try", served.clock(), body, "one"))


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
def test_axe_finds_nothing_and_nothing_overflows(
    served: Served, visit: Callable[..., Visit], scheme: str, width: int
) -> None:
    page = visit(color_scheme=scheme, viewport={"width": width, "height": 800}).page
    found, check = inspector(page)
    begin(page, served.address)
    check("unopened problem")
    open_problem(page)
    check("open problem")
    choose(page, served.wrong(1)[0])
    page.get_by_role("button", name="Hint").click()
    page.get_by_label("Hint").wait_for()
    choose(page, served.wrong(1)[0])
    submit(page)
    page.get_by_role("alert").wait_for()
    check("second attempt")
    choose(page, served.right(1))
    submit(page)
    page.get_by_role("heading", name="✓ Correct").wait_for()
    check("closed problem")
    pack = served.site.pack
    for address in (
        ["/", "/experiments", "/experiments/taps", "/tasks/beat-scratch", "/nowhere"]
        + [f"/modes/{mode.name}" for mode in pack.modes]
        + [f"/modes/review?turn={pack.cards[0].slug}"]
    ):
        page.goto(served.address + address)
        check(address)
    assert found == []


def test_a_killed_server_loses_no_accepted_answer(visit: Callable[..., Visit]) -> None:
    server, address = start_server(0)
    try:
        page = visit().page
        begin(page, address)
        open_problem(page)
        options = page.locator("input[name=option]").evaluate_all("all => all.map((one) => one.value)")
        with page.expect_response(lambda response: response.url.endswith("/choose")):
            choose(page, options[2])
        kill(server)
        server, _ = start_server(int(address.rsplit(":", 1)[1]))
        page.reload()
        expect(page.locator(f"input[value='{options[2]}']")).to_be_checked()
        submit(page)
        expect(page.locator("input:disabled, .answered")).to_have_count(1)
    finally:
        kill(server)


def kill(server: subprocess.Popen[str]) -> None:
    server.send_signal(signal.SIGKILL)
    server.communicate()


def start_server(port: int) -> tuple[subprocess.Popen[str], str]:
    program = "from headstart.cli import main; main()"
    command = [sys.executable, "-c", program, "learn", "--no-browser", "--port", str(port)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    line = server.stderr.readline()
    found = re.search(r"http://127\.0\.0\.1:\d+", line)
    assert found, line
    for _ in range(100):
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", int(found[0].rsplit(":", 1)[1]))) == 0:
                return server, found[0]
        time.sleep(0.05)
    raise AssertionError("the server does not listen")
