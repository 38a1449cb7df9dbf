"""The page that classifies an image: probabilities, heat map, nearest training images."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from fastapi import APIRouter, Request
from PIL import ImageOps
from starlette.responses import Response

from headstart.classifier import Prediction, load
from headstart.data.dataset import Sample, Skipped
from headstart.data.images import open_image
from headstart.data.sources import BytesSource
from headstart.errors import HeadstartError, ImageError, OptionError, printable
from headstart.explanations import Explainer, outlined, overlay
from headstart.runs import Run
from headstart.runs.thumbnails import jpeg
from headstart.studio import folders, image_answers
from headstart.studio.labels import corrected
from headstart.studio.predictions import UNKNOWN, earlier, queue
from headstart.studio.state import RunOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.web import uploads
from headstart.web.app import FormOf, files_of, leave, text_of

router = APIRouter()

NEIGHBOURS = 8
SIDE = 512


@dataclass(frozen=True)
class Answer:
    """What was said of one image."""

    run: str
    name: str
    prediction: Prediction
    seconds: float
    shown: bytes = field(repr=False)
    overlay: bytes | None = field(repr=False)
    legend: str
    neighbours: tuple[dict[str, Any], ...]
    notes: tuple[str, ...]

    @property
    def unknown(self) -> int | None:
        """Of 100 known photographs, fewer than so many are as unusual; None where it may be of a class."""
        familiarity = self.prediction.familiarity
        return None if familiarity is None or familiarity >= UNKNOWN else round(100 * UNKNOWN)


@router.get("/runs/{identity}/predict")
def try_page(request: Request, studio: StudioOf, identity: str) -> Response:
    """The upload form."""
    run = studio.run(identity)
    tables = earlier(studio, run)
    return page(request, "predict.html", run=run, answer=None, key="", corrections=None, tables=tables)


@router.post("/runs/{identity}/predict")
def classify(request: Request, studio: StudioOf, run: RunOf, form: FormOf) -> Response:
    """Classifies the image that was sent; several, a zip or a folder become a table."""
    sent, path = files_of(form), text_of(form, "path").strip()
    if len(sent) > 1 or uploads.is_zip(sent) or (path and not sent):
        below = folders.inside(studio.root, path) if path and not sent else None
        return leave(request, f"/jobs/{queue(studio, run, sent, path=below).id}")
    if not sent:
        raise OptionError("no file was chosen; choose photographs, or a folder of them")
    if sent[0].size is not None and sent[0].size > uploads.LARGEST_PICTURE:
        raise OptionError(f"a photograph may have {uploads.LARGEST_PICTURE >> 20} MB; this one is larger")
    name = printable(sent[0].filename or "").replace("\\", "/").rsplit("/")[-1]
    answer = look(studio, run, sent[0].file.read(), name=name)
    return leave(request, f"/runs/{run.id}/predict/{studio.recent.keep(answer)}")


@router.get("/runs/{identity}/predict/{key}")
def answer_page(request: Request, studio: StudioOf, run: RunOf, key: str) -> Response:
    """The prediction."""
    answer = studio.recent.get(key)
    return page(
        request, "predict.html", run=run, answer=answer, key=key, corrections=corrected(run), tables=()
    )


@router.get("/runs/{identity}/predict/{key}/{part}.jpg")
def answer_picture(studio: StudioOf, key: str, part: str) -> Response:
    """The image, its heat map, or one of its neighbours."""
    answer: Answer = studio.recent.get(key)
    if part.isdecimal() and int(part) < len(answer.neighbours):
        return image_answers.answer(image_answers.remembered(answer.neighbours[int(part)]), side=256)
    data = {"image": answer.shown, "heat": answer.overlay}.get(part)
    return Response(data, media_type="image/jpeg") if data else image_answers.answer(None, side=256)


def _loaded(studio: Studio, run: Run) -> Explainer:
    found = studio.explainers.peek(run.id)
    if found is None:
        found = Explainer(load(run.path))
    studio.explainers.keep(found, name=run.id)
    return found


def look(studio: Studio, run: Run, data: bytes, *, name: str) -> Answer:
    """Classifies one image, with its heat map and nearest training images.

    Raises:
        ImageError: it is no usable image.
    """
    picture, _ = open_image(data, shortest_side=SIDE)
    source = BytesSource(data)
    with studio.turn:
        explainer = _loaded(studio, run)
        begun = time.perf_counter()
        found = next(iter(explainer.classifier.predict_each([Sample(name, -1, None, source)])))
        seconds = time.perf_counter() - begun
        if isinstance(found, Skipped):
            raise ImageError(f"{found.name}: {found.reason}")
        notes: list[str] = []
        overlay, legend = _heat(explainer, data, notes)
        neighbours = _neighbours(run, data, notes)
    small = ImageOps.contain(picture, (SIDE, SIDE))
    shown = jpeg(outlined(small, explainer.classifier.preprocess) if overlay else small)
    return Answer(run.id, name, found, seconds, shown, overlay, legend, neighbours, tuple(notes))


def _heat(explainer: Explainer, data: bytes, notes: list[str]) -> tuple[bytes | None, str]:
    """The heat map as a file and its sentence; where there can be none, a note says why."""
    try:
        heat = explainer.heat_map(data)
        return jpeg(overlay(heat, side=SIDE, legend=False)), heat.legend()
    except HeadstartError as error:
        notes.append(f"no heat map: {error}")
        return None, ""


def _neighbours(run: Run, data: bytes, notes: list[str]) -> tuple[dict[str, Any], ...]:
    try:
        from headstart.curation import nearest_training_images

        return tuple(each.to_dict() for each in nearest_training_images(run, data, k=NEIGHBOURS))
    except HeadstartError as error:
        notes.append(f"no similar photographs: {error}")
        return ()
