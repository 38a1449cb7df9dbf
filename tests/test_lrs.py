"""The log sent to a learning record store that runs here: each statement once, refusals told."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Iterator
from contextlib import closing
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

pytest.importorskip("sqlalchemy", reason="needs headstart[learn]")

from headstart.cli import cli
from headstart.errors import LessonError
from headstart.lesson.engine import statements
from headstart.lesson.engine.attempts import Opened, Submitted, begin
from headstart.lesson.engine.pack_loading import load_pack
from headstart.lesson.engine.progress import Progress
from lesson_packs import right_answer
from lesson_worlds import Clock

KEY = "key:secret"


class Store:
    """What arrived, by its id; a batch with one that is there and differs in nothing is a conflict."""

    def __init__(self) -> None:
        self.kept: dict[str, Any] = {}
        self.requests = 0
        self.address = ""

    def take(self, heads: dict[str, str], body: bytes) -> int:
        self.requests += 1
        if heads.get("authorization") != f"Basic {base64.b64encode(KEY.encode()).decode()}":
            return 401
        if heads.get("x-experience-api-version") != "1.0.3":
            return 400
        sent = json.loads(body)
        if any(one["id"] in self.kept for one in sent):
            return 409
        assert all({"actor", "verb", "object", "timestamp"} <= set(one) for one in sent)
        self.kept |= {one["id"]: one for one in sent}
        return 200


@pytest.fixture
def lrs() -> Iterator[Store]:
    store = Store()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            there = self.path == "/xapi/statements"
            heads = {name.lower(): value for name, value in self.headers.items()}
            self.send_response(store.take(heads, body) if there else 404)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    store.address = f"http://127.0.0.1:{server.server_port}/xapi/"
    yield store
    server.shutdown()
    thread.join()
    server.server_close()


def answered(learner: str, problems: int) -> None:
    """A challenge in the home folder's store."""
    pack, now = load_pack(), Clock().now
    with closing(Progress.open()) as progress:
        state = progress.start(begin(pack, challenge=f"c-{learner}", learner=learner, seed="s"), now)
        for item in state.items[:problems]:
            progress.record(state.id, Opened(item.problem), now)
            progress.record(state.id, Submitted(item.problem, right_answer(item.layout), item.problem), now)


def test_the_log_is_sent_once_however_often_it_is_sent(lrs: Store, tmp_path: Path) -> None:
    (tmp_path / "key.txt").write_text(f"{KEY}\n")
    command = ["lesson", "log", "--to", lrs.address, "--key-file", str(tmp_path / "key.txt")]
    answered("ada", 2)
    first = CliRunner().invoke(cli, command)
    assert first.exit_code == 0 and "5 new statements sent" in first.output, first.output
    printed = CliRunner().invoke(cli, ["lesson", "log"]).output.splitlines()
    assert sorted(json.loads(line)["id"] for line in printed) == sorted(lrs.kept)
    again = CliRunner().invoke(cli, command)
    assert "0 new statements sent" in again.output and len(lrs.kept) == 5
    answered("eve", 1)
    later = CliRunner(env={"HEADSTART_LRS_KEY": KEY}).invoke(cli, command[:-2])
    assert "3 new statements sent" in later.output and len(lrs.kept) == 8


def test_what_a_store_does_not_take_is_told_without_its_secret(lrs: Store) -> None:
    answered("ada", 1)
    for key, says in (("key:wrong", "answered 401"), ("", "with a colon")):
        refused = CliRunner(env={"HEADSTART_LRS_KEY": key}).invoke(
            cli, ["lesson", "log", "--to", lrs.address]
        )
        assert refused.exit_code != 0 and says in str(refused.exception or refused.output)
        assert "wrong" not in refused.output
    assert not lrs.kept


@pytest.mark.parametrize("address", ["http://lrs.example/xapi", "file:///etc/passwd", "https://a b/", "lrs"])
def test_nothing_is_sent_but_by_https(address: str) -> None:
    with pytest.raises(LessonError, match="https://"):
        statements.send([{"id": "x"}], endpoint=address, credentials=KEY)


def test_statements_go_in_batches(lrs: Store) -> None:
    many = [{"id": str(number), "actor": 1, "verb": 1, "object": 1, "timestamp": 1} for number in range(120)]
    assert statements.send(many, endpoint=lrs.address, credentials=KEY) == 120
    assert lrs.requests == 3 and len(lrs.kept) == 120
