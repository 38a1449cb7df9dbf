"""What a folder or archive holds: files, what is left out and why, and what Headstart itself wrote."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from headstart.data.sources.names import TABLE_SUFFIXES, is_image_name, litter, why_not_an_image
from headstart.data.sources.reading import Source
from headstart.errors import printable
from headstart.files import OUTPUT_MARKER

MAX_NAME = 1024
"""Characters of a member's name; longer ones are no photographs', and cost memory."""

MAX_DEPTH = 32
"""Folders in folders that are looked into."""

_RECORDS = {"run.json": "a run", "comparison.json": "a comparison"}


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that was left out, and why; or a folder of such files."""

    name: str
    reason: str
    files: int = 1  # how many it stands for: more than one for a folder
    litter: bool = False  # nobody misses it: hidden, the system's, or written by Headstart itself

    def to_dict(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"name": self.name, "reason": self.reason, "files": self.files, "litter": self.litter}


@dataclass(frozen=True)
class Listing:
    """What a folder or archive holds. `files` and `left_out` together are all of it."""

    files: list[tuple[str, Source]]  # path below the root, with slashes
    folders: list[str]  # below the root, sorted, a few levels deep: classes, or splits and their classes
    left_out: list[Skipped] = field(default_factory=list)

    def images(self, *, below: str = "") -> tuple[list[tuple[str, Source]], list[Skipped]]:
        """What may be images, and everything else with its reason; names get `below` before them."""
        images: list[tuple[str, Source]] = []
        others: list[Skipped] = []
        for path, source in self.files:
            reason = why_not_an_image(path, source)
            if reason is None:
                images.append((below + path, source))
            else:
                others.append(Skipped(printable(below + path), reason))
        return images, others + [replace(item, name=printable(below) + item.name) for item in self.left_out]


@dataclass(frozen=True, slots=True)
class Member:
    """One entry of an archive."""

    name: str
    source: Source | None  # None for a folder
    problem: str | None = None  # why it cannot be used, if that is known already


def without_output(
    files: Sequence[tuple[str, Source]], folders: Iterable[str], left_out: Sequence[Skipped]
) -> Listing:
    """The listing without folders that Headstart wrote (runs, heat maps, exports, comparisons).

    Names in `left_out` come as they are and leave printable.
    """
    made = _made_by_headstart(files, left_out)

    def output_of(path: str) -> str | None:
        return next((folder for folder in _parents(path + "/") if folder in made), None) if made else None

    kept = [file for file in files if output_of(file[0]) is None]
    counts = Counter(folder for name, _ in files if (folder := output_of(name)))
    still: list[Skipped] = []
    for item in left_out:
        folder = output_of(item.name)
        if folder is None:
            still.append(item)
        else:
            counts[folder] += item.files
    holding = {parent for name, _ in kept for parent in _parents(name)} if made else set()
    ours = {folder for folder in folders if output_of(folder)}
    ours |= {parent for folder in made for parent in _parents(folder) if parent not in holding}  # as runs/
    still += [
        Skipped(f"{folder}/", f"{made[folder]} that Headstart wrote", count, litter=True)
        for folder, count in sorted(counts.items())
    ]
    shown = [replace(item, name=printable(item.name)) for item in still]
    return Listing(kept, sorted(set(folders) - ours), shown)


def _made_by_headstart(files: Sequence[tuple[str, Source]], left_out: Sequence[Skipped]) -> dict[str, str]:
    """Folders of our own output and what they are: by the marker, or by the record of a run or comparison.

    A record beside photographs is somebody else's file of that name.
    """
    made: dict[str, str] = {}
    for item in left_out:
        folder, _, name = item.name.rpartition("/")
        if folder and name == OUTPUT_MARKER:
            made[folder] = "output"
    records = {}
    for path, _ in files:
        folder, _, name = path.rpartition("/")
        if folder and name in _RECORDS:
            records[folder] = _RECORDS[name]
    if records:
        beside = {path.rpartition("/")[0] for path, _ in files if is_image_name(path)}
        made |= {folder: what for folder, what in records.items() if folder not in beside}
    return {folder: what for folder, what in made.items() if not made.keys() & set(_parents(folder))}


def _parents(path: str) -> list[str]:
    parts = path.split("/")[:-1]
    return ["/".join(parts[:end]) for end in range(1, len(parts) + 1)]


def arrange(members: Iterable[Member], *, unwrapped: bool = True) -> Listing:
    """An archive's members as a folder would list them; folders that wrap all of it are taken off.

    Names lose a leading `./` or `/`, and backslashes are slashes. Of members of one name the last counts, as
    it does when the archive is unpacked. Memory grows with the names alone: no parent is kept for each.
    """
    files: dict[str, Source] = {}
    made: list[str] = []  # folders with an entry of their own: empty ones show in no other way
    left_out: list[Skipped] = []
    passed_over: dict[tuple[str, str], int] = {}
    for member in members:
        path, problem = _normal(member.name)
        if problem is not None:
            if member.source is not None:
                left_out.append(Skipped(_short(member.name), problem))
            continue
        if not path:
            if member.source is not None:
                left_out.append(Skipped("(no name)", "has no name"))
            continue
        found = _litter_in(path, folder=member.source is None)
        if found is not None:
            place, reason = found
            if member.source is None:
                continue
            passed_over[found] = passed_over.get((place, reason), 0) + 1
        elif member.source is None:
            made.append(f"{path}/")
        elif member.problem is not None:
            made.append(path)  # its folder is there, although it may be empty now
            left_out.append(Skipped(path, member.problem))
        else:
            if files.pop(path, None) is not None:
                reason = "is in the archive more than once; the last one of that name counts"
                left_out.append(Skipped(path, reason))
            files[path] = member.source
    left_out += [Skipped(place, reason, count, litter=True) for (place, reason), count in passed_over.items()]
    top = wrapper_of(files) if unwrapped else ""
    inner = [(name.removeprefix(top), files[name]) for name in sorted(files)]
    folders: set[str] = set()
    for path in (*files, *made):
        if path.startswith(top):
            folders.update(_parents(path.removeprefix(top))[:2])
    left_out = [replace(item, name=item.name.removeprefix(top)) for item in left_out]
    return without_output(inner, folders, left_out)


def _normal(name: str) -> tuple[str, str | None]:
    """The path below the root, and why the member is left out, if it is."""
    if len(name) > MAX_NAME:
        return "", f"its name has {len(name):,} characters; at most {MAX_NAME:,} are read"
    parts = [part for part in name.replace("\\", "/").split("/") if part not in ("", ".")]
    if ".." in parts:
        return "", "its name leads out of the archive (..)"
    if len(parts) > MAX_DEPTH:
        return "", f"lies {len(parts):,} folders deep; at most {MAX_DEPTH} are read"
    return "/".join(parts), None


def _short(name: str) -> str:
    return name if len(name) <= 100 else f"{name[:100]}…"


def _litter_in(path: str, *, folder: bool) -> tuple[str, str] | None:
    """The outermost part of a path that is litter, as a path, and why."""
    parts = path.split("/")
    for number, part in enumerate(parts):
        inside = number < len(parts) - 1
        reason = litter(part, folder=inside or folder)
        if reason is not None:
            return "/".join(parts[: number + 1]) + ("/" if inside else ""), reason
    return None


def wrapper_of(names: Iterable[str]) -> str:
    """The folders around everything, as `data/photos/`; empty where there are none.

    A README beside them wraps nothing; what is inside must have folders or a table of its own.
    """
    paths = [name for name in names if _may_be_data(name)]
    top = ""
    while paths:
        tops, deeper = set(), False
        for path in paths:
            first, slash, rest = path[len(top) :].partition("/")
            tops.add(first + slash)
            deeper = deeper or "/" in rest or rest.lower().endswith(TABLE_SUFFIXES)
            if len(tops) > 1:
                break
        only = tops.pop() if len(tops) == 1 else ""
        if not only.endswith("/") or not deeper:
            break
        top += only
    return top


def _may_be_data(name: str) -> bool:
    """Whether a file may be a labelled image or a table; one without an extension only inside a folder."""
    last = name.rpartition("/")[2]
    if "." not in last:
        return "/" in name
    return is_image_name(last) or last.lower().endswith(TABLE_SUFFIXES)
