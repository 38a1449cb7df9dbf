"""Makes the studio's pictures of these pages: python docs/pictures/studio.py PHOTOGRAPHS (needs Chromium).

Serves a studio over a folder of labelled photographs, walks through it, and keeps `studio-*.png` here.
"""

import argparse
import os
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from camera import TIMEOUT, chromium, keep, open_page, serve
from playwright.sync_api import Browser, Page, expect


def furnish(photographs: Path, root: Path, *, per_class: int) -> None:
    """A few photographs of each class, one of them twice under two labels."""
    classes = sorted(path for path in photographs.iterdir() if path.is_dir())
    for kind in classes:
        (root / "flowers" / kind.name).mkdir(parents=True)
        for file in sorted(kind.iterdir())[:per_class]:
            shutil.copy(file, root / "flowers" / kind.name / file.name)
    twice = sorted((root / "flowers" / classes[0].name).iterdir())[0]
    shutil.copy(twice, root / "flowers" / classes[1].name / "IMG_0001.jpg")


def train(page: Page, data: str, row: str, **settings: str) -> str:
    """Trains one row of the plan; the run's address."""
    page.goto(f"{data}/plan")
    page.get_by_text("Details: all").click()
    page.locator(f"tr input[name=chosen][value='{row}']").check()
    if settings:
        page.get_by_text("More options").click()
        page.get_by_label("trained head (softmax").check()
        page.get_by_label("Epochs (trained head").fill(settings["epochs"])
    page.get_by_role("button", name="Train this").first.click()
    page.wait_for_url("**/jobs/*")
    if "watch" in settings:
        page.locator("[data-curve] > svg").wait_for()
        keep(page, "studio-training", height=1000)
    page.wait_for_url("**/runs/*")
    return page.url


def walk(browser: Browser, address: str, photographs: Path) -> None:
    """From a folder to a photograph that is classified."""
    page = open_page(browser)
    page.goto(f"{address}/folders?at=flowers")
    page.get_by_role("button", name="Use this folder").click()
    expect(page.get_by_role("heading", name="Classes")).to_be_visible(timeout=TIMEOUT)
    data = page.url
    keep(page, "studio-data", height=1250)
    page.goto(f"{data}/plan")
    page.get_by_role("button", name="Train this").first.wait_for()
    keep(page, "studio-plan")
    train(page, data, "builtin@128/all", epochs="6", watch="yes")
    run = train(page, data, "builtin@128/all")
    keep(page, "studio-run", height=1150)
    page.goto(f"{run}/predict")
    page.locator("#files").set_input_files(sorted((photographs / "sunflowers").iterdir())[-3])
    page.get_by_role("heading", name="Probabilities").wait_for()
    keep(page, "studio-try", height=1150)
    dark = open_page(browser, width=390, height=844, dark=True)
    dark.goto(run)
    keep(dark, "studio-run-phone-dark", height=844)


def main() -> None:
    """Make them all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photographs", type=Path, help="one folder per class")
    parser.add_argument("--per-class", type=int, default=80)
    options = parser.parse_args()
    photographs = options.photographs.resolve()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as scratch:
        work = Path(scratch)
        furnish(photographs, work / "root", per_class=options.per_class)
        os.environ["HEADSTART_HOME"], os.environ["HEADSTART_CACHE"] = str(work / "home"), str(work / "cache")
        os.chdir(work)
        from headstart.studio.app import create_studio
        from headstart.studio.server import prepare

        studio = replace(prepare(work / "root", host="127.0.0.1"), token=None)
        address = serve(create_studio(studio))
        with chromium() as browser:
            walk(browser, address, photographs)


if __name__ == "__main__":
    main()
