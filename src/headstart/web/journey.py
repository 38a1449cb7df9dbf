"""One picture followed through the stages of the built-in backbone: real shapes, real activations."""

from __future__ import annotations

import io
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Form, HTTPException, Request
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import Response

from headstart.errors import OptionError
from headstart.web.rendering import leave
from headstart.web.security import SessionOf, SiteOf

router = APIRouter()

CHANNELS = 6
"""How many channels of a stage are shown: those that vary most over the picture."""

TILE = 96
"""Pixels a side of one channel's picture."""

KEPT = 64
"""Learners whose journey is remembered."""


@dataclass(frozen=True)
class Stop:
    """One stage: what came out of it. `shape` is (channels, height, width)."""

    name: str
    shape: tuple[int, ...]
    picture: bytes


@dataclass(frozen=True)
class Journey:
    """A picture's way: what the backbone saw (PNG), and every stage after it."""

    backbone: str
    size: int
    seen: bytes
    stops: tuple[Stop, ...]
    features: int


_journeys: dict[str, Journey] = {}
_turn = threading.Lock()


def of(learner: str) -> Journey | None:
    """The learner's latest journey since the server started."""
    return _journeys.get(learner)


@router.post("/journey")
def follow_picture(
    request: Request, site: SiteOf, session: SessionOf, file: Annotated[str, Form()] = ""
) -> Response:
    """Follows the learner's photograph (on a machine of one's own), or a drawing of ours."""
    chosen = file.strip()
    if chosen and site.learner is None:
        raise HTTPException(403, "Files can only be named on a machine of one's own.")
    journey = follow(_pixels(chosen))
    with _turn:
        _journeys.pop(session.learner, None)
        while len(_journeys) >= KEPT:
            del _journeys[next(iter(_journeys))]
        _journeys[session.learner] = journey
    return leave(request, "/modes/visualize#journey")


@router.get("/journey/{name}.png")
def picture(session: SessionOf, name: str) -> Response:
    """What the backbone saw, or the pictures of one stage."""
    journey = of(session.learner)
    pictures = {stop.name: stop.picture for stop in journey.stops} | {"seen": journey.seen} if journey else {}
    if name not in pictures:
        raise HTTPException(404)
    return Response(pictures[name], media_type="image/png")


def _pixels(chosen: str) -> bytes | NDArray[np.uint8]:
    if not chosen:
        from headstart.lessons.experiments.data import drawings

        pixels: NDArray[np.uint8] = drawings(per_class=1, seed=3)[0][0]
        return pixels
    path = Path(chosen).expanduser()
    if not path.is_file():
        raise OptionError(f"{chosen}: no such file; expected a photograph (JPEG, PNG, WebP, …)")
    return path.read_bytes()


def follow(data: bytes | NDArray[np.uint8], *, size: int = 96) -> Journey:
    """Runs one picture through the built-in backbone.

    Args:
        data: an image file's bytes, or pixels uint8 [H, W, 3].
        size: pixels a side that the backbone sees.

    Raises:
        ImageError: the bytes are no usable image.
        BackboneError: the backbone is not usable here.
    """
    from headstart.backbones import load_backbone
    from headstart.backbones.engine import openvino
    from headstart.images import open_image, render

    image, _ = open_image(data)
    with _turn:  # one at a time: it uses every core for a moment
        backbone = load_backbone("builtin", size=size)
        seen = render(image, backbone.preprocess)
        mean, std = (np.float32(getattr(backbone.preprocess, name)) for name in ("mean", "std"))
        tensor = ((seen.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
        outputs: dict[str, NDArray[np.float32]] = {}
        compiled: Any = openvino().Core().compile_model(str(backbone.graph), "CPU")
        for port, value in compiled({"image": tensor}).items():
            outputs |= dict.fromkeys(port.get_names(), np.asarray(value[0], dtype=np.float32))
    stops = tuple(
        Stop(stage.name, outputs[stage.name].shape, _strip(outputs[stage.name]))
        for stage in backbone.stages
        if outputs.get(stage.name, np.empty(0)).ndim == 3
    )
    return Journey(backbone.name, size, _png(Image.fromarray(seen)), stops, backbone.dimensions)


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
