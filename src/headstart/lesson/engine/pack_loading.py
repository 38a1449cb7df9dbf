"""Finds, loads and starts lesson packs: `headstart lesson new | check` call these."""

from __future__ import annotations

import re
from pathlib import Path

from headstart.errors import LessonError
from headstart.files import write_whole
from headstart.lesson.engine import packlint
from headstart.lesson.engine.pack import Pack, slug
from headstart.lesson.engine.sources import Finding, read_sources

BUNDLED = Path(__file__).parents[1] / "packs"
_NEW = Path(__file__).parents[1] / "new-pack"
"""What a new pack holds."""

DEFAULT = "why-pretrained-models-save-time"


def available() -> list[str]:
    """The slugs of the packs that come with Headstart."""
    return sorted(path.parent.name for path in BUNDLED.glob("*/pack.yaml"))


def check_pack(folder: str | Path) -> list[Finding]:
    """Every breach of the rules in a pack's folder, warnings too; an empty list means the pack is sound.

    Raises LessonError where the folder is no pack at all.
    """
    return packlint.check(read_sources(_folder(folder)))[1]


def load_pack(pack: str | Path | None = None) -> Pack:
    """Loads a pack by the slug of a bundled one, or from a folder; the bundled lesson where neither is given.

    Raises:
        LessonError: there is no such pack, or it breaks a rule (the first breach is named).
        MissingExtra: PyYAML is not installed.
    """
    sources = read_sources(_folder(pack or DEFAULT))
    found, findings = packlint.check(sources)
    if found is None:
        broken = [finding for finding in findings if not finding.warning]
        more = f" (and {len(broken) - 1} more: headstart lesson check)" if len(broken) > 1 else ""
        raise LessonError(f"lesson pack {sources.slug!r}: {broken[0]}{more}")
    return found


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


def new_pack(name: str, parent: str | Path = ".") -> Path:
    """Writes a small pack that passes the check, to be filled in. Returns its folder.

    Raises LessonError where the name is unusable or the folder exists.
    """
    if wrong := slug(name):
        raise LessonError(f"{name!r} cannot name a pack: {wrong}")
    folder = Path(parent) / name
    if folder.exists():
        raise LessonError(f"{folder} exists already; choose another name or remove it")
    for source in _NEW.rglob("*.*"):
        path = folder / source.relative_to(_NEW)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, source.read_text(encoding="utf-8"))
    return folder
