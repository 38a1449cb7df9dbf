"""Many learners at once, each taking the whole challenge: is an answer lost or doubled, how long is a page?

    python benchmarks/learners.py [--learners 200] [--think 5] [--guests] [--database URL] [--json FILE]

A server in a process of its own, with an empty home (and with ``--database`` an empty database); the
learners are coroutines here, each with its own connection and cookie. A learner joins the class (with
``--guests`` there is none), opens the first page, begins, and for every problem marks and submits random
answers until it closes, sometimes twice over, as impatient people do. They begin within one think time of one
another and pause before every action, for half to one and a half think times. Meanwhile the class's teacher
looks every three seconds who is where.

First the log is compared with what each learner did: every submitted answer is there, once, in its place.
Only then are the times printed. No experiment runs meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlencode

from headstart.lesson.engine.attempts import Submitted
from headstart.lesson.engine.progress import Progress

TARGET_SECONDS = 0.1
"""95 in 100 pages shall come within."""

LOOKS_SECONDS = 3.0
"""How often the teacher's page asks."""

SERVER = """
import sys
from dataclasses import replace
from headstart.lesson.pages import app, server
from headstart.web.server import run
port, guests = int(sys.argv[1]), sys.argv[2] == "True"
site = replace(server.prepare(None, host="127.0.0.1", door="" if guests else "/join"), learner=None)
if guests:
    site = replace(site, token=None)
else:
    one, token = site.classes.create("class", pack=site.pack.slug, now=site.clock())
    print(one.code, one.id, token, flush=True)
run(app.create_app(site), site, host="127.0.0.1", port=port, browser=False, say=str, title="lesson")
"""


@dataclass
class Browser:
    """One keep-alive connection with a cookie; notes how long every answer took."""

    port: int
    times: dict[str, list[float]]
    cookie: str = ""
    reader: asyncio.StreamReader | None = None
    writer: asyncio.StreamWriter | None = None

    async def ask(self, method: str, path: str, form: dict[str, str] | None = None) -> tuple[str, str]:
        """The body, and where a redirect leads."""
        body = urlencode(form or {})
        lines = [f"{method} {path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}", f"Cookie: {self.cookie}"]
        if form is not None:
            lines += ["Content-Type: application/x-www-form-urlencoded", f"Content-Length: {len(body)}"]
        started = time.perf_counter()
        if self.reader is None or self.writer is None:
            self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        self.writer.write(("\r\n".join(lines) + "\r\n\r\n" + body).encode())
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
        length = re.search(r"(?i)^content-length: (\d+)", head, re.M)
        text = (await self.reader.readexactly(int(length[1]) if length else 0)).decode()
        kind = re.sub(r"[0-9a-f-]{16,36}.*?(?=$|/)", "ID", re.sub(r"/\d(?=$|/)", "/N", path))
        self.times[f"{method} {kind}"].append(time.perf_counter() - started)
        if not head.split(" ", 2)[1].startswith(("2", "3")):
            raise SystemExit(f"{method} {path}: {head.splitlines()[0]}\n{text[:400]}")
        if cookie := re.search(r"(?i)^set-cookie: ([^;]+)", head, re.M):
            self.cookie = cookie[1]
        location = re.search(r"(?i)^location: (\S+)", head, re.M)
        return text, location[1] if location else ""


@dataclass
class Learner:
    """What one learner did, to be found again in the log."""

    challenge: str = ""
    submitted: list[tuple[int, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Class:
    """What a class's server has printed."""

    code: str
    identity: str
    token: str


async def join(browser: Browser, name: str, *, code: str) -> None:
    """Comes into the class."""
    door, _ = await browser.ask("GET", "/join")
    csrf = re.findall(r'name="csrf" value="(\w+)"', door)[0]
    await browser.ask("POST", "/join", {"csrf": csrf, "code": code, "name": name})


async def look(browser: Browser, one: Class) -> None:
    """The teacher: who is where, again and again."""
    await browser.ask("GET", f"/classes/{one.identity}?token={one.token}")
    while True:
        await browser.ask("GET", f"/classes/{one.identity}")
        await asyncio.sleep(LOOKS_SECONDS)


async def take(
    learner: Learner, browser: Browser, *, dice: random.Random, think: float, one: Class | None
) -> None:
    """The whole challenge."""
    await asyncio.sleep(dice.random() * think)
    if one is not None:
        await join(browser, f"Learner {dice.getrandbits(64):x}", code=one.code)
    await browser.ask("GET", "/")
    start, _ = await browser.ask("GET", "/modes/challenge")
    form = {"csrf": re.findall(r'name="csrf" value="(\w+)"', start)[0]}
    _, first = await browser.ask("POST", "/modes/challenge/begin", {**form, "timer": "1"})
    challenge = first.rsplit("/", 1)[0]
    learner.challenge = challenge.rsplit("/", 1)[1]
    for number in range(1, 6):
        place = f"{challenge}/{number}"
        await asyncio.sleep(dice.uniform(0.5, 1.5) * think)
        await browser.ask("GET", place)
        await browser.ask("POST", f"{place}/open", form)
        page, _ = await browser.ask("GET", place)
        for option in two_answers(page, dice):
            await asyncio.sleep(dice.uniform(0.5, 1.5) * think)
            await browser.ask("POST", f"{place}/choose", {**form, "option": option})
            answer = {**form, "option": option, "key": f"{dice.getrandbits(128):032x}"}
            await browser.ask("POST", f"{place}/submit", answer)
            if dice.random() < 0.2:  # a double click
                await browser.ask("POST", f"{place}/submit", answer)
            learner.submitted.append((number - 1, option))
            page, _ = await browser.ask("GET", place)
            if 'class="options answered"' in page:
                break
    await browser.ask("GET", challenge)


def two_answers(page: str, dice: random.Random) -> list[str]:
    """Two different answers to the problem of a page, as the log keeps them."""
    options = re.findall(r'name="option" value="(\w+)"', page)
    pairs = re.findall(r'<option value="(\w+)=(\w+)"', page)
    if not options and not pairs:
        return [str(number) for number in dice.sample(range(10), 2)]
    if not pairs:
        return dice.sample(options, 2)
    rows, partners = (list(dict.fromkeys(each)) for each in zip(*pairs, strict=True))
    dice.shuffle(partners)
    orders = (partners[shift:] + partners[:shift] for shift in (0, 1))
    return [" ".join(sorted(map("=".join, zip(rows, order)))) for order in orders]  # noqa: B905


def check(learners: Iterable[Learner], database: str | Path) -> int:
    """The number of answers, all in the log as the learners gave them. Exits where one is lost or doubled."""
    store = Progress.open(database)
    answers = 0
    for learner in learners:
        entries = store.entries(learner.challenge)
        state = store.challenge(learner.challenge)
        logged = [
            (place, entry.event.option)
            for entry in entries
            if isinstance(entry.event, Submitted)
            for place, item in enumerate(state.items)
            if item.problem == entry.event.problem
        ]
        if logged != learner.submitted:
            raise SystemExit(f"challenge {learner.challenge}: did {learner.submitted}, the log has {logged}")
        if state.finished_at is None:
            raise SystemExit(f"challenge {learner.challenge} was not finished")
        answers += len(logged)
    states = store.challenges()
    store.close()
    if len({state.learner for state in states}) != len(states):
        raise SystemExit("a learner has two challenges")
    return answers


async def run(
    count: int, *, port: int, think: float, one: Class | None
) -> tuple[list[Learner], dict[str, list[float]], float]:
    """Every learner at once."""
    times: dict[str, list[float]] = defaultdict(list)
    learners = [Learner() for _ in range(count)]
    started = time.perf_counter()
    teacher = asyncio.create_task(look(Browser(port, times), one)) if one else None
    await asyncio.gather(
        *(
            take(learner, Browser(port, times), dice=random.Random(seed), think=think, one=one)
            for seed, learner in enumerate(learners)
        )
    )
    if teacher:
        teacher.cancel()
    return learners, times, time.perf_counter() - started


def wait_until_up(address: str) -> None:
    """Until the server answers; connections are taken earlier and wait."""
    for _ in range(600):
        try:
            urllib.request.urlopen(address, timeout=60).close()
            return
        except OSError:
            time.sleep(0.1)
    raise SystemExit("the server did not start within a minute")


def quantile(times: list[float], share: float) -> float:
    """In milliseconds."""
    return round(1000 * sorted(times)[min(len(times) - 1, int(share * len(times)))], 1)


def _server_seconds() -> float:
    """Processor time of the server, which has ended; unlike the times above it hardly depends on others."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Runs, checks, prints."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--learners", type=int, default=200)
    parser.add_argument("--think", type=float, default=5.0, help="seconds")
    parser.add_argument("--guests", action="store_true", help="no class, and nobody who looks")
    parser.add_argument("--database", default="", help="URL of a PostgreSQL database instead of a file")
    parser.add_argument("--port", type=int, default=8439)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        environment = os.environ | {"HEADSTART_HOME": home, "HEADSTART_DATABASE": options.database}
        command = [sys.executable, "-c", SERVER, str(options.port), str(options.guests)]
        server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        try:
            assert server.stdout is not None
            one = None if options.guests else Class(*server.stdout.readline().split())
            wait_until_up(f"http://127.0.0.1:{options.port}/static/icon.svg")
            learners, times, seconds = asyncio.run(
                run(options.learners, port=options.port, think=options.think, one=one)
            )
        finally:
            server.terminate()
            server.wait()
        answers = check(learners, options.database or Path(home) / "headstart.db")
    pages = [seconds for kind, each in times.items() if kind.startswith("GET") for seconds in each]
    writes = [seconds for kind, each in times.items() if kind.startswith("POST") for seconds in each]
    found = {
        "store": "postgresql" if options.database else "sqlite",
        "learners": options.learners,
        "class": not options.guests,
        "think_seconds": options.think,
        "answers_submitted_and_logged_once": answers,
        "seconds": round(seconds, 1),
        "requests": len(pages) + len(writes),
        "server_cpu_ms_per_request": round(1000 * _server_seconds() / (len(pages) + len(writes)), 2),
        "load_average": os.getloadavg()[0],
        "page_ms": {f"p{round(100 * share)}": quantile(pages, share) for share in (0.5, 0.95, 0.99, 1.0)},
        "answer_ms": {f"p{round(100 * share)}": quantile(writes, share) for share in (0.5, 0.95, 0.99, 1.0)},
        "p95_of_a_page_below_100_ms": quantile(pages, 0.95) < 1000 * TARGET_SECONDS,
    }
    for kind, each in sorted(times.items()):
        middle, most = quantile(each, 0.5), quantile(each, 0.95)
        print(f"{kind:28s} {len(each):6d}  p50 {middle:7.1f} ms  p95 {most:7.1f} ms")
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
