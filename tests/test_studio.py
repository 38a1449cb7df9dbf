"""The studio's pages over HTTP, without a browser and so without JavaScript."""

from __future__ import annotations

import errno
import io
import json
import re
import shutil
import socket
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="needs headstart[web]")

import numpy as np
from PIL import Image
from starlette.datastructures import UploadFile
from starlette.testclient import TestClient

from headstart.data.dataset import content_hash
from headstart.runs import RunStore, read_label_errors, read_predictions, read_run
from headstart.studio import folders, run_list
from headstart.studio.app import MODULES, largest
from headstart.web import uploads
from listening import listening
from made_images import encoded
from studio_worlds import HOME, World, studio_worlds


@pytest.fixture
def make_world(tmp_path: Path, make_photos: Callable[..., Path]) -> Iterator[Callable[..., World]]:
    make_photos(tmp_path / "root" / "photos", per_class=14)
    with studio_worlds(tmp_path / "root") as make:
        yield make


@pytest.fixture
def world(make_world: Callable[..., World]) -> World:
    return make_world()


def jpeg(colour: tuple[int, int, int] = (200, 30, 30), side: int = 64) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (side, side), colour).save(file, "JPEG")
    return file.getvalue()


def zipped(files: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return file.getvalue()


# The way from photographs to a classifier ------------------------------------------------------------------


def test_without_javascript_a_folder_becomes_a_run_that_the_terminal_finds(world: World) -> None:
    assert "Photographs in, classifier out" in world.browser.get("/").text
    assert "photos" in world.browser.get("/folders").text
    data = world.open()
    shown = world.browser.get(data).text
    assert "42" in shown and "discs" in shown and "Plan the training" in shown
    world.plan(data)
    plan = world.browser.get(f"{data}/plan").text
    assert 'type="range"' in plan and 'value="builtin@128/all"' in plan
    run = world.train(data)
    page = world.browser.get(run).text
    assert "photos" in page and "builtin at 96 px" in page and "predicted" in page
    found = RunStore().find(run.rsplit("/", 1)[1])
    assert found.config.size == 96 and (found.path / "model.onnx").exists()
    assert found.id in world.browser.get("/runs").text and found.id in world.browser.get(f"{data}/runs").text


def test_a_run_of_the_terminal_appears_among_the_runs(world: World) -> None:
    from headstart.training import fit

    _, run = fit(world.root / "photos", backbone="builtin", size=96)
    assert f"/runs/{run.id}" in world.browser.get("/runs").text
    assert world.browser.get(f"/runs/{run.id}").status_code == 200


def test_labels_that_are_likely_wrong_come_before_confident_mistakes_where_there_are_folds(
    world: World,
) -> None:
    from headstart.training import fit

    photos = world.root / "photos"
    moved = next((photos / "discs").iterdir())
    moved.rename(photos / "bars" / "wrong.jpg")
    _, run = fit(photos, backbone="builtin", size=96, folds=3)
    page = world.browser.get(f"/runs/{run.id}").text
    assert "Labels that are likely wrong" in page and "Most confident mistakes" not in page
    assert "wrong.jpg" in page and "are expected to be wrong" in page
    first = read_label_errors(run.path, classes=run.classes)[0]
    answer = world.post(f"/runs/{run.id}/correct", content=first["content"], label=first["likely"])
    assert f"is {first['likely']} from now on" in answer.text
    new = RunStore().find(answer.url.path.removeprefix("/runs/"))
    again = read_label_errors(new.path, classes=new.classes)
    assert first["content"] not in {each["content"] for each in again}


def test_a_run_folder_that_no_index_knows_appears_too(world: World) -> None:
    run = world.train(world.open())
    (world.studio.home / "headstart.db").unlink()
    assert RunStore().select() == []
    assert run in world.browser.get("/runs").text


def test_every_run_is_found_however_many_there_are(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run_list, "PAGE", 3)
    newest = RunStore().find(world.train(world.open()).rsplit("/", 1)[1])
    shutil.copytree(newest.path, "kept")
    for number in range(7):
        identity, created = f"older-{number}", f"2001-01-0{number + 1}T00:00:00+00:00"
        folder = Path(shutil.copytree("kept", f"elsewhere/{identity}")).absolute()
        record = json.loads((folder / "run.json").read_text()) | {"id": identity, "created": created}
        (folder / "run.json").write_text(json.dumps(record))
        RunStore().add(read_run(folder))
    for number, shown in enumerate(
        (["older-6", "older-5"], ["older-4", "older-3", "older-2"], ["older-1"]), 1
    ):
        text = world.browser.get(f"/runs?number={number}").text
        assert all(f"/runs/{identity}" in text for identity in shown)
        assert (f"number={number + 1}" in text) == (number < 3)
    assert world.browser.get("/runs/older-0").status_code == 200
    assert "older-3" in world.browser.get("/runs?find=older-3").text
    assert "No run has" in world.browser.get("/runs?find=nothing-like-it").text


def test_a_run_is_deleted_once_that_is_meant_and_corrections_stay(world: World) -> None:
    run = world.train(world.open())
    folder = world.studio.run(run[6:]).path
    assert world.post(f"{run}/remove").status_code == 400 and folder.exists()
    assert world.post(f"{run}/remove", sure="true").url.path == "/runs"
    assert not folder.exists() and (world.root / "photos/discs").exists()
    assert world.browser.get(run).status_code == 404 and run not in world.browser.get("/runs").text


def test_a_correction_counts_although_the_index_of_runs_cannot_be_written(world: World) -> None:
    run = world.train(world.open())
    image = read_predictions(RunStore().find(run.rsplit("/", 1)[1]).path)["images"][0]
    RunStore().address.unlink()
    RunStore().address.mkdir()
    label = next(name for name in ("bars", "discs", "squares") if name != image["label"])
    answer = world.post(f"{run}/correct", content=image["content"], label=label)
    assert answer.status_code == 200 and f"is {label} from now on" in answer.text


def test_two_runs_are_compared_and_the_better_is_named(world: World) -> None:
    data = world.open()
    runs = [world.train(data), world.train(data, head="softmax", epochs="2")]
    names = [each.rsplit("/", 1)[1] for each in runs]
    answer = world.post("/compare", run=names)
    assert answer.url.path == "/compare" and "Recommended: builtin" in answer.text
    frame = re.search(r'href="(/compare/report\.html[^"]+)"', answer.text)
    assert frame
    report = world.browser.get(frame[1].replace("&amp;", "&"))
    assert report.status_code == 200 and "sandbox" in report.headers["content-security-policy"]


def test_runs_that_were_measured_differently_are_told_apart_instead_of_compared(world: World) -> None:
    data = world.open()
    runs = [world.train(data), world.train(data, chosen="builtin@128/all")]
    first = world.studio.run(runs[0].rsplit("/", 1)[1])
    held_out = read_predictions(first.path)["images"][0]
    again = world.post(f"{runs[0]}/correct", content=held_out["content"], label="(exclude)").url.path
    assert "retrained" in world.browser.get("/runs").text
    assert "--corrections" in world.browser.get(again).text
    ids = [address.rsplit("/", 1)[1] for address in (*runs, again)]
    answer = world.post("/compare", run=ids)
    assert answer.status_code == 400 and "Not comparable with the others" in answer.text
    fitting = re.search(r'href="(/compare\?run=[^"]+)">Compare these 2<', answer.text)
    assert fitting and world.browser.get(fitting[1].replace("&amp;", "&")).status_code == 200


def test_rows_of_the_plan_are_compared_by_training_them(world: World) -> None:
    data = world.open()
    answer = world.post(f"{data}/compare", rows=["builtin@96/all", "builtin@128/all"])
    job = world.wait(answer.url.path)
    page = world.browser.get(f"/comparisons/{job.result['comparison']}").text
    assert "builtin 96 px" in page and "builtin 128 px" in page
    refused = world.post(f"{data}/compare", rows=["builtin@96/all"])
    assert refused.status_code == 400 and "two choices" in refused.text


def test_the_report_is_shown_in_a_sandbox_and_no_other_page_is_looser(world: World) -> None:
    run = world.train(world.open())
    assert "unsafe-inline" not in world.browser.get(run).headers["content-security-policy"]
    report = world.browser.get(f"{run}/report")
    assert f'href="{run}"' in report.text and f'href="{run}/report.html"' in report.text
    policy = report.headers["content-security-policy"]
    assert report.status_code == 200 and policy.startswith("sandbox") and "default-src 'none'" in policy
    assert "allow-scripts" not in policy and "frame-ancestors 'none'" in policy
    file = world.browser.get(f"{run}/report.html")
    assert "attachment" in file.headers["content-disposition"] and 'aria-label="Studio"' not in file.text


# Data -------------------------------------------------------------------------------------------------------


def test_findings_come_with_their_pictures(world: World) -> None:
    first = sorted((world.root / "photos/bars").iterdir())[0]
    (world.root / "photos/discs/same.jpg").write_bytes(first.read_bytes())
    (world.root / "photos/discs/broken.jpg").write_bytes(first.read_bytes()[:300])
    data = world.open()
    page = world.browser.get(data).text
    assert "with conflicting labels" in page and "broken.jpg" in page
    shown = re.search(r'src="(/data/\w+/picture\?[^"]*same\.jpg)"', page)
    assert shown
    picture = world.browser.get(shown[1].replace("&amp;", "&"))
    assert picture.headers["content-type"] == "image/jpeg"
    assert Image.open(io.BytesIO(picture.content)).size == (256, 256)


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "bars/none.jpg", "..", ""])
def test_a_picture_is_looked_up_by_name_and_never_opened_by_path(world: World, name: str) -> None:
    data = world.open()
    answer = world.browser.get(f"{data}/picture", params={"name": name})
    assert answer.status_code == 404 and b"root:" not in answer.content


# Paths ------------------------------------------------------------------------------------------------------


ADDRESS = "http://127.0.0.1:9/photos/"
"""Of a server that a visitor would have us ask."""


@pytest.mark.parametrize(
    "text", ["/etc", "..", "photos/../..", "~", "photos/\x00", "way-out", "nothing", ADDRESS]
)
def test_what_lies_outside_the_root_or_is_not_there_is_refused(
    world: World, tmp_path: Path, make_photos: Callable[..., Path], text: str
) -> None:
    make_photos(tmp_path / "elsewhere", per_class=2)
    (world.root / "way-out").symlink_to(tmp_path / "elsewhere")
    for answer in (world.post("/open", path=text), world.browser.get("/folders", params={"at": text})):
        assert answer.status_code == 400 and "no such folder or file below" in answer.text
        assert str(tmp_path / "elsewhere") not in answer.text
    assert world.studio.collections.all() == []


@pytest.fixture
def outside(world: World, tmp_path: Path, make_photos: Callable[..., Path]) -> Path:
    """Photographs that no page may show, and a data set below the root that leads to some of them."""
    photos = make_photos(tmp_path / "elsewhere", per_class=2)
    (world.root / "photos/bars/link.jpg").symlink_to(photos / "discs/000.jpg")
    (world.root / "photos/bars/dangling.jpg").symlink_to(photos / "discs/none.jpg")
    (world.root / "photos/bars/folder").symlink_to(photos / "squares")
    return photos


def test_links_out_of_the_root_inside_a_data_set_are_as_if_they_led_nowhere(
    world: World, outside: Path
) -> None:
    data = world.open()
    shown = world.browser.get(data).text
    report = world.studio.collections.read(world.studio.collections.all()[0], "report")["report"]
    reasons = {item["name"]: item["reason"] for item in report["skipped"]}
    links = {f"bars/{name}" for name in ("link.jpg", "dangling.jpg", "folder")}
    assert links <= reasons.keys() and len({reasons[name] for name in links}) == 1
    assert str(outside) not in shown and "42" in shown
    for name in ("bars/link.jpg", "bars/dangling.jpg", "bars/folder/000.jpg"):
        assert world.browser.get(f"{data}/picture", params={"name": name}).status_code == 404


def test_a_table_with_paths_out_of_the_root_shows_no_picture_and_tells_no_file(
    world: World, outside: Path
) -> None:
    rows = [f"{kind}/{number:03}.jpg,{kind}" for kind in ("bars", "discs") for number in range(4)]
    for name in ("secret", "private"):
        shutil.copy(outside / "discs/000.jpg", outside / f"discs/{name}.jpg")
    odd = [f"{outside}/discs/secret.jpg", f"{outside}/discs/none.jpg"]
    odd += ["../../elsewhere/discs/private.jpg", "../../elsewhere/discs/nothing.jpg"]
    lines = ["path,label", *rows, *(f"{path},discs" for path in odd)]
    (world.root / "photos/table.csv").write_text("\n".join(lines))
    data = world.open("photos/table.csv")
    report = world.studio.collections.read(world.studio.collections.all()[0], "report")["report"]
    assert report["images"] == 8
    reasons = [item["reason"] for item in report["skipped"]]
    assert reasons == [f"row {row}: no such file" for row in range(10, 14)]
    for name in odd:
        assert world.browser.get(f"{data}/picture", params={"name": name}).status_code == 404


def test_a_folder_swapped_for_a_link_shows_nothing_of_where_it_leads(world: World, outside: Path) -> None:
    data = world.open()
    name = "discs/000.jpg"
    assert world.browser.get(f"{data}/picture", params={"name": name}).status_code == 200
    (world.root / "photos/discs").rename(world.root / "moved")
    (world.root / "photos/discs").symlink_to(outside / "discs")
    assert world.browser.get(f"{data}/picture", params={"name": name}).status_code == 404
    (world.root / "photos").rename(world.root / "photos-moved")
    (world.root / "photos").symlink_to(outside)
    assert world.browser.get(f"{data}/picture", params={"name": "squares/000.jpg"}).status_code == 404
    assert world.post(f"{data}/look").url.path == data and "squares" not in world.browser.get(data).text


def test_a_run_that_says_its_images_lie_outside_the_root_shows_none_of_them(
    world: World, outside: Path
) -> None:
    run = RunStore().find(world.train(world.open()).rsplit("/", 1)[1])
    secret = outside / "discs/001.jpg"
    content = content_hash(secret.read_bytes()).hex()
    for name in ("images.json", "predictions.json"):
        record = json.loads((run.path / name).read_text())
        for image in record if name == "images.json" else record["images"]:
            image |= {"file": str(secret), "content": content, "predicted": "discs", "label": "bars"}
        (run.path / name).write_text(json.dumps(record))
    assert world.browser.get(f"/runs/{run.id}/picture/{content}").status_code == 404
    assert "data:image/jpeg" not in world.browser.get(f"/runs/{run.id}/report.html").text


def test_links_out_of_the_root_are_not_listed(world: World, tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (world.root / "way-out").symlink_to(tmp_path / "secret")
    assert [entry.name for entry in folders.browse(world.root, world.root)] == ["photos"]


def test_a_folder_says_what_would_be_a_class_and_what_is_ours_is_no_photographs(
    make_world: Callable[..., World], make_photos: Callable[..., Path], tmp_path: Path
) -> None:
    world = make_world(folder=tmp_path / "root")
    for side in ("train", "val"):
        make_photos(tmp_path / "root" / "split" / side, per_class=1)
    (tmp_path / "root" / "runs/one").mkdir(parents=True)
    assert "3 folders, each of which would be a class" in world.browser.get("/folders?at=photos").text
    assert "train, val: each folder inside them" in world.browser.get("/folders?at=split").text
    page = world.browser.get("/folders").text
    assert ">split</a>" in page and ">runs</a>" not in page and "2 folders that look like data sets" in page


def test_a_folder_that_is_no_data_set_is_refused_and_not_remembered(world: World) -> None:
    (world.root / "empty").mkdir()
    answer = world.post("/open", path="empty")
    assert answer.status_code == 400 and "empty" in answer.text
    assert world.studio.collections.all() == []


def test_a_folder_taken_off_the_list_is_left_as_it_is(world: World) -> None:
    data = world.open()
    world.post(f"{data}/forget")
    assert world.studio.collections.all() == [] and len(list((world.root / "photos").rglob("*.jpg"))) == 42


# Uploads ----------------------------------------------------------------------------------------------------


def test_a_zip_is_kept_whole_and_read_in_place(world: World) -> None:
    members = {
        f"pets/{kind}/{n}.jpg": jpeg((50 * n, 100, 20 if kind == "cat" else 200))
        for kind in ("cat", "dog")
        for n in range(5)
    }
    answer = world.post("/send", files={"files": ("my pets.zip", zipped(members))})
    assert answer.status_code == 200 and "my pets" in answer.text
    collection = world.studio.collections.all()[0]
    assert collection.path.name == "my pets.zip" and collection.path.stat().st_mode & 0o777 == 0o600
    assert collection.dataset().classes == ("cat", "dog")


def test_photographs_bring_their_classes_by_their_folders(world: World) -> None:
    names = [(kind, number) for kind in ("rose", "peony") for number in range(3)]
    files = [
        ("files", (f"garden/{kind}/{number}.jpg", jpeg((40 * number, 9, 9 * len(kind)))))
        for kind, number in names
    ]
    answer = world.post("/send", files=files)
    assert answer.status_code == 200
    collection = world.studio.collections.all()[0]
    assert collection.name == "garden" and collection.dataset().classes == ("peony", "rose")


def test_one_class_after_the_other_makes_a_data_set(world: World) -> None:
    red = [("files", (f"{n}.jpg", jpeg((200, 10 * n, 0)))) for n in range(3)]
    blue = [("files", (f"{n}.jpg", jpeg((0, 10 * n, 200)))) for n in range(3)]
    first = world.post("/send", files=red, label="red")
    assert "Add another class" in first.text
    identity = first.url.path.rsplit("/", 1)[1]
    world.post("/send", files=blue, label="blue", into=identity)
    assert world.studio.collection(identity).dataset().classes == ("blue", "red")


HOSTILE = [
    "../../../../tmp/evil/x.jpg",
    "..\\..\\evil\\x.jpg",
    "/etc/cron.d/x.jpg",
    "C:\\Windows\\x.jpg",
    ".hidden/.x.jpg",
    "a\x00b/\x1b[31m.jpg",
    "con/" + "n" * 400 + ".jpg",
    "‮gpj.exe/…/x.jpg.sh",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_that_is_sent_never_decides_where_a_file_lies(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "kept"
    uploads.store_photographs([UploadFile(io.BytesIO(jpeg()), filename=name)], folder)
    everything = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(everything) == 1 and folder in everything[0].parents
    relative = everything[0].relative_to(folder)
    assert relative.suffix == ".jpg" and len(relative.name) < 70
    assert not any(part.startswith(".") or not part.isprintable() for part in relative.parts)
    assert everything[0].stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("page.jpg", b"<script>alert(1)</script>", "page.jpg"),
        ("half.jpg", jpeg()[:200], "half.jpg"),
        ("notes.zip", b"PK\x03\x04 not really", "not a readable zip"),
        ("texts.zip", zipped({"a/readme.txt": b"hello"}), "texts.zip"),
        ("none.jpg", b"", "none.jpg"),
    ],
)
def test_what_is_no_photograph_and_no_zip_of_them_is_refused_and_gone(
    world: World, name: str, content: bytes, reason: str
) -> None:
    answer = world.post("/send", files={"files": (name, content)})
    assert answer.status_code == 400 and reason in answer.text
    assert not [path for path in (world.studio.home / "studio" / "data").rglob("*") if path.is_file()]


def test_a_zip_that_would_climb_out_writes_nothing_outside(world: World) -> None:
    members = {f"../../../{kind}/{n}.jpg": jpeg((n, 40, 90)) for kind in ("up", "out") for n in range(3)}
    before = {path for path in world.studio.home.parent.rglob("*") if path.is_file()}
    world.post("/send", files={"files": ("climb.zip", zipped(members))})
    new = {path for path in world.studio.home.parent.rglob("*") if path.is_file()} - before
    assert all(world.studio.home in path.parents for path in new)
    assert not any(path.suffix == ".jpg" for path in new)


def test_a_form_that_is_too_large_is_refused_before_it_is_read(world: World) -> None:
    token = world.csrf()
    answer = world.browser.post("/open", content=b"x" * 100_000, headers={"content-type": "text/plain"})
    assert answer.status_code == 413 and token
    sent, classified, opened = (largest(path, world.root) for path in ("/send", "/runs/a/predict", "/open"))
    assert sent == classified > opened


def test_photographs_are_not_added_to_a_folder_of_the_machine(world: World) -> None:
    data = world.open()
    answer = world.post(
        "/send", files={"files": ("x.jpg", jpeg())}, into=data.rsplit("/", 1)[1], label="bars"
    )
    assert answer.status_code == 403
    assert len(list((world.root / "photos").rglob("*.jpg"))) == 42


# Who may ask ------------------------------------------------------------------------------------------------


def test_every_form_needs_its_token(world: World) -> None:
    routes = [route for module in MODULES for route in module.router.routes if "POST" in route.methods]
    assert len(routes) > 12
    for route in routes:
        address = re.sub(r"\{[^}]*\}", "x", route.path)
        assert world.browser.post(address, data={"csrf": "0" * 64}).status_code == 403, address
        assert world.browser.post(address, data={}).status_code == 403, address


def test_other_names_and_other_sites_are_turned_away(world: World) -> None:
    assert world.browser.get("/", headers={"host": "evil.example"}).status_code == 421
    form = {"csrf": world.csrf(), "path": "photos"}
    answer = world.browser.post("/open", data=form, headers={"origin": "http://evil.example"})
    assert answer.status_code == 403


def test_another_user_of_the_machine_needs_the_token_on_loopback_too(
    make_world: Callable[..., World],
) -> None:
    owner = make_world()
    data = owner.open()
    stranger = TestClient(owner.browser.app, base_url=HOME)
    picture = re.search(r'src="(/data/[^"]+)"', owner.browser.get(data).text)
    addresses = ["/", "/folders", "/runs", data, "/jobs/x/events", "/runs/x/exports.zip"]
    addresses += [picture[1].replace("&amp;", "&")] if picture else []
    for address in addresses:
        answer = stranger.get(address)
        assert answer.status_code == 401 and not answer.cookies, address
        assert "photos" not in answer.text
    assert stranger.post("/open", data={"path": "photos"}).status_code == 401
    assert owner.browser.get(data).status_code == 200


def test_files_without_the_sessions_token_in_front_are_refused_before_they_have_come(world: World) -> None:
    [(name, cookie)] = world.browser.cookies.items()
    file = b'--b\r\ncontent-disposition: form-data; name="files"; filename="a.zip"\r\n\r\nPK'
    wrong = b'--b\r\ncontent-disposition: form-data; name="csrf"\r\n\r\nwrong\r\n--b\r\n'
    head = (
        "POST /send HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 9000000\r\n"
        f"content-type: multipart/form-data; boundary=b\r\ncookie: {name}={cookie}\r\n\r\n"
    ).encode()
    with listening(world.browser.app) as address:
        for first in (file, wrong):
            with socket.create_connection(address, timeout=20) as client:
                client.sendall(head + first)
                assert client.recv(1000).startswith(b"HTTP/1.1 403")


def test_no_more_is_taken_than_a_share_of_the_free_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = SimpleNamespace(free=400_000)
    monkeypatch.setattr(uploads.shutil, "disk_usage", lambda folder: free)
    assert world.post("/send", files={"files": ("a.jpg", bytes(150_000))}).status_code == 413
    assert world.post("/send", files={"files": ("a.jpg", bytes(50_000))}).status_code == 400


def test_nothing_stays_of_what_a_full_disk_did_not_take(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(source: Any, target: Any) -> None:
        target.write(source.read(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(uploads.shutil, "copyfileobj", full)
    answer = world.post("/send", files={"files": ("a.zip", zipped({"a/1.jpg": jpeg(), "b/1.jpg": jpeg()}))})
    assert answer.status_code == 400 and "No space left" in answer.text
    assert not [path for path in (world.studio.home / "studio" / "data").rglob("*") if path.is_file()]


def test_every_page_forbids_what_is_not_ours(world: World) -> None:
    data = world.open()
    run = world.train(data)
    addresses = ["/", "/folders", "/runs", "/words", data, f"{data}/plan", f"{data}/runs", "/nowhere"]
    addresses += [run + part for part in ("", "/predict", "/label", "/export")]
    for address in addresses:
        answer = world.browser.get(address)
        assert answer.headers["content-security-policy"].startswith("default-src 'self'"), address
        assert not re.search(r"<style|style=|<script(?![^>]*src=)|\son\w+=", answer.text), address


# Using it ---------------------------------------------------------------------------------------------------


def test_a_photograph_is_classified_explained_and_compared_with_training_photographs(world: World) -> None:
    run = world.train(world.open())
    photo = sorted((world.root / "photos/discs").iterdir())[3].read_bytes()
    answer = world.post(f"{run}/predict", files={"files": ("<b>x</b>.jpg", photo)})
    assert "<h1>discs</h1>" in answer.text and "<b>x</b>" not in answer.text
    assert "Most similar" in answer.text
    for part in ("image", "heat", "0"):
        picture = world.browser.get(f"{answer.url.path}/{part}.jpg")
        assert picture.headers["content-type"] == "image/jpeg", part
    assert "Perhaps none of these" not in answer.text
    noise = np.random.default_rng(0).integers(0, 256, (96, 96, 3), dtype=np.uint8)
    strange_photo = encoded(Image.fromarray(noise), "PNG")
    strange = world.post(f"{run}/predict", files={"files": ("noise.png", strange_photo)})
    assert "Perhaps none of these classes" in strange.text
    refused = world.post(f"{run}/predict", files={"files": ("x.jpg", b"no image")})
    assert refused.status_code == 400


def test_a_label_put_right_trains_again_and_never_touches_the_folder(world: World) -> None:
    wrong = sorted((world.root / "photos/discs").iterdir())
    for number, path in enumerate(wrong[:6]):
        path.rename(world.root / f"photos/bars/wrong-{number}.jpg")
    files = sorted(path.relative_to(world.root) for path in world.root.rglob("*.jpg"))
    run = world.train(world.open())
    before = world.studio.run(run[6:])
    offered = re.search(
        r'name="content" value="(\w+)".*?<option value="">.*?<option value="(\w+)"',
        world.browser.get(run).text,
        re.DOTALL,
    )
    assert offered, "no mistake to correct"
    content, label = offered.groups()
    answer = world.post(f"{run}/correct", content=content, label=label)
    assert answer.status_code == 200 and f"is {label} from now on" in answer.text
    assert "Retrained in" in answer.text and answer.url.path != run
    after = read_run(world.studio.run(answer.url.path[6:]).path)
    assert after.id != before.id and after.classes == before.classes
    undone = world.post(f"{answer.url.path}/undo")
    assert "taken back" in undone.text
    assert files == sorted(path.relative_to(world.root) for path in world.root.rglob("*.jpg"))
    assert world.post(f"{run}/correct", content=content, label="unicorn").status_code == 400
    assert world.post(f"{run}/correct", content="00", label="discs").status_code == 404


def test_new_photographs_are_labelled_the_most_useful_first(
    world: World, make_photos: Callable[..., Path]
) -> None:
    run = world.train(world.open())
    make_photos(world.root / "new", per_class=3, seed=7)
    answer = world.post(f"{run}/label", path="new", files={"nothing": ("", b"")})
    job = world.wait(answer.url.path)
    assert 0 < len(job.result["suggestions"]) <= 12
    page = world.browser.get(f"{run}/label/{job.id}")
    assert 'name="label-0"' in page.text
    assert world.browser.get(f"{run}/label/{job.id}/0.jpg").headers["content-type"] == "image/jpeg"
    labels = {f"label-{n}": "discs" for n in range(2)}
    added = world.post(f"{run}/label/{job.id}", **labels)
    assert "2 photographs added" in added.text and "Retrained in" in added.text
    following = world.wait(added.url.path)
    assert len(following.result["suggestions"]) == 7
    assert world.post(f"{run}/label/{job.id}", **{"label-0": ""}).status_code == 400


def test_a_run_is_exported_as_a_job_and_downloaded_by_listed_names_alone(world: World) -> None:
    run = world.train(world.open())
    answer = world.post(f"{run}/export", to="onnx")
    world.wait(answer.url.path)
    page = world.browser.get(f"{run}/export").text
    found = re.search(rf'href="({run}/exports/[^"]+\.onnx)"', page)
    assert found and len(world.browser.get(found[1]).content) > 10_000
    whole = re.search(rf'href="({run}/exports\.zip\?export=onnx)"', page)
    assert whole
    with zipfile.ZipFile(io.BytesIO(world.browser.get(whole[1]).content)) as archive:
        inside = {Path(name).name for name in archive.namelist()}
        assert inside >= {"model.onnx", "predict.py", "card.md", "card.json"} and archive.testzip() is None
    for name in ("../run.json", "..%2Frun.json", "%2e%2e/run.json", "none.onnx"):
        assert world.browser.get(f"{run}/exports/{name}").status_code == 404
    for name in ("..", ".", "", "openvino"):
        assert world.browser.get(f"{run}/exports.zip?export={name}").status_code == 404
    assert world.post(f"{run}/export", to="pickle").status_code == 400


def test_a_run_is_served_until_it_is_stopped(world: World) -> None:
    import httpx

    run = world.train(world.open())
    page = world.post(f"{run}/serve").text
    address = re.search(r'href="(http://127\.0\.0\.1:\d+/)docs"', page)
    assert address and "headstart serve" not in page
    photo = sorted((world.root / "photos/discs").iterdir())[0].read_bytes()
    answer = httpx.post(f"{address[1]}predict", files={"images": ("x.jpg", photo)})
    assert answer.status_code == 200 and answer.json()["predictions"][0]["label"] == "discs"
    assert "headstart serve" in world.post(f"{run}/unserve").text
    with pytest.raises(httpx.TransportError):
        httpx.get(f"{address[1]}health")
