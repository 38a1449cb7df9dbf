"""`headstart lesson preview`: a pack as a learner sees it, anew at every save, and what to mend."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from fastapi.testclient import TestClient

from headstart.errors import LessonError
from headstart.lesson.engine import pack_loading as library
from headstart.lesson.pages.preview import create_preview


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return library.new_pack("my-lesson", tmp_path)


@pytest.fixture
def browser(folder: Path, tmp_path: Path) -> Iterator[TestClient]:
    app = create_preview(folder, tmp_path / "home")
    yield TestClient(app, base_url="http://127.0.0.1:8422")
    app.state.site.jobs.close()
    app.state.site.store.close()


def write(path: Path, before: str, after: str) -> None:
    text = path.read_text(encoding="utf-8")
    assert before in text
    path.write_text(text.replace(before, after), encoding="utf-8")


def test_a_saved_file_shows_at_the_next_look_and_the_page_is_told(browser: TestClient, folder: Path) -> None:
    page = browser.get("/modes/learn").text
    assert "Say it in a few sentences" in page and 'data-live="/preview/changes?seen=1"' in page
    write(folder / "modes/learn.md", "Say it in a few sentences", "Said anew")
    assert "event: changed" in browser.get("/preview/changes?seen=1").text
    page = browser.get("/modes/learn").text
    assert "Said anew" in page and "seen=2" in page


def test_a_broken_pack_says_what_to_mend_and_returns_when_it_is_mended(
    browser: TestClient, folder: Path
) -> None:
    write(folder / "problems/challenge.yaml", "hint: A push", "hnt: A push")
    page = browser.get("/modes/learn")
    assert page.status_code == 500 and "to fix" in page.text and "problems/challenge.yaml" in page.text
    assert "seen=2" in page.text, "the page still waits for the next save"
    write(folder / "problems/challenge.yaml", "hnt: A push", "hint: A push")
    assert browser.get("/modes/learn").status_code == 200


def test_a_folder_that_is_no_pack_is_refused_before_anything_is_served(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LessonError, match=r"pack\.yaml"):
        create_preview(tmp_path / "empty", tmp_path / "home")


def test_the_bundled_pages_do_not_ask_for_changes(tmp_path: Path) -> None:
    from headstart.lesson.engine.progress import Progress
    from headstart.lesson.pages.app import create_app
    from headstart.lesson.pages.site import LessonSite
    from headstart.web.jobs import Jobs
    from headstart.web.site import load_secret

    store, jobs = Progress.open(tmp_path / "headstart.db"), Jobs(tmp_path)
    site = LessonSite(
        pack=library.load_pack(), store=store, home=tmp_path, secret=load_secret(tmp_path), jobs=jobs
    )
    page = TestClient(create_app(site), base_url="http://127.0.0.1:8422").get("/").text
    assert "data-live" not in page
    jobs.close()
    store.close()
