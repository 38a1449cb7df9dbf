"""The first page, browsing folders, and uploads."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Annotated

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import Response

from headstart.data.dataset import Skipped, are_splits
from headstart.errors import DatasetError, OptionError, printable
from headstart.studio import folders, groups
from headstart.studio.datasets import Collection
from headstart.studio.jobs import unfinished
from headstart.studio.run_names import families
from headstart.studio.state import CollectionOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.web import uploads
from headstart.web.app import FormOf, files_of, leave, text_of

router = APIRouter()

_RUNS_SHOWN = 6
_RUNS_READ = 40
"""Of which many may be corrections of one."""


@router.get("/")
def first_page(request: Request, studio: StudioOf) -> Response:
    """Jobs in progress, data sets, runs, and two ways to begin."""
    runs, more = studio.runs.page(size=_RUNS_READ)
    shown = families(runs)
    return page(
        request,
        "home.html",
        root=printable(studio.root),
        entries=folders.browse(studio.root, studio.root, ours=studio.folder)[:8],
        jobs=unfinished(studio),
        collections=studio.collections.all(),
        covers={each.id: _cover(studio, each) for each in studio.collections.all()},
        gone={each.id for each in studio.collections.all() if not each.path.exists()},
        runs=shown[:_RUNS_SHOWN],
        more=more or len(shown) > _RUNS_SHOWN,
    )


def _cover(studio: Studio, collection: Collection) -> list[str]:
    """Names of up to four pictures, one of each class."""
    facts = studio.collections.read(collection, "report")
    gallery = facts["gallery"] if facts else {}
    return [names[0] for names in gallery.values() if names][:4]


@router.get("/words")
def words(request: Request) -> Response:
    """The ten words that the pages use."""
    return page(request, "words.html")


@router.get("/folders")
def browse(request: Request, studio: StudioOf, at: str = "") -> Response:
    """A folder below the root: what can be opened in it, and a button to take it."""
    folder = folders.inside(studio.root, at)
    if not folder.is_dir():
        raise OptionError(f"{printable(folder)} is no folder")
    relative = folders.below(studio.root, folder)
    parts = relative.split("/") if relative else []
    inside, pictures = folders.count(folder, ours=studio.folder)
    entries = folders.browse(studio.root, folder, ours=studio.folder)
    return page(
        request,
        "folders.html",
        root=printable(studio.root.resolve().name or studio.root),
        here=relative,
        crumbs=[("/".join(parts[: n + 1]), name) for n, name in enumerate(parts)],
        entries=entries,
        most=folders.MOST_SHOWN,
        inside=inside,
        splits=are_splits([each.name for each in entries if each.kind == "folder"]),
        nested=_hold_classes(entries),
        pictures=pictures,
    )


def _hold_classes(entries: Sequence[folders.Entry]) -> bool:
    """Whether all folders hold folders and no pictures, as data sets do rather than classes."""
    inside = [each for each in entries if each.kind == "folder"]
    return bool(inside) and all(each.folders > 1 and not each.pictures for each in inside)


@router.post("/open")
def open_folder(request: Request, studio: StudioOf, path: Annotated[str, Form()]) -> Response:
    """Opens a folder, zip or table of this machine as a data set and checks it."""
    place = folders.inside(studio.root, path)
    collection = studio.collections.open(place)
    try:
        collection.dataset()  # what is no data set is said here, before anything waits in a queue
    except DatasetError:
        if not groups.is_unlabelled(collection):
            studio.collections.forget(collection)
            raise
        found = groups.labelled(studio, collection)
        if found is collection:
            return leave(request, groups.begin(studio, collection))
        collection = found
    return look(request, studio, collection)


def look(request: Request, studio: Studio, collection: Collection) -> Response:
    """Queues the check of a data set and goes to its page."""
    studio.add("check", name=collection.id, body={})
    return leave(request, f"/data/{collection.id}")


@router.post("/send")
def receive(request: Request, studio: StudioOf, form: FormOf) -> Response:
    """Takes photographs or a zip from the browser, for a new data set or for one that was sent before."""
    sent, label, into = files_of(form), text_of(form, "label"), text_of(form, "into")
    if not sent:
        raise OptionError("no file was chosen; choose photographs, a folder of them, or a zip")
    known = studio.collection(into) if into.strip() else None
    if known is not None and (not known.sent or known.path.is_file()):
        raise HTTPException(403, "Photographs can only be added to what was sent as photographs.")
    collection = known or studio.collections.receive(uploads.name_of(sent))
    refused: tuple[Skipped, ...] = ()
    try:
        if uploads.is_zip(sent) and known is None:
            target = collection.path.with_name(f"{collection.name}.zip")
            uploads.store_zip(sent[0], target)
            collection = studio.collections.moved(collection, target)
        else:
            refused = uploads.store_photographs(sent, collection.path, label=label)
    except (DatasetError, OptionError):
        if known is None:
            studio.collections.forget(collection)
        raise
    studio.collections.write(
        collection, "refused", {"files": [{"name": item.name, "reason": item.reason} for item in refused]}
    )
    try:
        collection.dataset()
    except DatasetError:
        if groups.is_unlabelled(collection):
            with suppress(OptionError):  # too few to group: the page asks for more
                return leave(request, groups.begin(studio, collection))
        return leave(request, f"/data/{collection.id}")  # one class so far: its page asks for another
    return look(request, studio, collection)


@router.post("/data/{identity}/class")
def one_class(request: Request, studio: StudioOf, collection: CollectionOf, form: FormOf) -> Response:
    """Gives all photographs that were sent without a folder one class."""
    label = text_of(form, "label")
    if not collection.sent or not collection.path.is_dir():
        raise HTTPException(403, "Only photographs that were sent can be put into a class here.")
    if not label.strip():
        raise OptionError("no class name was given; write what all these photographs show")
    target = collection.path / uploads.clean(label)
    target.mkdir(exist_ok=True, mode=0o700)
    for each in [each for each in collection.path.iterdir() if each.is_file()]:
        each.rename(target / each.name)
    return leave(request, f"/data/{collection.id}")


@router.post("/data/{identity}/forget")
def forget(request: Request, studio: StudioOf, collection: CollectionOf) -> Response:
    """Removes a data set from the list; a folder of the machine is left as it is."""
    studio.collections.forget(collection)
    return leave(request, "/")
