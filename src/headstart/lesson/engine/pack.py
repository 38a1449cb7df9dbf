"""What a lesson is made of: the contents of a pack's folder, as values that never change.

The fields are also the format of the files: `packlint` reads a file's keys by their names and types, and asks
the rules that stand beside a type (`Annotated[str, filled]`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import Annotated, Any

from headstart.errors import LessonError
from headstart.lesson.engine.sources import Picture

MODES = ("learn", "why", "deep", "visualize", "try", "challenge", "project", "metrics", "review")
LEVELS = ("beginner", "intermediate", "advanced", "expert")
KINDS = ("conceptual", "predict-the-output", "model-choice", "hyperparameter", "metrics")
FORMS = ("one", "several", "order", "match", "number")
"""How a problem is answered: see `answers`."""

RELATIONS = ("at_least", "at_most", "above", "below")

PROBLEM_SECONDS = 120
"""A problem's time unless its file says otherwise: two minutes."""

# Rules beside a field's type: each names what is wrong with a value, or gives None ------------------------

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")


def not_blank(value: Any) -> str | None:
    """Text with more than blanks in it, or a list or mapping with entries."""
    return None if (value.strip() if isinstance(value, str) else value) else "empty"


def filled(value: str) -> str | None:
    """Text with more than blanks in it; the blanks around it are left out."""
    return not_blank(value)


def slug(value: str) -> str | None:
    """A name for addresses and files."""
    return None if _SLUG.fullmatch(value) else "expected small letters, digits and single hyphens"


def _field_name(value: str) -> str | None:
    return None if re.fullmatch(r"[a-z0-9_]+", value) else "expected a_field_name"


def _among(*values: str) -> Callable[[str], str | None]:
    return lambda value: None if value in values else f"{value!r:.80} is not one of {', '.join(values)}"


def _between(low: int, high: int) -> Callable[[int], str | None]:
    return lambda value: None if low <= value <= high else f"{value} is not between {low} and {high}"


Text = Annotated[str, filled]
Slug = Annotated[str, slug]

# The contents ---------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Option:
    """One possible answer, or a part of one. `key` names it in files and logs; pages see only an opaque id.

    Of an order, options stand in the right one. Of a match, `matches` is what belongs to it. Of a number,
    `text` is one, and what lies within `tolerance` of it is taken for it.
    """

    key: Slug
    text: Text
    feedback: Text = ""
    correct: bool = False
    matches: Text = ""
    tolerance: float = 0.0


@dataclass(frozen=True)
class CodeFace:
    """The same program for one library; `label` is the tab's name."""

    label: Text
    language: Text
    text: Annotated[str, not_blank]


@dataclass(frozen=True)
class Problem:
    """A question, what is right, and the experiment that settles it, if any.

    `variants` ask the same in other words or with other numbers; in a file they name only what differs.
    `runs_with` are values with which the experiment runs what this one asks about.
    """

    slug: Slug
    title: Text
    kind: Annotated[str, _among(*KINDS)]
    level: Annotated[str, _among(*LEVELS)]
    prompt: Text
    options: tuple[Option, ...]
    hint: Text = ""
    explanation: Text = ""
    experiment: Text = ""
    form: Annotated[str, _among(*FORMS)] = "one"
    code: tuple[CodeFace, ...] = ()
    seconds: Annotated[int, _between(15, 1800)] = PROBLEM_SECONDS
    runs_with: Mapping[str, Any] = field(default_factory=dict)
    variant: Slug = "first"
    variants: tuple[Problem, ...] = ()

    @property
    def answer(self) -> Option:
        """The correct option; of several the first."""
        return next(option for option in self.options if option.correct)

    def option(self, key: str) -> Option:
        """The option of that key. Raises LessonError for a key that the problem does not have."""
        for option in self.options:
            if option.key == key:
                return option
        raise LessonError(f"problem {self.slug!r} has no option {key!r}")

    def each(self) -> tuple[Problem, ...]:
        """Every way to ask it: itself, and its variants."""
        return (self, *self.variants)

    def asked_as(self, variant: str) -> Problem:
        """The variant of that name; the problem itself where it has none."""
        return next((each for each in self.variants if each.variant == variant), self)


@dataclass(frozen=True)
class Mode:
    """One way to learn the subject. `body` is Markdown with placeholders, `about` a line on what is there."""

    name: Annotated[str, _among(*MODES)]
    title: Text
    minutes: Annotated[int, _between(1, 120)]
    body: str
    about: Text = ""

    @cached_property
    def sections(self) -> tuple[str, ...]:
        """The second-level headings, in order: the steps by which progress through a mode is counted."""
        return tuple(line[3:].strip() for line in prose_lines(self.body) if line.startswith("## "))


@dataclass(frozen=True)
class Card:
    """A review card: the front is shown, the back is revealed."""

    slug: Slug
    front: Text
    back: Text
    experiment: Text


@dataclass(frozen=True)
class Control:
    """A value the learner sets: a slider (`minimum` … `maximum` by `step`) or a choice."""

    name: Annotated[str, _field_name]
    label: Text
    start: str | float
    choices: Annotated[tuple[Any, ...], not_blank] = ()
    minimum: float | None = None
    maximum: float | None = None
    step: float | None = None

    def __post_init__(self) -> None:
        if self.choices:  # YAML reads some as numbers or truth
            object.__setattr__(self, "choices", tuple(map(str, self.choices)))
            object.__setattr__(self, "start", str(self.start))

    def accepts(self, value: object) -> bool:
        """Whether a learner may send this value."""
        if self.choices:
            return value in self.choices
        if not isinstance(value, (int, float)) or isinstance(value, bool):
            return False
        low, high = self.minimum or 0.0, self.maximum or 0.0
        return low <= value <= high


@dataclass(frozen=True)
class Goal:
    """A condition on an experiment's result: `field` stands in `relation` to a number or another field.

    The bound is `value`, or the field `of` multiplied by `times`. Relative goals are fair on fast and
    slow machines alike. `says` is the goal in the author's words.
    """

    field: Annotated[str, _field_name]
    relation: Annotated[str, _among(*RELATIONS)]
    value: float | None = None
    of: str | None = None
    times: float = 1.0
    says: Text = ""

    def met(self, result: Mapping[str, float]) -> bool:
        """Whether a result reaches the goal. Raises LessonError where the result lacks a field."""
        try:
            reached = result[self.field]
            bound = self.value if self.of is None else result[self.of] * self.times
        except KeyError as error:
            raise LessonError(f"the result has no field {error.args[0]!r}, which a goal needs") from None
        if bound is None:
            raise LessonError(f"the goal for {self.field!r} has neither a value nor a field to compare with")
        return {
            "at_least": reached >= bound,
            "at_most": reached <= bound,
            "above": reached > bound,
            "below": reached < bound,
        }[self.relation]


@dataclass(frozen=True)
class Task:
    """A hands-on task: set the controls, run the experiment, reach the goals.

    Hints, mistakes and the solution are for the server: a page asks for them one at a time. `solved_with` are
    the solution's values by control, with which anyone can check that the task can be done.
    """

    slug: Slug
    title: Text
    text: Text
    experiment: Text
    controls: tuple[Control, ...]
    goals: Annotated[tuple[Goal, ...], not_blank]
    hints: Annotated[tuple[str, ...], not_blank]
    mistakes: Annotated[tuple[str, ...], not_blank] = ()
    solution: str = ""
    solved_with: Mapping[str, Any] = field(default_factory=dict)
    tries: Annotated[int, _between(1, 10)] = 3

    def reached(self, result: Mapping[str, float]) -> bool:
        """Whether a result reaches every goal."""
        return all(goal.met(result) for goal in self.goals)

    def public_view(self, *, hints_taken: int = 0, done: bool = False) -> dict[str, Any]:
        """What a page may show: the hints asked for so far, and the rest once the task is done."""
        view: dict[str, Any] = {
            "slug": self.slug,
            "title": self.title,
            "text": self.text,
            "experiment": self.experiment,
            "controls": [asdict(control) for control in self.controls],
            "goals": [asdict(goal) for goal in self.goals],
            "tries": self.tries,
            "hints": list(self.hints if done else self.hints[: max(0, hints_taken)]),
            "hints_left": 0 if done else max(0, len(self.hints) - max(0, hints_taken)),
        }
        return view | {"mistakes": list(self.mistakes), "solution": self.solution} if done else view


@dataclass(frozen=True)
class Experiment:
    """What the pack expects of an experiment: its name, what it shows, and the fields of its result.

    `guess` asks for one of them before it runs, `guess_of` names it.
    """

    name: str
    shows: Text
    fields: Mapping[str, Any] = field(default_factory=dict)
    title: Text = ""
    guess: Text = ""
    guess_of: Text = ""

    @property
    def heading(self) -> str:
        """Its title, else its name as words."""
        return self.title or self.name.replace("-", " ").capitalize()


@dataclass(frozen=True)
class BadgeText:
    """What the badge says it stands for."""

    title: Text
    description: Text
    criteria: Text


@dataclass(frozen=True)
class Headline:
    """A number for the first page, with placeholders, and what it is."""

    number: Text
    label: Text


@dataclass(frozen=True)
class Pack:
    """A whole lesson. `fingerprint` changes when any of its files does."""

    slug: str
    title: Text
    subject: Text
    track: Text
    summary: Text
    modes: Annotated[tuple[Mode, ...], not_blank]
    experiments: Annotated[Mapping[str, Experiment], not_blank]
    problem_sets: Mapping[str, tuple[Problem, ...]]
    cards: tuple[Card, ...]
    tasks: tuple[Task, ...]
    project: Task | None
    badge: BadgeText
    fingerprint: str
    headline: tuple[Headline, ...] = ()
    pictures: Mapping[str, Picture] = field(default_factory=dict)

    def mode(self, name: str) -> Mode:
        """The mode of that name. Raises LessonError where the pack has none."""
        for mode in self.modes:
            if mode.name == name:
                return mode
        known = ", ".join(mode.name for mode in self.modes)
        raise LessonError(f"lesson {self.slug!r} has no mode {name!r}; it has {known}")

    def problems(self, mode: str) -> tuple[Problem, ...]:
        """The problems of a mode, in the pack's order. Raises LessonError where it has none."""
        if mode not in self.problem_sets:
            known = ", ".join(sorted(self.problem_sets)) or "none"
            raise LessonError(
                f"lesson {self.slug!r} has no problems for {mode!r}; it has problems for: {known}"
            )
        return self.problem_sets[mode]

    def problem(self, mode: str, slug: str) -> Problem:
        """One problem. Raises LessonError for an unknown slug."""
        for problem in self.problems(mode):
            if problem.slug == slug:
                return problem
        raise LessonError(f"lesson {self.slug!r} has no problem {slug!r} in {mode!r}")


def prose_lines(markdown: str) -> list[str]:
    """The lines of Markdown that lie outside fenced code; fenced lines come back empty, so numbers agree."""
    lines, fenced = [], False
    for line in markdown.splitlines():
        fence = line.lstrip().startswith(("```", "~~~"))
        lines.append("" if fenced or fence else line)
        if fence:
            fenced = not fenced
    return lines
