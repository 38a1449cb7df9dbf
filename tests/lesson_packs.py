"""A small lesson whose secrets are recognisable strings, for the tests of the engine."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from headstart.lesson.engine import attempts
from headstart.lesson.engine.attempts import Challenge, HintTaken, Opened, Submitted
from headstart.lesson.engine.pack import BadgeText, Card, Experiment, Mode, Option, Pack, Problem


def secret_problem(number: int, *, answer: int = 0) -> Problem:
    options = tuple(
        Option(
            f"secretkey-{number}-{i}",
            f"Text {number}/{i}",
            f"SECRETFEEDBACK {number}/{i}",
            correct=i == answer,
        )
        for i in range(4)
    )
    return Problem(
        slug=f"problem-{number}",
        title=f"Title {number}",
        kind="conceptual",
        level="expert",
        prompt=f"Prompt {number}?",
        options=options,
        hint=f"SECRETHINT {number}",
        explanation=f"SECRETEXPLANATION {number}",
        experiment="one-pass",
        seconds=120,
    )


def secret_pack(*, answer: int = 0, problems: int = 5) -> Pack:
    return Pack(
        slug="secrets",
        title="Secrets",
        subject="Testing",
        track="ML",
        summary="For tests.",
        modes=(Mode("challenge", "Challenge", 10, "## One\n\ntext\n\n## Two\n\ntext\n"),),
        experiments={"one-pass": Experiment("one-pass", "shows", {"ratio": "a ratio"})},
        problem_sets={"challenge": tuple(secret_problem(n, answer=answer) for n in range(problems))},
        cards=(Card("card", "front", "back", "one-pass"), Card("other", "front", "back", "one-pass")),
        tasks=(),
        project=None,
        badge=BadgeText("Keeper of Secrets", "Kept five secrets.", "All five correct."),
        fingerprint="f" * 32,
    )


def taken(
    learner: str,
    pattern: str,
    *,
    pack: Pack,
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC),
    hint: bool = False,
    seconds: float = 0.0,
) -> Challenge:
    """Problem n is answered as the n-th letter says: r right, s right second, w wrong, - not at all."""
    begun = attempts.begin(pack, challenge=f"{learner}-{pattern}", learner=learner, seed="s")
    state, _ = attempts.step(None, begun, now)
    for item, letter in zip(state.items, pattern, strict=True):
        slug, layout = item.problem, item.layout
        wrong = [identity for identity, _ in layout.options if identity != layout.answer]
        answers = {"r": [layout.answer], "s": [wrong[0], layout.answer], "w": wrong[:2], "-": []}[letter]
        for event in (Opened(slug), *([HintTaken(slug)] if hint else ())):
            state, _ = attempts.step(state, event, now)
        now += timedelta(seconds=seconds)
        for place, answer in enumerate(answers):
            state, _ = attempts.step(state, Submitted(slug, answer, f"{slug}{place}"), now)
    return state
