"""A small lesson whose secrets are recognisable strings, for the tests of the engine."""

from __future__ import annotations

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
