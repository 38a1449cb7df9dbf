"""Recognises images, tables, archives and system files by their names."""

from __future__ import annotations

import os
import re

from headstart.data.images import IMAGE_SUFFIXES, looks_like_an_image
from headstart.data.sources.reading import Source
from headstart.errors import ImageError

TABLE_SUFFIXES = (".csv", ".tsv", ".parquet", ".jsonl")

LABEL_SUFFIXES = (".cls", ".json", ".txt")
"""Of what lies beside an image in a WebDataset shard, the best first."""

TAR_SUFFIXES = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tbz", ".tar.xz", ".txz")

ARCHIVE_SUFFIXES = (".zip", *TAR_SUFFIXES)
"""Those that are read in place."""

OTHER_ARCHIVES = (".7z", ".rar", ".tar.zst", ".tzst", ".cab", ".gz", ".bz2", ".xz", ".zst")
"""Those that the user has to unpack."""

_SYSTEM_FILES = frozenset(
    {"thumbs.db", "ehthumbs.db", "ehthumbs_vista.db", "desktop.ini", "icon\r", "picasa.ini"}
)

_SYSTEM_FOLDERS = re.compile(
    r"""@(eadir|recycle|recently-snapshot|tmp|sharebin|sharesnap) | \#(recycle|snapshot) | ~snapshot
    | \$recycle\.bin | recycle\.bin | recycler | system\ volume\ information | lost\+found | found\.\d{3}
    | lost\.dir | network\ trash\ folder | temporary\ items | thevolumesettingsfolder | trash-\d+
    | __macosx | __pycache__ | .+\.lrdata""",
    re.VERBOSE | re.IGNORECASE,
)
"""Thumbnails, recycle bins and snapshots of Synology, QNAP, NetApp, Windows, Linux, Android and macOS."""


def litter(name: str, *, folder: bool) -> str | None:
    """Why a name is that of a hidden or system file or folder and no photograph; None for all others."""
    if name.startswith("._"):
        return "what macOS notes about another file"
    if name.startswith("."):
        return "hidden"
    if folder:
        known = _SYSTEM_FOLDERS.fullmatch(name)
        return "a folder of the system: thumbnails, deleted files or snapshots" if known else None
    return "a file of the system" if name.lower() in _SYSTEM_FILES else None


def archive_suffix(name: str) -> str | None:
    """The ending by which a name is that of an archive, readable here or not, in lower case."""
    lower = name.lower()
    return next((each for each in (*ARCHIVE_SUFFIXES, *OTHER_ARCHIVES) if lower.endswith(each)), None)


def is_image_name(name: str) -> bool:
    """Whether a file is called like an image."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES


def why_not_an_image(name: str, source: Source) -> str | None:
    """The reason to skip a file by its name (or, without an extension, its first bytes); None to keep it."""
    if is_image_name(name):
        return None
    suffix = os.path.splitext(name)[1].lower()
    if archive_suffix(name):
        return f"{suffix} is an archive; give it by itself, or unpack it"
    if suffix:
        return f"{suffix} is no image format that is read here"
    try:  # files without an extension may be anything
        head = source.read()[:64]
    except ImageError as error:
        return str(error)
    return None if looks_like_an_image(bytes(head)) else "not an image"
