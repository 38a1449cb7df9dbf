"""Finds, loads and starts lesson packs: `headstart lesson new | check` call these."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from headstart.errors import LessonError
from headstart.files import write_whole
from headstart.lesson.engine import packlint
from headstart.lesson.engine.pack import (
    PROBLEM_SECONDS,
    BadgeText,
    Card,
    CodeFace,
    Control,
    Experiment,
    Goal,
    Mode,
    Option,
    Pack,
    Problem,
    Task,
)
from headstart.lesson.engine.sources import Finding, Sources, YamlFile, read_sources

BUNDLED = Path(__file__).parents[1] / "packs"
DEFAULT = "why-pretrained-models-save-time"


def available() -> list[str]:
    """The slugs of the packs that come with Headstart."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/pack.yaml"))


def check_pack(folder: str | Path) -> list[Finding]:
    """Every breach of the rules in a pack's folder; an empty list means the pack is sound.

    Raises LessonError where the folder is no pack at all.
    """
    return packlint.check(read_sources(_folder(folder)))


def load_pack(pack: str | Path = DEFAULT) -> Pack:
    """Loads a pack by the slug of a bundled one, or from a folder.

    Raises:
        LessonError: there is no such pack, or it breaks a rule (the first breach is named).
        MissingExtra: PyYAML is not installed.
    """
    sources = read_sources(_folder(pack))
    findings = packlint.check(sources)
    if findings:
        more = f" (and {len(findings) - 1} more: headstart lesson check)" if len(findings) > 1 else ""
        raise LessonError(f"lesson pack {sources.slug!r}: {findings[0]}{more}")
    return _build(sources)


def _folder(pack: str | Path) -> Path:
    bundled = BUNDLED / str(pack)
    if isinstance(pack, str) and re.fullmatch(r"[a-z0-9-]+", pack) and bundled.is_dir():
        return bundled
    folder = Path(pack)
    if not folder.is_dir():
        raise LessonError(
            f"no lesson pack {str(pack)!r}: expected a folder or one of {', '.join(available())}"
        )
    return folder


def new_pack(slug: str, parent: str | Path = ".") -> Path:
    """Writes a small pack that passes the check, to be filled in. Returns its folder.

    Raises LessonError where the slug is unusable or the folder exists.
    """
    if not re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", slug):
        raise LessonError(f"{slug!r} cannot name a pack: expected small letters, digits and single hyphens")
    folder = Path(parent) / slug
    if folder.exists():
        raise LessonError(f"{folder} exists already; choose another name or remove it")
    for name, text in _SKELETON.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, text)
    return folder


# From here on the sources have passed the check, so building only moves values to their places.


def _build(sources: Sources) -> Pack:
    head: dict[str, Any] = sources.yaml["pack.yaml"].data
    tasks = _entries(sources.yaml.get("tasks.yaml"), "tasks")
    project = sources.yaml.get("project.yaml")
    sets = {
        Path(name).stem: tuple(_problem(entry) for entry in _entries(file, "problems"))
        for name, file in sources.yaml.items()
        if name.startswith("problems/")
    }
    return Pack(
        slug=sources.slug,
        title=head["title"],
        subject=head["subject"],
        track=head["track"],
        summary=head["summary"].strip(),
        modes=tuple(
            Mode(
                mode["name"],
                mode["title"],
                mode["minutes"],
                sources.markdown[f"modes/{mode['name']}.md"],
                mode.get("about", ""),
            )
            for mode in head["modes"]
        ),
        experiments={
            name: Experiment(name, entry["shows"], dict(entry.get("fields") or {}), entry.get("title", ""))
            for name, entry in head["experiments"].items()
        },
        problem_sets=sets,
        cards=tuple(Card(**entry) for entry in _entries(sources.yaml.get("cards.yaml"), "cards")),
        tasks=tuple(_task(entry) for entry in tasks),
        project=_task(project.data) if project else None,
        badge=BadgeText(**head["badge"]),
        fingerprint=sources.fingerprint,
    )


def _entries(file: YamlFile | None, key: str) -> Sequence[Mapping[str, Any]]:
    return file.data[key] if file else ()


def _problem(entry: Mapping[str, Any]) -> Problem:
    return Problem(
        slug=entry["slug"],
        title=entry["title"],
        kind=entry["kind"],
        level=entry["level"],
        prompt=entry["prompt"].strip(),
        options=tuple(
            Option(
                option["key"],
                option["text"].strip(),
                option["feedback"].strip(),
                option.get("correct", False),
            )
            for option in entry["options"]
        ),
        hint=entry["hint"].strip(),
        explanation=entry["explanation"].strip(),
        experiment=entry["experiment"],
        code=tuple(CodeFace(**face) for face in entry.get("code", ())),
        seconds=entry.get("seconds", PROBLEM_SECONDS),
    )


def _task(entry: Mapping[str, Any]) -> Task:
    return Task(
        slug=entry["slug"],
        title=entry["title"],
        text=entry["text"].strip(),
        experiment=entry["experiment"],
        controls=tuple(_control(control) for control in entry["controls"]),
        goals=tuple(Goal(**goal) for goal in entry["goals"]),
        hints=tuple(entry["hints"]),
        mistakes=tuple(entry.get("mistakes", ())),
        solution=entry.get("solution", "").strip(),
        tries=entry.get("tries", 3),
    )


def _control(entry: Mapping[str, Any]) -> Control:
    choices = tuple(str(choice) for choice in entry.get("choices", ()))
    start = str(entry["start"]) if choices else entry["start"]
    return Control(**{**entry, "choices": choices, "start": start})


_SKELETON = {
    "pack.yaml": """\
# A lesson pack. The format is described in docs/packs.md; `headstart lesson check .` tells what is missing.
title: A title that says what one will know
subject: Computer Vision
track: ML
summary: One or two sentences for the page that lists the lessons.
modes:
  - {name: learn, title: The idea, minutes: 5}
  - {name: challenge, title: Prove it, minutes: 4}
experiments:
  pretrained-vs-scratch:
    shows: What the experiment measures, in one line.
    fields:
      ratio: what this number of its result means, with its unit
badge:
  title: The badge's name
  description: What someone who holds it has shown.
  criteria: What one had to do for it.
""",
    "modes/learn.md": """\
## The idea

Say it in a few sentences. Where you compare two things, name the experiment that measured it:
training from a pre-trained model is faster. {{ claim:pretrained-vs-scratch }}

On this machine the ratio was {{ experiment:pretrained-vs-scratch.ratio }}.
""",
    "modes/challenge.md": """\
## Before you start

Say what awaits the learner.
""",
    "problems/challenge.yaml": """\
problems:
  - slug: first-question
    title: First question
    kind: conceptual
    level: intermediate
    experiment: pretrained-vs-scratch
    prompt: What do you ask?
    options:
      - {key: right, correct: true, text: The right answer., feedback: Why it is right.}
      - {key: tempting, text: A tempting answer., feedback: What it overlooks.}
    hint: A push in the right direction that does not give the answer away.
    explanation: What the experiment shows about it.
""",
}
