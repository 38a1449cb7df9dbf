"""What people give a studio that is no good data set: each has a sentence and a way out."""

import shutil
import zipfile
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("fastapi", reason="needs headstart[web]")

from headstart.studio import workers
from made_images import encoded
from studio_worlds import World, studio_worlds


@pytest.fixture
def world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[World]:
    make_photos(tmp_path / "root" / "photos", per_class=8)
    with studio_worlds(tmp_path / "root") as make:
        yield make()


def noise(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (48, 48, 3), dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


def zipped(*names: str) -> bytes:
    file = BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, "<x/>")
    return file.getvalue()


def test_a_document_is_no_zip_and_zips_come_one_at_a_time(world: World) -> None:
    document = zipped("[Content_Types].xml", "word/document.xml")
    answer = world.post("/send", files={"files": ("notes.docx", document)})
    assert answer.status_code == 400 and "notes.docx: a document" in answer.text
    assert "save its pictures and send those" in answer.text
    two = [("files", (f"{number}.zip", zipped("a/1.jpg"))) for number in range(2)]
    answer = world.post("/send", files=two)
    assert answer.status_code == 400 and "one zip at a time" in answer.text
    assert world.studio.collections.all() == []


def test_three_photographs_dropped_at_once_are_given_their_class(world: World) -> None:
    sent = [("files", (f"{number}.png", noise(number))) for number in range(3)]
    answer = world.post("/send", files=sent)
    data = answer.url.path
    assert "no class folders" in answer.text and f'action="{data}/class"' in answer.text
    named = world.post(f"{data}/class", label="snow")
    assert "add at least one more class besides snow" in named.text and "Add another class" in named.text
    assert f'action="{data}/class"' not in named.text
    assert world.post(f"{world.open()}/class", label="snow").status_code == 403


def test_classes_that_came_or_went_since_the_check_are_said_with_a_button(world: World) -> None:
    data = world.open()
    assert "has changed since" not in world.browser.get(data).text
    (world.root / "photos/discs").rename(world.root / "photos/circles")
    page = world.browser.get(data).text
    assert "circles came and discs went" in page and f'action="{data}/look"' in page
    world.open()
    assert "has changed since" not in world.browser.get(data).text


def test_a_folder_that_is_deleted_while_a_training_runs_is_named(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = world.open()
    before = workers.Teller.on_progress

    def delete_first(teller: workers.Teller, phase: str, done: int, total: int) -> None:
        shutil.rmtree(world.root / "photos", ignore_errors=True)
        before(teller, phase, done, total)

    monkeypatch.setattr(workers.Teller, "on_estimate", lambda *_: shutil.rmtree(world.root / "photos"))
    monkeypatch.setattr(workers.Teller, "on_progress", delete_first)
    answer = world.post(f"{data}/train", chosen="builtin@96/all")
    with pytest.raises(AssertionError, match="photos was moved or deleted while this ran"):
        world.wait(answer.url.path)
    page = world.browser.get(answer.url.path).text
    assert "put it back, then try again" in page and f'href="{data}/plan"' in page
    refused = world.post(f"{data}/train", chosen="builtin@96/all")
    assert refused.status_code == 400 and "no such folder" in refused.text


def test_noise_is_said_to_be_no_better_than_the_most_common_class(world: World) -> None:
    for kind in "abcd":
        (world.root / "noise" / kind).mkdir(parents=True)
        for number in range(8):
            (world.root / "noise" / kind / f"{number}.png").write_bytes(noise(number + ord(kind) * 8))
    page = world.browser.get(world.train(world.open("noise"))).text
    assert "no better than always saying the most common class" in page and "were held out for test" in page


def test_a_root_whose_data_sets_look_like_classes_leads_to_them(
    world: World, make_photos: Callable[..., Path]
) -> None:
    make_photos(world.root / "more", per_class=3, seed=5)
    assert "2 folders that look like data sets" in world.browser.get("/folders").text
    assert "may be the classes" in world.post("/open", path=".").text
    for kind in ("bars", "discs", "squares"):
        (world.root / "more" / kind).rename(world.root / "more" / f"new {kind}")
    page = world.browser.get(world.open(".")).text
    assert "look like data sets rather than classes" in page
    assert 'href="/folders?at=more"' in page and 'href="/folders?at=photos"' in page
    assert "look like data sets" not in world.browser.get(world.open()).text


def test_findings_name_plain_images_alike_names_small_classes_and_few_test_images(world: World) -> None:
    photos = world.root / "photos"
    shutil.copytree(photos / "squares", photos / "sqares")
    for extra in sorted((photos / "sqares").iterdir())[3:]:
        extra.unlink()
    Image.new("RGB", (96, 96), (2, 2, 2)).save(photos / "discs/dark.png")
    Image.new("RGB", (400, 20)).save(photos / "discs/strip.png")
    page = world.browser.get(world.open()).text
    assert "1 photograph of odd size" in page
    for words in ("2 photographs with next to nothing to see", "discs · black", "sqares and squares"):
        assert words in page
    assert "1 class of three photographs or fewer" in page and "Few photographs to test on" in page


def test_many_classes_and_long_names_fit_the_page(world: World) -> None:
    long = "a-very-long-name-" * 11
    for number in range(70):
        folder = world.root / "many" / (f"kind{number:03}" if number else long)
        folder.mkdir(parents=True)
        for image in range(2):
            (folder / f"{image}.png").write_bytes(noise(2 * number + image))
    page = world.browser.get(world.open("many")).text
    assert long in page and "10 more classes" in page
