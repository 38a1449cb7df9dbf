"""Predictions over HTTP: equal answers, batches, bounds, a newer classifier, a stop that loses nothing."""

from __future__ import annotations

import asyncio
import base64
import io
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("prometheus_client", reason="needs headstart[serve]")

import schemathesis
from hypothesis import HealthCheck, Phase, settings
from PIL import Image
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)
from starlette.testclient import TestClient

import headstart
from conftest import shared_folders, write_photos
from headstart.classifier import MODEL_FILE, Classifier
from headstart.errors import OptionError, RunError
from headstart.runs import CLASSIFIER_FILE
from headstart.serving import models as serving_models
from headstart.serving.app import create_app
from headstart.serving.limits import Limits
from headstart.serving.models import LoadedModel, Models, fixed, latest, rehearse
from headstart.serving.uploads import UploadRefused, _from_json
from headstart.web.addresses import names_for
from listening import listening
from web_folders import web_folder

HEADSTART = Path(sys.executable).with_name("headstart")
BASE = "http://127.0.0.1"
SMALL = Limits(body_bytes=200_000, images=4, pixels=250_000, batch=4, queue=8, answer_seconds=60.0)


@pytest.fixture(scope="module")
def shelf(tmp_path_factory: pytest.TempPathFactory, compiled_models: Path) -> Iterator[Path]:
    """Two runs in one folder, `first` and the later `second`, whose labels differ; and photographs."""
    root = tmp_path_factory.mktemp("serving")
    with shared_folders(root, compiled_models):
        photos = write_photos(root / "photos", per_class=10)
        headstart.fit(photos, backbone="builtin", size=64, precision="f32", out=root / "runs" / "first")
        shutil.copytree(root / "runs" / "first", root / "runs" / "second")
        _edit(root / "runs" / "second" / CLASSIFIER_FILE, classes=["BARS", "DISCS", "SQUARES"])
        _edit(root / "runs" / "second" / "run.json", created="2100-01-01T00:00:00+00:00")
        yield root


def _edit(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.fixture
def photo(shelf: Path) -> Path:
    return shelf / "photos" / "discs" / "000.jpg"


@pytest.fixture
def classifier(shelf: Path) -> Classifier:
    return headstart.load(shelf / "runs" / "first")


@pytest.fixture(scope="module")
def models(shelf: Path) -> Models:
    return Models(fixed(shelf / "runs" / "first"), batch=16)


@pytest.fixture(scope="module")
def client(models: Models) -> Iterator[TestClient]:
    """A client of one server, for tests that change nothing of it: starting its processes takes a while."""
    with TestClient(create_app(models, limits=SMALL, watch_seconds=0), base_url=BASE) as client:
        yield client


@pytest.fixture(scope="module")
def guarded(models: Models) -> Iterator[TestClient]:
    """The same with a token."""
    app = create_app(models, limits=SMALL, watch_seconds=0, token="s3cret-token")
    with TestClient(app, base_url=BASE) as client:
        yield client


@pytest.fixture
def make(models: Models) -> Iterator[Callable[..., TestClient]]:
    """A client of a new server, with options of `create_app`."""
    open_clients: list[TestClient] = []

    def build(*, limits: Limits = SMALL, **options: Any) -> TestClient:
        app = create_app(models, limits=limits, **{"watch_seconds": 0, **options})
        client = TestClient(app, base_url=BASE)
        client.__enter__()
        open_clients.append(client)
        return client

    yield build
    for client in open_clients:
        client.__exit__(None, None, None)


def files(*paths: Path) -> list[tuple[str, tuple[str, bytes]]]:
    return [("images", (path.name, path.read_bytes())) for path in paths]


def png(side: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), (90, 40, 20)).save(buffer, "PNG")
    return buffer.getvalue()


# Answers -------------------------------------------------------------------------------------------------


def test_files_are_answered_like_predict_and_in_their_order(
    client: TestClient, classifier: Classifier, shelf: Path
) -> None:
    paths = sorted((shelf / "photos").rglob("00[03].jpg"))[:4]
    answer = client.post("/predict?top=3", files=files(*paths))
    assert answer.status_code == 200
    assert answer.json()["run"] == "first"
    for path, said in zip(paths, answer.json()["predictions"], strict=True):
        (wanted,) = classifier.predict(path, top=3)
        assert (said["name"], said["label"]) == (path.name, wanted.label)
        assert said["probability"] == pytest.approx(wanted.probability, abs=1e-4)
        assert [label for label, _ in said["top"]] == [label for label, _ in wanted.top]


def test_base64_is_read_wrapped_unpadded_url_safe_and_as_a_data_uri(
    make: Callable[..., TestClient], photo: Path
) -> None:
    plain = base64.b64encode(photo.read_bytes()).decode()
    lines = "\r\n".join(plain[start : start + 76] for start in range(0, len(plain), 76))
    quoted = plain.replace("+", "%2B").replace("/", "%2F").replace("=", "%3D")
    images = [plain, lines, plain.rstrip("="), plain.translate(str.maketrans("+/", "-_"))]
    images += [f"data:image/jpeg;base64,{lines}", f"DATA:;name=a.jpg;base64,{quoted}"]
    answer = make(limits=replace(SMALL, images=8)).post("/predict", json={"images": images})
    assert answer.status_code == 200
    assert len({(found["label"], found["probability"]) for found in answer.json()["predictions"]}) == 1


def test_an_address_instead_of_an_image_is_refused_and_not_asked(client: TestClient, shelf: Path) -> None:
    with web_folder(shelf / "photos") as web:
        answer = client.post("/predict", json={"images": [f"{web.address}discs/000.jpg"]})
        assert answer.status_code in (400, 422) and web.asked == []


def test_base64_in_json_is_answered_like_the_file(client: TestClient, photo: Path) -> None:
    body = {"images": [base64.b64encode(photo.read_bytes()).decode()] * 2}
    from_json = client.post("/predict", json=body).json()["predictions"]
    from_file = client.post("/predict", files=files(photo)).json()["predictions"]
    assert [said["name"] for said in from_json] == ["image 1", "image 2"]
    assert [said["label"] for said in from_json] == 2 * [from_file[0]["label"]]
    assert from_json[0]["probability"] == pytest.approx(from_file[0]["probability"], abs=1e-4)


def test_an_image_that_is_the_body_itself_is_answered_like_the_file(client: TestClient, photo: Path) -> None:
    headers = {"content-type": "image/jpeg"}
    plain = client.post("/predict?top=2", content=photo.read_bytes(), headers=headers).json()
    in_form = client.post("/predict?top=2", files=files(photo)).json()
    assert plain["predictions"][0]["name"] == "image 1"
    assert plain["predictions"][0]["top"] == in_form["predictions"][0]["top"]


@pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 9, 20])
def test_a_batch_of_any_size_gives_what_predict_gives(
    models: Models, classifier: Classifier, count: int
) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    found = models.current.answers(list(pixels))[:, :-1]
    np.testing.assert_allclose(found, classifier.probabilities(pixels), atol=1e-4)


def test_requests_that_come_together_share_batches(make: Callable[..., TestClient], photo: Path) -> None:
    client = make(limits=replace(SMALL, queue=64, batch=16, wait_seconds=0.5))
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda _: client.post("/predict", files=files(photo)), range(12)))
    assert {answer.status_code for answer in answers} == {200}
    found = client.get("/metrics").text
    batches = float(re.search(r"^headstart_batch_images_count (\S+)", found, re.M)[1])  # type: ignore[index]
    assert "headstart_images_total 12.0" in found
    assert batches < 12


def test_a_single_image_does_not_wait_for_others(make: Callable[..., TestClient], photo: Path) -> None:
    client = make(limits=replace(SMALL, wait_seconds=60.0, answer_seconds=50.0))
    assert client.post("/predict", files=files(photo)).status_code == 200


def test_health_and_metrics_tell_what_happened(make: Callable[..., TestClient], photo: Path) -> None:
    client = make()
    client.post("/predict", files=files(photo))
    client.post("/predict", files=[("images", ("a.jpg", b"nothing"))])
    assert client.get("/health").json() == {"status": "ok"}
    found = client.get("/metrics")
    assert found.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'headstart_requests_total{status="200"} 1.0' in found.text
    assert 'headstart_requests_total{status="422"} 1.0' in found.text
    assert "headstart_waiting_images 0.0" in found.text


def test_the_documentation_loads_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/docs")
    assert "POST /predict" in page.text and "discs" in page.text
    assert f"--data-binary @first.jpg {BASE}/predict" in page.text and "<code>images</code>" in page.text
    assert not re.findall(r"""(?:src|href)=["'](?!/openapi\.json)""", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    document = client.get("/openapi.json").json()
    kinds = document["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(kinds) == {"multipart/form-data", "application/json", "application/octet-stream"}


# Refusals ------------------------------------------------------------------------------------------------

_JSON = {"content-type": "application/json"}
_FORM = {"content-type": "multipart/form-data; boundary=b"}


@pytest.mark.parametrize(
    ("request_", "status", "words"),
    [
        ({"files": [("images", ("a.jpg", b"nothing"))]}, 422, "a.jpg: not an image"),
        ({"files": [("images", ("a.jpg", b""))]}, 422, "empty"),
        ({"files": [("pictures", ("a.jpg", b"x"))]}, 422, "pictures"),
        ({"data": {"images": "text"}, "files": [("images", ("a", b"x"))]}, 422, "field without a file"),
        ({"files": [("images", ("a.jpg", b"x"))] * 5}, 413, "more than 4 images"),
        ({"files": [("images", ("a.jpg", bytes(200_001)))]}, 413, "larger than"),
        ({"files": [("images", ("big.png", png(501)))]}, 422, "big.png: too large: 501 x 501"),
        ({"content": b"{", "headers": _JSON}, 400, "the body"),
        ({"content": b"\xff\xfe{}", "headers": _JSON}, 400, "the body"),
        ({"json": {"images": []}}, 422, "images"),
        ({"json": {"images": ["no base64!"]}}, 422, "images.0: not base64"),
        (
            {"json": {"images": ["data:image/svg+xml,%3Csvg%3E"]}},
            422,
            "a data: URI that is not base64",
        ),
        (
            {"json": {"images": ["https://example.org/a.jpg"]}},
            422,
            "an address, which is not fetched",
        ),
        ({"json": {"images": [1]}}, 422, "images.0"),
        ({"json": {"images": ["aGk="] * 5}}, 413, "more than 4 images"),
        ({"json": {"images": ["aGk="], "url": "http://example.org/a.jpg"}}, 422, "url"),
        ({"content": b"x", "headers": {"content-type": "text/plain"}}, 415, "multipart/form-data"),
        ({"content": b"x", "headers": {"content-type": "image/jpeg"}}, 422, "image 1: not an image"),
        ({"content": b"", "headers": {"content-type": "image/jpeg"}}, 422, "no image"),
        ({"content": b"--b--\r\n", "headers": _FORM}, 422, "no image"),
        ({"content": b"--b\r\nx-y: z\r\n\r\nx\r\n--b--", "headers": _FORM}, 400, "no name"),
        (
            {
                "content": b'--b\r\ncontent-disposition: form-data; name="images"; filename="a"\r\n\r\nx',
                "headers": _FORM,
            },
            400,
            "no end",
        ),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "boundary"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data; boundary=b"}}, 400, "multipart"),
        ({"params": {"top": 0}, "json": {"images": ["aGk="]}}, 422, "top"),
        ({"params": {"top": "1001"}, "json": {"images": ["aGk="]}}, 422, "top"),
        ({"params": {"top": 5000 * "9"}, "json": {"images": ["aGk="]}}, 422, "top"),
        ({"params": {"top": "many"}, "json": {"images": ["aGk="]}}, 422, "top"),
    ],
)
def test_a_bad_request_is_refused_in_one_line(
    client: TestClient, request_: dict[str, Any], status: int, words: str
) -> None:
    answer = client.post("/predict", **request_)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"] and "\n" not in answer.json()["error"]


def test_a_body_of_unknown_length_is_bounded_too(client: TestClient) -> None:
    def pieces() -> Iterator[bytes]:
        for _ in range(100):
            yield bytes(10_000)

    answer = client.post("/predict", content=pieces(), headers=_JSON)
    assert answer.status_code == 413


def test_one_bad_image_refuses_the_request_and_is_named(client: TestClient, photo: Path) -> None:
    bad = [("images", ("torn.jpg", photo.read_bytes()[:200]))]
    answer = client.post("/predict", files=[*files(photo), *bad])
    assert answer.status_code == 422 and answer.json()["error"].startswith("torn.jpg: ")


def test_unknown_addresses_and_methods_have_the_same_form(client: TestClient) -> None:
    assert client.get("/nothing").json() == {"error": "not found"}
    refused = client.get("/predict")
    assert refused.status_code == 405 and refused.headers["allow"] == "POST"


def test_limits_that_contradict_each_other_are_refused() -> None:
    with pytest.raises(OptionError, match="--queue"):
        Limits(images=10, queue=5)
    with pytest.raises(OptionError, match="--max-mb"):
        Limits(body_bytes=2, memory_bytes=1)


# Who may ask ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "", "10.0.0.1", "localhost.evil"])
def test_a_host_header_that_is_not_ours_is_refused(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 421


@pytest.mark.parametrize("host", ["localhost:8422", "127.0.0.1", "[::1]:1", "LOCALHOST"])
def test_our_own_names_are_answered(client: TestClient, host: str) -> None:
    assert client.get("/health", headers={"host": host}).status_code == 200


def test_beyond_loopback_addresses_and_named_hosts_are_answered(make: Callable[..., TestClient]) -> None:
    client = make(names=names_for("0.0.0.0", also=["Photos.Example"]))
    asked = {host: client.get("/health", headers={"host": host}).status_code for host in
             ("192.168.1.5:80", "[fe80::1]", "photos.example", "other.example")}  # fmt: skip
    assert asked == {"192.168.1.5:80": 200, "[fe80::1]": 200, "photos.example": 200, "other.example": 421}


@pytest.mark.parametrize(
    "headers", [{"origin": "http://evil.example"}, {"origin": "null"}, {"sec-fetch-site": "cross-site"}]
)
def test_another_sites_page_is_refused(client: TestClient, photo: Path, headers: dict[str, str]) -> None:
    assert client.post("/predict", files=files(photo), headers=headers).status_code == 403


@pytest.mark.parametrize(
    "sent", [None, "Bearer wrong", "Bearer ", "Basic s3cret-token", "s3cret-token", "Bearer s3cret-tokenx"]
)
def test_without_the_token_nothing_but_health_answers(
    guarded: TestClient, photo: Path, sent: str | None
) -> None:
    headers = {"authorization": sent} if sent else {}
    for answer in (
        guarded.post("/predict", files=files(photo), headers=headers),
        guarded.get("/metrics", headers=headers),
        guarded.get("/docs", headers=headers),
        guarded.get("/openapi.json", headers=headers),
    ):
        assert answer.status_code == 401 and answer.headers["www-authenticate"] == "Bearer"
        assert "s3cret" not in answer.text
    assert guarded.get("/health").status_code == 200


def test_with_the_token_requests_are_answered(guarded: TestClient, photo: Path) -> None:
    known = {"authorization": "bearer s3cret-token"}
    assert guarded.post("/predict", files=files(photo), headers=known).status_code == 200
    assert guarded.get("/openapi.json", headers=known).json()["components"]["securitySchemes"]


# Too much ------------------------------------------------------------------------------------------------


@contextmanager
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """The network waits until the event is set."""
    gate = threading.Event()
    real = LoadedModel.answers

    def wait(self: LoadedModel, pixels: Any) -> Any:
        gate.wait(20)
        return real(self, pixels)

    monkeypatch.setattr(LoadedModel, "answers", wait)
    try:
        yield gate
    finally:
        gate.set()


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_a_full_queue_sheds_at_once_and_answers_everything_it_accepted(
    make: Callable[..., TestClient], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(limits=replace(SMALL, answer_seconds=60.0))
    endpoint = client.app.state.predict  # type: ignore[attr-defined]
    with held(monkeypatch) as gate, ThreadPoolExecutor(8) as pool:
        accepted = [pool.submit(client.post, "/predict", files=files(photo)) for _ in range(8)]
        until(lambda: endpoint.batcher.waiting == 8)
        refused = [client.post("/predict", files=files(photo)) for _ in range(5)]
        assert [answer.status_code for answer in refused] == 5 * [503]
        assert all(int(answer.headers["retry-after"]) >= 1 for answer in refused)
        gate.set()
        assert [waiting.result().status_code for waiting in accepted] == 8 * [200]
    assert endpoint.batcher.waiting == 0 and endpoint.bytes_held == 0
    assert client.post("/predict", files=files(photo)).status_code == 200


def test_what_would_hardly_be_answered_in_time_is_shed_instead_of_accepted(
    make: Callable[..., TestClient], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(limits=replace(SMALL, answer_seconds=8.0))
    endpoint = client.app.state.predict  # type: ignore[attr-defined]
    with held(monkeypatch) as gate, ThreadPoolExecutor(1) as pool:
        accepted = pool.submit(client.post, "/predict", files=files(photo))
        until(lambda: endpoint.batcher.waiting == 1)
        time.sleep(2.1)  # nothing was answered for a quarter of what an answer may take
        assert client.post("/predict", files=files(photo)).status_code == 503
        gate.set()
        assert accepted.result().status_code == 200
    assert client.post("/predict", files=files(photo)).status_code == 200


def test_bodies_under_way_are_bounded_together(make: Callable[..., TestClient], photo: Path) -> None:
    client = make()
    endpoint = client.app.state.predict  # type: ignore[attr-defined]
    endpoint.bytes_held = SMALL.memory_bytes
    assert client.post("/predict", files=files(photo)).status_code == 503


def test_what_takes_too_long_is_given_up_and_leaves_the_queue(
    make: Callable[..., TestClient], photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = make(limits=replace(SMALL, answer_seconds=0.2))
    endpoint = client.app.state.predict  # type: ignore[attr-defined]
    with held(monkeypatch) as gate:
        assert client.post("/predict", files=files(photo)).status_code == 504
        gate.set()
        until(lambda: endpoint.batcher.waiting == 0)
    monkeypatch.undo()


def test_a_failure_of_the_network_is_ours_and_the_next_request_is_answered(
    models: Models, photo: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    app = create_app(models, limits=SMALL, watch_seconds=0)

    def fail(self: LoadedModel, pixels: Any) -> Any:
        raise RuntimeError("secret detail")

    with TestClient(app, base_url=BASE, raise_server_exceptions=False) as client:
        with monkeypatch.context() as patch:
            patch.setattr(LoadedModel, "answers", fail)
            answer = client.post("/predict", files=files(photo))
            assert answer.status_code == 500 and "secret" not in answer.text
        assert client.post("/predict", files=files(photo)).status_code == 200


def test_a_request_that_drips_is_given_up(models: Models) -> None:
    limits = replace(SMALL, body_seconds=0.1)
    app = create_app(models, limits=limits, watch_seconds=0)

    async def ask() -> int:
        sent: list[Any] = []

        async def receive() -> Any:
            await asyncio.sleep(0.03)
            return {"type": "http.request", "body": b" ", "more_body": True}

        async def send(message: Any) -> None:
            sent.append(message)

        head = [(b"host", b"localhost"), (b"content-type", b"application/json")]
        scope = {
            "type": "http",
            "method": "POST",
            "path": "/predict",
            "raw_path": b"/predict",
            "headers": head,
        }
        await app({**scope, "query_string": b"", "http_version": "1.1", "scheme": "http"}, receive, send)
        return int(sent[0]["status"])

    assert asyncio.run(ask()) == 408


def test_health_answers_head_too(guarded: TestClient) -> None:
    answer = guarded.head("/health")
    assert answer.status_code == 200 and answer.content == b""


def test_health_says_what_is_not_well_and_metrics_count_it(make: Callable[..., TestClient]) -> None:
    client = make(watch_seconds=600)
    endpoint = client.app.state.predict  # type: ignore[attr-defined]
    assert client.get("/health").json() == {"status": "ok"}
    client.app.state.watcher._looked -= 10_000
    said = client.get("/health")
    assert said.status_code == 200 and said.json()["status"] == "degraded"
    assert "silent" in said.json()["trouble"][0]
    assert "headstart_troubles 1.0" in client.get("/metrics").text
    client.app.state.watcher._looked = time.monotonic()
    endpoint.batcher._decoded.put(None)  # which ends the thread that runs the network
    until(lambda: not endpoint.batcher.is_whole)
    said = client.get("/health")
    assert said.status_code == 503 and said.json() == {
        "status": "down",
        "trouble": ["a thread that answers has ended"],
    }


@pytest.mark.parametrize(
    "body",
    [
        pytest.param(lambda: b"{" + b",".join(b'"%d":1' % n for n in range(300_000)) + b"}", id="keys"),
        pytest.param(lambda: b'{"images":[' + b"1," * 2_000_000 + b"1]}", id="numbers"),
        pytest.param(lambda: b'{"images":["' + b'","' * 1_000_000 + b'"]}', id="strings"),
        pytest.param(lambda: b"[" * 4_000_000, id="depth"),
        pytest.param(lambda: b'{"images":' * 400_000, id="objects"),
        pytest.param(lambda: b'{"' + b"a" * 4_000_000 + b'":1}', id="key"),
        pytest.param(lambda: b'{"images":' + b"9" * 4_000_000 + b"}", id="digits"),
    ],
)
def test_a_body_of_json_costs_little_more_than_its_bytes(body: Callable[[], bytes]) -> None:
    sent = body()
    begun = time.process_time()
    tracemalloc.start()
    try:
        with pytest.raises(UploadRefused) as caught:
            _from_json(sent, "application/json", Limits())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 4 * len(sent) + 2**20 and time.process_time() - begun < 2
    assert len(str(caught.value)) < 500


# Newer classifiers ---------------------------------------------------------------------------------------


def test_the_newest_of_a_folder_is_served_and_half_a_run_is_not(shelf: Path, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    shutil.copytree(shelf / "runs" / "first", runs / "z-old")
    place = latest(runs)
    assert place().name == "z-old"
    shutil.copytree(shelf / "runs" / "second", runs / ".new.1.partial")
    (runs / "half").mkdir()
    (runs / "half" / CLASSIFIER_FILE).write_text("{}")
    assert place().name == "z-old"
    (runs / ".new.1.partial").rename(runs / "a-new")
    assert place().name == "a-new"


def test_a_folder_without_runs_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="no run in it"):
        latest(tmp_path)()
    with pytest.raises(RunError, match="No such file"):
        latest(tmp_path / "none")()


def test_a_replaced_run_is_taken_up_once_it_has_stopped_changing(shelf: Path, tmp_path: Path) -> None:
    run = shutil.copytree(shelf / "runs" / "first", tmp_path / "run")
    models = Models(fixed(run), batch=4, rehearse=at_once)
    assert models.refresh() is None
    (run / CLASSIFIER_FILE).write_bytes((shelf / "runs" / "second" / CLASSIFIER_FILE).read_bytes())
    assert models.refresh() is None and models.current.classifier.classes[0] == "bars"
    assert models.refresh() is True and models.current.classifier.classes[0] == "BARS"
    assert models.refresh() is None


def at_once(folder: Path, batch: int) -> None:
    """No rehearsal: what these tests are about is what follows."""


def strange_model(file: Path, *, scalar: bool) -> None:
    """A model whose output is one number, or rows that are no probabilities."""
    import onnx
    from onnx import TensorProto, helper

    over = [0, 1, 2, 3] if scalar else [1, 2]
    nodes = [
        helper.make_node("Cast", ["pixels"], ["floats"], to=TensorProto.FLOAT),
        helper.make_node("Add", ["floats", "one"], ["more"]),
        helper.make_node("ReduceMean", ["more", "axes"], ["probabilities"], keepdims=0),
    ]
    graph = helper.make_graph(
        nodes,
        "strange",
        [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["n", 64, 64, 3])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [] if scalar else ["n", 3])],
        initializer=[
            helper.make_tensor("axes", TensorProto.INT64, [len(over)], over),
            helper.make_tensor("one", TensorProto.FLOAT, [], [1.0]),
        ],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8), file)


def with_further_files(file: Path) -> None:
    """The same model with its weights beside it."""
    import onnx

    model = onnx.load(file)
    onnx.save(model, file, save_as_external_data=True, location="weights.bin", size_threshold=0)


@pytest.mark.parametrize(
    "damage",
    ["torn model", "fewer classes", "deep facts", "gone", "scalar", "no probabilities", "weights elsewhere"],
)
def test_a_run_that_cannot_be_loaded_leaves_the_old_one_serving(
    shelf: Path, tmp_path: Path, damage: str
) -> None:
    run = shutil.copytree(shelf / "runs" / "first", tmp_path / "run")
    models = Models(fixed(run), batch=4, rehearse=at_once)
    if damage == "torn model":
        (run / MODEL_FILE).write_bytes((run / MODEL_FILE).read_bytes()[:5000])
    elif damage == "fewer classes":
        _edit(run / CLASSIFIER_FILE, classes=["one", "two"])
    elif damage == "deep facts":
        (run / CLASSIFIER_FILE).write_text("[" * 200_000)
    elif damage in ("scalar", "no probabilities"):
        strange_model(run / MODEL_FILE, scalar=damage == "scalar")
    elif damage == "weights elsewhere":
        with_further_files(run / MODEL_FILE)
    else:
        shutil.rmtree(run)
    assert False in [models.refresh() for _ in range(3)]
    assert models.trouble and "\n" not in models.trouble
    assert models.current.classifier.classes == ("bars", "discs", "squares")
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(shelf / "runs" / "second", run)
    assert True in [models.refresh() for _ in range(3)]
    assert models.trouble is None


def test_whatever_goes_wrong_the_watcher_says_so_in_one_clean_line_and_goes_on(
    shelf: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run = shutil.copytree(shelf / "runs" / "first", tmp_path / "run")
    failures = iter([RecursionError("deep"), MemoryError(), ValueError("\x1b]0;owned\x07\nforged")])

    def fail(folder: Path, batch: int) -> None:
        for failure in failures:
            raise failure

    app = create_app(Models(fixed(run), batch=4, rehearse=fail), limits=SMALL, watch_seconds=0.01)
    with TestClient(app, base_url=BASE) as client:
        for number in range(4):  # a run is tried once until it changes
            (run / MODEL_FILE).touch()
            until(lambda tried=number: reloads(client) > tried)  # type: ignore[misc]
        until(lambda: client.get("/health").json() == {"status": "ok"})
        assert 'headstart_reloads_total{result="failed"} 3.0' in client.get("/metrics").text
    lines = [record.getMessage() for record in caplog.records if "stays" in record.getMessage()]
    assert len(lines) == 3 and all(line.isprintable() for line in lines)


def reloads(client: TestClient) -> float:
    found = re.findall(r"^headstart_reloads_total\S+ (\S+)", client.get("/metrics").text, re.M)
    return sum(map(float, found))


def test_a_newer_run_is_tried_in_a_process_that_can_be_ended(
    shelf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = shutil.copytree(shelf / "runs" / "first", tmp_path / "run")
    with_further_files(run / MODEL_FILE)
    with pytest.raises(RunError, match="lie in another file"):
        rehearse(run, 4)
    monkeypatch.setattr(serving_models, "LOAD_SECONDS", 0.01)
    with pytest.raises(RunError, match="not loaded within"):
        rehearse(run, 4)


def test_no_request_is_lost_while_the_classifier_is_exchanged(
    shelf: Path, tmp_path: Path, photo: Path
) -> None:
    run = shutil.copytree(shelf / "runs" / "first", tmp_path / "run")
    models = Models(fixed(run), batch=4, rehearse=at_once)
    limits = replace(SMALL, queue=64)
    app = create_app(models, limits=limits, watch_seconds=0.05)
    statuses: list[int] = []
    labels: list[str] = []
    over = threading.Event()

    def ask(client: TestClient) -> None:
        while not over.is_set():
            answer = client.post("/predict", files=files(photo))
            statuses.append(answer.status_code)
            labels.append(answer.json()["predictions"][0]["label"])

    with TestClient(app, base_url=BASE) as client, ThreadPoolExecutor(4) as pool:
        askers = [pool.submit(ask, client) for _ in range(4)]
        try:
            until(lambda: len(labels) > 8)
            second = shutil.copytree(shelf / "runs" / "second", tmp_path / "second")
            run.rename(tmp_path / "away")
            second.rename(run)
            until(lambda: bool(labels) and labels[-1].isupper())
        finally:
            over.set()
        for asker in askers:
            asker.result()
        assert 'headstart_reloads_total{result="done"} 1.0' in client.get("/metrics").text
    assert set(statuses) == {200}
    assert {label.isupper() for label in labels} == {False, True}


# The server itself ---------------------------------------------------------------------------------------


def everything(client: socket.socket) -> bytes:
    """All that is sent until the other side closes: an answer may come in several pieces."""
    return b"".join(iter(lambda: client.recv(10_000), b""))


def test_generated_requests_meet_no_server_error(models: Models) -> None:
    app = create_app(models, limits=SMALL, watch_seconds=0)
    checks = [
        not_a_server_error,
        status_code_conformance,
        content_type_conformance,
        response_schema_conformance,
    ]
    with listening(app, lifespan="on") as (host, port):
        schema = schemathesis.openapi.from_url(f"http://{host}:{port}/openapi.json")
        asked = 0
        for result in schema.get_all_operations():
            operation = result.ok()

            @settings(
                max_examples=40,
                deadline=None,
                derandomize=True,
                database=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: Any) -> None:
                nonlocal asked
                asked += 1
                case.call_and_validate(checks=checks)

            operation_test = schemathesis_given(operation, ask)
            operation_test()
    assert asked > 30


def schemathesis_given(operation: Any, test: Callable[[Any], None]) -> Callable[[], None]:
    from hypothesis import given

    wrapped: Callable[[], None] = given(case=operation.as_strategy())(test)
    return wrapped


@contextmanager
def command(run: Path, *arguments: str, **environment: str) -> Iterator[tuple[dict[str, Any], Any]]:
    process = subprocess.Popen(
        [HEADSTART, "serve", run, "--port", "0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, **environment},
    )
    try:
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline()  # type: ignore[union-attr]
            assert line, process.stderr.read()  # type: ignore[union-attr]
            text += line
        yield json.loads(text), process
    finally:
        if process.poll() is None:
            process.kill()
        process.communicate()


def test_sigterm_answers_what_was_accepted_and_ends_with_0(shelf: Path, photo: Path) -> None:
    with command(shelf / "runs" / "first") as (said, process):
        port = int(said["address"].rstrip("/").rpartition(":")[2])
        body = json.dumps({"images": [base64.b64encode(photo.read_bytes()).decode()]}).encode()
        with socket.create_connection(("127.0.0.1", port), timeout=60) as early:  # answered once it has begun
            early.sendall(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
            assert everything(early).startswith(b"HTTP/1.1 200")
        head = f"POST /predict HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(body)}\r\n"
        with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
            client.sendall(head.encode() + b"content-type: application/json\r\n\r\n" + body[:100])
            time.sleep(0.3)  # the request is under way
            process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            client.sendall(body[100:])
            answer = everything(client)
        assert answer.startswith(b"HTTP/1.1 200") and b'"predictions"' in answer
        assert process.wait(20) == 0
        assert process.stderr.read() == ""
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=5)


def test_beyond_loopback_a_token_is_made_up_and_stays_out_of_the_log(shelf: Path) -> None:
    with command(shelf / "runs" / "first", "--host", "0.0.0.0") as (said, process):
        port = int(said["address"].rstrip("/").rpartition(":")[2])
        assert len(said["token"]) >= 20
        for sent, status in (("wrong", b"401"), (said["token"], b"200")):
            with socket.create_connection(("127.0.0.1", port), timeout=20) as client:
                client.sendall(
                    b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n"
                    + f"authorization: Bearer {sent}\r\n\r\n".encode()
                )
                assert everything(client).split()[1] == status
        process.send_signal(signal.SIGINT)
        assert process.wait(20) == 0
        assert process.stderr.read() == ""


def test_a_token_that_cannot_be_sent_is_refused(shelf: Path, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("two words\n")
    done = subprocess.run(
        [HEADSTART, "serve", shelf / "runs" / "first", "--token-file", file],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2 and "two words" not in done.stderr and str(file) in done.stderr


def test_images_in_one_request_are_decoded_whatever_their_format(client: TestClient) -> None:
    buffer = io.BytesIO()
    Image.new("L", (40, 30), 99).save(buffer, "GIF")
    answer = client.post("/predict", files=[("images", ("a", png(70))), ("images", ("b", buffer.getvalue()))])
    assert answer.status_code == 200 and len(answer.json()["predictions"]) == 2


def test_an_unknown_image_is_called_so_where_it_is_asked(client: TestClient) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    body, kind = buffer.getvalue(), {"content-type": "image/png"}
    (said,) = client.post("/predict?reject=0.1", content=body, headers=kind).json()["predictions"]
    assert said["known"] is False and 0 < said["familiarity"] < 0.1
    (said,) = client.post("/predict", content=body, headers=kind).json()["predictions"]
    assert "known" not in said and said["familiarity"] < 0.1
    for name in ("reject", "coverage"):
        for text in ("0", "1", "nan", "x", "", "1e999", "9" * 400):
            refused = client.post(f"/predict?{name}={text}", content=body, headers=kind)
            assert refused.status_code == 422 and "between 0 and 1" in refused.json()["error"]
    refused = client.post("/predict?coverage=0.99", content=body, headers=kind)
    assert refused.status_code == 422 and "too few images were held out" in refused.json()["error"]
