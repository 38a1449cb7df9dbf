"""The studio in a real browser, with every network but the server's own blocked.

What it needs is said in `browsing`; the check of accessibility needs axe-core, see `axe_core`.
"""

from __future__ import annotations

import os
import re
import shutil
import threading
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")
pytest.importorskip("playwright", reason="needs the package playwright")

import httpx
from playwright.sync_api import Page, Route, expect

from browsing import Visit, inspector, served_by_a_thread
from headstart.studio.app import create_studio
from headstart.studio.server import prepare
from headstart.studio.state import Studio


@dataclass
class Served:
    """A running studio, and the photographs below its root."""

    address: str
    studio: Studio
    root: Path


@pytest.fixture
def served(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[Served]:
    root = tmp_path / "root"
    root.mkdir()
    studio = prepare(root, host="127.0.0.1")
    with served_by_a_thread(create_studio(studio)) as address:
        yield Served(address, studio, root)
    studio.servings.stop_all()
    studio.work.close()
    studio.looks.close()


@pytest.fixture
def visit(visit: Callable[..., Visit], served: Served) -> Callable[..., Visit]:
    """A browser that has opened the address that the terminal printed."""

    def begin(**options: Any) -> Visit:
        made = visit(**options)
        made.page.goto(f"{served.address}/?token={served.studio.token}")
        return made

    return begin


def make_zip(photos: Path, target: Path) -> Path:
    with zipfile.ZipFile(target, "w") as archive:
        for file in sorted(photos.rglob("*.jpg")):
            archive.write(file, file.relative_to(photos.parent))
    return target


def send_zip(page: Page, served: Served, photos: Path, tmp_path: Path) -> None:
    page.goto(served.address)
    page.locator("#files").set_input_files(make_zip(photos, tmp_path / "shapes.zip"))
    page.get_by_role("button", name="Add photographs").click()
    expect(page.get_by_role("heading", name="Classes")).to_be_visible()


def train(page: Page, *, softmax: bool = False) -> None:
    """From a data set's page to its new run."""
    page.get_by_role("link", name="Plan and train").click()
    page.get_by_text("Details: all").click()
    page.locator("tr input[name=chosen][value='builtin@128/all']").check()
    if softmax:
        page.get_by_text("More options").click()
        page.get_by_label("trained head (softmax").check()
        page.get_by_label("Epochs (trained head").fill("3")
    page.get_by_role("button", name="Train this").first.click()
    page.wait_for_url("**/runs/*")


@pytest.mark.parametrize("javascript", [True, False])
def test_from_an_empty_page_to_a_trained_compared_exported_and_served_classifier(
    served: Served, visit: Callable[..., Visit], photos: Path, tmp_path: Path, javascript: bool
) -> None:
    size = {"width": 1280 if javascript else 360, "height": 800}  # without a script, on a phone
    page = visit(java_script_enabled=javascript, viewport=size).page
    send_zip(page, served, photos, tmp_path)
    train(page)
    expect(page.get_by_role("heading", level=1)).to_have_text("shapes")
    expect(page.get_by_text(re.compile("predicted .* to .*")).first).to_be_visible()
    page.goto(served.address)
    page.locator(".tiles").get_by_role("link", name="shapes").click()
    train(page, softmax=True)
    expect(page.get_by_role("heading", name="Learning curve")).to_be_visible()
    page.get_by_role("navigation", name="Site").get_by_role("link", name="Runs").click()
    for box in page.get_by_role("checkbox").all():
        box.check()
    page.get_by_role("button", name="Compare selected").click()
    expect(page.get_by_role("heading", name=re.compile("^Recommended: builtin"))).to_be_visible()
    page.get_by_role("link", name="Full report").click()
    expect(page.get_by_role("heading", level=1)).to_contain_text("Take")
    page.get_by_role("navigation", name="Studio").get_by_role("link", name="Runs").click()
    page.locator("table.runs").get_by_role("link").last.click()
    page.get_by_role("link", name="Export and serve").click()
    page.get_by_role("button", name="Export").click()
    page.wait_for_url("**/export")
    expect(page.get_by_role("heading", name="Exported to onnx")).to_be_visible()
    page.get_by_role("button", name="Start serving").click()
    address = page.locator(".verdict a").inner_text()
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+/", address)
    photo = sorted((photos / "discs").iterdir())[0].read_bytes()
    answer = httpx.post(f"{address}predict", files={"images": ("x.jpg", photo)}, timeout=30)
    assert answer.json()["predictions"][0]["label"] in ("bars", "discs", "squares")
    page.get_by_role("button", name="Stop serving").click()
    expect(page.get_by_role("button", name="Start serving")).to_be_visible()


def test_a_photograph_that_is_chosen_is_classified_with_its_reasons(
    served: Served, visit: Callable[..., Visit], photos: Path
) -> None:
    shutil.copytree(photos, served.root / "photos")
    page = visit().page
    page.goto(served.address)
    page.get_by_role("link", name="photos", exact=True).click()
    page.get_by_role("button", name="Use this folder").click()
    expect(page.get_by_role("heading", name="Classes")).to_be_visible()
    train(page)
    late: list[Route] = []
    page.route(
        "**/studio.js", lambda route: late.append(route), times=1
    )  # it comes after the photograph was chosen
    with page.expect_request("**/studio.js"):
        page.get_by_role("link", name="Predict labels of new photographs").click(no_wait_after=True)
    page.locator("#files").set_input_files(sorted((photos / "discs").iterdir())[3])
    late[0].continue_()
    expect(page.get_by_role("heading", level=1)).to_have_text("discs")
    pictures = page.locator("main img")
    assert pictures.count() > 4
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        expect(picture).to_have_js_property("complete", True)
        assert picture.evaluate("image => image.naturalWidth") > 0


def test_a_label_is_put_right_by_keyboard_and_the_page_says_how_long_it_took(
    served: Served, visit: Callable[..., Visit], photos: Path
) -> None:
    for number, path in enumerate(sorted((photos / "discs").iterdir())[:6]):
        path.rename(photos / f"bars/wrong-{number}.jpg")
    shutil.copytree(photos, served.root / "photos")
    page = visit().page
    page.goto(f"{served.address}/folders?at=photos")
    page.get_by_role("button", name="Use this folder").click()
    expect(page.get_by_role("heading", name="Classes")).to_be_visible()
    train(page)
    page.get_by_role("combobox").first.focus()
    page.keyboard.press("ArrowDown")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    told = page.get_by_role("status").first
    expect(told).to_contain_text("from now on")
    assert re.search(r"Retrained in [\d.]+ s", told.inner_text())
    expect(page.get_by_role("button", name="Undo last correction")).to_be_visible()


def test_the_budget_answers_while_it_is_dragged(
    served: Served, visit: Callable[..., Visit], photos: Path, tmp_path: Path
) -> None:
    page = visit().page
    send_zip(page, served, photos, tmp_path)
    page.get_by_role("link", name="Plan the training").click()
    page.get_by_text("Details: all").click()
    slider = page.get_by_role("slider", name="Time budget")
    expect(slider).to_have_attribute("aria-valuetext", "no limit")
    rows = page.locator("tr[data-median]")
    total = rows.count()
    page.evaluate("document.querySelector('tr[data-median]:last-of-type').dataset.median = '9'")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "5.0 s")
    assert 1 <= page.locator("tr.over").count() < total
    expect(page.locator("tr.over [type=radio]:checked")).to_have_count(0)
    page.keyboard.press("End")
    expect(page.locator("tr.over")).to_have_count(0)


def test_a_page_whose_server_does_not_answer_says_so_and_recovers(
    served: Served, visit: Callable[..., Visit], photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = threading.Event()
    monkeypatch.setattr("headstart.training.planning.plan", lambda *_, **__: held.wait(60))
    page = visit().page
    send_zip(page, served, photos, tmp_path)
    try:
        page.route("**/events", lambda route: route.abort())
        page.get_by_role("link", name="Plan the training").click()
        told = page.get_by_text("The studio does not answer")
        expect(told).to_be_visible()
        page.unroute("**/events")
        expect(told).to_be_hidden()
    finally:
        held.set()


def test_a_folder_that_is_dropped_brings_its_classes(served: Served, visit: Callable[..., Visit]) -> None:
    page = visit().page
    page.goto(served.address)
    page.evaluate(
        """async () => {
          const transfer = new DataTransfer();
          const canvas = Object.assign(document.createElement("canvas"), {width: 64, height: 64});
          for (const [name, colour] of [["red.png", "#c22"], ["pink.png", "#e9a"]]) {
            canvas.getContext("2d").fillStyle = colour;
            canvas.getContext("2d").fillRect(0, 0, 64, 64);
            const blob = await new Promise((resolve) => canvas.toBlob(resolve));
            transfer.items.add(new File([blob], name, {type: "image/png"}));
          }
          const zone = document.querySelector("[data-drop]");
          zone.dispatchEvent(new DragEvent("drop", {dataTransfer: transfer, bubbles: true}));
        }"""
    )
    expect(page.locator("[data-chosen]")).to_contain_text("2 files")
    page.get_by_label("Class name (if these are all one class)").fill("warm colours")
    page.get_by_role("button", name="Add photographs").click()
    expect(page.get_by_role("alert").first).to_contain_text("warm colours")
    expect(page.get_by_role("heading", name="Add another class")).to_be_visible()


def _unsandboxed(route: Route) -> None:
    answer = route.fetch()
    headers = {name: value for name, value in answer.headers.items() if name != "content-security-policy"}
    route.fulfill(response=answer, headers=headers)


def test_axe_finds_nothing_and_nothing_overflows(
    served: Served, visit: Callable[..., Visit], photos: Path
) -> None:
    first = sorted((photos / "bars").iterdir())[0]
    for number, path in enumerate(sorted((photos / "discs").iterdir())[:5]):
        path.rename(photos / f"bars/wrong-{number}.jpg")
    (photos / "discs/copy.jpg").write_bytes(first.read_bytes())
    shutil.copytree(photos, served.root / "photos")
    shutil.copytree(photos / "squares", served.root / "new")
    page = visit(viewport={"width": 1280, "height": 800}).page
    found, check = inspector(page, frames=False)
    page.goto(served.address)
    check("empty start")
    page.goto(f"{served.address}/folders?at=photos")
    check("folder")
    page.get_by_role("button", name="Use this folder").click()
    expect(page.get_by_role("heading", name="Classes")).to_be_visible()
    check("data")
    data = page.url
    page.get_by_role("link", name="Plan the training").click()
    page.get_by_text("Details: all").click()
    page.get_by_text("More options").click()
    check("plan")
    page.goto(data)
    train(page)
    check("run")
    run = page.url
    page.goto(data)
    train(page, softmax=True)
    check("run with a curve")
    page.goto(run + "/predict")
    check("try")
    page.locator("#files").set_input_files(first)
    expect(page.get_by_role("heading", name="Probabilities")).to_be_visible()
    check("answer")
    page.goto(run + "/predict")
    page.get_by_label("A path below").fill("new")
    page.get_by_role("button", name="Classify all in it").click()
    expect(page.get_by_role("link", name="Download as CSV")).to_be_visible()
    check("table of labels")
    page.goto(run + "/label")
    check("teach")
    page.get_by_label("A path below").fill("new")
    page.get_by_role("button", name="Use this folder").click()
    expect(page.get_by_role("heading", name="Label these photographs")).to_be_visible()
    check("label")
    path = os.fsencode(served.root / "gone").hex()
    failing = served.studio.add("fit", name="aa", body={"data": "aa", "path": path, "size": 96})
    page.goto(f"{served.address}/jobs/{failing.id}")
    expect(page.get_by_role("heading", name="Failed")).to_be_visible()
    for address in ("/", "/runs", "/words", f"/jobs/{failing.id}", "/nowhere"):
        page.goto(served.address + address)
        check(address)
    page.route("**/report", _unsandboxed)  # in its sandbox axe-core's own timers would never come
    for part in ("/report", "/export"):
        page.goto(run + part)
        check(part)
    ids = [each.id for each in served.studio.runs.page()[0]]
    page.goto(f"{served.address}/compare?run={ids[0]}&run={ids[1]}")
    check("comparison")
    assert found == []


def test_from_photographs_without_labels_to_a_spreadsheet_of_new_ones(
    served: Served, visit: Callable[..., Visit], photos: Path, tmp_path: Path
) -> None:
    files = [
        shutil.copy(each, tmp_path / f"{each.parent.name}-{each.name}")
        for each in sorted(photos.rglob("*.jpg"))
    ]
    page = visit(viewport={"width": 1280, "height": 800}).page
    found, check = inspector(page)
    page.goto(served.address)
    page.locator("#files").set_input_files(files)
    page.get_by_role("button", name="Add photographs").click()
    page.get_by_role("button", name="Save the names").wait_for()
    check("groups")
    for group in page.locator("section.likeness").all():  # named by its most typical photograph
        shown = [each.get_attribute("alt") or "" for each in group.locator("img").all()]
        name = shown[0].split("-")[0]
        group.get_by_label("Name of group").fill(name)
        for box, alt in zip(group.get_by_role("checkbox").all(), shown, strict=True):
            box.set_checked(alt.startswith(name))
    page.get_by_role("button", name="Save the names").click()
    expect(page.locator(".classes h3")).to_have_text(["bars", "discs", "squares"])
    check("named")
    page.get_by_role("link", name="Plan the training").click()
    page.get_by_role("button", name="Train this").first.click()
    page.wait_for_url("**/runs/*")
    page.get_by_role("link", name="Predict labels of new photographs").click()
    page.locator("#files").set_input_files(files[:5])
    with page.expect_download() as got:
        page.get_by_role("link", name="Download for Excel").click()
    with zipfile.ZipFile(got.value.path()) as workbook:
        sheet = workbook.read("xl/worksheets/sheet1.xml").decode()
    assert len(re.findall("<row>", sheet)) == 6 and sheet.count(".jpg") == 5
    assert found == []
