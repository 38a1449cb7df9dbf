"""Photographs without labels in the studio: groups of what is alike, names, a data set, the rest of them."""

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

from headstart.curation.likeness import groups_of
from headstart.data.dataset import read_dataset
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    made = make_photos(tmp_path / "made", per_class=14)
    flat = tmp_path / "root" / "garden"
    flat.mkdir(parents=True)
    for file in sorted(made.rglob("*.jpg")):
        shutil.copy(file, flat / f"{file.parent.name}-{file.name}")
    with studio_worlds(tmp_path / "root") as make:
        yield make()


def _grouped(world: World, *, count: int = 6) -> tuple[str, str]:
    """Opens the folder and groups it; its address and the page."""
    data = world.post("/open", path="garden").url.path.removesuffix("/groups")
    world.post(f"{data}/group", count=str(count))
    job = world.studio.work.last("group", name=data.rsplit("/", 1)[1], learner="studio")
    assert job
    world.wait(f"/jobs/{job.id}")
    return data, world.browser.get(f"{data}/groups").text


def _named(page: str) -> dict[str, object]:
    """What a person would fill in: what most photographs of a group show, and ticks where that is so."""
    form: dict[str, object] = {"photo": []}
    for number, part in enumerate(page.split('<section class="panel likeness"')[1:]):
        shown = re.findall(r'alt="(\w+?)-[^"]*".*?value="(\d+)"', part)
        names = [name for name, _ in shown]
        name = max(set(names), key=names.count)
        form[f"name-{number}"] = name
        form["photo"] += [row for each, row in shown if each == name]  # type: ignore[operator]
    return form


def test_groups_are_of_what_is_alike_and_every_image_is_in_one() -> None:
    draw = np.random.default_rng(3)
    centres = draw.normal(size=(3, 20)) * 6
    sizes = (30, 20, 10)
    rows = [centre + draw.normal(size=(size, 20)) for centre, size in zip(centres, sizes, strict=True)]
    found = groups_of(np.concatenate(rows).astype(np.float32), count=3)
    assert [len(each) for each in found] == [30, 20, 10]
    assert [set(each) for each in found] == [set(range(30)), set(range(30, 50)), set(range(50, 60))]
    same = groups_of(np.ones((5, 4), np.float32), count=3)
    assert sorted(row for rows in same for row in rows) == [0, 1, 2, 3, 4]


def test_photographs_without_labels_become_a_data_set_by_naming_groups(world: World) -> None:
    data, page = _grouped(world)
    before = sorted((each.name, each.stat().st_mtime_ns) for each in (world.root / "garden").iterdir())
    answer = world.post(f"{data}/groups", **_named(page))
    assert answer.url.path == data, answer.text
    collection = world.studio.collection(data.rsplit("/", 1)[1])
    dataset = read_dataset(collection.path)
    assert dataset.name == "garden" and dataset.classes == ("bars", "discs", "squares")
    for sample in dataset.samples:
        assert dataset.classes[sample.label] in sample.name  # the file's name says what it shows
    run = world.train(data)
    assert "The rest of garden" in world.browser.get(f"{run}/label").text
    identity = data.rsplit("/", 1)[1]
    asked = world.post(f"{run}/label", rest=identity)
    ranked = world.wait(
        asked.url.path if "/jobs/" in asked.url.path else asked.history[-1].headers["location"]
    )
    named = {Path(sample.name).name for sample in dataset.samples}
    suggested = {Path(each["path"]).name for each in ranked.result["suggestions"]}
    assert suggested and not suggested & named
    assert before == sorted(
        (each.name, each.stat().st_mtime_ns) for each in (world.root / "garden").iterdir()
    )


def test_names_are_kept_when_the_folder_is_opened_or_grouped_again(world: World) -> None:
    data, page = _grouped(world)
    world.post(f"{data}/groups", **_named(page))
    assert world.open("garden") == data and "Classes" in world.browser.get(data).text
    _, page = _grouped(world, count=4)
    assert re.findall(r'name="name-\d+" value="(\w+)"', page)


@pytest.mark.parametrize(
    ("form", "said"),
    [({}, "name at least two groups"), ({"name-0": "bars", "photo": ["0", "1"]}, "name at least")],
)
def test_fewer_than_two_names_are_no_data_set_yet(world: World, form: dict[str, object], said: str) -> None:
    data, _ = _grouped(world)
    answer = world.post(f"{data}/groups", **form)
    assert answer.status_code == 400 and said in answer.text
    assert world.studio.collection(data.rsplit("/", 1)[1]).path.is_dir()


def test_photographs_that_are_dropped_without_a_class_are_grouped(world: World) -> None:
    files = [
        ("files", (each.name, each.read_bytes(), "image/jpeg"))
        for each in sorted((world.root / "garden").iterdir())[:9]
    ]
    answer = world.post("/send", files=files)
    assert answer.url.path.endswith("/groups")
    few = world.post("/send", files=files[:3])
    assert few.url.path.startswith("/data/") and not few.url.path.endswith("/groups")
    assert "no class folders" in few.text
