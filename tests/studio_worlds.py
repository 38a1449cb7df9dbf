"""A studio that tests serve and look at over HTTP, over a folder of photographs."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from headstart.studio.app import create_studio
from headstart.studio.server import prepare
from headstart.studio.state import Studio

HOME = "http://127.0.0.1:8423"
WAIT_SECONDS = 60.0


@dataclass
class World:
    """A served studio, and a browser in front of it."""

    studio: Studio
    browser: TestClient
    root: Path

    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.browser.get("/").text)
        assert found
        return found[1]

    def post(self, address: str, *, files: Any = None, **form: Any) -> Any:
        return self.browser.post(address, data={"csrf": self.csrf(), **form}, files=files)

    def wait(self, address: str) -> Any:
        """The page that a job's address leads to in the end."""
        end = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < end:
            job = self.studio.job(address.rsplit("/", 1)[1])
            if job.over:
                assert job.state == "done", job.message
                return job
            time.sleep(0.02)
        raise AssertionError(f"{address} took longer than {WAIT_SECONDS} s")

    def open(self, path: str = "photos") -> str:
        """Opens a folder and waits until it was looked at; the data set's address."""
        answer = self.post("/open", path=path)
        assert answer.status_code == 200, answer.text
        identity = answer.url.path.rsplit("/", 1)[1]
        job = self.studio.looks.last("check", name=identity, learner="studio")
        assert job
        self.wait(job.id and f"/jobs/{job.id}")
        return str(answer.url.path)

    def plan(self, data: str) -> None:
        self.browser.get(f"{data}/plan")
        job = self.studio.work.last("plan", name=data.rsplit("/", 1)[1], learner="studio")
        assert job
        self.wait(f"/jobs/{job.id}")

    def train(self, data: str, **form: Any) -> str:
        """Trains on a data set; the run's address."""
        answer = self.post(f"{data}/train", **{"chosen": "builtin@96/all", **form})
        assert answer.url.path.startswith("/jobs/"), answer.text
        return f"/runs/{self.wait(answer.url.path).result['run']}"


@contextmanager
def studio_worlds(root: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds over one folder; what they serve and their queues end with it."""
    made: list[Studio] = []

    def make(*, admitted: bool = True, **changes: Any) -> World:
        studio = replace(prepare(root, host="127.0.0.1"), **changes)
        made.append(studio)
        browser = TestClient(create_studio(studio), base_url=HOME)
        if admitted:
            browser.get("/", params={"token": studio.token}, follow_redirects=False)
        return World(studio, browser, root)

    yield make
    for studio in made:
        studio.servings.stop_all()
        studio.work.close()
        studio.looks.close()
