"""The files of a pack, read but not yet believed.

pack.yaml             title, subject, track, summary, modes, experiments, badge
modes/<mode>.md       one per mode
problems/<mode>.yaml  the problems of a mode that asks some
cards.yaml            review cards          (optional)
tasks.yaml            hands-on tasks        (optional)
project.yaml          the project's task    (optional)
pictures/             PNG, JPEG or WebP     (optional)
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from headstart.errors import LessonError, MissingExtra, printable
from headstart.files import Unreadable, read_regular

KeyPath = tuple[str | int, ...]

LARGEST_FILE = 1_000_000
"""Bytes; a pack is prose, and a larger file is a mistake."""

MOST_FILES = 2_000
"""Files and folders below a pack's; a pack has a dozen, and a larger folder is something else."""

LARGEST_PICTURE, MOST_PICTURES = 2_000_000, 60
"""Bytes of a picture, and how many a pack has: they are kept in memory while it is served."""

PICTURE = re.compile(r"!\[(?P<says>[^\]\n]*)\]\((?P<place>[^)\s]*)\)")
"""A picture in Markdown."""

_FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
_PICTURE_NAME = re.compile(r"pictures/[a-z0-9][a-z0-9_-]*\.(?:png|jpg|jpeg|webp)")

DEEPEST = 20
"""Levels of YAML; the deepest value of a pack lies at eight."""


@dataclass(frozen=True)
class Finding:
    """One breach of a pack's rules, and where it is. What may be meant so is a warning."""

    file: str
    line: int | None
    key: str
    message: str
    warning: bool = False

    def __str__(self) -> str:
        place = self.file + (f":{self.line}" if self.line else "") + (f" ({self.key})" if self.key else "")
        return printable(f"{place}: {'warning: ' if self.warning else ''}{self.message}")


@dataclass(frozen=True)
class Picture:
    """A picture of a pack, whole and seen to be one."""

    data: bytes = field(repr=False)
    media_type: str


@dataclass(frozen=True)
class YamlFile:
    """A parsed YAML file; `lines` says on which line (from 1) each value stands."""

    name: str
    data: Any
    lines: Mapping[KeyPath, int] = field(default_factory=dict)
    text: str = ""

    def line(self, path: KeyPath) -> int | None:
        """The line of a value, or of the nearest value around it."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path)

    def finding(self, path: KeyPath, message: str, *, warning: bool = False) -> Finding:
        """A finding at that value."""
        return Finding(self.name, self.line(path), dotted(path), message, warning)


@dataclass(frozen=True)
class Sources:
    """Everything read from a pack's folder, and what could not be read."""

    slug: str
    yaml: Mapping[str, YamlFile]
    markdown: Mapping[str, str]
    broken: tuple[Finding, ...]
    fingerprint: str
    pictures: Mapping[str, Picture] = field(default_factory=dict)


def dotted(path: KeyPath) -> str:
    """A key path as people write it: `options[2].feedback`."""
    text = ""
    for part in path:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def read_sources(folder: Path) -> Sources:
    """Reads a pack's folder.

    Raises:
        LessonError: it is no folder, or has no pack.yaml.
        MissingExtra: PyYAML is not installed.
    """
    if not (folder / "pack.yaml").is_file():
        raise LessonError(f"{printable(folder)} is no lesson pack: expected a folder with a pack.yaml")
    documents: dict[str, YamlFile] = {}
    markdown: dict[str, str] = {}
    broken: list[Finding] = []
    pictures: dict[str, Picture] = {}
    digest = hashlib.blake2b(digest_size=16)
    for path in _files(folder):
        name = path.relative_to(folder).as_posix()
        try:
            if name.startswith("pictures/"):
                pictures[name] = _picture(path, name, folder=folder)
                digest.update(f"{name}\0".encode() + pictures[name].data)
                continue
            text = _text(path, name, folder=folder)
            digest.update(f"{name}\0{text}\0".encode())
            if path.suffix == ".md":
                markdown[name] = text
            else:
                documents[name] = read_yaml(name, text)
        except _Broken as error:
            broken.append(error.finding)
    if len(pictures) > MOST_PICTURES:
        broken.append(Finding("pictures", None, "", f"{len(pictures)} pictures; at most {MOST_PICTURES}"))
    slug = folder.resolve().name
    return Sources(slug, documents, markdown, tuple(broken), digest.hexdigest(), pictures)


class _Broken(Exception):
    def __init__(self, finding: Finding) -> None:
        super().__init__(str(finding))
        self.finding = finding


def _files(folder: Path) -> list[Path]:
    """The files of a pack, in order of their names. LessonError for more than a pack has."""
    found: list[Path] = []
    entries = 0
    for place, folders, names in os.walk(folder):  # does not follow links
        entries += len(folders) + len(names)
        if entries > MOST_FILES:
            raise LessonError(f"{printable(folder)} is no lesson pack: it has over {MOST_FILES:,} files")
        below = Path(place)
        found += [below / name for name in names if name.endswith(".yaml")]
        if below == folder / "pictures":
            found += [below / name for name in names if not name.startswith(".")]
        if below == folder / "modes":
            found += [below / name for name in names if name.endswith(".md")]
    return sorted(found)


def _text(path: Path, name: str, *, folder: Path) -> str:
    try:
        return read_regular(path, limit=LARGEST_FILE, below=folder).decode("utf-8")
    except Unreadable as error:
        raise _Broken(Finding(name, None, "", str(error))) from None
    except UnicodeDecodeError as error:
        raise _Broken(Finding(name, None, "", f"not UTF-8 at byte {error.start}")) from None


def _picture(path: Path, name: str, *, folder: Path) -> Picture:
    """A picture that has been decoded once: what is none, or too large, breaks a rule."""
    from headstart.data.images import open_image
    from headstart.errors import ImageError

    if not _PICTURE_NAME.fullmatch(name):
        message = "expected a name of small letters, digits and hyphens that ends in .png, .jpg or .webp"
        raise _Broken(Finding(name, None, "", message))
    try:
        data = read_regular(path, limit=LARGEST_PICTURE, below=folder)
        facts = open_image(data)[1]
    except (Unreadable, ImageError) as error:
        raise _Broken(Finding(name, None, "", str(error))) from None
    if facts.format not in _FORMATS:
        raise _Broken(Finding(name, None, "", f"{facts.format} is not shown; expected PNG, JPEG or WebP"))
    return Picture(data, _FORMATS[facts.format])


def import_yaml() -> Any:
    """PyYAML, which only packs need."""
    try:
        import yaml
    except ImportError as error:
        raise MissingExtra("reading lesson packs", extra="learn") from error
    return yaml


def read_yaml(name: str, text: str) -> YamlFile:
    """Parses YAML with the safe loader, keeping line numbers and refusing a key written twice."""
    yaml = import_yaml()
    # Both make plain values only; the one in C, where PyYAML has it, is ten times as fast.
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _refuse_bombs(name, yaml.parse(text, Loader=loader))
        node = yaml.compose(text, Loader=loader)
        data = yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else None
        raise _Broken(Finding(name, line, "", f"not valid YAML: {error.problem}")) from None
    except (yaml.YAMLError, ValueError) as error:
        raise _Broken(Finding(name, None, "", f"not valid YAML: {str(error).splitlines()[0]}")) from None
    lines: dict[KeyPath, int] = {}
    for path, at in _walk(node, ()):
        if path in lines:
            raise _Broken(Finding(name, at, dotted(path), "written twice; keep one"))
        lines[path] = at
    return YamlFile(name, data, lines, text)


def _refuse_bombs(name: str, events: Iterable[Any]) -> None:
    """Refuses, while reading, what a few bytes blow up: aliases (billions of values) and deep nesting."""
    depth = 0
    for event in events:
        line = event.start_mark.line + 1 if event.start_mark else None
        kind = type(event).__name__
        depth += kind.endswith(("SequenceStartEvent", "MappingStartEvent"))
        depth -= kind.endswith(("SequenceEndEvent", "MappingEndEvent"))
        if kind == "AliasEvent":
            raise _Broken(Finding(name, line, "", "aliases are not accepted"))
        if depth > DEEPEST:
            raise _Broken(Finding(name, line, "", f"nested more than {DEEPEST} deep"))


def _walk(node: Any, path: KeyPath) -> Iterator[tuple[KeyPath, int]]:
    """(path, line) of every value below a composed YAML node."""
    if node is None:
        return
    yield path, node.start_mark.line + 1
    if node.id == "mapping":
        for key, value in node.value:
            yield from _walk(value, (*path, str(key.value)))
    elif node.id == "sequence":
        for index, value in enumerate(node.value):
            yield from _walk(value, (*path, index))
