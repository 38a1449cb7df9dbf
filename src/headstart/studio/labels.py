"""Labels corrected, and new photographs labelled, the most useful first; the head is trained anew at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from headstart.errors import OptionError
from headstart.runs import Run, timestamp
from headstart.studio import folders, pictures, uploads
from headstart.studio.home import name_of
from headstart.studio.noted import corrected, image_of
from headstart.studio.rendering import page, percent, score
from headstart.studio.state import OWNER, Studio, StudioOf
from headstart.studio.workers import Result, Teller, path_of
from headstart.web.app import leave
from headstart.web.jobs import Job

router = APIRouter()

BATCH = 12
"""Photographs to label on one page: as many as one looks at without tiring."""

LEAVE_OUT = "(exclude)"


@router.post("/runs/{identity}/correct")
def correct(
    request: Request,
    studio: StudioOf,
    identity: str,
    content: Annotated[str, Form()],
    label: Annotated[str, Form()],
) -> Response:
    """Puts the label of one image of the data set right and trains the head anew."""
    from headstart.curation import corrections_of

    run = studio.run(identity)
    image = image_of(run, content)
    if image is None:
        raise HTTPException(404, "This run has no such image.")
    wanted = _label(run, label)
    if wanted == image["label"]:
        raise OptionError(f"{image['path']} is labelled {wanted} already; choose another label")
    begun = time.perf_counter()
    corrections_of(run).add(image["path"], wanted, content=content, was=image["label"])
    new = _retrained(studio, run)
    said = "is excluded from now on" if wanted is None else f"is {wanted} from now on"
    return _tell(request, studio, run, new, f"{image['path']} {said}.", seconds=time.perf_counter() - begun)


@router.post("/runs/{identity}/undo")
def undo(request: Request, studio: StudioOf, identity: str) -> Response:
    """Takes the last correction back and trains the head anew."""
    from headstart.curation import corrections_of

    run = studio.run(identity)
    begun = time.perf_counter()
    taken = corrections_of(run).undo()
    if taken is None:
        raise OptionError("there is no correction to take back")
    new = _retrained(studio, run)
    told = f"The correction of {taken.path} was taken back."
    return _tell(request, studio, run, new, told, seconds=time.perf_counter() - begun)


def _label(run: Run, label: str) -> str | None:
    if label == LEAVE_OUT:
        return None
    if label not in run.classes:
        raise OptionError(f"{label!r} is none of this run's classes")
    return label


def _retrained(studio: Studio, run: Run) -> Run:
    from headstart.curation import corrections_of, retrain

    with studio.turn:
        _, new = retrain(run, corrections_of(run))
    return new


def _tell(
    request: Request, studio: Studio, old: Run, new: Run, what: str, *, seconds: float, to: str = ""
) -> Response:
    """Goes to the new run, with a word on what changed."""
    before, after = score(old), score(new)
    told = {"text": what, "seconds": seconds, "before": None, "after": None}
    if before and after:
        told |= {"before": percent(before["accuracy"]), "after": percent(after["accuracy"])}
    return leave(request, (to or f"/runs/{new.id}") + f"?told={studio.recent.keep(told)}")


# New photographs --------------------------------------------------------------------------------------------


@router.get("/runs/{identity}/label")
def label_page(request: Request, studio: StudioOf, identity: str) -> Response:
    """Where unlabelled photographs are chosen or dropped."""
    run = studio.run(identity)
    return page(
        request,
        "label.html",
        run=run,
        possible=corrected(run) is not None,
        entries=folders.browse(studio.root, studio.root, ours=studio.folder),
        job=None,
        suggestions=[],
        earlier=studio.work.history("rank", learner=OWNER, limit=5),
    )


@router.post("/runs/{identity}/label")
async def choose(request: Request, studio: StudioOf, identity: str) -> Response:
    """Takes a folder of this machine, or photographs from the browser, and ranks them."""
    form = await request.form()
    files: list[Any] = [f for f in form.getlist("files") if not isinstance(f, str) and f.filename]
    text = str(form.get("path", ""))
    return await run_in_threadpool(_choose, request, studio, identity, files, text)


def _choose(request: Request, studio: Studio, identity: str, files: list[Any], text: str) -> Response:
    run = studio.run(identity)
    if files:
        collection = studio.collections.receive(name_of(files, ""))
        try:
            uploads.store_photographs(files, collection.path)
        except OptionError:
            studio.collections.forget(collection)
            raise
        path, title = collection.path, collection.name
    elif text.strip():
        path = folders.inside(studio.root, text)
        title = path.name
    else:
        raise OptionError("choose a folder, or drop photographs")
    body = {"run": run.id, "path": os.fsencode(path).hex(), "title": title}
    return leave(request, f"/jobs/{studio.add('rank', name=run.id, body=body).id}")


def rank(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: which of the photographs would teach the classifier most."""
    from headstart.curation import most_useful

    run = studio.run(job.name)
    found = most_useful(run, path_of(job), k=BATCH, progress=teller)
    return {"suggestions": [each.to_dict() for each in found]}


@router.get("/runs/{identity}/label/{job}")
def suggestions_page(request: Request, studio: StudioOf, identity: str, job: str) -> Response:
    """The most useful photographs, each with the label that the classifier would give it."""
    run, ranked = studio.run(identity), studio.job(job)
    return page(
        request,
        "label.html",
        run=run,
        possible=True,
        entries=(),
        job=ranked,
        suggestions=ranked.result.get("suggestions", []),
        earlier=[],
    )


@router.get("/runs/{identity}/label/{job}/{number}.jpg")
def suggestion_picture(studio: StudioOf, identity: str, job: str, number: int) -> Response:
    """One of them."""
    found = studio.job(job).result.get("suggestions", [])
    image: Mapping[str, Any] = found[number] if 0 <= number < len(found) else {}
    return pictures.answer(pictures.remembered(image), side=512)


@router.post("/runs/{identity}/label/{job}")
async def label(request: Request, studio: StudioOf, identity: str, job: str) -> Response:
    """Adds the photographs that were labelled, trains the head anew, and looks for the next ones."""
    form = await request.form()
    given = {name[6:]: str(value) for name, value in form.items() if name.startswith("label-")}
    return await run_in_threadpool(_add_labels, request, studio, identity, job, given)


def _add_labels(
    request: Request, studio: Studio, identity: str, job_id: str, given: Mapping[str, str]
) -> Response:
    from headstart.curation import Correction, corrections_of

    run, job = studio.run(identity), studio.job(job_id)
    found = job.result.get("suggestions", [])
    labelled = []
    for number, value in given.items():
        if not value or not number.isdecimal() or int(number) >= len(found):
            continue
        image = found[int(number)]
        labelled.append(
            Correction(
                path=image["path"],
                content=image["content"],
                label=_label(run, value),
                was=None,
                created=timestamp(),
                file=image.get("file"),
                member=image.get("member"),
            )
        )
    if not labelled:
        raise OptionError("no photograph was given a label")
    begun = time.perf_counter()
    corrections_of(run).add_many(labelled)
    new = _retrained(studio, run)
    seconds = time.perf_counter() - begun
    noun = "photograph" if len(labelled) == 1 else "photographs"
    following = studio.add("rank", name=new.id, body={**job.body, "run": new.id})
    return _tell(
        request,
        studio,
        run,
        new,
        f"{len(labelled)} {noun} added.",
        seconds=seconds,
        to=f"/jobs/{following.id}",
    )
