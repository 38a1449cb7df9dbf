"""The tour: one image through every stage of a backbone to its prediction."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from fastapi import APIRouter, Form, HTTPException, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import Response

from headstart.data.sources import FileSource
from headstart.errors import OptionError, RunError
from headstart.lesson.engine import placeholders
from headstart.lesson.engine.pack import Pack
from headstart.lesson.pages import runs
from headstart.lesson.pages.site import LessonSite, SiteOf
from headstart.runs import FitConfig, Run, read_predictions
from headstart.web.app import leave
from headstart.web.security import SessionOf

if TYPE_CHECKING:
    from headstart.backbones import Stage

router = APIRouter()

MODE = "visualize"
"""The mode in which a picture is followed, and whose questions are about it."""

BARS = 10
"""Classes of which the prediction is shown: the likeliest."""

CHANNELS = 6
"""How many channels of a stage are shown: those that vary most over the picture."""

TILE = 96
"""Pixels a side of one channel's picture."""


@dataclass(frozen=True)
class Stop:
    """One stage: what came out of it. `shape` is (channels, height, width)."""

    name: str
    shape: tuple[int, ...]
    picture: bytes


@dataclass(frozen=True)
class Tour:
    """An image's input (PNG), the output of every stage, and the prediction.

    `prediction` is (label, probability), the likeliest first; empty where no run was chosen. Stages behind
    `frozen` were trained by the run, and are shown as they were before.
    """

    backbone: str
    size: int
    seen: bytes
    stops: tuple[Stop, ...]
    features: int
    frozen: int
    run: str = ""
    run_label: str = ""
    prediction: tuple[tuple[str, float], ...] = ()


def is_asked_about(pack: Pack, mode: str) -> bool:
    """Whether a mode asks about a picture that was followed: not where its text leaves that out."""
    bodies = (one.body for one in pack.modes if one.name == mode == MODE)
    return any(not (panels := placeholders.placed(body)) or "journey" in panels for body in bodies)


def of(site: LessonSite, learner: str) -> Tour | None:
    """The learner's latest tour since the server started."""
    found: Tour | None = site.tours.peek(learner)
    return found


@router.post("/tour")
def follow_picture(
    request: Request,
    site: SiteOf,
    session: SessionOf,
    file: Annotated[str, Form()] = "",
    run: Annotated[str, Form()] = "",
) -> Response:
    """Follows the learner's photograph (on a machine of one's own), or a picture of ours, through a run."""
    chosen = file.strip()
    if chosen and site.learner is None:
        raise HTTPException(403, "Files can only be named on a machine of one's own.")
    followed = next((one for one in runs.listed(site) if one.id == run), None)
    with site.turn:  # one at a time: it uses every core for a moment
        tour = follow(_pixels(chosen, followed), run=followed)
    site.tours.keep(tour, name=session.learner)
    query = f"?run={followed.id}" if followed else ""
    return leave(request, f"/modes/{MODE}{query}#tour")


@router.get("/tour/{name}.png")
def picture(site: SiteOf, session: SessionOf, name: str) -> Response:
    """What the backbone saw, or the pictures of one stage."""
    tour = of(site, session.learner)
    pictures = {stop.name: stop.picture for stop in tour.stops} | {"seen": tour.seen} if tour else {}
    if name not in pictures:
        raise HTTPException(404)
    return Response(pictures[name], media_type="image/png")


def _pixels(chosen: str, run: Run | None) -> bytes | NDArray[np.uint8]:
    """The learner's photograph; else the first held-out image of the run that is there; else a drawing."""
    if not chosen and run is not None and (file := _held_out(run)):
        return FileSource(str(file)).read()
    if not chosen:
        from headstart.lesson.experiments.data import drawings

        pixels: NDArray[np.uint8] = drawings(per_class=1, seed=3)[0][0]
        return pixels
    path = Path(chosen).expanduser()
    if not path.is_file():
        raise OptionError(f"{chosen}: no such file; expected a photograph (JPEG, PNG, WebP, …)")
    return FileSource(str(path)).read()


def _held_out(run: Run) -> Path | None:
    try:
        images = read_predictions(run.path)["images"]
    except RunError:
        return None
    files = (Path(image["file"]) for image in images if "file" in image and "member" not in image)
    return next((file for file in files if file.is_file()), None)


def follow(data: bytes | NDArray[np.uint8], *, run: Run | None = None, size: int = 96) -> Tour:
    """Runs one picture through a run's backbone and classifier, or through the built-in backbone alone.

    Args:
        data: an image file's bytes, or pixels uint8 [H, W, 3].
        run: a stored run, or None.
        size: pixels a side that the built-in backbone sees where there is no run.

    Raises:
        ImageError: the bytes are no usable image.
        BackboneError: the backbone is not usable here.
        RunError: the run's folder is damaged.
    """
    from headstart.backbones import backbone_of
    from headstart.backbones.openvino import the_core
    from headstart.data.images import open_image, render

    image, _ = open_image(data)
    config = run.config if run else FitConfig(size=size)
    backbone = backbone_of(config, seed=config.seed)
    size = backbone.preprocess.size
    seen = render(image, backbone.preprocess)
    mean, std = (np.float32(getattr(backbone.preprocess, name)) for name in ("mean", "std"))
    tensor = ((seen.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
    outputs: dict[str, NDArray[np.float32]] = {}
    compiled: Any = the_core().compile_model(str(backbone.graph), "CPU")
    for port, value in compiled({"image": tensor}).items():
        outputs |= dict.fromkeys(port.get_names(), np.asarray(value[0], dtype=np.float32))
    prediction = _predict(run, image) if run else ()
    maps = [(stage.name, _map(outputs.get(stage.name), stage)) for stage in backbone.stages]
    stops = tuple(Stop(name, tuple(found.shape), _strip(found)) for name, found in maps if found is not None)
    return Tour(
        backbone.name,
        size,
        _png(Image.fromarray(seen)),
        stops,
        backbone.dimensions,
        run.config.depth if run else len(backbone.stages),
        run.id if run else "",
        runs.label(run) if run else "",
        prediction,
    )


def _predict(run: Run, image: Image.Image) -> tuple[tuple[str, float], ...]:
    from headstart.classifier import load

    return load(run.path).predict(np.asarray(image), top=BARS)[0].top


def _map(output: NDArray[np.float32] | None, stage: Stage) -> NDArray[np.float32] | None:
    """A stage's output as [C, H, W]; patches of a transformer are laid out as they lay in the picture."""
    if output is None or output.ndim == 3:
        return output
    if output.ndim != 2 or stage.patch_grid is None:
        return None
    rows, columns = stage.patch_grid
    return output[stage.prefix_tokens :].T.reshape(output.shape[1], rows, columns)


def _strip(activation: NDArray[np.float32]) -> bytes:
    """The channels that vary most, side by side; each from its least (black) to its greatest (white)."""
    busiest = np.argsort(-activation.std(axis=(1, 2)), kind="stable")[:CHANNELS]
    strip = Image.new("L", (CHANNELS * (TILE + 4) - 4, TILE), 128)
    for place, channel in enumerate(activation[busiest]):
        low, high = float(channel.min()), float(channel.max())
        grey = np.uint8(255 * (channel - low) / (high - low or 1.0))
        strip.paste(
            Image.fromarray(grey).resize((TILE, TILE), Image.Resampling.NEAREST), (place * (TILE + 4), 0)
        )
    return _png(strip)


def _png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()
