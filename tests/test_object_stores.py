"""Photographs in S3, as moto's server on loopback has it: pages, failures, credentials."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import headstart
from conftest import write_photos
from headstart.data.dataset import content_hash, read_dataset
from headstart.errors import DatasetError

pytest.importorskip("s3fs", reason="needs headstart[remote]")
pytest.importorskip("moto", reason="needs moto[s3] and Flask")

import s3fs
from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import WSGIRequestHandler, make_server

remote = sys.modules["headstart.data.sources.remote"]

SECRET = "wJalrXUtnFEMIK7MDENGbPxRfiCYEXAMPLEKEY"


@dataclass
class Store:
    """A server of S3 and what it is made to do."""

    application: Any = field(default_factory=lambda: DomainDispatcherApplication(create_backend_app))
    every: int = 0  # request of so many that fails
    page: int = 1000  # objects that are listed at once
    requests: int = 0
    queries: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __call__(self, environment: dict[str, Any], start: Any) -> Iterable[bytes]:
        with self.lock:
            self.requests += 1
            self.queries.append(environment.get("QUERY_STRING", ""))
            if "list-type=2" in self.queries[-1]:
                environment["QUERY_STRING"] += f"&max-keys={self.page}"
            failing = self.every and self.requests % self.every == 0
        if failing:
            start("503 Slow Down", [("Content-Length", "0")])
            return [b""]
        found: Iterable[bytes] = self.application(environment, start)
        return found


class _Quiet(WSGIRequestHandler):
    def log(self, *_: object) -> None:
        pass


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries come at once."""
    monkeypatch.setattr(remote, "FIRST_PAUSE", 0.0)


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[Store, int]]:
    store = Store()
    running = make_server("127.0.0.1", 0, store, threaded=True, request_handler=_Quiet)
    thread = threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield store, running.server_port
    running.shutdown()
    thread.join()
    running.server_close()


@pytest.fixture
def store(server: tuple[Store, int], monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    """The server, found as S3's own tools find theirs: by variables of the environment."""
    found, port = server
    for name, value in {
        "AWS_ACCESS_KEY_ID": "AKIAIOSFODNN7EXAMPLE",
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }.items():
        monkeypatch.setenv(name, value)
    s3fs.S3FileSystem.clear_instance_cache()
    found.every, found.page = 0, 1000
    found.queries.clear()
    yield found


@pytest.fixture(scope="module")
def photos(server: tuple[Store, int], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photographs on disk, and the same in the bucket `flowers`: in folders and in a zip."""
    folder = write_photos(tmp_path_factory.mktemp("s3") / "photos", per_class=10)
    packed = io.BytesIO()
    filesystem = s3fs.S3FileSystem(
        key="a", secret="b", endpoint_url=f"http://127.0.0.1:{server[1]}", skip_instance_cache=True
    )
    filesystem.mkdir("flowers")
    with zipfile.ZipFile(packed, "w") as archive:
        for each in sorted(folder.rglob("*.jpg")):
            inner = each.relative_to(folder).as_posix()
            archive.write(each, inner)
            filesystem.pipe(f"flowers/photos/{inner}", each.read_bytes())
    filesystem.pipe("flowers/all.zip", packed.getvalue())
    return folder


def facts(source: str | Path) -> list[tuple[str, str, bytes]]:
    dataset = read_dataset(source)
    return sorted(
        (each.name, dataset.classes[each.label], content_hash(each.source.read())) for each in dataset.samples
    )


@pytest.mark.parametrize("name", ["photos", "all.zip"])
def test_a_bucket_holds_the_data_set_that_was_put_there(photos: Path, store: Store, name: str) -> None:
    assert facts(f"s3://flowers/{name}") == facts(photos)


def test_requests_that_fail_lose_nothing(photos: Path, store: Store) -> None:
    store.every = 7
    assert facts("s3://flowers/photos") == facts(photos)
    assert facts("s3://flowers/all.zip") == facts(photos)


def test_more_objects_than_one_page_holds_are_all_listed(photos: Path, store: Store) -> None:
    store.page = 7
    assert facts("s3://flowers/photos") == facts(photos)
    assert sum("continuation-token" in query for query in store.queries) == 4  # 30 of them, 7 at once


def test_a_fit_from_s3_is_the_fit_from_disk_and_keeps_no_credential(
    photos: Path, store: Store, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"backbone": "builtin", "size": 64, "precision": "f32"}
    _, here = headstart.fit(photos, out=tmp_path / "here", **options)
    _, there = headstart.fit("s3://flowers/photos", out=tmp_path / "there", **options)
    assert there.accuracy == here.accuracy and there.cache["misses"] == 0
    saved = b"".join(each.read_bytes() for each in tmp_path.rglob("*") if each.is_file())
    assert SECRET.encode() not in saved and b"AKIAIOSFODNN7EXAMPLE" not in saved
    assert json.loads((tmp_path / "there" / "run.json").read_text())["source"] == "s3://flowers/photos"


def test_the_command_line_reads_s3(photos: Path, store: Store, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "headstart", "check", "s3://flowers/photos", "--json"],
        env=os.environ.copy(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["images"] == 30 and SECRET not in done.stderr


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("s3://no-such-bucket/photos", "no-such-bucket/photos: nothing is there"),
        ("s3://flowers/absent", "flowers/absent: nothing is there"),
    ],
)
def test_what_is_not_in_a_bucket_is_one_line(photos: Path, store: Store, address: str, said: str) -> None:
    with pytest.raises(DatasetError, match=said) as caught:
        read_dataset(address)
    assert "\n" not in str(caught.value)


def test_without_credentials_one_line_says_so(
    photos: Path, store: Store, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    s3fs.S3FileSystem.clear_instance_cache()
    with pytest.raises(DatasetError, match="access is refused; see that credentials"):
        read_dataset("s3://flowers/photos")
