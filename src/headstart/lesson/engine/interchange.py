"""Question files of other systems into packs: Moodle XML (`moodle`) and GIFT (`gift`).

What a pack can ask is taken; the rest is listed with its place and reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from textwrap import indent
from typing import Any

from headstart.errors import LessonError, printable
from headstart.files import Unreadable, read_regular, write_whole
from headstart.lesson.engine import placeholders
from headstart.lesson.engine.gift import from_gift
from headstart.lesson.engine.moodle import from_moodle_xml
from headstart.lesson.engine.pack import Problem
from headstart.lesson.engine.questions import LARGEST_IMPORT, Imported


def read_file(path: Path) -> Imported:
    """The problems of a Moodle XML file (`.xml`) or a GIFT file (any other name).

    Raises LessonError for a file that cannot be read or holds no question that can be used.
    """
    try:
        text = read_regular(path, limit=4 * LARGEST_IMPORT).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise LessonError(f"{printable(path)}: not UTF-8 text; expected Moodle XML or GIFT") from None
    except Unreadable as error:
        raise LessonError(f"{printable(path)}: {error}") from None
    return from_moodle_xml(text) if path.suffix.lower() == ".xml" else from_gift(text)


def add_to_pack(problems: Sequence[Problem], folder: Path, *, mode: str) -> Path:
    """Writes problems behind those that a pack's mode has; what it had stays as it was written.

    Returns:
        The file.

    Raises:
        LessonError: the folder is no pack, its file is damaged, or it has a problem of the same slug.
        MissingExtra: PyYAML is not installed.
    """
    from headstart.lesson.engine.sources import import_yaml, read_sources

    name = f"problems/{mode}.yaml"
    sources = read_sources(folder)
    if broken := [finding for finding in sources.broken if finding.file == name]:
        raise LessonError(f"{folder}: {broken[0]}")
    data = sources.yaml[name].data if name in sources.yaml else None
    there = [entry.get("slug") for entry in (data or {}).get("problems") or () if isinstance(entry, dict)]
    for problem in problems:
        if problem.slug in there:
            raise LessonError(
                f"{folder / name} has a problem {problem.slug!r} already; rename one of the two"
            )
        there.append(problem.slug)
    entries = [_entry(problem) for problem in problems]
    text = _dumped(import_yaml(), entries)
    file = folder / name
    before = sources.yaml[name].text.rstrip() + "\n" if data else "problems:\n"
    file.parent.mkdir(exist_ok=True)
    write_whole(file, before + indent(text, "  "))
    return file


def _dumped(yaml: Any, entries: Sequence[Mapping[str, Any]]) -> str:
    """YAML as people write it: a text of several lines stands as it is."""

    class Dumper(yaml.SafeDumper):  # type: ignore[misc]
        pass

    def text(dumper: Any, value: str) -> Any:
        return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)

    Dumper.add_representer(str, text)
    found: str = yaml.dump(entries, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=100)
    return found


def _entry(value: Any) -> Any:
    """A problem, or a part of one, as a pack's file has it: what is as usual is left out, variants' too."""
    if isinstance(value, tuple):
        return [_entry(each) for each in value]
    if not is_dataclass(value):
        return value
    pairs = ((field, getattr(value, field.name)) for field in fields(value))
    return {field.name: _entry(found) for field, found in pairs if found != field.default}


def filled(problems: Iterable[Problem], results: Mapping[str, Mapping[str, object]]) -> list[Problem]:
    """The problems with measured numbers where placeholders stood, for those who read them elsewhere."""

    def fill(text: str) -> str:
        note = placeholders.footnote(text, results)
        return placeholders.fill(text, results).strip() + (f"\n\n{note}" if note else "")

    def filled_in(problem: Problem) -> Problem:
        return replace(
            problem,
            prompt=fill(problem.prompt),
            hint=fill(problem.hint),
            explanation=fill(problem.explanation),
            options=tuple(
                replace(one, text=fill(one.text), feedback=fill(one.feedback)) for one in problem.options
            ),
            variants=tuple(map(filled_in, problem.variants)),
        )

    return [filled_in(problem) for problem in problems]
