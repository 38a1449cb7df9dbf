"""Photographs without labels: grouped by likeness; groups that are given a name become a data set."""

from __future__ import annotations

import json
import os
from math import isqrt
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Form, Request
from starlette.responses import Response

from headstart.data.sources import FileSource
from headstart.errors import DatasetError, OptionError, printable
from headstart.files import MEBI, Unreadable, read_regular, write_whole
from headstart.studio import folders, image_answers
from headstart.studio.datasets import Collection
from headstart.studio.jobs import job_of, told_of
from headstart.studio.state import CollectionOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.studio.workers import Result, Teller
from headstart.web.app import FormOf, leave, text_of
from headstart.web.jobs import Job

router = APIRouter()

SHOWN = 12
"""Photographs of a group that are shown, and that its name is given to."""

MOST_GROUPS = 40
_LONGEST_NAME = 60
_FEWEST = 6
"""Photographs with which grouping begins to make sense."""

_GROUPS = "groups"


def is_unlabelled(collection: Collection) -> bool:
    """Whether it is a folder of photographs without folders for classes."""
    inside, pictures = folders.count(collection.path)
    return not inside and pictures > 0


def is_grouped(studio: Studio, collection: Collection) -> bool:
    """Whether its labels were given to groups here."""
    return collection.path == _table(studio, collection)


def labelled(studio: Studio, collection: Collection) -> Collection:
    """The data set that names given to groups of these photographs made; itself where there is none."""
    table = _table(studio, collection)
    return studio.collections.moved(collection, table) if table.is_file() else collection


def begin(studio: Studio, collection: Collection, *, count: int = 0) -> str:
    """Queues the grouping of its photographs; the address of the page that shows it."""
    place = _place(studio, collection)
    _, pictures = folders.count(place)
    if pictures < _FEWEST:
        noun = "photograph" if pictures == 1 else "photographs"
        raise OptionError(
            f"{pictures} {noun} in {printable(place.name)}: expected {_FEWEST} or more to group"
        )
    body = {"path": os.fsencode(place).hex(), "count": count or min(12, max(3, isqrt(pictures // 2)))}
    studio.add("group", name=collection.id, body=body)
    return f"/data/{collection.id}/groups"


def group_job(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: features of all photographs, and groups of those that are alike."""
    from headstart.curation.likeness import groups_of
    from headstart.features.embedding import embed

    collection = studio.collections.get(job.name)
    if collection is None:
        raise OptionError("these photographs are not open any more")
    place = _place(studio, collection)
    found = embed(place, progress=teller.on_progress)
    groups = groups_of(found.vectors, count=int(job.body["count"]))
    paths = [os.path.relpath(path, place) for path in found.paths]
    skipped = [each.to_dict() for each in found.skipped]
    facts = {"place": os.fsencode(place).hex(), "paths": paths, "groups": groups, "skipped": skipped}
    studio.collections.write(collection, _GROUPS, facts)
    return {}


@router.get("/data/{identity}/groups")
def groups_page(request: Request, studio: StudioOf, collection: CollectionOf) -> Response:
    """Groups of photographs that look alike, each with a field for its name."""
    kept = _grouped(studio, collection)
    given, keys = _given(studio, collection), _files(kept)
    groups = []
    for rows in kept["groups"]:
        shown = rows[:SHOWN]
        names = {given[keys[row]] for row in shown if keys[row] in given}
        ticked = {row for row in shown if keys[row] in given} if names else set(shown)
        name = names.pop() if len(names) == 1 else ""
        groups.append({"size": len(rows), "shown": shown, "name": name, "ticked": ticked})
    return page(
        request,
        "groups.html",
        collection=collection,
        **told_of(job_of(studio, "group", collection.id)),
        groups=groups,
        paths=kept["paths"],
        skipped=kept["skipped"],
        names=sorted(set(given.values())),
        most=MOST_GROUPS,
    )


@router.post("/data/{identity}/group")
def group_again(
    request: Request, studio: StudioOf, collection: CollectionOf, count: Annotated[int, Form()] = 0
) -> Response:
    """Groups the photographs anew, into so many groups."""
    if count and not 2 <= count <= MOST_GROUPS:
        raise OptionError(f"{count} groups: expected 2 to {MOST_GROUPS}")
    return leave(request, begin(studio, collection, count=count))


@router.get("/data/{identity}/groups/{number}.jpg")
def picture(studio: StudioOf, collection: CollectionOf, number: int) -> Response:
    """One of the photographs, small."""
    kept = _grouped(studio, collection)
    known = 0 <= number < len(kept["paths"])
    source = FileSource(os.path.join(_at(kept), kept["paths"][number])) if known else None
    return image_answers.answer(source, side=256)


@router.post("/data/{identity}/groups")
def name_groups(request: Request, studio: StudioOf, collection: CollectionOf, form: FormOf) -> Response:
    """Gives each ticked photograph the name of its group; named photographs become a data set."""
    kept, said = _grouped(studio, collection), _given(studio, collection)
    keys, table = _files(kept), _table(studio, collection)
    ticked = {int(each) for each in form.getlist("photo") if isinstance(each, str) and each.isdecimal()}
    for number, rows in enumerate(kept["groups"]):
        name = " ".join(text_of(form, f"name-{number}").split())[:_LONGEST_NAME]
        for row in rows[:SHOWN]:
            if name and row in ticked:
                said[keys[row]] = name
            else:
                said.pop(keys[row], None)
    classes = sorted(set(said.values()))
    if len(classes) < 2:
        besides = f" besides {classes[0]}" if classes else ""
        raise OptionError(f"name at least {'one more group' if classes else 'two groups'}{besides}")
    lines = (json.dumps({"path": path, "label": label}) for path, label in said.items())
    table.parent.mkdir(mode=0o700, exist_ok=True)
    write_whole(table, "".join(f"{line}\n" for line in lines), mode=0o600)
    moved = studio.collections.moved(collection, table)
    try:
        moved.dataset()
    except DatasetError:
        studio.collections.moved(collection, Path(_at(kept)))
        raise
    studio.add("check", name=collection.id, body={})
    return leave(request, f"/data/{collection.id}")


def rest_of(studio: Studio, name: str) -> list[tuple[Collection, Path]]:
    """Data sets of a name that were made of groups, with the folders that hold their other photographs."""
    found = [each for each in studio.collections.all() if each.name == name]
    return [(each, _place(studio, each)) for each in found if _table(studio, each).is_file()]


def _table(studio: Studio, collection: Collection) -> Path:
    """Which photographs have which label; named as runs on it shall be."""
    return studio.collections.folder / collection.id / "labels" / f"{_stem(collection.name)}.jsonl"


def _stem(name: str) -> str:
    return name.replace("/", "-").strip(". ")[:100] or "photographs"


def _place(studio: Studio, collection: Collection) -> Path:
    """The folder of the photographs; the data set itself may have become a table of them."""
    kept = studio.collections.read(collection, _GROUPS)
    return Path(_at(kept)) if kept and collection.path.is_file() else collection.path


def _at(kept: dict[str, Any]) -> str:
    return os.fsdecode(bytes.fromhex(kept["place"])) if kept["place"] else ""


def _files(kept: dict[str, Any]) -> list[str]:
    return [os.path.join(_at(kept), path) for path in kept["paths"]]


def _grouped(studio: Studio, collection: Collection) -> dict[str, Any]:
    kept = studio.collections.read(collection, _GROUPS)
    return kept or {"place": "", "paths": [], "groups": [], "skipped": []}


def _given(studio: Studio, collection: Collection) -> dict[str, str]:
    """Labels given before, by file; in the order in which they were given."""
    try:
        text = read_regular(_table(studio, collection), limit=64 * MEBI).decode()
        return {row["path"]: row["label"] for row in map(json.loads, text.splitlines())}
    except (Unreadable, ValueError, KeyError, TypeError):
        return {}
