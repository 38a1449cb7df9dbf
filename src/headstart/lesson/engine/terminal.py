"""The challenge without a browser: the same engine, the same log, the same rules."""

from __future__ import annotations

import secrets
import textwrap
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from headstart.errors import UserError
from headstart.lesson.engine import attempts, placeholders, scores
from headstart.lesson.engine.answers import AnswerRefused
from headstart.lesson.engine.attempts import Challenge, Closed, Event, HintTaken, Opened, Submitted
from headstart.lesson.engine.pack import Pack
from headstart.lesson.engine.sources import PICTURE

if TYPE_CHECKING:
    from headstart.lesson.engine.progress import Progress

WIDTH = 88
Clock = Callable[[], datetime]
Results = Mapping[str, Mapping[str, object]]


class Terminal(Protocol):
    """Where the challenge is played. `ask` may raise EOFError or KeyboardInterrupt: the learner left."""

    def say(self, text: str) -> None:
        """Shows a line or a paragraph."""

    def ask(self, prompt: str) -> str:
        """Shows a prompt and returns what was typed."""


class Experiments(Protocol):
    """The experiments as the terminal sees them."""

    def results(self) -> Results:
        """The fields of every experiment that has run."""

    def offer(self, name: str) -> str:
        """What running one would take, in a few words; empty where it cannot run or nobody could say yes."""

    def run(self, name: str) -> None:
        """Runs one; its result is in `results` and `table` afterwards."""

    def table(self, name: str) -> str:
        """What one has found, as text; empty while it has not run."""


def play(
    pack: Pack,
    store: Progress,
    io: Terminal,
    clock: Clock,
    *,
    learner: str,
    mode: str = "challenge",
    timer: float | None = 1.0,
    experiments: Experiments | None = None,
) -> Challenge:
    """Plays a challenge until it is finished or the learner leaves; a later call goes on from there.

    Args:
        pack: the lesson.
        store: where the log is kept.
        io: the terminal.
        clock: the current time, with time zone.
        learner: whose challenge it is.
        mode: whose problems are asked.
        timer: factor on the time, 1 to 10, or None for no clock. A challenge already begun keeps its own.
        experiments: for the numbers in explanations, and to run what settles a problem.

    Raises LessonError for a timer outside its range or a mode without problems.
    """
    game = _Game(pack, store, io, clock, experiments)
    state = _unfinished(pack, store, learner, mode)
    if state is None:
        event = attempts.begin(
            pack,
            challenge=str(uuid.uuid4()),
            learner=learner,
            seed=secrets.token_hex(16),
            mode=mode,
            timer=timer,
            earlier=store.challenges(learner=learner, pack=pack.slug),
        )
        state = store.start(event, clock())
        io.say(f"{pack.title}: {len(state.items)} problems, {_clock_text(state)}.\n")
    else:
        left = sum(item.closed_at is None for item in state.items)
        io.say(f"{pack.title}: going on where you stopped, {left} of {len(state.items)} problems left.\n")
    for number, item in enumerate(state.items, 1):
        if item.closed_at is not None:
            continue
        try:
            state = game.play(state, item.problem, number)
        except (EOFError, KeyboardInterrupt):
            io.say("\nSaved. The same command goes on from here; a problem's time runs on once it is open.")
            return store.settle(state.id, clock())
    io.say(summary(state))
    return state


def summary(state: Challenge) -> str:
    """How a finished challenge went, in one line."""
    score = scores.score(state)
    text = f"{score.correct} of {score.problems} correct, {score.points} of {score.possible} points."
    return f"{text} You have earned the badge." if state.earns_badge else text


def _unfinished(pack: Pack, store: Progress, learner: str, mode: str) -> Challenge | None:
    """The learner's latest unfinished challenge of this very version of the lesson."""
    begun = [
        state
        for state in store.challenges(learner=learner, pack=pack.slug)
        if state.finished_at is None and state.mode == mode and state.fingerprint == pack.fingerprint
    ]
    return begun[-1] if begun else None


@dataclass(frozen=True)
class _Game:
    """What stays the same while a challenge is played."""

    pack: Pack
    store: Progress
    io: Terminal
    clock: Clock
    experiments: Experiments | None

    def play(self, state: Challenge, problem: str, number: int) -> Challenge:
        """Asks one problem until it is closed."""
        state, _ = self.store.record(state.id, Opened(problem), self.clock())
        view = self.view(state, problem)
        _show(view, number, len(state.items), self.io)
        while view["status"] != "closed":
            answer = self.io.ask(_prompt(view)).strip().lower()
            try:
                event = _event(answer, view)
                if event is None:
                    self.io.say(f"{_HOW[view['form']]} Or h for the hint, g to give up, q to stop.")
                else:
                    state, entry = self.store.record(state.id, event, self.clock())
                    self.react(state, event, entry)
            except AnswerRefused as refused:
                self.io.say(f"{refused}.")
            state = self.store.settle(state.id, self.clock())
            view = self.view(state, problem)
        _explain(view, self.io)
        self.evidence(view)
        return state

    def view(self, state: Challenge, problem: str) -> dict[str, Any]:
        items = attempts.public_view(state, self.pack, self.clock())["items"]
        view: dict[str, Any] = next(item for item in items if item["problem"] == problem)
        return view

    def react(self, state: Challenge, event: Event, entry: attempts.LogEntry | None) -> None:
        if isinstance(event, HintTaken):
            self.io.say(_wrap(f"Hint: {attempts.hint(state, self.pack, event.problem)}"))
        elif isinstance(event, Submitted) and entry is not None and entry.ruling and not entry.ruling.closes:
            view = self.view(state, event.problem)
            why = view["feedback"][view["tried"][-1]].strip()
            said = "Not that one." if view["form"] == "one" else "Not right."
            self.io.say(_wrap(f"{said} {why} One attempt is left."))

    def evidence(self, view: Mapping[str, Any]) -> None:
        """The explanation with its numbers, after the experiment where the learner wants it run first."""
        name, experiments, io = view["experiment"], self.experiments if view["experiment"] else None, self.io
        found = experiments.table(name) if experiments else ""
        if experiments and not found and (offer := experiments.offer(name)):
            answer = io.ask(f"Run the experiment that settles it, {offer}? [y/N] ")
            if answer.strip().lower() in ("y", "yes"):
                try:
                    experiments.run(name)
                    found = experiments.table(name)
                except UserError as error:
                    io.say(f"It could not run: {error}")
        results, text = experiments.results() if experiments else {}, view["explanation"]
        io.say(_wrap(placeholders.fill(text, results)))
        if note := placeholders.footnote(text, results):
            io.say(_wrap(f"\n{note}"))
        if found:
            io.say(f"\n{textwrap.indent(found, '  ')}")
        io.say(f"\nEvidence: headstart experiment {name}\n" if name else "")


def _event(answer: str, view: Mapping[str, Any]) -> Event | None:
    if answer in ("q", "quit"):
        raise EOFError
    if answer in ("h", "hint"):
        return HintTaken(view["problem"])
    if answer in ("g", "give up"):
        return Closed(view["problem"])
    pieces = _pieces(answer, view)
    return Submitted(view["problem"], pieces, uuid.uuid4().hex) if pieces else None


_HOW = {
    "one": "Type the letter of an answer.",
    "several": "Type the letters of all that are right, such as AC.",
    "order": "Type the letters in the right order, such as BAC.",
    "match": "Type the number that belongs to each letter, in order, such as 213.",
    "number": "Type a number.",
}


def _pieces(answer: str, view: Mapping[str, Any]) -> str:
    """What was typed, as the engine takes answers; empty where it is none."""
    if view["form"] == "number":
        return answer
    ids = [option["id"] for option in view["options"]]
    typed = [letter for letter in answer if letter not in " ,"]
    if view["form"] == "match":
        partners = {str(place): one["id"] for place, one in enumerate(view["partners"], 1)}
        fits = len(typed) == len(ids) and set(typed) <= set(partners)
        pairs = zip(ids, typed, strict=True) if fits else ()
        return " ".join(f"{identity}={partners[number]}" for identity, number in pairs)
    called = {str(place): identity for place, identity in enumerate(ids, 1)}
    called |= dict(zip(map(str.lower, _names(view)), ids, strict=True))
    if not set(typed) <= set(called) or (view["form"] == "one" and len(typed) != 1):
        return ""
    chosen = [called[name] for name in typed]
    if view["form"] == "order":
        return " ".join(f"{identity}={place}" for place, identity in enumerate(chosen, 1))
    return " ".join(chosen)


def _names(view: Mapping[str, Any]) -> list[str]:
    """What the options are called: letters, or numbers where a letter would be that of another command."""
    places = range(1, len(view["options"]) + 1)
    letters = [attempts.letter(place) for place in places]
    return letters if not {"G", "H", "Q"} & set(letters) else [str(place) for place in places]


def _show(view: Mapping[str, Any], number: int, count: int, io: Terminal) -> None:
    io.say(f"{number}/{count}  {view['title']}  ({view['kind'].replace('-', ' ')}, {view['level']})\n")
    io.say(_wrap(view["prompt"]) + "\n")
    for face in view["code"]:
        io.say(f"{face['label']}:\n\n{textwrap.indent(face['text'], '    ')}")
    for name, option in zip(_names(view), view["options"], strict=True):
        lead = f"  {name}. "
        io.say(textwrap.fill(option["text"], WIDTH, initial_indent=lead, subsequent_indent="     "))
    if view["form"] == "match":
        io.say("")
        for place, one in enumerate(view["partners"], 1):
            io.say(
                textwrap.fill(one["text"], WIDTH, initial_indent=f"  {place}. ", subsequent_indent="     ")
            )
    gap = "\n" if view["options"] else ""
    io.say("" if view["form"] == "one" else f"{gap}{_HOW[view['form']]}\n")


def _prompt(view: Mapping[str, Any]) -> str:
    seconds = view["seconds_left"]
    if seconds is None:
        time = ""
    elif view["status"] == "overtime":
        time = "time is up, answers still count, "
    else:
        time = f"{int(seconds) // 60}:{int(seconds) % 60:02d} left, "
    return f"[{time}{view['worth']} points] answer, h, g or q: "


def _explain(view: Mapping[str, Any], io: Terminal) -> None:
    if view["correct"]:
        io.say(f"\nCorrect, {view['points']} points.")
    else:
        io.say("\nNot correct." if view["tried"] else "\nGiven up.")
        right = [option for option in view["options"] if option["right"]]
        shown = [
            f"{one['text']} – {one['partner']}" if view["form"] == "match" else one["text"] for one in right
        ]
        if len(shown) == 1:
            io.say(_wrap(f"The answer: {shown[0]}"))
        else:
            io.say("\n".join(["The answer:", *(_wrap(f"- {text}") for text in shown)]))
        if view["tried"]:
            io.say(_wrap(view["feedback"][view["tried"][-1]]))
    for option in view["options"]:
        if option["right"] and view["form"] not in ("order", "match"):
            io.say(_wrap(view["feedback"][option["id"]]))


def _clock_text(state: Challenge) -> str:
    text = attempts.spoken(item.layout.seconds for item in state.items)
    return text if state.timer is None else f"{text} each"


def _wrap(text: str) -> str:
    """Paragraphs in the width of the terminal; a table's rows stay as they are, a picture is named."""
    text = PICTURE.sub(lambda found: f"[picture: {found['says']}]", text)
    return "\n\n".join(
        part if part.lstrip().startswith("|") else textwrap.fill(" ".join(part.split()), WIDTH)
        for part in text.strip().split("\n\n")
    )
