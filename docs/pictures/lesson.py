"""Makes the lesson's pictures of these pages: python docs/pictures/lesson.py (Chromium, headstart[torch]).

Serves the lesson in an empty home, lets every experiment run, plays through its pages as a learner does, with
the solutions that the lesson gives, and keeps `lesson-*.png` here. On two cores that takes ten minutes;
with --home FOLDER the experiments that ran there before are not run again.
"""

import argparse
import os
import re
import tempfile
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

from camera import chromium, keep, open_page, serve
from playwright.sync_api import Browser, Page, expect

from headstart.lesson.engine.pack_loading import load_pack
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.server import prepare
from headstart.lesson.pages.site import LessonSite

LEARNER = "ada"
SECONDS = 1000
"""What Playwright counts in is a thousandth of it."""

WHY = "Frozen all the way it looks at each image once, and a medium size sees enough of a digit."


def measure(page: Page, address: str) -> None:
    """Lets everything run that has not run yet."""
    page.goto(f"{address}/experiments")
    button = page.get_by_role("button", name=re.compile("^Measure"))
    if button.count():
        button.click()
    for _ in range(200):
        page.goto(f"{address}/experiments")
        if not button.count() and not page.get_by_role("button", name=re.compile("^Stop")).count():
            return
        page.wait_for_timeout(5 * SECONDS)
    raise SystemExit("not every experiment has run: see the page of experiments")


def read(browser: Browser, page: Page, address: str) -> None:
    """What is read: the first page, a mode, an experiment."""
    page.goto(address)
    keep(page, "lesson-home", height=1000)
    page.goto(f"{address}/modes/deep")
    keep(page, "lesson-reading", height=1000)
    page.goto(f"{address}/experiments/accuracy-against-time")
    keep(page, "lesson-experiment", height=1300)
    dark = open_page(browser, dark=True)
    dark.goto(address)
    keep(dark, "lesson-home-dark", height=1000)
    dark.goto(f"{address}/modes/review")
    dark.get_by_role("link", name="Turn the card").click()
    keep(dark, "lesson-review-dark")


def follow_a_picture(page: Page, address: str) -> None:
    """A first run, a picture followed through it, and the run judged."""
    page.goto(f"{address}/modes/visualize")
    page.get_by_role("button", name="Train a first run").click()
    expect(page.get_by_role("heading", name="Your run")).to_be_visible(timeout=180 * SECONDS)
    page.get_by_role("button", name="Follow it").click()
    expect(page.get_by_role("heading", name="Prediction")).to_be_visible()
    keep(page, "lesson-journey", only=page.locator("#tour"))
    page.goto(f"{address}/modes/metrics")
    section = page.locator("section", has=page.get_by_role("heading", name="The confusion matrix"))
    keep(page, "lesson-judged", only=section)


def take_the_challenge(browser: Browser, page: Page, address: str, site: LessonSite) -> None:
    """A problem on a desk, and answered on a phone in the dark."""
    page.goto(f"{address}/modes/challenge")
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_role("group", name="Your answer")).to_be_visible()
    keep(page, "lesson-problem", height=1154)
    phone = open_page(browser, width=390, height=844, dark=True)
    phone.goto(page.url)
    answer = site.store.challenges(learner=LEARNER)[-1].items[0].layout.answer
    phone.locator(f"input[value='{answer}']").check()
    phone.get_by_role("button", name="Submit").click()
    expect(phone.get_by_role("heading", name="✓ Correct")).to_be_visible()
    keep(phone, "lesson-answered-dark", height=844)


def try_the_tasks(page: Page, address: str) -> None:
    """Every task and the project, each with its solution. Ends where one does not reach its goals."""
    pack = load_pack()
    for task in (*pack.tasks, *([pack.project] if pack.project else [])):
        slug = task.slug
        page.goto(f"{address}/tasks/{slug}")
        for name, value in ((name, str(value)) for name, value in task.solved_with.items()):
            slider = page.locator(f"input[type=range][name={name}]")
            if slider.count():
                slider.fill(value)
            else:
                page.locator(f"input[name={name}][value='{value}']").check()
        if page.locator("#why").count():
            page.locator("#why").fill(WHY)
        page.get_by_role("button", name="Run").click()
        page.get_by_role("heading", name="What changed").wait_for(timeout=120 * SECONDS)
        row = page.get_by_role("group", name="Your tries").locator("tbody tr").last.inner_text()
        print(slug, " | ".join(row.split("\t")), flush=True)
        if not page.get_by_text("✓ reached").count():
            raise SystemExit(f"{slug}: its solution does not reach the goals here")
        if slug in ("few-images", "enough-in-time"):
            keep(page, "lesson-task" if slug == "few-images" else "lesson-project", height=1100)


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, help="a folder that keeps what was measured")
    options = parser.parse_args()
    kept = nullcontext(str(options.home)) if options.home else tempfile.TemporaryDirectory()
    with kept as home:
        os.environ["HEADSTART_HOME"] = str(Path(home).resolve())
        os.environ["HEADSTART_CACHE"] = str(Path(home).resolve() / "cache")
        site = replace(prepare(None, host="127.0.0.1"), learner=LEARNER, token=None)
        asked = [replace(one, variants=()) for one in site.pack.problems("challenge")]  # so the picture stays
        sets = {**site.pack.problem_sets, "challenge": tuple(asked)}
        site = replace(site, pack=replace(site.pack, problem_sets=sets))
        address = serve(create_app(site))
        with chromium() as browser:
            page = open_page(browser, width=1200)
            measure(page, address)
            read(browser, page, address)
            follow_a_picture(page, address)
            try_the_tasks(page, address)
            take_the_challenge(browser, page, address, site)
        site.jobs.close()
        site.store.close()


if __name__ == "__main__":
    main()
