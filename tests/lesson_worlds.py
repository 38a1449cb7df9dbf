"""A lesson that tests serve and look at over HTTP, with a clock and experiments that they hold."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from fastapi.testclient import TestClient

from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.progress import Progress
from headstart.lesson.pages.app import create_app
from headstart.lesson.pages.catalogue import Catalogue
from headstart.lesson.pages.site import LessonSite
from headstart.web.jobs import Jobs
from headstart.web.plots import Plot, Series
from headstart.web.site import load_secret
from lesson_packs import right_answer, secret_pack, wrong_answer

HOME = "http://127.0.0.1:8421"


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def forward(self, seconds: float) -> None:
        self.now += timedelta(seconds=seconds)


@dataclass
class FakeExperiments:
    """One experiment, which waits until it is let go."""

    results_by_name: dict[str, Any] = field(default_factory=dict)
    gate: threading.Event = field(default_factory=threading.Event)
    asked: list[tuple[Any, Any]] = field(default_factory=list)
    names: tuple[str, ...] = ("one-pass", "pretrained-vs-scratch")
    without_torch: tuple[str, ...] = ()
    seeds: list[int] = field(default_factory=list)
    busy: bool = False
    fields: dict[str, Any] = field(
        default_factory=lambda: {"ratio": 3.5, "seconds_pretrained": 2.0, "seconds_scratch": 9.0}
    )

    def registry(self) -> tuple[str, ...]:
        return self.names

    def describe(self, name: str, *, parameters: Any = None) -> Any:
        return SimpleNamespace(
            predicted_range=(2.0, 4.0), predicted_from="planned", bound=60.0, own_images=True,
            missing="torch" if name in self.without_torch else "",
        )  # fmt: skip

    def latest(self, name: str, *, as_declared: bool = False) -> Any:
        return self.results_by_name.get(name)

    def find(self, identity: str) -> Any:
        return next((one for one in self.results_by_name.values() if one.id == identity), None)

    def results(self) -> Mapping[str, Mapping[str, object]]:
        return {name: result.fields for name, result in self.results_by_name.items()}

    def run(
        self, name: str, *, parameters: Any = None, source: Any = None, seed: int = 0, progress: Any = None
    ) -> Any:
        self.asked.append((parameters, source))
        self.seeds.append(seed)
        progress("training", 1, 2)
        assert self.gate.wait(120)
        progress("training", 2, 2)
        fields = dict(self.fields)
        plot = Plot("line", "Seconds <both>", "epochs", "seconds", (Series("once", ((1, 1.0), (2, 2.0))),))
        result = SimpleNamespace(
            id=f"{name}-1", name=name, fields=fields,
            plots=(plot,), table=plot.table(), notes=("batches of 8, BatchNorm is fixed",), varied=(),
            created="now",
            data="digits", size="normal", busy=self.busy,
            seconds=2.0, predicted_seconds=3.0, seed=0, parameters={}, machine={}, versions={},
        )  # fmt: skip
        self.results_by_name[name] = result
        return result


@dataclass
class World:
    """A served lesson, and a browser in front of it."""

    site: LessonSite
    clock: Clock
    browser: TestClient
    experiments: FakeExperiments
    token: str = ""

    def another(self) -> TestClient:
        return TestClient(self.browser.app, base_url=HOME)

    def csrf(self) -> str:
        if not self.token:
            found = re.search(r'name="csrf" value="(\w+)"', self.browser.get("/modes/challenge").text)
            assert found
            self.token = found[1]
        return self.token

    def post(self, address: str, **form: Any) -> Any:
        return self.browser.post(address, data={"csrf": self.csrf(), **form})

    def begin(self, timer: str = "1") -> str:
        return str(self.post("/modes/challenge/begin", timer=timer).url.path).rsplit("/", 1)[0]

    def answer(self, challenge: str, number: int, *, right: bool = True, key: str = "0" * 32) -> Any:
        state = self.site.store.challenge(challenge.rsplit("/", 1)[1])
        item = state.items[number - 1]
        option = right_answer(item.layout) if right else wrong_answer(item.layout, tried=item.tried)
        return self.post(f"{challenge}/{number}/submit", option=option, key=key)

    def open(self, challenge: str, number: int) -> Any:
        return self.post(f"{challenge}/{number}/open")


@contextmanager
def lesson_worlds(folder: Path) -> Iterator[Callable[..., World]]:
    """Makes worlds that keep everything in one folder; their experiments and stores end with it."""
    worlds: list[World] = []

    def make(pack: Pack | None = None, **changes: Any) -> World:
        clock, experiments = Clock(), FakeExperiments()
        site = LessonSite(
            pack=pack or secret_pack(),
            store=Progress.open(folder / "headstart.db"),
            home=folder,
            secret=load_secret(folder),
            jobs=Jobs(folder),
            catalogue=Catalogue(experiments),
            learner="ada",
            clock=clock,
        )
        site = replace(site, **changes)
        worlds.append(World(site, clock, TestClient(create_app(site), base_url=HOME), experiments))
        return worlds[-1]

    yield make
    for world in worlds:
        world.experiments.gate.set()
        world.site.jobs.close()
    for world in worlds:
        world.site.store.close()


def finished(world: World) -> None:
    """Lets the experiments go, and waits until the queue is empty."""
    world.experiments.gate.set()
    _wait(lambda: not world.site.jobs.unfinished())


def running(world: World) -> None:
    """Waits until a job has begun."""
    _wait(lambda: any(job.state == "running" for job in world.site.jobs.unfinished()))


def _wait(reached: Callable[[], bool]) -> None:
    for _ in range(12_000):
        if reached():
            return
        threading.Event().wait(0.01)
    raise AssertionError("that did not happen within two minutes")
