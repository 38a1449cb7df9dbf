"""The rules a lesson pack must keep.

Structure: required keys, known modes, kinds and levels, sensible minutes, exactly one correct option,
feedback for each option, a hint, a declared experiment. Prose: no sentence names an option's letter (options
are shuffled), a comparison names the experiment that measured it, and a measured number is a placeholder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from headstart.lesson.engine import placeholders
from headstart.lesson.engine.pack import KINDS, LEVELS, MODES, RELATIONS, prose_lines
from headstart.lesson.engine.sources import Finding, KeyPath, Sources, YamlFile

MINUTES = range(1, 121)
SECONDS = range(15, 1801)
OPTIONS = range(2, 9)
PROBLEM_MODES = ("challenge", "visualize", "metrics", "review")

_SLUG = re.compile(r"[a-z0-9]+(-[a-z0-9]+)*")

# An option's letter: "option B", "answer b.", "(c)", or a bare capital B, C or D. "Model B" is a name, and a
# shape such as `N x C` belongs in code.
_LETTER = re.compile(
    r"\b(?:[Oo]ptions?|[Aa]nswers?|[Cc]hoices?)\s+(?:[A-H](?![\w'’-])|[a-h](?=[.,;:!?)]|$))"
    r"|\([A-Ha-h]\)"
    r"|(?<![Mm]odel )(?<![\w.-])[B-D](?![\w'’+-])"
    r"|\bboth A and\b"
    r"|\bA (?:is|was) (?:right|correct|wrong|false|true|the answer)\b"
)

# Words that compare: such a sentence is a claim, and a claim names its experiment.
_COMPARISON = re.compile(
    r"\b(?:faster|slower|quicker|cheaper|fewer|sooner|more accurate|less accurate|less time|more time"
    r"|less data|more data|less memory|outperform\w*|speeds? up|beats?)\b",
    re.IGNORECASE,
)

# A number with a unit in which results are measured. Minutes of reading and sizes in pixels are no results.
_MEASURED = re.compile(
    r"\b\d+(?:[.,]\d+)?\s?(?:%|percent\b|per cent\b|×(?!\s?\d)|x (?:faster|slower|fewer|less|more)\b"
    r"|times (?:faster|slower|fewer|less|more)\b|seconds?\b|ms\b|milliseconds?\b|GB\b|MB\b)",
    re.IGNORECASE,
)
_INLINE_CODE = re.compile(r"`[^`\n]*`")


def check(sources: Sources) -> list[Finding]:
    """Every breach of the rules, in the order of the files."""
    findings = [*sources.broken]
    names = set(sources.yaml) | {finding.file for finding in sources.broken}
    if "pack.yaml" not in names:
        return [*findings, Finding("pack.yaml", None, "", "missing")]
    if "pack.yaml" not in sources.yaml:
        return findings
    head = sources.yaml["pack.yaml"]
    findings += _shape(head, (), head.data, _PACK)
    if findings:
        return findings
    experiments = head.data["experiments"]
    findings += _check_modes(head, sources)
    if any(finding.key.startswith("experiments") for finding in findings):
        return findings
    for name, file in sources.yaml.items():
        findings += _check_yaml(name, file, experiments)
    for name, text in sources.markdown.items():
        findings += _check_prose(name, text, experiments)
    return findings


# Structure ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Field:
    """What a key's value must be; `inside` describes the entries of a list or the value's own keys."""

    kind: type | tuple[type, ...]
    required: bool = True
    among: tuple[str, ...] | range | None = None
    inside: Mapping[str, _Field] | None = None
    rule: Callable[[Any], str | None] | None = None


def _slug(value: Any) -> str | None:
    return None if _SLUG.fullmatch(value) else "expected small letters, digits and single hyphens"


def _not_empty(value: Any) -> str | None:
    return None if (value.strip() if isinstance(value, str) else value) else "empty"


def _texts(value: Any) -> str | None:
    return None if value and all(isinstance(each, str) for each in value) else "expected texts"


_NUMBER = (int, float)
_TEXT = _Field(str, rule=_not_empty)
_SLUG_FIELD = _Field(str, rule=_slug)
_FIELD_NAME = _Field(
    str, rule=lambda value: None if re.fullmatch(r"[a-z0-9_]+", value) else "expected a_field_name"
)

_PACK = {
    "title": _TEXT,
    "subject": _TEXT,
    "track": _TEXT,
    "summary": _TEXT,
    "modes": _Field(
        list,
        rule=_not_empty,
        inside={
            "name": _Field(str, among=MODES),
            "title": _TEXT,
            "minutes": _Field(int, among=MINUTES),
            "about": _Field(str, required=False, rule=_not_empty),
        },
    ),
    "experiments": _Field(dict, rule=_not_empty),
    "badge": _Field(dict, inside={"title": _TEXT, "description": _TEXT, "criteria": _TEXT}),
}
_EXPERIMENT = {
    "title": _Field(str, required=False, rule=_not_empty),
    "shows": _TEXT,
    "fields": _Field(dict, required=False),
}
_OPTION = {"key": _SLUG_FIELD, "text": _TEXT, "feedback": _TEXT, "correct": _Field(bool, required=False)}
_CODE = {"label": _TEXT, "language": _TEXT, "text": _TEXT}
_PROBLEM = {
    "slug": _SLUG_FIELD,
    "title": _TEXT,
    "kind": _Field(str, among=KINDS),
    "level": _Field(str, among=LEVELS),
    "experiment": _TEXT,
    "prompt": _TEXT,
    "code": _Field(list, required=False, inside=_CODE),
    "options": _Field(list, inside=_OPTION),
    "hint": _TEXT,
    "explanation": _TEXT,
    "seconds": _Field(int, required=False, among=SECONDS),
}
_CARD = {"slug": _SLUG_FIELD, "front": _TEXT, "back": _TEXT, "experiment": _TEXT}
_CONTROL = {
    "name": _FIELD_NAME,
    "label": _TEXT,
    "start": _Field((str, int, float)),
    "choices": _Field(list, required=False, rule=_not_empty),
    "minimum": _Field(_NUMBER, required=False),
    "maximum": _Field(_NUMBER, required=False),
    "step": _Field(_NUMBER, required=False),
}
_GOAL = {
    "field": _FIELD_NAME,
    "relation": _Field(str, among=RELATIONS),
    "value": _Field(_NUMBER, required=False),
    "of": _Field(str, required=False),
    "times": _Field(_NUMBER, required=False),
    "says": _Field(str, required=False, rule=_not_empty),
}
_TASK = {
    "slug": _SLUG_FIELD,
    "title": _TEXT,
    "text": _TEXT,
    "experiment": _TEXT,
    "controls": _Field(list, inside=_CONTROL),
    "goals": _Field(list, rule=_not_empty, inside=_GOAL),
    "hints": _Field(list, rule=_texts),
    "mistakes": _Field(list, required=False, rule=_texts),
    "solution": _Field(str, required=False),
    "tries": _Field(int, required=False, among=range(1, 11)),
}


def _shape(file: YamlFile, path: KeyPath, value: Any, fields: Mapping[str, _Field]) -> Iterator[Finding]:
    """Findings about the keys of one mapping."""
    if not isinstance(value, dict):
        yield file.finding(path, f"expected keys and values, got {_kind(value)}")
        return
    for key in value:
        if key not in fields:
            yield file.finding((*path, str(key)), f"unknown key; known: {', '.join(fields)}")
    for key, rule in fields.items():
        if key in value:
            yield from _check_field(file, (*path, key), value[key], rule)
        elif rule.required:
            yield file.finding(path, f"{key!r} is missing")


def _check_field(file: YamlFile, path: KeyPath, value: Any, rule: _Field) -> Iterator[Finding]:
    kinds = rule.kind if isinstance(rule.kind, tuple) else (rule.kind,)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        yield file.finding(path, f"expected {' or '.join(map(_named, kinds))}, got {_kind(value)}")
        return
    if rule.among is not None and value not in rule.among:
        yield file.finding(path, f"{value!r:.80} is not {_listed(rule.among)}")
    if isinstance(value, float) and not math.isfinite(value):
        yield file.finding(path, f"expected a number that is not infinite, got {value}")
    if rule.rule and (problem := rule.rule(value)):
        yield file.finding(path, problem)
    if rule.inside and isinstance(value, list):
        for index, entry in enumerate(value):
            yield from _shape(file, (*path, index), entry, rule.inside)
    elif rule.inside:
        yield from _shape(file, path, value, rule.inside)


_NAMES = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "keys and values",
    bool: "true or false",
}


def _named(kind: type) -> str:
    return _NAMES.get(kind, kind.__name__)


def _kind(value: Any) -> str:
    return "nothing" if value is None else _named(type(value))


def _listed(among: tuple[str, ...] | range) -> str:
    if isinstance(among, range):
        return f"between {among.start} and {among.stop - 1}"
    return f"one of {', '.join(among)}"


def _check_modes(head: YamlFile, sources: Sources) -> Iterator[Finding]:
    declared = [mode["name"] for mode in head.data["modes"]]
    for index, name in enumerate(declared):
        if name in declared[:index]:
            yield head.finding(("modes", index, "name"), f"mode {name!r} is declared twice")
        if f"modes/{name}.md" not in sources.markdown:
            yield head.finding(("modes", index), f"modes/{name}.md is missing")
    for file in sources.markdown:
        if PurePosixPath(file).stem not in declared:
            yield Finding(file, None, "", "belongs to no mode that pack.yaml declares")
    for name, entry in head.data["experiments"].items():
        path: KeyPath = ("experiments", str(name))
        if not _SLUG.fullmatch(str(name)):
            yield head.finding(path, "an experiment's name has small letters, digits and single hyphens")
        yield from _shape(head, path, entry, _EXPERIMENT)


# What each file holds --------------------------------------------------------------------------------------


def _check_yaml(name: str, file: YamlFile, experiments: Mapping[str, Any]) -> Iterator[Finding]:
    if name == "pack.yaml":
        return
    if name.startswith("problems/"):
        stem = PurePosixPath(name).stem
        if stem not in PROBLEM_MODES:
            yield file.finding((), f"{stem!r} asks no problems; modes that may: {', '.join(PROBLEM_MODES)}")
        yield from _check_list(file, "problems", _PROBLEM, experiments, _check_problem)
    elif name == "cards.yaml":
        yield from _check_list(file, "cards", _CARD, experiments, _check_texts)
    elif name == "tasks.yaml":
        yield from _check_list(file, "tasks", _TASK, experiments, _check_task)
    elif name == "project.yaml":
        shape = list(_shape(file, (), file.data, _TASK))
        yield from shape
        if not shape:
            yield from _check_experiment(file, (), file.data, experiments)
            yield from _check_task(file, (), file.data, experiments)
    else:
        yield file.finding((), "unknown file; see docs/packs.md for the files of a pack")


_Check = Callable[[YamlFile, KeyPath, dict[str, Any], Mapping[str, Any]], Iterator[Finding]]


def _check_list(
    file: YamlFile,
    key: str,
    fields: Mapping[str, _Field],
    experiments: Mapping[str, Any],
    check_entry: _Check,
) -> Iterator[Finding]:
    shape = list(_shape(file, (), file.data, {key: _Field(list, rule=_not_empty, inside=fields)}))
    yield from shape
    if shape:
        return
    seen: set[str] = set()
    for index, entry in enumerate(file.data[key]):
        path = (key, index)
        if entry["slug"] in seen:
            yield file.finding((*path, "slug"), f"{entry['slug']!r} is used twice")
        seen.add(entry["slug"])
        yield from _check_experiment(file, path, entry, experiments)
        yield from check_entry(file, path, entry, experiments)


def _check_experiment(
    file: YamlFile, path: KeyPath, entry: Mapping[str, Any], experiments: Mapping[str, Any]
) -> Iterator[Finding]:
    if entry["experiment"] not in experiments:
        known = ", ".join(experiments)
        yield file.finding((*path, "experiment"), f"no experiment {entry['experiment']!r}; declared: {known}")


def _check_problem(
    file: YamlFile, path: KeyPath, entry: dict[str, Any], experiments: Mapping[str, Any]
) -> Iterator[Finding]:
    options = entry["options"]
    correct = sum(option.get("correct", False) for option in options)
    if correct != 1:
        yield file.finding((*path, "options"), f"expected exactly one correct option, got {correct}")
    if len(options) not in OPTIONS:
        yield file.finding((*path, "options"), f"expected {_listed(OPTIONS)[8:]} options, got {len(options)}")
    for name in ("key", "text"):
        values = [option[name] for option in options]
        if len(set(values)) < len(values):
            yield file.finding((*path, "options"), f"two options have the same {name}")
    yield from _check_texts(file, path, entry, experiments)


def _check_task(
    file: YamlFile, path: KeyPath, entry: dict[str, Any], experiments: Mapping[str, Any]
) -> Iterator[Finding]:
    for index, control in enumerate(entry["controls"]):
        here = (*path, "controls", index)
        if "choices" in control:
            if str(control["start"]) not in map(str, control["choices"]):
                yield file.finding((*here, "start"), f"{control['start']!r} is none of the choices")
        elif isinstance(control["start"], str) or not {"minimum", "maximum", "step"} <= set(control):
            yield file.finding(
                here, "expected choices, or a number to start at with minimum, maximum and step"
            )
        elif not control["minimum"] <= control["start"] <= control["maximum"] or control["step"] <= 0:
            yield file.finding(here, "expected minimum <= start <= maximum and a positive step")
    fields = (experiments.get(entry["experiment"]) or {}).get("fields") or {}
    for index, goal in enumerate(entry["goals"]):
        here = (*path, "goals", index)
        if ("value" in goal) == ("of" in goal):
            yield file.finding(here, "expected either 'value' or 'of'")
        for key in ("field", "of"):
            if key in goal and goal[key] not in fields:
                yield file.finding((*here, key), f"the experiment declares no field {goal[key]!r}")
    yield from _check_texts(file, path, entry, experiments)


# Prose ----------------------------------------------------------------------------------------------------


def _check_texts(
    file: YamlFile, path: KeyPath, entry: Any, experiments: Mapping[str, Any]
) -> Iterator[Finding]:
    """The prose rules for every text below an entry, code and identifiers aside.

    An entry names its experiment once, so its comparisons need no mark of their own.
    """
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key not in ("code", "key", "slug", "experiment", "controls", "goals", "level", "kind"):
                yield from _check_texts(file, (*path, str(key)), value, experiments)
    elif isinstance(entry, list):
        for index, value in enumerate(entry):
            yield from _check_texts(file, (*path, index), value, experiments)
    elif isinstance(entry, str):
        for _, message in _prose_breaches(entry, experiments, claims_need_marks=False):
            yield file.finding(path, message)


def _check_prose(name: str, text: str, experiments: Mapping[str, Any]) -> Iterator[Finding]:
    if not any(line.startswith("## ") for line in prose_lines(text)):
        yield Finding(name, None, "", "expected at least one '## ' heading: progress is counted in sections")
    for line, message in _prose_breaches(text, experiments, claims_need_marks=True):
        yield Finding(name, line, "", message)


def _prose_breaches(
    text: str, experiments: Mapping[str, Any], *, claims_need_marks: bool
) -> Iterator[tuple[int, str]]:
    """(line from 1, message) for each breach of the prose rules."""
    lines = [_INLINE_CODE.sub(lambda match: " " * len(match.group()), line) for line in prose_lines(text)]
    for number, line in enumerate(lines, 1):
        for _, found in placeholders.malformed(line):
            yield (
                number,
                f"{found[:80]!r} is no placeholder; "
                "expected {{ experiment:name.field }}, plot, claim, panel",
            )
        if match := _LETTER.search(line):
            yield (
                number,
                f"{match.group()!r} reads like an option's letter; options are shuffled, quote it instead",
            )
        if match := _MEASURED.search(line):
            yield number, f"{match.group()!r} looks measured; write {{{{ experiment:name.field }}}} instead"
    for number, paragraph in _paragraphs(lines):
        breaches = _placeholder_breaches(paragraph, experiments, panels_allowed=claims_need_marks)
        yield from ((number, message) for message in breaches)
        marked = any(found.kind == "claim" for found in placeholders.find(paragraph))
        if claims_need_marks and not marked and (match := _COMPARISON.search(paragraph)):
            yield (
                number,
                f"{match.group()!r} makes this paragraph a claim; add {{{{ claim:experiment-name }}}}",
            )


def _placeholder_breaches(
    paragraph: str, experiments: Mapping[str, Any], *, panels_allowed: bool
) -> Iterator[str]:
    for found in placeholders.find(paragraph):
        if found.kind == "panel":
            if found.experiment not in placeholders.PANELS:
                yield f"no panel {found.experiment!r}; there are {', '.join(placeholders.PANELS)}"
            elif not panels_allowed or paragraph.strip() != f"{{{{ panel:{found.experiment} }}}}":
                yield "a panel stands on a line of its own in a mode's Markdown"
        elif found.experiment not in experiments:
            yield f"no experiment {found.experiment!r}; declared: {', '.join(experiments)}"
        elif found.field and found.field not in (experiments[found.experiment].get("fields") or {}):
            yield f"experiment {found.experiment!r} declares no field {found.field!r} in pack.yaml"


def _paragraphs(lines: list[str]) -> Iterator[tuple[int, str]]:
    """(first line from 1, text) of each run of lines between blank ones; a list item is its own."""
    start, block = 1, list[str]()
    for number, line in enumerate([*lines, ""], 1):
        starts_item = re.match(r"\s*(?:[-*]|\d+\.|\||#)\s?", line) is not None
        if block and (not line.strip() or starts_item):
            yield start, " ".join(block)
            block = []
        if line.strip():
            start = start if block else number
            block.append(line)
