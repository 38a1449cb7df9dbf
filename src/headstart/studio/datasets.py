"""Data sets opened in the studio: name, place, and the results of their check and plan.

One folder for each, `HEADSTART_HOME/studio/data/ID`, with `about.json`, `report.json`, `plan.json` and, for
what a browser sent, the photographs themselves.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
import threading
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from headstart.data.dataset import Dataset, Sample, read_dataset
from headstart.errors import DatasetError, RunError, printable
from headstart.files import MEBI, Unreadable, read_json, write_whole
from headstart.heads.tasks import only_single_label
from headstart.runs import timestamp
from headstart.web.recent import Recent

_KEPT_LISTINGS = 4
"""Listings in memory: a page of pictures asks for the same one dozens of times."""

_LARGEST_REPORT = 512 * MEBI
"""Bytes of what a check found: it names every file of a group of copies."""

PHOTOS = "photos"


@dataclass(frozen=True)
class Collection:
    """One data set.

    Attributes:
        id: for addresses.
        name: as shown.
        path: the folder, table or zip.
        sent: whether a browser sent it, so that it is ours to add to and to remove.
        opened: when, ISO 8601.
    """

    id: str
    name: str
    path: Path
    sent: bool
    opened: str

    def dataset(self) -> Dataset:
        """The labelled images; DatasetError where they do not form a data set."""
        found = read_dataset(self.path)
        only_single_label(found.task, "the studio", instead="take headstart fit")
        return found


class Collections:
    """All of them. Safe to share between threads."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._turn = threading.Lock()  # one request lists a data set; the others wait for it
        self._listings: Recent[tuple[int, dict[str, Sample]]] = Recent(_KEPT_LISTINGS)

    def all(self) -> list[Collection]:
        """The newest first."""
        files = self.folder.glob("*/about.json") if self.folder.is_dir() else ()
        found = [each for each in map(_read, files) if each is not None]
        return sorted(found, key=lambda each: each.opened, reverse=True)

    def get(self, identity: str) -> Collection | None:
        """One by its id."""
        known = identity.isascii() and identity.isalnum()
        return _read(self.folder / identity / "about.json") if known else None

    def open(self, path: Path) -> Collection:
        """Notes a folder, table or zip of this machine; opened again it is the same one."""
        identity = hashlib.blake2b(os.fsencode(path.resolve()), digest_size=6).hexdigest()
        name = printable(path.resolve().stem if path.is_file() else path.resolve().name) or "photographs"
        return self._note(Collection(identity, name, path.resolve(), sent=False, opened=timestamp()))

    def receive(self, name: str, *, listed: bool = True) -> Collection:
        """A new, empty one for photographs that a browser sends; readable by its owner alone.

        ``name`` names a folder, so it must come from `uploads.clean`. What is not ``listed`` is no data set
        to train on: photographs to classify, say.
        """
        identity = secrets.token_hex(6)
        path = self.folder / identity / PHOTOS / name  # runs on it are named by it
        path.mkdir(parents=True, mode=0o700)
        made = Collection(identity, name, path, sent=True, opened=timestamp())
        return self._note(made) if listed else made

    def moved(self, collection: Collection, path: Path) -> Collection:
        """The same with its images in another place (a zip that was sent)."""
        return self._note(Collection(**{**asdict(collection), "path": path}))

    def forget(self, collection: Collection) -> None:
        """Removes what the studio keeps of it; the photographs only where a browser sent them."""
        shutil.rmtree(self.folder / collection.id, ignore_errors=True)

    def write(self, collection: Collection, name: str, facts: Mapping[str, Any]) -> None:
        """Keeps ``name.json`` beside it, whole or not at all."""
        _write(self.folder / collection.id / f"{name}.json", facts)

    def read(self, collection: Collection, name: str) -> dict[str, Any] | None:
        """What was kept under this name; None where nothing was."""
        try:
            found = read_json(self.folder / collection.id / f"{name}.json", limit=_LARGEST_REPORT)
        except Unreadable:
            return None
        return found if isinstance(found, dict) else None

    def sample(self, collection: Collection, name: str) -> Sample | None:
        """One image by the name that the report gives it. A name is looked up, never opened."""
        stamp = _stamp(collection.path)
        with self._turn:
            known = self._listings.peek(collection.id)
            if known is None or known[0] != stamp:
                try:
                    found = read_dataset(collection.path, for_training=False, split_by_folder=False)
                except DatasetError:
                    return None
                known = (stamp, {sample.name: sample for sample in found.samples})
            self._listings.keep(known, name=collection.id)
        return known[1].get(name)

    def _note(self, collection: Collection) -> Collection:
        folder = self.folder / collection.id
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            _write(folder / "about.json", {**asdict(collection), "path": os.fsencode(collection.path).hex()})
        except OSError as error:
            raise RunError(f"{folder}: {error.strerror}; set HEADSTART_HOME to a folder of yours") from None
        return collection


def _read(file: Path) -> Collection | None:
    try:
        facts = read_json(file)
        path = Path(os.fsdecode(bytes.fromhex(facts["path"])))  # a path need not be text
        return Collection(facts["id"], facts["name"], path, bool(facts["sent"]), facts["opened"])
    except (Unreadable, ValueError, KeyError, TypeError):
        return None


def _write(file: Path, facts: Mapping[str, Any]) -> None:
    write_whole(file, json.dumps(facts, default=str), mode=0o600)


def _stamp(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
