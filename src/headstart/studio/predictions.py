"""Many photographs at once: a table of labels, to look through, correct and take along."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Query, Request
from starlette.datastructures import UploadFile
from starlette.responses import Response

from headstart.classifier import Prediction, load
from headstart.curation import Correction, corrections_of
from headstart.data.dataset import content_hash, list_unlabelled, place_of
from headstart.errors import HeadstartError, ImageError, OptionError, RunError
from headstart.files.spreadsheets import as_csv, as_xlsx
from headstart.runs import Run, timestamp
from headstart.runs.thumbnails import unchanged
from headstart.studio import image_answers
from headstart.studio.datasets import Collection
from headstart.studio.labels import add_labels, corrected
from headstart.studio.state import OWNER, RunOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.studio.workers import Result, Teller, path_of
from headstart.web import downloads, uploads
from headstart.web.app import FormOf, leave, text_of
from headstart.web.jobs import KEPT_JOBS, Job

router = APIRouter()

UNKNOWN = 0.05
"""The familiarity below which an image may be of no class."""

UNSURE = 0.7
"""The probability below which a label is worth a look."""

SHOWN = 60
"""Photographs on one page."""

_TABLE = "predictions"


def queue(studio: Studio, run: Run, sent: list[UploadFile], *, path: Path | None) -> Job:
    """Queues a table of the photographs that were sent, or of those below a path of this machine.

    Raises:
        OptionError: not one of them is a usable image.
    """
    kept = studio.collections.receive(uploads.name_of(sent) if sent else "photographs", listed=False)
    try:
        title = kept.name
        if path is not None:
            title = path.name
        elif uploads.is_zip(sent):
            path = uploads.store_zip(sent[0], kept.path.with_suffix(".zip"), labelled=False)
        else:
            refused = uploads.store_photographs(sent, kept.path)
            said = {"files": [{"path": each.name, "reason": each.reason} for each in refused]}
            studio.collections.write(kept, "refused", said)
            path = kept.path
        body = {"path": os.fsencode(path).hex(), "title": title, "kept": kept.id}
        return studio.add("predict", name=run.id, body=body)
    except BaseException:
        studio.collections.forget(kept)
        raise


def predict_job(studio: Studio, job: Job, teller: Teller) -> Result:
    """The job: a label for each image; what cannot be read has its reason."""
    kept = _kept(job)
    try:
        told = _labelled(studio, job, teller)
    except HeadstartError:  # nobody could remove later what was sent for it
        studio.collections.forget(kept)
        raise
    told["left_out"] += (studio.collections.read(kept, "refused") or {"files": []})["files"]
    studio.collections.write(kept, _TABLE, told)
    return {"images": len(told["images"])}


def _labelled(studio: Studio, job: Job, teller: Teller) -> dict[str, list[dict[str, Any]]]:
    """The table; its names are below the folder or archive, as that lies in a folder of the studio's own."""
    classifier, path = load(studio.run(job.name).path), path_of(job)
    found = list_unlabelled([path])

    def name_of(name: str) -> str:
        return path.name if name == str(path) else name.removeprefix(f"{path}/")

    left_out = [{"path": name_of(each.name), "reason": each.reason} for each in found.skipped]
    rows: list[dict[str, Any]] = []
    for sample, said in zip(found.samples, classifier.predict_each(found.samples), strict=True):
        name = name_of(sample.name)
        teller.on_progress("predicting", len(rows) + len(left_out), len(found.samples) + len(found.skipped))
        if not isinstance(said, Prediction):
            left_out.append({"path": name, "reason": said.reason})
            continue
        rows.append(
            {
                "path": name,
                "label": said.label,
                "probability": round(said.probability, 4),
                "familiarity": said.familiarity,
                "content": content_hash(sample.source.read()).hex(),
                **place_of(sample),
            }
        )
    if not rows:
        raise ImageError(f"no photograph can be read; {left_out[0]['path']}: {left_out[0]['reason']}")
    return {"images": rows, "left_out": left_out}


def _kept(job: Job) -> Collection:
    """Where a job keeps its table, and what was sent for it."""
    return Collection(str(job.body["kept"]), "", Path(), sent=True, opened="")


def _told(studio: Studio, job: Job) -> dict[str, Any]:
    found = studio.collections.read(_kept(job), _TABLE) if job.kind == "predict" else None
    if found is None:
        raise HTTPException(404, "There is no such table; it may have been removed.")
    return found


def earlier(studio: Studio, run: Run) -> list[Job]:
    """Tables that were made with a run and not removed, the newest first."""
    jobs = studio.work.history("predict", learner=OWNER, limit=50)
    return [
        job
        for job in jobs
        if job.name == run.id
        and job.state == "done"
        and studio.collections.read(_kept(job), _TABLE) is not None
    ]


@router.get("/runs/{identity}/predictions/{job}")
def table_page(
    request: Request,
    studio: StudioOf,
    run: RunOf,
    job: str,
    show: str = "all",
    order: str = "name",
    number: Annotated[int, Query(ge=1, le=1_000_000)] = 1,
) -> Response:
    """The table, a page at a time: all, the unsure, the unfamiliar, or those of one label."""
    asked = studio.job(job)
    said = _told(studio, asked)
    rows = [{**row, "number": index, "note": note(row)} for index, row in enumerate(said["images"])]
    choices = {"all": len(rows)}
    for name in ("unsure", "unfamiliar"):
        if count := sum(row["note"] == name for row in rows):
            choices[name] = count
    for row in rows:
        key = f"label:{row['label']}"
        choices[key] = choices.get(key, 0) + 1
    chosen = [row for row in rows if show in ("all", row["note"], f"label:{row['label']}")]
    if order == "probability":
        chosen.sort(key=lambda row: row["probability"])
    pages = max(1, -(-len(chosen) // SHOWN))
    number = min(number, pages)
    return page(
        request,
        "predictions.html",
        run=run,
        job=asked,
        rows=chosen[(number - 1) * SHOWN : number * SHOWN],
        choices=choices,
        show=show,
        order=order,
        number=number,
        pages=pages,
        total=len(rows),
        left_out=said["left_out"],
        possible=corrected(run) is not None,
        ours=_is_ours(studio, asked),
    )


def note(row: dict[str, Any]) -> str:
    """What to know of a label: unfamiliar, unsure, or nothing."""
    if row["familiarity"] is not None and row["familiarity"] < UNKNOWN:
        return "unfamiliar"
    return "unsure" if row["probability"] < UNSURE else ""


_GONE = "gone, or another picture by now"

_COLUMNS = ("path", "label", "probability", "familiarity", "note")


def _rows(said: dict[str, Any], gone: frozenset[str] = frozenset()) -> list[tuple[object, ...]]:
    rows = [
        (*(row[name] for name in _COLUMNS[:-1]), _GONE if row["path"] in gone else note(row))
        for row in said["images"]
    ]
    return [*rows, *((each["path"], None, None, None, each["reason"]) for each in said["left_out"])]


@router.get("/runs/{identity}/predictions/{job}/labels.csv")
def labels_table(studio: StudioOf, run: RunOf, job: str) -> Response:
    """Every photograph, a row each, for a spreadsheet."""
    asked = studio.job(job)
    return downloads.table(as_csv(_COLUMNS, _rows(_told(studio, asked))), f"{asked.body['title']} labels.csv")


@router.get("/runs/{identity}/predictions/{job}/labels.xlsx")
def labels_workbook(studio: StudioOf, run: RunOf, job: str) -> Response:
    """The same as an Excel workbook."""
    asked = studio.job(job)
    return downloads.workbook(
        as_xlsx(_COLUMNS, _rows(_told(studio, asked))), f"{asked.body['title']} labels.xlsx"
    )


@router.get("/runs/{identity}/predictions/{job}/folders.zip")
def sorted_folders(studio: StudioOf, run: RunOf, job: str) -> Response:
    """Copies of the photographs in a folder for each label, with the table beside them."""
    asked = studio.job(job)
    said, room = _told(studio, asked), uploads.room(studio.home)

    def members() -> Iterator[tuple[str, bytes]]:
        taken, gone = 0, set()
        folders, names = _Names(), _Names()
        for label in sorted(run.classes, key=lambda each: (uploads.clean(each) != each, each)):
            folders.of(label, uploads.clean(label))
        for row in said["images"]:
            data = unchanged(row)
            if data is None:
                gone.add(row["path"])
                continue
            taken += len(data)
            if taken > room:
                raise OptionError(
                    "these photographs are larger than the room that a download may take; sort them on this "
                    "machine by the table instead"
                )
            file = PurePosixPath(row["path"])
            folder = folders.of(row["label"], uploads.clean(row["label"]))
            name = names.of(row["path"], f"{folder}/{uploads.clean(file.stem)}")
            yield f"{name}{file.suffix.lower()}", data
        yield "labels.csv", as_csv(_COLUMNS, _rows(said, frozenset(gone)))

    return downloads.zipped(members(), f"{asked.body['title']} sorted.zip", compress=False)


class _Names:
    """A name for each thing, different from all others also where a disk does not know capitals."""

    def __init__(self) -> None:
        self._of: dict[str, str] = {}
        self._taken: set[str] = set()

    def of(self, thing: str, wanted: str) -> str:
        """``wanted``, or with a number behind it."""
        if thing not in self._of:
            name, number = wanted, 2
            while name.casefold() in self._taken:
                name, number = f"{wanted} ({number})", number + 1
            self._taken.add(name.casefold())
            self._of[thing] = name
        return self._of[thing]


@router.get("/runs/{identity}/predictions/{job}/{number}.jpg")
def picture(studio: StudioOf, run: RunOf, job: str, number: int) -> Response:
    """One of the photographs, small."""
    images = _told(studio, studio.job(job))["images"]
    source = image_answers.remembered(images[number]) if 0 <= number < len(images) else None
    return image_answers.answer(source, side=128)


@router.post("/runs/{identity}/predictions/{job}")
def correct(request: Request, studio: StudioOf, run: RunOf, job: str, form: FormOf) -> Response:
    """Adds the photographs whose label was chosen to the training images, and retrains the head."""
    images = _told(studio, studio.job(job))["images"]
    labelled = []
    for name in form:
        number = name.removeprefix("label-")
        value = text_of(form, name)
        if number == name or not value:
            continue
        if not number.isdecimal() or int(number) >= len(images) or value not in run.classes:
            raise OptionError("this form is of another table; load the page again")
        row = images[int(number)]
        place = {"file": row.get("file"), "member": row.get("member")}
        labelled.append(Correction(row["path"], row["content"], value, None, timestamp(), **place))
    return add_labels(request, studio, run, labelled)


@router.post("/runs/{identity}/predictions/{job}/remove")
def remove(request: Request, studio: StudioOf, run: RunOf, job: str) -> Response:
    """Removes the table, and the photographs where a browser sent them."""
    asked = studio.job(job)
    _told(studio, asked)
    if used := _used(studio, run, asked):
        said = "1 of these photographs was" if used == 1 else f"{used} of these photographs were"
        raise OptionError(f"{said} added to the training images, so they stay; undo that first")
    studio.collections.forget(_kept(asked))
    return leave(request, f"/runs/{run.id}/predict")


def forget(studio: Studio, run: Run) -> None:
    """Removes the tables of a run that is deleted, and what was sent for them unless corrections use it."""
    for job in studio.work.history("predict", learner=OWNER, limit=KEPT_JOBS):
        if job.name == run.id and job.over and not _used(studio, run, job):
            studio.collections.forget(_kept(job))


def _used(studio: Studio, run: Run, job: Job) -> int:
    """How many of the photographs that were sent for a table are among the corrections."""
    folder = studio.collections.folder / str(job.body["kept"])
    try:
        kept = corrections_of(run).list()
    except RunError:  # one that does not know its images takes no corrections
        return 0
    return sum(Path(each.file).is_relative_to(folder) for each in kept if each.file)


def _is_ours(studio: Studio, job: Job) -> bool:
    return path_of(job).is_relative_to(studio.collections.folder)
