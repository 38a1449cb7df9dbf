"""What somebody may try: hostile archives, images, model files, paths, and the machine's other users.

The table in docs/security.md names the test that proves each answer; most live with their rooms.
"""

from __future__ import annotations

import ast
import base64
import io
import json
import os
import pickle
import re
import runpy
import stat
import struct
import subprocess
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import headstart
from headstart.data.dataset import list_images, read_dataset
from headstart.data.images import open_image
from headstart.data.sources import list_archive
from headstart.errors import BackboneError, DatasetError, ImageError, RunError
from headstart.files import cache_folder, home_folder

ROOT = Path(__file__).parents[1]


def jpeg(*, side: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (200, 30, 60)).save(buffer, "JPEG")
    return buffer.getvalue()


def zipped(path: Path, members: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


class Exploit:
    """Unpickling it makes a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> Any:
        return Path.touch, (self.target,)


# Archives ------------------------------------------------------------------------------------------------


def everything_below(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


@pytest.mark.parametrize(
    "name", ["../up.jpg", "a/../../up.jpg", "/etc/up.jpg", "C:\\up.jpg", "..\\..\\up.jpg", "a/./b/up.jpg"]
)
def test_a_zip_writes_nothing_wherever_its_names_point(tmp_path: Path, name: str) -> None:
    path = zipped(tmp_path / "z.zip", {"a/1.jpg": jpeg(), "b/2.jpg": jpeg(side=41), name: jpeg(side=42)})
    before = everything_below(tmp_path)
    dataset = read_dataset(path)
    for sample in dataset.samples:
        open_image(sample.source.read())
    assert everything_below(tmp_path) == before
    assert not any(".." in sample.name.split("/") for sample in dataset.samples)


def test_a_zip_with_a_member_without_a_name_is_read(tmp_path: Path) -> None:
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        nameless = zipfile.ZipInfo("x")
        for member in ("a/1.jpg", "b/2.jpg", nameless):
            archive.writestr(member, jpeg())
        nameless.filename = ""  # in the directory at the zip's end
    assert [name for name, _ in list_archive(path).files] == ["a/1.jpg", "b/2.jpg"]


def test_a_link_in_a_zip_is_left_out_by_name_and_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.jpg"
    secret.write_bytes(jpeg())
    path = tmp_path / "z.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a/1.jpg", jpeg())
        archive.writestr("b/2.jpg", jpeg())
        link = zipfile.ZipInfo("b/link.jpg")
        link.create_system, link.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, str(secret))
    dataset = read_dataset(path)
    assert [sample.name for sample in dataset.samples] == ["a/1.jpg", "b/2.jpg"]
    assert [(left.name, left.reason) for left in dataset.skipped] == [
        ("b/link.jpg", "a link, which is not followed in a zip")
    ]


def test_a_zip_within_a_zip_is_no_image_and_is_not_opened(tmp_path: Path) -> None:
    inner = zipped(tmp_path / "inner.zip", {"a/1.jpg": jpeg()}).read_bytes()
    path = zipped(tmp_path / "z.zip", {"a/1.jpg": jpeg(), "b/2.jpg": jpeg(), "b/inner.zip": inner})
    dataset = read_dataset(path)
    assert len(dataset) == 2 and dataset.skipped[0].name == "b/inner.zip"


def test_a_member_that_expands_further_than_it_says_stays_bounded(tmp_path: Path) -> None:
    path = zipped(tmp_path / "z.zip", {"a/1.jpg": bytes(5_000_000), "b/2.jpg": jpeg()})
    content = path.read_bytes()
    path.write_bytes(content.replace(struct.pack("<I", 5_000_000), struct.pack("<I", 1_000)))
    with pytest.raises(ImageError, match="cannot be read from the zip"):
        read_dataset(path).samples[0].source.read()


@pytest.mark.parametrize("data", [b"", b"PK\x05\x06" + bytes(18), b"PK\x03\x04 torn", b"#!/bin/sh\n"])
def test_what_is_no_data_set_in_a_zip_is_one_line(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "z.zip").write_bytes(data)
    with pytest.raises(DatasetError) as caught:
        read_dataset(tmp_path / "z.zip")
    assert "\n" not in str(caught.value)


# Images --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "head", [b"<script>alert(1)</script>", b"#!/bin/sh\n", b"PK\x03\x04", b"%PDF-1.4\n", b"MZ"]
)
def test_a_file_is_what_its_first_bytes_say_and_not_what_its_name_says(tmp_path: Path, head: bytes) -> None:
    (tmp_path / "photo.jpg").write_bytes(head + jpeg())
    (sample,) = list_images([tmp_path / "photo.jpg"])
    with pytest.raises(ImageError):
        open_image(sample.source.read())


def test_what_follows_an_image_never_reaches_a_pixel() -> None:
    tail = zipfile_bytes({"x.sh": b"#!/bin/sh"}) + b"<script>alert(1)</script>"
    clean, _ = open_image(jpeg())
    polyglot, facts = open_image(jpeg() + tail)
    assert facts.format == "JPEG"
    assert np.array_equal(np.asarray(clean), np.asarray(polyglot))


def zipfile_bytes(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def test_a_text_bomb_in_a_png_is_refused() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    whole = buffer.getvalue()
    bomb = png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(80_000_000), 9))
    head = 8 + 25  # signature and IHDR
    with pytest.raises(ImageError, match=r"[Dd]ecompressed"):
        open_image(whole[:head] + bomb + whole[head:])


def test_an_animation_of_many_frames_costs_one(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    frames = [Image.new("RGB", (64, 64), (number % 256, 0, 0)) for number in range(300)]
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    image, facts = open_image(buffer.getvalue())
    assert facts.frames == 2 and image.size == (64, 64)


def test_names_cannot_write_to_a_terminal(tmp_path: Path) -> None:
    folder = tmp_path / "a"
    folder.mkdir()
    (folder / "x\x1b]0;owned\x07\n.jpg").write_bytes(jpeg())
    (sample,) = list_images([folder])
    assert sample.name.isprintable() and "\n" not in sample.name


# Model files ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".pth", ".pt", ".bin", ".safetensors"])
def test_a_pickle_in_a_file_of_weights_is_refused_and_never_run(tmp_path: Path, suffix: str) -> None:
    pytest.importorskip("timm")
    from headstart.backbones import load_backbone

    touched = tmp_path / "touched"
    (tmp_path / f"w{suffix}").write_bytes(pickle.dumps({"model": Exploit(touched)}))
    with pytest.raises(BackboneError) as caught:
        load_backbone(tmp_path / f"w{suffix}", architecture="mobilenetv2_050")
    assert "\n" not in str(caught.value) and not touched.exists()


def test_a_pickle_in_a_runs_folder_is_refused_and_never_run(tmp_path: Path, photos: Path) -> None:
    touched = tmp_path / "touched"
    classifier, _ = headstart.fit(photos, backbone="builtin", size=64, out=tmp_path / "run")
    payload = pickle.dumps(Exploit(touched))
    classifier.model.write_bytes(payload)
    with pytest.raises(RunError, match="damaged"):
        headstart.load(tmp_path / "run").predict(photos / "bars" / "000.jpg")
    (tmp_path / "run" / "classifier.json").write_bytes(payload)
    with pytest.raises(RunError):
        headstart.load(tmp_path / "run")
    assert not touched.exists()


def test_no_code_of_ours_unpickles_or_evaluates() -> None:
    refused = re.compile(r"^(pickle|dill|cloudpickle|joblib|marshal|shelve)(\.|$)")
    found = []
    for file in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            called = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            unsafe = isinstance(node, ast.Call) and any(
                keyword.arg in ("weights_only", "shell", "allow_pickle")
                and getattr(keyword.value, "value", None) is (keyword.arg != "weights_only")
                for keyword in node.keywords
            )
            if any(map(refused.match, names)) or called in ("eval", "exec") or unsafe:
                found.append(f"{file.relative_to(ROOT)}:{node.lineno}")
    assert found == []


# Paths and other users -----------------------------------------------------------------------------------


@pytest.mark.skipif(os.name != "posix", reason="rights of this kind are POSIX's")
def test_the_two_folders_are_closed_to_other_users(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, photos: Path
) -> None:
    monkeypatch.setenv("HEADSTART_HOME", str(tmp_path / "new" / "home"))
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "new" / "cache"))
    before = os.umask(0o022)
    try:
        headstart.fit(photos, backbone="builtin", size=64, out=tmp_path / "run")
    finally:
        os.umask(before)
    for folder in (home_folder(), cache_folder()):
        assert any(folder.iterdir())
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700


def test_a_fit_writes_to_its_run_the_cache_and_the_home_alone(tmp_path: Path, photos: Path) -> None:
    before, pictures = everything_below(Path.cwd()), everything_below(photos)
    headstart.fit(photos, backbone="builtin", size=64, out=tmp_path / "run")
    assert everything_below(Path.cwd()) == before
    assert everything_below(photos) == pictures
    assert {path.name for path in tmp_path.iterdir()} == {"photos", "run"}


class Writes:
    """Notes where this process writes, by Python's own account: an audit hook, which cannot be taken off."""

    def __init__(self) -> None:
        self.on, self.places = False, set[str]()
        sys.addaudithook(self.note)

    def note(self, event: str, details: tuple[Any, ...]) -> None:
        if not self.on:
            return
        if event == "open":
            place, _, flags = details
            if not flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT):
                return
        elif event in (
            "os.mkdir",
            "os.rename",
            "os.link",
            "os.symlink",
            "sqlite3.connect",
            "tempfile.mkstemp",
        ):
            place = details[0] if event in ("os.mkdir", "sqlite3.connect", "tempfile.mkstemp") else details[1]
        else:
            return
        if isinstance(place, str | bytes | os.PathLike) and os.fsdecode(place) != os.devnull:
            self.places.add(os.path.abspath(os.fsdecode(place)))

    def outside(self, *folders: Path) -> set[str]:
        return {place for place in self.places if not any(Path(place).is_relative_to(f) for f in folders)}


@pytest.fixture
def writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Writes]:
    """Where is written, with the system's folder for temporary files in `tmp_path`."""
    (tmp_path / "system").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "system"))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    noted = Writes()
    yield noted
    noted.on = False


def large_photo(seed: int) -> bytes:
    """More than a megabyte, which is where forms leave the memory."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(seed).integers(0, 256, (700, 700, 3), dtype=np.uint8)
    Image.fromarray(noise).save(buffer, "PNG")
    return buffer.getvalue()


def test_an_upload_to_the_studio_is_written_to_its_home_alone(tmp_path: Path, writes: Writes) -> None:
    pytest.importorskip("fastapi", reason="needs headstart[web]")
    from studio_worlds import studio_worlds

    (tmp_path / "root").mkdir()
    members = {f"{kind}/{n}.png": large_photo(n + 9 * (kind == "b")) for kind in "ab" for n in range(2)}
    zip_file = zipped(tmp_path / "sent.zip", members).read_bytes()
    with studio_worlds(tmp_path / "root") as make, make().browser as browser:
        token = re.search(r'name="csrf" value="(\w+)"', browser.get("/").text)[1]  # type: ignore[index]
        writes.on = True
        for name, data in {"sent.zip": zip_file, "a/large.png": large_photo(99)}.items():
            answer = browser.post("/send", data={"csrf": token}, files={"files": (name, data)})
            assert answer.status_code == 200, answer.text
        writes.on = False
    assert any(place.endswith(".zip") for place in writes.places), "nothing was seen: the test saw nothing"
    assert writes.outside(home_folder(), cache_folder()) == set()
    assert list((tmp_path / "system").iterdir()) == []


def test_a_prediction_over_http_writes_nothing(tmp_path: Path, photos: Path, writes: Writes) -> None:
    pytest.importorskip("prometheus_client", reason="needs headstart[serve]")
    from fastapi.testclient import TestClient

    from headstart.serving.app import create_app
    from headstart.serving.models import Models, fixed

    headstart.fit(photos, backbone="builtin", size=64, out=tmp_path / "run")
    app = create_app(Models(fixed(tmp_path / "run"), batch=4), watch_seconds=0)
    large = large_photo(1)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        client.post("/predict", content=jpeg(), headers={"content-type": "image/jpeg"})
        writes.on = True
        (tmp_path / "seen").touch()
        answers = [
            client.post("/predict", files=[("images", ("a.png", large))] * 2),
            client.post("/predict", content=large, headers={"content-type": "image/png"}),
            client.post("/predict", json={"images": [base64.b64encode(large).decode()]}),
        ]
        writes.on = False
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert writes.places == {str(tmp_path / "seen")}


def test_a_tokens_home_is_no_option_of_the_command_line() -> None:
    shown = subprocess.run(
        [Path(sys.executable).with_name("headstart"), "serve", "--help"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "--token-file" in shown and not re.search(r"--token\b(?!-)", shown)


# What is installed ---------------------------------------------------------------------------------------


def locked(name: str) -> dict[str, list[str]]:
    """Package to hashes."""
    found: dict[str, list[str]] = {}
    current = ""
    for line in (ROOT / "locks" / f"{name}.txt").read_text().splitlines():
        if line and not line.startswith((" ", "#")):
            current = re.split(r"[=\[ ]", line)[0].lower()
            found[current] = []
        found[current] += re.findall(r"--hash=sha256:([0-9a-f]{64})", line)
    return found


def wanted(extra: str, seen: frozenset[str] = frozenset()) -> set[str]:
    """What pyproject.toml asks for, directly, with the extras within extras."""
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names: set[str] = set()
    for line in [*project["dependencies"], *project["optional-dependencies"][extra]]:
        name, _, inner = re.match(r"([\w.-]+)(\[([\w,-]+)\])?", line).groups()  # type: ignore[union-attr]
        if name != "headstart":
            names.add(re.sub(r"[-_.]+", "-", name).lower())
            continue
        for each in inner.split(","):
            names |= wanted(each, seen | {extra}) if each not in seen else set()
    return names


@pytest.mark.parametrize("extra", ["demo", "dev", "serve"])
def test_everything_that_is_asked_for_is_pinned_with_hashes(extra: str) -> None:
    pinned = locked(extra)
    assert wanted(extra) - pinned.keys() == set(), "run: make lock"
    assert [name for name, hashes in pinned.items() if not hashes] == []
    assert {"hatchling", "editables"} <= pinned.keys()


@pytest.mark.parametrize("extra", ["demo", "dev", "serve"])
def test_what_is_pinned_names_no_place_to_fetch_it_from(extra: str) -> None:
    text = (ROOT / "locks" / f"{extra}.txt").read_text()
    assert not re.search(r"://|--index|--find-links|--extra-index|@ ", text)


def test_an_audit_that_asked_about_nothing_does_not_say_that_all_is_well() -> None:
    verdict = runpy.run_path(str(ROOT / "locks" / "audit.py"))["verdict"]
    unknown = {"name": "a", "skip_reason": "not found"}
    flaw = {"id": "CVE-1", "fix_versions": ["2"]}
    lines, status = verdict([unknown], "dev.txt")
    assert "NOT CHECKED" in lines[0] and status == 0
    lines, status = verdict([unknown, {"name": "b", "version": "1", "vulns": [flaw]}], "dev.txt")
    assert lines[0] == "b 1: CVE-1; fixed in: 2" and "1 not" in lines[1] and status == 1
    assert verdict([{"name": "b", "version": "1", "vulns": []}], "dev.txt")[1] == 0


def test_the_page_names_tests_that_exist() -> None:
    text = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    named = re.findall(r"`(test_[a-z_0-9]+)::(test_\w+)`", text)
    assert len(named) > 25
    for module, test in named:
        assert f"def {test}(" in (ROOT / "tests" / f"{module}.py").read_text(encoding="utf-8"), test


def test_what_is_saved_beside_a_run_is_json_without_a_secret(
    tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADSTART_TOKEN", "s3cret-token")
    headstart.fit(photos, backbone="builtin", size=64, out=tmp_path / "run")
    for file in (tmp_path / "run").glob("*.json"):
        assert json.loads(file.read_text(encoding="utf-8")) is not None
        assert "s3cret" not in file.read_text(encoding="utf-8")
