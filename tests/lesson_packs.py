"""A small lesson whose secrets are recognisable strings, for the tests of the engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from headstart.lesson.engine import attempts
from headstart.lesson.engine.answers import Layout
from headstart.lesson.engine.attempts import Challenge, HintTaken, Opened, Submitted
from headstart.lesson.engine.pack import FORMS, BadgeText, Card, Experiment, Mode, Option, Pack, Problem


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


def forms_problem(form: str) -> Problem:
    """A problem of four options, asked so; of a number, 10 ± 1 is right, and 20 and 30 have feedback."""
    options = tuple(
        Option(
            f"secretkey-{place}",
            str(10 * place) if form == "number" else f"Text {form} {place}",
            f"SECRETFEEDBACK {form} {place}",
            correct={"one": place == 1, "number": place == 1, "several": place < 3}.get(form, False),
            matches=f"Partner {place % 3}" if form == "match" else "",
            tolerance=1.0 if form == "number" else 0.0,
        )
        for place in range(1, 5)
    )
    problem = secret_problem(1)
    explanation = f"SECRETEXPLANATION {form}"
    return replace(problem, slug=form, form=form, options=options, explanation=explanation)


def forms_pack() -> Pack:
    """A lesson whose challenge asks in every form; without experiments."""
    pack = secret_pack()
    problems = tuple(replace(forms_problem(form), experiment="") for form in FORMS)
    return replace(pack, problem_sets={"challenge": problems})


def plain(pack: Pack) -> Pack:
    """The lesson whose problems have no variants, so that one knows what they ask."""
    sets = {
        mode: tuple(replace(one, variants=()) for one in problems)
        for mode, problems in pack.problem_sets.items()
    }
    return replace(pack, problem_sets=sets)


def right_answer(layout: Layout) -> str:
    """An answer that is right."""
    middles = {identity: (low + high) / 2 for identity, low, high in layout.ranges}
    return f"{middles[layout.answer]:g}" if layout.form == "number" else layout.answer


def wrong_answer(layout: Layout, *, tried: Sequence[str] = ()) -> str:
    """A whole answer that is wrong; of options and numbers, one that was not tried yet."""
    ids, partners = [identity for identity, _ in layout.options], [one for one, _ in layout.partners]
    match layout.form:
        case "number":
            return "20" if "20" not in tried else "30"
        case "one" | "several":
            return next(one for one in ids if one not in layout.answer.split() and one not in tried)
    shifted = [partners[(place + shift) % len(partners)] for shift in (0, 1) for place in range(len(ids))]
    pairs = [f"{one}={other}" for one, other in zip(ids + ids, shifted, strict=True)]
    first, second = (" ".join(sorted(half)) for half in (pairs[: len(ids)], pairs[len(ids) :]))
    return second if first == layout.answer else first


def taken(
    learner: str,
    pattern: str,
    *,
    pack: Pack,
    now: datetime = datetime(2030, 1, 1, tzinfo=UTC),
    hint: bool = False,
    seconds: float = 0.0,
    seed: str = "s",
) -> Challenge:
    """Problem n is answered as the n-th letter says: r right, s right second, w wrong, - not at all."""
    begun = attempts.begin(pack, challenge=f"{learner}-{pattern}", learner=learner, seed=seed)
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
