"""Reads a lesson pack and names every breach of its rules.

Structure: required keys, known modes, kinds, forms and levels, sensible minutes, options that the problem's
form can use, a declared experiment. Warnings, where a rule cannot know what is meant: no feedback, hint or
explanation; a sentence that seems to name an option's letter (options are shuffled), to compare without
naming the experiment that measured it, or to quote a measured number that is no placeholder.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, is_dataclass, replace
from functools import cache
from pathlib import PurePosixPath
from types import NoneType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

from headstart.lesson.engine import placeholders
from headstart.lesson.engine.answers import misfits
from headstart.lesson.engine.pack import (
    Card,
    Experiment,
    Mode,
    Pack,
    Problem,
    Task,
    filled,
    not_blank,
    prose_lines,
    slug,
)
from headstart.lesson.engine.reference import references
from headstart.lesson.engine.sources import PICTURE, Finding, KeyPath, Sources, YamlFile

PROBLEM_MODES = ("challenge", "visualize", "metrics", "review")

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


def check(sources: Sources) -> tuple[Pack | None, list[Finding]]:
    """The pack that the sources make, and every breach of the rules, in the order of the files.

    The pack is None where there is a breach that is no warning.
    """
    findings = [*sources.broken]
    if "pack.yaml" not in sources.yaml:
        if not any(finding.file == "pack.yaml" for finding in findings):
            findings.append(Finding("pack.yaml", None, "", "missing"))
        return None, findings
    head = _Reader(sources.yaml["pack.yaml"], findings)
    pack = _head(head, sources)
    if pack is None or _broken(findings):
        return None, findings
    _check_modes(head, pack, sources)
    if _broken([finding for finding in findings if finding.key.startswith("experiments")]):
        return None, findings
    contents: dict[str, Any] = {"problem_sets": {}}
    for name, file in sources.yaml.items():
        _read_file(name, _Reader(file, findings, pack.experiments), contents)
    _check_texts(replace(head, experiments=pack.experiments), ("headline",), head.file.data.get("headline"))
    for name, text in sources.markdown.items():
        findings += _check_prose(name, text, pack.experiments)
    findings += _check_pictures(sources)
    return (None if _broken(findings) else replace(pack, **contents)), findings


def _broken(findings: Sequence[Finding]) -> bool:
    return any(not finding.warning for finding in findings)


# Structure: the fields of `pack`'s classes ----------------------------------------------------------------

_ELSEWHERE: dict[Any, dict[str, Any]] = {
    Pack: {
        "slug": "",
        "problem_sets": {},
        "cards": (),
        "tasks": (),
        "project": None,
        "fingerprint": "",
        "pictures": {},
    },
    Mode: {"body": ""},
    Experiment: {"name": ""},
}
"""Fields that do not stand among an entry's own keys; they are filled in from other files and from names."""


@dataclass(frozen=True)
class _Reader:
    """Reads a file's data into the classes of `pack`, and collects what is wrong with it."""

    file: YamlFile
    findings: list[Finding]
    experiments: Mapping[str, Experiment] = field(default_factory=dict)

    def wrong(self, path: KeyPath, message: str, *, warning: bool = False) -> None:
        self.findings.append(self.file.finding(path, message, warning=warning))

    def entry(self, kind: Any, path: KeyPath, data: Any) -> Any:
        """The value of a class that a mapping stands for; None where something in it is wrong."""
        values = _ELSEWHERE.get(kind, {})
        declared = {each.name: each for each in fields(kind) if each.name not in values}
        hints = {name: hint for name, hint in _hints(kind).items() if name in declared}
        required = {
            name
            for name, each in declared.items()
            if each.default is MISSING and each.default_factory is MISSING
        }
        read = self.keys(hints, path, data, required=required)
        return None if read is None else kind(**values, **read)

    def keys(
        self, hints: Mapping[str, Any], path: KeyPath, data: Any, *, required: Collection[str]
    ) -> dict[str, Any] | None:
        """The values of a mapping's keys, each as its hint says; None where something in it is wrong."""
        if not isinstance(data, dict):
            self.wrong(path, f"expected keys and values, got {_kind(data)}")
            return None
        before = len(self.findings)
        for key in [key for key in data if key not in hints]:
            self.wrong((*path, str(key)), f"unknown key; known: {', '.join(hints)}")
        for name in [name for name in hints if name in required and name not in data]:
            self.wrong(path, f"{name!r} is missing")
        values = {
            name: self.value(hint, (*path, name), data[name]) for name, hint in hints.items() if name in data
        }
        return values if len(self.findings) == before else None

    def value(self, hint: Any, path: KeyPath, data: Any) -> Any:
        """A value of that type that keeps the rules beside it."""
        hint, *rules = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        if is_dataclass(hint):
            return self.entry(hint, path, data)
        origin, inside = get_origin(hint), get_args(hint)
        kinds = {tuple: (list,), Mapping: (dict,), None: (hint,)}.get(origin, inside)
        kinds = tuple(kind for kind in kinds if kind is not NoneType)
        if type(data) not in kinds and not (float in kinds and type(data) is int):
            self.wrong(path, f"expected {' or '.join(map(_NAMES.__getitem__, kinds))}, got {_kind(data)}")
            return None
        if isinstance(data, float) and not math.isfinite(data):
            self.wrong(path, f"expected a number that is not infinite, got {data}")
        for rule in rules:
            if wrong := rule(data):
                self.wrong(path, wrong)
        if origin is tuple and inside[0] is not Any:
            return tuple(self.value(inside[0], (*path, index), each) for index, each in enumerate(data))
        if origin is Mapping and is_dataclass(inside[1]):
            return {str(key): self.entry(inside[1], (*path, str(key)), each) for key, each in data.items()}
        return data.strip() if filled in rules else data


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


_NAMES: dict[Any, str] = {
    str: "text",
    int: "a whole number",
    float: "a number",
    list: "a list",
    dict: "keys and values",
    bool: "true or false",
    NoneType: "nothing",
}


def _kind(value: Any) -> str:
    return _NAMES.get(type(value), type(value).__name__)


# What each file holds --------------------------------------------------------------------------------------


def _head(head: _Reader, sources: Sources) -> Pack | None:
    """The pack as pack.yaml has it, with its modes' Markdown and nothing from other files yet."""
    found: Pack | None = head.entry(Pack, (), head.file.data)
    if found is None:
        return None
    bodies = sources.markdown
    return replace(
        found,
        slug=sources.slug,
        modes=tuple(replace(mode, body=bodies.get(f"modes/{mode.name}.md", "")) for mode in found.modes),
        experiments={name: replace(each, name=name) for name, each in found.experiments.items()},
        fingerprint=sources.fingerprint,
        pictures=sources.pictures,
    )


def _check_modes(head: _Reader, pack: Pack, sources: Sources) -> None:
    declared = [mode.name for mode in pack.modes]
    for index, name in enumerate(declared):
        if name in declared[:index]:
            head.wrong(("modes", index, "name"), f"mode {name!r} is declared twice")
        if f"modes/{name}.md" not in sources.markdown:
            head.wrong(("modes", index), f"modes/{name}.md is missing")
    for file in sources.markdown:
        if PurePosixPath(file).stem not in declared:
            head.findings.append(Finding(file, None, "", "belongs to no mode that pack.yaml declares"))
    for name in pack.experiments:
        if wrong := slug(name):
            head.wrong(("experiments", name), wrong)
        one = pack.experiments[name]
        if bool(one.guess) != (one.guess_of in one.fields):
            message = "a guess needs a question in 'guess' and one of the fields in 'guess_of'"
            head.wrong(("experiments", name, "guess_of"), message)
        if name not in references():
            message = "no experiment of this name here; headstart experiment lists them"
            head.wrong(("experiments", name), message, warning=True)
        else:
            for unknown in sorted(set(one.fields) - set(references()[name].values)):
                message = (
                    f"the result has no field {unknown!r}; headstart experiment {name} --json shows them"
                )
                head.wrong(("experiments", name, "fields", unknown), message, warning=True)


def _read_file(name: str, reader: _Reader, contents: dict[str, Any]) -> None:
    """Puts what a file other than pack.yaml holds into the pack's contents."""
    if name.startswith("problems/"):
        stem = PurePosixPath(name).stem
        if stem not in PROBLEM_MODES:
            known = ", ".join(PROBLEM_MODES)
            reader.wrong((), f"{stem!r} asks no problems; modes that may: {known}")
        contents["problem_sets"][stem] = _read_list("problems", Problem, reader)
    elif name == "cards.yaml":
        contents["cards"] = _read_list("cards", Card, reader)
    elif name == "tasks.yaml":
        contents["tasks"] = _read_list("tasks", Task, reader)
    elif name == "project.yaml":
        contents["project"] = project = reader.entry(Task, (), reader.file.data)
        if project is not None:
            _check_entry(reader, (), project, reader.file.data)
    elif name != "pack.yaml":
        reader.wrong((), "unknown file; see docs/packs.md for the files of a pack")


def _read_list(key: str, kind: Any, reader: _Reader) -> tuple[Any, ...]:
    """The entries of a file that holds nothing but a list of them."""
    data = reader.file.data
    whole = {**data, key: [*map(_with_variants, data[key])]} if _lists(data, key) else data
    read = reader.keys({key: Annotated[tuple[kind, ...], not_blank]}, (), whole, required=(key,))
    entries: tuple[Any, ...] = read[key] if read else ()
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        path = (key, index)
        if entry.slug in seen:
            reader.wrong((*path, "slug"), f"{entry.slug!r} is used twice")
        seen.add(entry.slug)
        _check_entry(reader, path, entry, data[key][index])
    return entries


def _lists(data: Any, key: str) -> bool:
    return isinstance(data, dict) and isinstance(data.get(key), list)


def _with_variants(entry: Any) -> Any:
    """A problem whose variants, which name what differs, say the rest as well."""
    if not _lists(entry, "variants"):
        return entry
    same = {key: value for key, value in entry.items() if key not in ("variant", "variants")}
    each = [same | one if isinstance(one, dict) else one for one in entry["variants"]]
    return {**entry, "variants": each}


def _check_entry(reader: _Reader, path: KeyPath, entry: Any, data: Any) -> None:
    """The rules for one problem, card or task: its experiment, what its fields say together, its prose."""
    parts = [(path, entry)]
    if isinstance(entry, Problem):
        parts += [((*path, "variants", index), each) for index, each in enumerate(entry.variants)]
    for place, part in parts:
        if part.experiment not in reader.experiments and not (
            isinstance(part, Problem) and not part.experiment
        ):
            known = ", ".join(reader.experiments)
            message = f"no experiment {part.experiment!r}; declared: {known}"
            reader.wrong((*place, "experiment"), message)
        if isinstance(part, Problem):
            _check_problem(reader, place, part)
        elif isinstance(part, Task):
            _check_task(reader, place, part)
    _check_texts(reader, path, data, claims_need_marks=not entry.experiment)


def _check_problem(reader: _Reader, path: KeyPath, problem: Problem) -> None:
    names = [each.variant for each in problem.each()]
    if len(set(names)) < len(names):
        reader.wrong((*path, "variants"), "two variants have the same name")
    if problem.variants and any(each.slug != problem.slug or each.variants for each in problem.variants):
        reader.wrong((*path, "variants"), "a variant keeps the problem's slug and has no variants of its own")
    for name in ("hint", "explanation"):
        if not getattr(problem, name):
            reader.wrong(path, f"no {name}", warning=True)
    options, here = problem.options, (*path, "options")
    if problem.form in ("one", "several", "number"):
        for index, option in enumerate(options):
            if not option.feedback:
                reader.wrong((*here, index), "no feedback for those who answer this", warning=True)
    for message in misfits(problem):
        reader.wrong(here, message)


def _check_task(reader: _Reader, path: KeyPath, task: Task) -> None:
    for index, control in enumerate(task.controls):
        here = (*path, "controls", index)
        low, high, step, start = control.minimum, control.maximum, control.step, control.start
        if control.choices:
            if start not in control.choices:
                reader.wrong((*here, "start"), f"{start!r} is none of the choices")
        elif isinstance(start, str) or low is None or high is None or step is None:
            reader.wrong(here, "expected choices, or a number to start at with minimum, maximum and step")
        elif not low <= start <= high or step <= 0:
            reader.wrong(here, "expected minimum <= start <= maximum and a positive step")
    accepted = {control.name: control for control in task.controls}
    for solved, value in task.solved_with.items():
        if solved not in accepted or not accepted[solved].accepts(value):
            reader.wrong((*path, "solved_with", solved), f"no control accepts {solved!r} = {value!r}")
    experiment = reader.experiments.get(task.experiment)
    for index, goal in enumerate(task.goals):
        here = (*path, "goals", index)
        if (goal.value is None) == (goal.of is None):
            reader.wrong(here, "expected either 'value' or 'of'")
        for key, name in (("field", goal.field), ("of", goal.of)):
            if name is not None and (experiment is None or name not in experiment.fields):
                reader.wrong((*here, key), f"the experiment declares no field {name!r}")


# Prose ----------------------------------------------------------------------------------------------------


def _check_texts(reader: _Reader, path: KeyPath, entry: Any, *, claims_need_marks: bool = False) -> None:
    """The prose rules for every text below an entry, code and identifiers aside.

    An entry names its experiment once, so its comparisons need no mark of their own; one without does.
    """
    if isinstance(entry, dict):
        for key, value in entry.items():
            if key not in (
                "code",
                "key",
                "slug",
                "experiment",
                "controls",
                "solved_with",
                "runs_with",
                "goals",
                "level",
                "kind",
                "form",
                "variant",
            ):
                _check_texts(reader, (*path, str(key)), value, claims_need_marks=claims_need_marks)
    elif isinstance(entry, list):
        for index, value in enumerate(entry):
            _check_texts(reader, (*path, index), value, claims_need_marks=claims_need_marks)
    elif isinstance(entry, str):
        breaches = _prose_breaches(
            entry, reader.experiments, panels=False, claims_need_marks=claims_need_marks
        )
        for _, message, unsure in breaches:
            reader.wrong(path, message, warning=unsure)


def _check_prose(name: str, text: str, experiments: Mapping[str, Experiment]) -> Iterator[Finding]:
    if not any(line.startswith("## ") for line in prose_lines(text)):
        yield Finding(name, None, "", "expected at least one '## ' heading: progress is counted in sections")
    for line, message, unsure in _prose_breaches(text, experiments, panels=True, claims_need_marks=True):
        yield Finding(name, line, "", message, unsure)


def _check_pictures(sources: Sources) -> Iterator[Finding]:
    """Pictures that a text shows and the pack lacks, that no text shows, and those without words."""
    shown = set()
    texts = {**sources.markdown, **{name: file.text for name, file in sources.yaml.items()}}
    for name, text in texts.items():
        for number, line in enumerate(prose_lines(text), 1):
            for found in PICTURE.finditer(_INLINE_CODE.sub("", line)):
                shown.add(found["place"])
                if found["place"] not in sources.pictures:
                    yield Finding(
                        name, number, "", f"no picture {found['place']!r:.80} in the pack's pictures/"
                    )
                if not found["says"].strip():
                    message = "a picture without words; write in the brackets what it shows"
                    yield Finding(name, number, "", message, warning=True)
    for name in sorted(set(sources.pictures) - shown):
        yield Finding(name, None, "", "no text shows this picture", warning=True)


def _prose_breaches(
    text: str, experiments: Mapping[str, Experiment], *, panels: bool, claims_need_marks: bool
) -> Iterator[tuple[int, str, bool]]:
    """(line from 1, message, whether it may be meant so) for each breach of the prose rules."""
    lines = [_INLINE_CODE.sub(lambda match: " " * len(match.group()), line) for line in prose_lines(text)]
    for number, line in enumerate(lines, 1):
        for _, found in placeholders.malformed(line):
            said = f"{found[:80]!r} is no placeholder"
            yield number, f"{said}; expected {{{{ experiment:name.field }}}}, plot, claim, panel", False
        if match := _LETTER.search(line):
            said = f"{match.group()!r} reads like an option's letter"
            yield number, f"{said}; options are shuffled, quote it instead", True
        if match := _MEASURED.search(line):
            said = f"{match.group()!r} looks measured"
            yield number, f"{said}; write {{{{ experiment:name.field }}}} instead", True
    for number, paragraph in _paragraphs(lines):
        breaches = _placeholder_breaches(paragraph, experiments, panels_allowed=panels)
        yield from ((number, message, False) for message in breaches)
        marked = any(found.kind == "claim" for found in placeholders.find(paragraph))
        if claims_need_marks and not marked and (match := _COMPARISON.search(paragraph)):
            said = f"{match.group()!r} makes this paragraph a claim"
            yield number, f"{said}; add {{{{ claim:experiment-name }}}}", True


def _placeholder_breaches(
    paragraph: str, experiments: Mapping[str, Experiment], *, panels_allowed: bool
) -> Iterator[str]:
    for found in placeholders.find(paragraph):
        if found.kind == "panel":
            if found.experiment not in placeholders.PANELS:
                yield f"no panel {found.experiment!r}; there are {', '.join(placeholders.PANELS)}"
            elif not panels_allowed or paragraph.strip() != f"{{{{ panel:{found.experiment} }}}}":
                yield "a panel stands on a line of its own in a mode's Markdown"
        elif found.experiment not in experiments:
            yield f"no experiment {found.experiment!r}; declared: {', '.join(experiments)}"
        elif found.field and found.field not in experiments[found.experiment].fields:
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
