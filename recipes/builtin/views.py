"""Deterministic views: picture i in view k is the same crop, flip and colour in every run.

Random augmentation would make the teacher's answers useless a second time. Here the randomness of a whole
view is drawn once, from (seed, view), so the teacher looks at each (picture, view) once and its answers are
stored; student and teacher may see the same view at different sizes.

A view may be a mosaic: four pictures in a square. Pictures of 64 pixels that are enlarged to 128 are blurred,
and photographs are not; a mosaic at 128 pixels is as sharp as its pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

MEAN = STD = 0.5  # of pixel / 255, as the backbone's preprocess says
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601 weights: grey as Pillow computes it


@dataclass(frozen=True)
class ViewConfig:
    """How far a view may stray from its picture."""

    area: tuple[float, float] = (0.35, 1.0)  # share of the picture's area that a crop keeps
    log_aspect: float = 0.2  # crop's log width/height, uniform within plus and minus this
    brightness: float = 0.3  # factor within 1 plus and minus this; likewise the two below
    contrast: float = 0.3
    saturation: float = 0.3


MOSAIC = ViewConfig(area=(0.75, 1.0), log_aspect=0.1)  # crops lose sharpness: those of a mosaic are mild


@dataclass(frozen=True)
class View:
    """What view k does to each of N pictures.

    Attributes:
        boxes: float32 [N, 4], left, top, right, bottom as shares of the picture's side.
        flips: bool [N].
        colours: float32 [N, 3], factors of brightness, contrast, saturation.
        beside: int64 [N, 3], the pictures that fill the square with picture i (it is top left); None for
            a view of single pictures.
    """

    boxes: np.ndarray
    flips: np.ndarray
    colours: np.ndarray
    beside: np.ndarray | None = None


def draw_boxes(count: int, *, config: ViewConfig, random: np.random.Generator) -> np.ndarray:
    """Crops float32 [count, 4]: left, top, right, bottom as shares of a picture's side."""
    area = random.uniform(*config.area, size=count)
    aspect = np.exp(random.uniform(-config.log_aspect, config.log_aspect, size=count))
    width = np.minimum(1.0, np.sqrt(area * aspect))
    height = np.minimum(1.0, np.sqrt(area / aspect))
    left = random.uniform(size=count) * (1 - width)
    top = random.uniform(size=count) * (1 - height)
    return np.stack([left, top, left + width, top + height], axis=1).astype(np.float32)


def draw_view(pictures: int, view: int, *, seed: int, config: ViewConfig, mosaic: bool = False) -> View:
    """Draw view number `view` of `pictures` pictures; the same arguments give the same view."""
    random = np.random.default_rng((seed, view))
    boxes = draw_boxes(pictures, config=config, random=random)
    flips = random.uniform(size=pictures) < 0.5
    reach = np.array([config.brightness, config.contrast, config.saturation])
    colours = 1 + reach * random.uniform(-1, 1, size=(pictures, 3))
    beside = random.integers(pictures, size=(pictures, 3)) if mosaic else None
    return View(boxes, flips, colours.astype(np.float32), beside)


def render(picture: np.ndarray, box: np.ndarray, *, flip: bool, size: int) -> np.ndarray:
    """Cut `box` out of one uint8 [H, W, 3] picture, enlarge it to uint8 [size, size, 3], bicubic."""
    height, width = picture.shape[:2]
    corners = (box[0] * width, box[1] * height, box[2] * width, box[3] * height)
    image = Image.fromarray(picture).resize((size, size), Image.Resampling.BICUBIC, box=corners)
    pixels = np.asarray(image)
    return pixels[:, ::-1] if flip else pixels


def _seen(pictures: np.ndarray, view: View, index: int, *, size: int) -> np.ndarray:
    """Picture `index` as the view shows it, uint8 [size, size, 3], before colours."""

    def one(i: int, side: int) -> np.ndarray:
        return render(pictures[i], view.boxes[i], flip=bool(view.flips[i]), size=side)

    if view.beside is None:
        return one(index, size)
    half = size // 2
    a, b, c, d = (one(i, half) for i in (index, *view.beside[index].tolist()))
    return np.concatenate([np.concatenate([a, b], axis=1), np.concatenate([c, d], axis=1)])


def recolour(batch: torch.Tensor, colours: torch.Tensor) -> torch.Tensor:
    """Brightness, contrast and saturation of a batch [n, 3, S, S] in 0..1, by factors [n, 3]."""
    brightness, contrast, saturation = (colours[:, i].view(-1, 1, 1, 1) for i in range(3))
    batch = batch * brightness
    grey = (batch * batch.new_tensor(_LUMA).view(1, 3, 1, 1)).sum(1, keepdim=True)
    batch = grey + saturation * (batch - grey)
    mean = grey.mean(dim=(2, 3), keepdim=True)
    return (mean + contrast * (batch - mean)).clamp_(0, 1)


def normalise(pixels: np.ndarray) -> torch.Tensor:
    """Turn uint8 [n, S, S, 3] into the network's float32 [n, 3, S, S] (channels-last in memory)."""
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    return batch.sub_(MEAN).div_(STD).contiguous(memory_format=torch.channels_last)


def batch_of_views(pictures: np.ndarray, view: View, indices: np.ndarray, *, size: int) -> torch.Tensor:
    """Render the pictures at `indices` as float32 [n, 3, size, size], normalised, channels-last in memory."""
    pixels = np.stack([_seen(pictures, view, i, size=size) for i in indices.tolist()])
    batch = torch.from_numpy(pixels).permute(0, 3, 1, 2).float().div_(255)
    batch = recolour(batch, torch.from_numpy(view.colours[indices]))
    return batch.sub_(MEAN).div_(STD).contiguous(memory_format=torch.channels_last)
