"""Correcting labels and adding labelled images; the head is retrained at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import Response

from headstart.curation import corrections_of
from headstart.errors import HeadstartError, OptionError
from headstart.runs import IMAGES_FILE, Run, timestamp
from headstart.runs.formatting import percent
from headstart.studio import folders, image_answers
from headstart.studio.state import OWNER, RunOf, Studio, StudioOf
from headstart.studio.templating import page, score
from headstart.studio.workers import Result, Teller, path_of
from headstart.web import uploads
from headstart.web.app import FormOf, files_of, leave, text_of
from headstart.web.jobs import Job

router = APIRouter()

BATCH = 12
"""Photographs to label on one page: as many as one looks at without tiring."""

LEAVE_OUT = "(exclude)"


def corrected(run: Run) -> dict[str, Any] | None:
    """How many labels were corrected; None where the run does not allow it."""
    if run.config.fine_tuned or not (run.path / IMAGES_FILE).exists():
        return None
    try:
        return {"count": len(corrections_of(run).current())}
    except HeadstartError:
        return None


@router.post("/runs/{identity}/correct")
def correct(
    request: Request,
    studio: StudioOf,
    run: RunOf,
    content: Annotated[str, Form()],
    label: Annotated[str, Form()],
) -> Response:
    """Corrects the label of one image and retrains the head."""
    image = image_answers.image_of(run, content)
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
def undo(request: Request, studio: StudioOf, run: RunOf) -> Response:
    """Undoes the last correction and retrains the head."""
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
    from headstart.curation import retrain

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
def label_page(request: Request, studio: StudioOf, run: RunOf) -> Response:
    """Where unlabelled photographs are chosen or dropped."""
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
def choose(request: Request, studio: StudioOf, run: RunOf, form: FormOf) -> Response:
    """Takes a folder of this machine, or photographs from the browser, and ranks them."""
    files, text = files_of(form), text_of(form, "path")
    if files:
        collection = studio.collections.receive(uploads.name_of(files))
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
    """The job: ranks unlabelled images by how much they would improve the classifier."""
    from headstart.curation import most_useful

    run = studio.run(job.name)
    found = most_useful(run, path_of(job), k=BATCH, progress=teller.on_progress)
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
def suggestion_picture(studio: StudioOf, job: str, number: int) -> Response:
    """One of them."""
    found = studio.job(job).result.get("suggestions", [])
    image: Mapping[str, Any] = found[number] if 0 <= number < len(found) else {}
    return image_answers.answer(image_answers.remembered(image), side=512)


@router.post("/runs/{identity}/label/{job}")
def label(request: Request, studio: StudioOf, run: RunOf, job: str, form: FormOf) -> Response:
    """Adds the labelled images, retrains the head, and queues the next ranking."""
    from headstart.curation import Correction

    ranked = studio.job(job)
    labelled = []
    for number, image in enumerate(ranked.result.get("suggestions", [])):
        value = text_of(form, f"label-{number}")
        if value:
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
    following = studio.add("rank", name=new.id, body={**ranked.body, "run": new.id})
    return _tell(
        request,
        studio,
        run,
        new,
        f"{len(labelled)} {noun} added.",
        seconds=seconds,
        to=f"/jobs/{following.id}",
    )
