"""Correcting labels and adding labelled images; the head is retrained at once."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from typing import Annotated, Any

from fastapi import APIRouter, Form, HTTPException, Request
from starlette.responses import Response

from headstart.curation import Correction, corrections_of
from headstart.curation.images import as_given
from headstart.errors import HeadstartError, OptionError
from headstart.runs import IMAGES_FILE, Run, read_predictions, timestamp
from headstart.runs.formatting import percent
from headstart.studio import folders, groups, image_answers
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
    """What was said of the labels of a run's photographs; None where the run does not allow it.

    ``count``: labels that were corrected or added; ``looked_at``: content hashes of all that were looked at;
    ``held_out``: see `_favoured`.
    """
    if run.config.fine_tuned or not (run.path / IMAGES_FILE).exists():
        return None
    try:
        corrections = corrections_of(run)
        current, changes = corrections.current(), corrections.changes()
        return {"count": len(changes), "looked_at": set(current), "held_out": _favoured(run, changes)}
    except HeadstartError:
        return None


def _favoured(run: Run, changes: Mapping[str, Correction]) -> dict[str, Any] | None:
    """How far corrections of held-out photographs move the shown score; None where there are none.

    Mistakes alone are looked at, so correcting labels there can only raise the score. Leaving out what was
    looked at would flatter as much: of the rest the classifier would have every one right.
    """
    split = "validation" if run.evaluation.get("validation") else "test"
    given = {str(each["content"]): each for each in as_given(run) if each["split"] == split}
    moved = [given[content] for content in changes if content in given]
    if not moved:
        return None
    called = [each for each in read_predictions(run.path)["images"] if each["split"] == split]
    right = sum(each["predicted"] == given.get(each["content"], each)["label"] for each in called)
    elsewhere = sum(content not in given for content in changes)
    return {"count": len(moved), "split": split, "as_given": right / len(called), "elsewhere": elsewhere}


@router.post("/runs/{identity}/correct")
def correct(
    request: Request,
    studio: StudioOf,
    run: RunOf,
    content: Annotated[str, Form()],
    label: Annotated[str, Form()] = "",
    right: Annotated[bool, Form()] = False,
) -> Response:
    """Corrects the label of one image and retrains the head; or notes that it is right."""
    image = image_answers.image_of(run, content)
    if image is None:
        raise HTTPException(404, "This run has no such image.")
    if right:
        corrections_of(run).add(image["path"], image["label"], content=content, was=image["label"])
        return _tell(
            request, studio, run, run, f"{image['path']} stays {image['label']} and is not asked again."
        )
    if not label:
        raise OptionError(f"no class was chosen for {image['path']}; choose what it shows")
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
    told = f"The correction of {taken.path} was taken back."
    if taken.label == taken.was:  # it said that a label is right, which changed nothing
        return _tell(request, studio, run, run, told)
    new = _retrained(studio, run)
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
    request: Request,
    studio: Studio,
    old: Run,
    new: Run,
    what: str,
    *,
    seconds: float | None = None,
    to: str = "",
) -> Response:
    """Goes to the new run, with a word on what changed; without ``seconds`` nothing was trained."""
    before, after = score(old), score(new)
    told = {"text": what, "seconds": seconds, "before": None, "after": None}
    if before and after and seconds is not None:
        shown = [percent(found["accuracy"]) for _, found in (before, after)]
        told |= {"split": after[0], "before": shown[0], "after": shown[1]}
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
        rest=[each for each, _ in groups.rest_of(studio, run.config.data)],
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
    elif rest := text_of(form, "rest"):
        found = dict((each.id, place) for each, place in groups.rest_of(studio, run.config.data))
        if rest not in found:
            raise HTTPException(404, "This data set is not open here.")
        path, title = found[rest], run.config.data
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
    return add_labels(request, studio, run, labelled, then=ranked)


def add_labels(
    request: Request, studio: Studio, run: Run, labelled: list[Correction], *, then: Job | None = None
) -> Response:
    """Adds labelled images and retrains the head; ``then`` is a ranking to make again for the new run."""
    if not labelled:
        raise OptionError("no photograph was given a label")
    if corrected(run) is None:
        raise OptionError("photographs can be added to runs with all layers frozen; train such a run first")
    begun = time.perf_counter()
    corrections_of(run).add_many(labelled)
    new = _retrained(studio, run)
    seconds = time.perf_counter() - begun
    noun = "photograph" if len(labelled) == 1 else "photographs"
    to = ""
    if then is not None:
        to = f"/jobs/{studio.add('rank', name=new.id, body={**then.body, 'run': new.id}).id}"
    return _tell(request, studio, run, new, f"{len(labelled)} {noun} added.", seconds=seconds, to=to)
