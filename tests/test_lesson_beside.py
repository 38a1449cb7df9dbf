"""Lessons beside the first: pages of their own below their address, one log, one queue."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from headstart.lesson.engine import pack_loading as library
from headstart.lesson.engine.pack import Control, Goal, Mode, Pack, Task
from headstart.lesson.pages.server import prepare
from headstart.web.jobs import Jobs
from lesson_packs import right_answer, secret_pack
from lesson_worlds import World, finished, lesson_worlds, running

AT = "/lessons/second"
OWN = re.compile(r' (?:href|src|action|formaction|data-[a-z]+)="(/[^"]*)"')


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    with lesson_worlds(tmp_path) as make:
        yield make(_with_task(secret_pack()), others=(_with_task(second()),))


def second() -> Pack:
    body = '## One\n\nSee `href="/modes/x"` and {{ claim:one-pass }}\n'
    return replace(
        secret_pack(answer=2), slug="second", title="The second", modes=(Mode("challenge", "Prove", 5, body),)
    )


def _with_task(pack: Pack, name: str = "same") -> Pack:
    """With a task, whose name the other lesson has, too."""
    control = Control("epochs", "Epochs", 1, minimum=1, maximum=9, step=1)
    goal = Goal("ratio", "above", value=1)
    task = Task(name, "Same name", "Do it.", "one-pass", (control,), (goal,), ("A hint.",))
    return replace(pack, tasks=(task,), modes=(*pack.modes, Mode("try", "Try", 5, "## Tasks\n\ntext\n")))


def test_each_lesson_names_the_other_and_every_address_of_a_page_stays_in_it(world: World) -> None:
    assert f'href="{AT}/">The second</a>' in world.browser.get("/").text
    page = world.browser.get(f"{AT}/").text
    assert "<h1>The second</h1>" in page and 'href="/lessons/secrets/">Secrets</a>' in page
    assert world.browser.get("/lessons/secrets/").url.path == "/"
    for address in ("/", "/modes/challenge", "/experiments", "/experiments/one-pass", "/tasks/same"):
        page = world.browser.get(AT + address).text
        outside = [
            one for one in OWN.findall(page) if not one.startswith((f"{AT}/", "/static/", "/lessons/"))
        ]
        assert not outside, (address, outside)
        assert (
            "href=&#34;/modes/x&#34;" in page
            or "href=&quot;/modes/x&quot;" in page
            or address != "/modes/challenge"
        )
    assert 'aria-current="page">Challenge' in world.browser.get(f"{AT}/modes/challenge").text
    assert world.browser.get("/lessons/third/").status_code == 404
    assert "Go back" in world.browser.post(f"{AT}/modes/challenge/begin", data={"csrf": "x"}).text


def test_a_challenge_of_one_lesson_is_none_of_the_other(world: World) -> None:
    begun = str(world.post(f"{AT}/modes/challenge/begin", timer="1").url.path)
    assert begun.startswith(f"{AT}/challenges/")
    identity = begun.split("/")[-2]
    layout = world.site.store.challenge(identity).items[0].layout
    done = world.post(f"{AT}/challenges/{identity}/1/submit", option=right_answer(layout), key="0" * 32)
    assert done.url.path == begun and "SECRETEXPLANATION 0" in done.text
    assert world.browser.get(f"/challenges/{identity}").status_code == 404
    assert "under way" in world.browser.get(f"{AT}/").text
    assert "under way" not in world.browser.get("/").text


def test_tasks_of_one_name_in_two_lessons_have_tries_of_their_own(world: World) -> None:
    ran = world.post(f"{AT}/tasks/same/run", epochs="3")
    assert ran.url.path == f"{AT}/tasks/same" and 'data-events="/lessons/second/jobs/' in ran.text
    assert "data-events" not in world.browser.get("/tasks/same").text
    finished(world)
    assert "1 of 3 tries used" in world.browser.get(f"{AT}/tasks/same").text
    assert "0 of 3 tries used" in world.browser.get("/tasks/same").text


def test_servers_of_two_lessons_in_one_home_leave_each_other_their_tasks(tmp_path: Path) -> None:
    with lesson_worlds(tmp_path) as make:
        first, other = make(_with_task(secret_pack())), make(_with_task(second(), name="other"))
        first.post("/tasks/same/run", epochs="3")
        running(first)
        other.post("/tasks/other/run", epochs="3")
        other.experiments.gate.set()
        finished(first)
        assert "1 of 3 tries used" in first.browser.get("/tasks/same").text
        assert "1 of 3 tries used" in other.browser.get("/tasks/other").text


def test_a_task_that_an_earlier_version_queued_is_run_where_it_belongs(tmp_path: Path) -> None:
    with closing(Jobs(tmp_path)) as before:
        before.add("try", name="other", learner="ada", body={"parameters": {"epochs": 3}})
    with lesson_worlds(tmp_path) as make:
        first = make(_with_task(secret_pack()))
        first.experiments.gate.set()
        first.post("/tasks/same/run", epochs="3")
        while any(job.name == "same" for job in first.site.jobs.unfinished()):
            time.sleep(0.01)
        assert [job.name for job in first.site.jobs.unfinished()] == ["other"]
        other = make(_with_task(second(), name="other"))
        finished(other)
        assert "1 of 3 tries used" in other.browser.get("/tasks/other").text


def test_lessons_that_come_along_stand_beside_each_other_but_not_beside_ones_own_or_for_a_class(
    private_folders: Path,
) -> None:
    site = prepare(None, host="127.0.0.1")
    assert {site.pack.slug, *(pack.slug for pack in site.others)} == set(library.available())
    other = prepare(site.others[0].slug, host="127.0.0.1")
    assert site.pack.slug in [pack.slug for pack in other.others]
    assert not prepare(None, host="127.0.0.1", door="/join").others
    own = library.new_pack("mine", private_folders)
    assert not prepare(str(own), host="127.0.0.1").others


@pytest.mark.parametrize(("panels", "shown"), [((), True), (("questions",), False), (("journey",), True)])
def test_a_mode_that_places_panels_shows_no_others_and_asks_about_no_picture_that_it_leaves_out(
    tmp_path: Path, panels: tuple[str, ...], shown: bool
) -> None:
    pytest.importorskip("openvino")
    body = "## One\n\ntext\n" + "".join(f"\n{{{{ panel:{name} }}}}\n" for name in panels)
    pack = secret_pack()
    sets = {"visualize": pack.problem_sets["challenge"]}
    with lesson_worlds(tmp_path) as make:
        world = make(
            replace(
                pack,
                modes=(*pack.modes, Mode("visualize", "See", 5, body)),
                problem_sets={**pack.problem_sets, **sets},
            )
        )
        page = world.browser.get("/modes/visualize").text
        assert ('id="tour"' in page) is shown and ("Follow one first" in page) is shown
        begun = world.post("/modes/visualize/begin")
        assert begun.url.path.startswith("/modes/visualize" if shown else "/challenges/")
        assert shown or "Your picture" not in begun.text
