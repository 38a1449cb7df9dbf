"""WebDataset shards: tars in which `000123.jpg` has its label beside it, in `000123.cls`, `.json` or `.txt`.

The format: https://github.com/webdataset/webdataset ("The WebDataset Format"); a sample's key is its path up
to the first dot of the name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from headstart.data.dataset.labels import as_label
from headstart.data.dataset.rows import Label, LabelledRow, build
from headstart.data.dataset.several import apart, labels_of
from headstart.data.dataset.split_names import sides_of
from headstart.data.dataset.values import Dataset, Skipped
from headstart.data.sources import Listing, Place, Source, remote, why_not_an_image
from headstart.data.sources.names import LABEL_SUFFIXES, TAR_SUFFIXES
from headstart.errors import DatasetError, ImageError, printable
from headstart.files import is_there

_LABEL_KEYS = ("label_name", "class_name", "label", "class", "cls", "category")

_LONGEST_LABEL_FILE = 2**20  # bytes

_MOST_SHARDS = 100_000

_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}|\{([^{}]*,[^{}]*)\}")


def shard_paths(text: str) -> list[Place]:
    """The shards that a name with braces means: `train-{0000..0003}.tar`, `{train,val}.tar`."""
    names = [text]
    while (found := _BRACES.search(names[0])) is not None:
        first, last, words = found.groups()
        if words is None and int(last) - int(first) >= _MOST_SHARDS:
            raise DatasetError(f"{printable(text)}: at most {_MOST_SHARDS:,} shards are read")
        width = len(first or "")
        parts = words.split(",") if words else [f"{n:0{width}}" for n in range(int(first), int(last) + 1)]
        names = [
            name[: found.start()] + part + name[found.start() + len(found[0]) :]
            for name in names
            for part in parts
        ]
        if not 0 < len(names) <= _MOST_SHARDS:
            raise DatasetError(f"{printable(text)}: expected 1 to {_MOST_SHARDS:,} shards")
    places = [remote(name) or Path(name) for name in names]
    for each in places:
        if isinstance(each, Path) and not is_there(each, regular=True):
            raise DatasetError(f"{printable(text)}: no such shard: {printable(each)}")
    return places


def shards_in(listing: Listing) -> list[str]:
    """The tars of a folder that holds no image besides."""
    tars = [name for name, _ in listing.files if name.lower().endswith(TAR_SUFFIXES)]
    return [] if not tars or listing.images()[0] else tars


def is_shard(listing: Listing) -> bool:
    """Whether an archive's images have labels beside them; with class folders only `.cls` says so."""
    found = {_key(name) for name, _ in listing.files}
    classes = len({folder.split("/", 1)[0] for folder in listing.folders}) > 1
    suffixes = LABEL_SUFFIXES[:1] if classes else LABEL_SUFFIXES
    return any((_key(name)[0], suffix) in found for name, _ in listing.images()[0] for suffix in suffixes)


def from_shards(name: str, shards: Mapping[str, Listing], *, where: str, task: str | None) -> Dataset:
    """The data set of one or more shards, by their names; `where` is shown in errors."""
    sides = sides_of(Path(shard).name for shard in shards)
    splits = sides if len(sides) == len(shards) and "train" in sides.values() else {}
    rows: list[LabelledRow] = []
    skipped: list[Skipped] = []
    for shard, listing in shards.items():
        prefix = f"{shard}/" if len(shards) > 1 else ""
        beside = {_key(path): source for path, source in listing.files}
        used: set[str] = set()
        for path, source in listing.files:
            if _key(path)[1] in LABEL_SUFFIXES:
                continue
            reason = why_not_an_image(path, source)
            label, problem = (None, reason) if reason else _label_of(_key(path)[0], beside)
            if label is None:
                skipped.append(Skipped(printable(prefix + path), problem or "has no label"))
            else:
                used.add(_key(path)[0])
                rows.append(LabelledRow(prefix + path, label, splits.get(Path(shard).name), source))
        skipped += [
            Skipped(printable(prefix + path), "has no image beside it")
            for path, _ in listing.files
            if _key(path)[1] in LABEL_SUFFIXES and _key(path)[0] not in used
        ]
        skipped += [replace(item, name=printable(prefix) + item.name) for item in listing.left_out]
    if not rows:
        why = f" ({skipped[0].name}: {skipped[0].reason})" if skipped else ""
        raise DatasetError(
            f"{where}: no image with a label{why}; expected 000123.jpg with 000123.cls, .json or .txt"
        )
    lists = any(isinstance(row.label, tuple) for row in rows)
    rows, assumed = apart(rows, task=task, where=where, whole=lists)
    return build(name, rows, skipped, where=where, notes=assumed, task=task)


def _key(path: str) -> tuple[str, str]:
    folder, slash, name = path.rpartition("/")
    stem, dot, suffix = name.partition(".")
    return folder + slash + stem, (dot + suffix).lower()


def _label_of(key: str, beside: Mapping[tuple[str, str], Source]) -> tuple[Label | None, str | None]:
    """An image's label, or why it has none."""
    suffix = next((each for each in LABEL_SUFFIXES if (key, each) in beside), None)
    if suffix is None:
        return None, "no .cls, .json or .txt lies beside it, so it has no label"
    try:
        data = bytes(beside[key, suffix].read())
        if len(data) > _LONGEST_LABEL_FILE:
            return None, f"its {suffix} has {len(data):,} bytes, more than any label"
        text = data.decode("utf-8-sig")
        label = _in_json(json.loads(text)) if suffix == ".json" else text.strip()
    except (DatasetError, ImageError, ValueError, RecursionError) as error:
        return None, f"its {suffix} cannot be read: {printable(str(error))}"
    return (label, None) if label else (None, f"its {suffix} names no label")


def _in_json(value: object) -> Label:
    if isinstance(value, dict):
        value = next((value[key] for key in _LABEL_KEYS if value.get(key) is not None), None)
    if isinstance(value, list):
        return labels_of(value)
    if isinstance(value, float):
        return as_label(value) or ""
    return str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
