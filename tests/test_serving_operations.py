"""What operators and other programs see of a server: its log, readiness, reloads, other sites, a client."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client", reason="needs headstart[serve]")

from starlette.testclient import TestClient

import headstart
from headstart.errors import OptionError, ServerError
from headstart.serving.app import create_app
from headstart.serving.client import Client, _batches
from headstart.serving.models import Models, fixed
from headstart.serving.openapi import openapi_document
from headstart.web.addresses import checked_origins
from listening import listening

HEADSTART = Path(sys.executable).with_name("headstart")
FLOWERS = "https://flowers.example"


@pytest.fixture(scope="module")
def models(small_run: Path) -> Models:
    return Models(fixed(small_run), batch=8)


@pytest.fixture
def make(models: Models) -> Iterator[Callable[..., TestClient]]:
    clients: list[TestClient] = []

    def build(**options: Any) -> TestClient:
        app = create_app(models, **{"watch_seconds": 0, **options})
        clients.append(TestClient(app, base_url="http://127.0.0.1"))
        clients[-1].__enter__()
        return clients[-1]

    yield build
    for client in clients:
        client.__exit__(None, None, None)


@contextmanager
def served(run: Path, *arguments: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The address of a server in a process of its own."""
    process = subprocess.Popen(
        [HEADSTART, "serve", run, "--port", "0", "--json", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        text = ""
        while not text.endswith("}\n"):
            line = process.stdout.readline() if process.stdout else ""
            assert line, process.stderr and process.stderr.read()
            text += line
        yield json.loads(text)["address"].rstrip("/"), process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="the system has no SIGHUP")
def test_sighup_takes_up_another_run_at_once_and_the_log_has_a_line_for_each_request(
    small_run: Path, photos: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(small_run, tmp_path / "run")
    with served(run, "--watch", "0", "--access-log") as (address, process):
        client = Client(address)
        assert client.ready() == "run"
        assert client.predict(photos / "bars/000.jpg")[0].label == "bars"
        facts = json.loads((run / "classifier.json").read_text())
        facts["classes"] = [name.upper() for name in facts["classes"]]
        (run / "classifier.json").write_text(json.dumps(facts))
        process.send_signal(signal.SIGHUP)
        assert process.stderr is not None
        lines = []
        while not lines or "now serving" not in lines[-1]:
            lines.append(process.stderr.readline())
            assert lines[-1], "it ended"
        assert client.predict(photos / "bars/000.jpg")[0].label == "BARS"
        with pytest.raises(ServerError, match="not found"):
            client._json("/no%0asuch%22thing?secret=1")
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        lines += process.stderr.read().splitlines()
    logged = [line.strip() for line in lines if "headstart:" not in line]
    form = re.compile(r'\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 127\.0\.0\.1 "(.*)" (\d+) [\d.]+ ms')
    found = [form.fullmatch(line) for line in logged]
    assert [match and match.groups() for match in found] == [
        ("GET /ready", "200"),
        ("POST /predict", "200"),
        ("POST /predict", "200"),
        ("GET /no\\nsuch%22thing", "404"),
    ]


def test_ready_names_the_run_and_needs_the_token(make: Callable[..., TestClient], small_run: Path) -> None:
    client = make(token="s3cret")
    assert client.get("/ready").status_code == 401
    answer = client.get("/ready", headers={"authorization": "Bearer s3cret"})
    assert answer.json()["run"] == small_run.name and answer.json()["task"] == "single-label"


def test_pages_of_a_named_site_may_ask_and_those_of_others_may_not(
    make: Callable[..., TestClient], photos: Path
) -> None:
    client = make(origins=checked_origins([FLOWERS]), token="s3cret")
    asked = {"origin": FLOWERS, "access-control-request-method": "POST", "sec-fetch-site": "cross-site"}
    before = client.options("/predict", headers=asked)
    assert before.status_code == 204 and before.headers["access-control-allow-origin"] == FLOWERS
    assert "authorization" in before.headers["access-control-allow-headers"]
    own = {"origin": FLOWERS, "sec-fetch-site": "cross-site"}
    assert client.get("/ready", headers=own).status_code == 401  # the token is needed all the same
    image = (photos / "bars/000.jpg").read_bytes()
    kind = {"content-type": "image/jpeg", "authorization": "Bearer s3cret"}
    answer = client.post("/predict", content=image, headers=own | kind)
    assert answer.status_code == 200 and answer.headers["access-control-allow-origin"] == FLOWERS
    assert answer.headers["vary"] == "origin" and "access-control-allow-credentials" not in answer.headers
    for other in ("https://evil.example", "null", f"{FLOWERS}.evil.example", "http://flowers.example"):
        refused = client.post("/predict", content=image, headers=kind | {"origin": other})
        assert refused.status_code == 403 and "access-control-allow-origin" not in refused.headers
        assert client.options("/predict", headers=asked | {"origin": other}).status_code == 403
    closed = make().options("/predict", headers=asked)
    assert closed.status_code == 403 and "access-control-allow-origin" not in closed.headers


@pytest.mark.parametrize(
    "origin", ["*", "flowers.example", "https://flowers.example/page", "ftp://x", "null"]
)
def test_what_is_no_origin_is_refused(origin: str) -> None:
    with pytest.raises(OptionError, match="expected an origin, such as https"):
        checked_origins([origin])


def test_the_client_says_what_predict_says_in_as_many_requests_as_it_takes(
    models: Models, small_run: Path, photos: Path
) -> None:
    classifier, images = headstart.load(small_run), sorted((photos / "discs").iterdir())[:5]
    with listening(create_app(models, watch_seconds=0), lifespan="on") as (host, port):
        client = Client(f"http://{host}:{port}/")
        found = client.predict(images, top=2, reject=0.05, batch=2)
        expected = classifier.predict(images, top=2, reject=0.05)
        assert [each.path for each in found] == [str(each) for each in images]
        for said, own in zip(found, expected, strict=True):
            assert (said.label, said.known, len(said.top)) == (own.label, own.known, 2)
            assert said.probability == pytest.approx(own.probability, abs=1e-4)
        assert client.predict([images[0].read_bytes()])[0].path == "bytes"
        broken = photos / "broken.jpg"
        broken.write_bytes(b"no image")
        with pytest.raises(ServerError, match=r"broken\.jpg: not an image") as refused:
            client.predict([images[0], broken])
        assert refused.value.status == 422
        with pytest.raises(ServerError, match="top: expected"):
            client.predict(images, top=0)
    with pytest.raises(ServerError, match="refused"):
        client.predict(images)


def test_the_client_sends_large_images_in_requests_that_a_server_takes(tmp_path: Path) -> None:
    sizes = (9, 9, 3, 3, 3, 40, 1)
    for number, size in enumerate(sizes):
        (tmp_path / f"{number}.jpg").write_bytes(bytes(size * 2**20))
    found = _batches([tmp_path / f"{number}.jpg" for number in range(len(sizes))], 3)
    assert [[int(each.stem) for each in batch] for batch in found] == [[0], [1, 2, 3], [4], [5], [6]]  # type: ignore[union-attr]
    with pytest.raises(OptionError, match="batch=0"):
        Client("http://127.0.0.1:9").predict([b""], batch=0)


def test_the_client_waits_for_a_server_that_is_too_busy_and_gives_up_in_time(photos: Path) -> None:
    asked = []

    async def busy(scope: Any, receive: Any, send: Any) -> None:
        asked.append(scope["path"])
        body = b'{"error": "too busy"}' if len(asked) < 3 else b'{"run": "r", "since": "", "task": ""}'
        head = [(b"retry-after", b"1")] if len(asked) < 3 else []
        status = 503 if head else 200
        await send({"type": "http.response.start", "status": status, "headers": head})
        await send({"type": "http.response.body", "body": body})

    with listening(busy) as (host, port):
        with pytest.raises(ServerError, match="too busy") as refused:
            Client(f"http://{host}:{port}", patience=0.5).ready()
        assert refused.value.status == 503 and len(asked) == 1
        assert Client(f"http://{host}:{port}", patience=30).ready() == "r" and len(asked) == 3
        with pytest.raises(ServerError, match="no answer of headstart serve"):
            Client(f"http://{host}:{port}").predict(photos / "bars/000.jpg")


def test_the_document_uses_nothing_that_generators_of_clients_refuse() -> None:
    document = openapi_document(secured=True)
    for path, operations in document["paths"].items():
        for operation in operations.values():
            assert operation["operationId"].isidentifier() and operation["summary"], path
            for kind in operation.get("requestBody", {}).get("content", ()):
                assert "*" not in kind, "a range of media types has no generated code"
            for answer in operation["responses"].values():
                assert answer["description"]
    names = re.findall(r"#/components/schemas/(\w+)", json.dumps(document))
    assert set(names) == set(document["components"]["schemas"])
