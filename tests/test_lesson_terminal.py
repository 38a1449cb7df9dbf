"""The challenge in the terminal."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from headstart.cli import cli
from headstart.errors import UserError
from headstart.lesson.engine import attempts, terminal
from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.progress import Progress
from lesson_packs import right_answer, secret_pack

PACK = secret_pack()


class Typist:
    """Types the given lines; `right` and `wrong` look up the option's letter on the screen."""

    def __init__(self, *lines: str) -> None:
        self.lines: Iterator[str] = iter(lines)
        self.screen: list[str] = []

    def say(self, text: str) -> None:
        self.screen.append(text)

    def ask(self, prompt: str) -> str:
        self.screen.append(prompt)
        line = next(self.lines, None)
        if line is None:
            raise EOFError
        options = [text.strip() for text in self.screen if text.startswith("  ")][-4:]
        places = {"right": lambda text: text.endswith("/0"), "wrong": lambda text: not text.endswith("/0")}
        if line == "another wrong":
            return [text[0] for text in options if places["wrong"](text)][-1]
        if line in places:
            return next(text[0] for text in options if places[line](text))
        return line

    @property
    def text(self) -> str:
        return "\n".join(self.screen)


class Clock:
    def __init__(self) -> None:
        self.now = datetime(2030, 1, 1, tzinfo=UTC)

    def __call__(self) -> datetime:
        self.now += timedelta(seconds=1)
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Progress]:
    opened = Progress.open(tmp_path / "headstart.db")
    yield opened
    opened.close()


def play(store: Progress, typist: Typist, *, pack: Pack = PACK, **options: object):  # type: ignore[no-untyped-def]
    return terminal.play(pack, store, typist, Clock(), learner="ada", **options)  # type: ignore[arg-type]


def test_five_right_answers_earn_the_badge(store: Progress) -> None:
    typist = Typist(*["right"] * 5)
    state = play(store, typist)
    assert state.earns_badge and state == store.challenge(state.id)
    assert typist.screen[-1] == "5 of 5 correct, 500 of 500 points. You have earned the badge."
    assert "5 problems, 2 minutes each" in typist.screen[0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        ((60,), "1 minute"),
        ((90, 90), "90 seconds"),
        ((150.0,), "2.5 minutes"),
        ((100,), "100 seconds"),
        ((45, 120), "45 seconds to 2 minutes"),
        ((None, None), "no clock"),
    ],
)
def test_the_time_of_problems_is_said_as_people_say_it(seconds: tuple[float | None, ...], text: str) -> None:
    assert attempts.spoken(seconds) == text


def test_nothing_secret_is_on_the_screen_before_the_answer(store: Progress) -> None:
    typist = Typist("wrong", "nonsense", "9", "0", "²")
    play(store, typist)
    assert "secretkey" not in typist.text
    (told,) = re.findall(r"SECRET\w+ 0/[^0]", typist.text)  # of the option that was tried, and nothing else
    assert f"Not that one. {told} One attempt is left." in typist.text and typist.text.count("SECRET") == 1
    assert typist.text.count("Type the letter of an answer") == 4
    again = Typist("right")
    play(store, again)
    assert "SECRETEXPLANATION 0" in again.text and "SECRETFEEDBACK 0/0" in again.text


def test_a_second_miss_is_called_not_correct(store: Progress) -> None:
    typist = Typist("wrong", "another wrong", "g")
    play(store, typist)
    assert "\nNot correct." in typist.screen and "\nGiven up." in typist.screen
    assert typist.screen.index("\nNot correct.") < typist.screen.index("The answer: Text 0/0")


def test_leaving_and_coming_back_goes_on_in_the_same_challenge(store: Progress) -> None:
    first = play(store, Typist("right", "h", "q"))
    typist = Typist("right", *["g"] * 3)
    second = play(store, typist, timer=10.0)
    assert second.id == first.id and second.timer == 1.0
    assert "going on where you stopped, 4 of 5" in typist.screen[0]
    assert (second.correct, second.points) == (2, 200)
    assert typist.screen[-1] == "2 of 5 correct, 200 of 500 points."
    assert play(store, Typist()).id != first.id


def test_a_hint_is_shown_when_asked_for(store: Progress) -> None:
    typist = Typist("h", "right")
    play(store, typist)
    assert typist.text.index("SECRETHINT 0") < typist.text.index("Correct, 100 points.")


def test_an_answer_after_the_time_counts_for_fewer_points(store: Progress) -> None:
    class Slow(Clock):
        def __call__(self) -> datetime:
            self.now += timedelta(minutes=5)
            return self.now

    typist = Typist("right")
    state = terminal.play(PACK, store, typist, Slow(), learner="ada")
    assert "time is up, answers still count" in typist.text
    assert state.points == 70 and state.correct == 1


def test_the_same_wrong_answer_twice_costs_no_attempt(store: Progress) -> None:
    typist = Typist("wrong", "wrong", "right")
    assert play(store, typist).correct == 1
    assert "this answer was tried already" in typist.text


def test_without_a_clock_no_time_is_shown(store: Progress) -> None:
    typist = Typist("right")
    play(store, typist, timer=None)
    assert "no clock" in typist.screen[0] and "left" not in typist.text


def test_the_bundled_lesson_can_be_played(store: Progress) -> None:
    from headstart.lesson.engine.pack_loading import load_pack

    typist = Typist(*["g"] * 5)
    play(store, typist, pack=load_pack())
    assert "not measured yet" in typist.text and "{{" not in typist.text
    assert 'weights="imagenet"' in typist.text


def run(code: str) -> str:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=True, env=environment).stdout.strip()


def test_a_lesson_loads_nothing_heavy() -> None:
    """A lesson starts at once: no module of it reaches the libraries that train, draw, sign or schedule."""
    code = """
import importlib, pkgutil, sys
import headstart.lesson.engine as engine
for module in pkgutil.iter_modules(engine.__path__):
    importlib.import_module(f"headstart.lesson.engine.{module.name}")
heavy = {"torch", "timm", "openvino", "onnx", "scipy", "numpy", "PIL", "fsrs", "cryptography", "yaml"}
print(sorted(heavy & set(sys.modules)))
"""
    assert run(code) == "[]"


@pytest.mark.parametrize(
    ("absent", "code"),
    [
        ("yaml", "from headstart.lesson.engine import pack_loading; pack_loading.load_pack()"),
        ("sqlalchemy", "from headstart.lesson.engine import progress"),
        (
            "cryptography",
            "from headstart.lesson.engine.badges import Path, load_issuer; load_issuer(Path())",
        ),
        (
            "fsrs",
            "from headstart.lesson.engine.review import review; review(None, 'good', now, card='c')",
        ),
    ],
)
def test_a_missing_package_names_the_extra_to_install(absent: str, code: str) -> None:
    program = f"""
import sys
from datetime import UTC, datetime
from headstart.errors import MissingExtra
for name in ("{absent}", "cryptography.hazmat.primitives") if "{absent}" == "cryptography" else ("{absent}",):
    sys.modules[name] = None
now = datetime.now(UTC)
try:
    {code}
except MissingExtra as error:
    print(error)
"""
    assert "pip install 'headstart[learn]'" in run(program)


class Bench:
    """Experiments that have not run until the learner says so."""

    def __init__(self, *, offered: str = "1 to 2 s", fails: bool = False) -> None:
        self.offered, self.fails, self.ran = offered, fails, list[str]()

    def results(self) -> dict[str, dict[str, object]]:
        return {name: {"ratio": 7.0} for name in self.ran}

    def offer(self, name: str) -> str:
        return self.offered

    def run(self, name: str) -> None:
        if self.fails:
            raise UserError("no room on the disk")
        self.ran.append(name)

    def table(self, name: str) -> str:
        return f"table of {name}" if name in self.ran else ""


def test_what_settles_a_problem_is_offered_after_the_answer_and_shown(store: Progress) -> None:
    bench, typist = Bench(), Typist("right", "y", "right", "n", "right", "q")
    play(store, typist, experiments=bench)
    name = PACK.problems("challenge")[0].experiment
    assert bench.ran == [name]
    assert f"  table of {name}" in typist.text
    asked = [line for line in typist.screen if line.startswith("Run the experiment")]
    assert asked and "1 to 2 s" in asked[0]
    order = [typist.screen.index(line) for line in (asked[0], f"\n  table of {name}")]
    assert order == sorted(order)


def test_an_experiment_that_fails_stops_no_challenge(store: Progress) -> None:
    typist = Typist("right", "yes", *["right", "n"] * 4)
    state = play(store, typist, experiments=Bench(fails=True))
    assert "It could not run: no room on the disk" in typist.text and state.earns_badge


def test_nothing_is_offered_where_nobody_could_say_yes(store: Progress) -> None:
    typist = Typist(*["right"] * 5)
    assert play(store, typist, experiments=Bench(offered="")).earns_badge
    assert "Run the experiment" not in typist.text


def test_the_badge_of_a_challenge_can_be_taken_later_with_its_evidence(
    private_folders: Path, tmp_path: Path
) -> None:
    from headstart.lesson import experiments
    from headstart.lesson.engine import badge_images as pictures
    from headstart.lesson.engine import badges
    from headstart.lesson.engine import pack_loading as library

    pack = library.load_pack()
    target = tmp_path / "badge.png"
    refused = CliRunner().invoke(cli, ["badge", "take", str(target), "--learner", "ada"])
    assert isinstance(refused.exception, UserError) and "no challenge of this lesson" in str(
        refused.exception
    )
    experiments.run("five-images-one-epoch", size="small")
    home = Progress.open()
    now = datetime.now(UTC)
    state = home.start(attempts.begin(pack, challenge="one", learner="ada", seed="s"), now)
    for item in state.items:
        home.record("one", attempts.Opened(item.problem), now)
        home.record("one", attempts.Submitted(item.problem, right_answer(item.layout), item.problem), now)
    taken = CliRunner().invoke(cli, ["badge", "take", str(target), "--learner", "ada", "--name", "Ada L."])
    assert taken.exit_code == 0, taken.stderr
    credential = pictures.extract(target.read_bytes())
    found = badges.verify(credential, now=now + timedelta(seconds=1))
    assert found.holder == "Ada L." and home.badge("one") == credential
    genres = [one["genre"] for one in found.credential["evidence"]]
    assert genres == ["Circumstances"] + ["Attempt"] * 5 + ["Experiment"]
    again = tmp_path / "again.svg"
    CliRunner().invoke(cli, ["badge", "take", str(again), "--learner", "ada", "--name", "Someone else"])
    assert pictures.extract(again.read_bytes()) == credential, "a challenge has one badge"
    wrong = CliRunner().invoke(cli, ["badge", "take", "badge.gif", "--learner", "ada"])
    assert isinstance(wrong.exception, UserError) and ".png, .svg or .jwt" in str(wrong.exception)
    home.close()
