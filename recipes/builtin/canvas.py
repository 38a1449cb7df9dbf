"""Views drawn afresh for every batch and rendered where the network runs: what an accelerator trains on.

`views.py` draws a view once, so that the teacher's answers can be stored. Where the teacher answers faster
than a disk reads, nothing is stored, and no picture is seen twice in the same view. Resizing is two matrix
products a picture, with Pillow's bicubic weights, so that both ways show the same pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor
from views import MEAN, MOSAIC, STD, ViewConfig, draw_boxes, recolour

_BICUBIC = -0.5  # the cubic's parameter, as Pillow has it


def _cubic(distance: Tensor) -> Tensor:
    x, a = distance.abs(), _BICUBIC
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def resampling(first: Tensor, last: Tensor, *, source: int, size: int) -> Tensor:
    """Matrices [n, size, source] that resize `source` pixels between `first` and `last` [n], in pixels.

    Pillow's bicubic: where it shrinks, the kernel widens with the scale.
    """
    scale = (last - first).view(-1, 1, 1) / size
    wide = scale.clamp(min=1.0)
    centres = first.view(-1, 1, 1) + (torch.arange(size, device=first.device).view(1, -1, 1) + 0.5) * scale
    pixels = torch.arange(source, device=first.device).view(1, 1, -1) + 0.5
    weights = _cubic((pixels - centres) / wide)
    return weights / weights.sum(2, keepdim=True)


@dataclass(frozen=True)
class Tiles:
    """Pieces of pictures: which [n], boxes [n, 4] (left, top, right, bottom, as shares), flips [n]."""

    pictures: Tensor
    boxes: Tensor
    flips: Tensor

    def to(self, device: torch.device) -> Tiles:
        """The same on another device."""
        return Tiles(*(t.to(device, non_blocking=True) for t in (self.pictures, self.boxes, self.flips)))


@dataclass(frozen=True)
class Batch:
    """What one step shows: single pictures, then mosaics of four.

    Attributes:
        single: n tiles, one an image.
        mosaic: 4 m tiles, four an image.
        colours: float32 [n + m, 3], factors of brightness, contrast, saturation.
        mixing: float32 [n], the share of the single picture that the next one replaces; 0 for most.
    """

    single: Tiles
    mosaic: Tiles
    colours: Tensor
    mixing: Tensor

    def to(self, device: torch.device) -> Batch:
        """The same on another device."""
        return Batch(
            self.single.to(device),
            self.mosaic.to(device),
            self.colours.to(device, non_blocking=True),
            self.mixing.to(device, non_blocking=True),
        )


@dataclass(frozen=True)
class Drawing:
    """How batches are drawn."""

    mosaics: float = 0.5  # share of a batch that shows four pictures, as sharp as the archive has them
    mixed: float = 0.25  # share of the single pictures that are blended with another
    most: float = 0.5  # the most of a picture that is blended away
    view: ViewConfig = field(default_factory=ViewConfig)
    mosaic_view: ViewConfig = MOSAIC


def _tiles(count: int, *, of: int, config: ViewConfig, random: np.random.Generator) -> Tiles:
    boxes = draw_boxes(count, config=config, random=random)
    flips = random.uniform(size=count) < 0.5
    chosen = random.integers(of, size=count)
    return Tiles(torch.from_numpy(chosen), torch.from_numpy(boxes), torch.from_numpy(flips))


def draw(step: int, *, batch: int, pictures: int, drawing: Drawing, seed: int) -> Batch:
    """Step `step`'s batch out of `pictures` pictures; the same arguments give the same batch."""
    random = np.random.default_rng((seed, step))
    mosaics = round(drawing.mosaics * batch)
    single = _tiles(batch - mosaics, of=pictures, config=drawing.view, random=random)
    mosaic = _tiles(4 * mosaics, of=pictures, config=drawing.mosaic_view, random=random)
    reach = np.array([drawing.view.brightness, drawing.view.contrast, drawing.view.saturation])
    colours = 1 + reach * random.uniform(-1, 1, size=(batch, 3))
    chosen = random.uniform(size=batch - mosaics) < drawing.mixed
    mixing = chosen * random.uniform(0, drawing.most, size=batch - mosaics)
    return Batch(
        single,
        mosaic,
        torch.from_numpy(colours.astype(np.float32)),
        torch.from_numpy(mixing.astype(np.float32)),
    )


def _render(pictures: Tensor, tiles: Tiles, *, size: int) -> Tensor:
    """Tiles of uint8 pictures [N, H, H, 3] as float [n, 3, size, size] in 0..1."""
    side = pictures.shape[1]
    left, top, right, bottom = (tiles.boxes * side).unbind(1)
    rows = resampling(top, bottom, source=side, size=size)
    columns = resampling(left, right, source=side, size=size)
    columns = torch.where(tiles.flips.view(-1, 1, 1), columns.flip(1), columns)
    pixels = pictures[tiles.pictures].float().div_(255)
    count = len(pixels)
    tall = torch.bmm(rows, pixels.view(count, side, side * 3)).view(count, size, side, 3)
    wide = torch.bmm(columns, tall.transpose(1, 2).reshape(count, side, size * 3))
    return wide.view(count, size, size, 3).permute(0, 3, 2, 1).clamp(0, 1)


def show(pictures: Tensor, batch: Batch, *, size: int) -> Tensor:
    """The batch's images as the networks take them, float [n, 3, size, size], channels-last in memory.

    Args:
        pictures: uint8 [N, H, H, 3], on the device that renders.
        batch: on the same device.
        size: even, in pixels; one batch can be shown at several sizes.
    """
    single = _render(pictures, batch.single, size=size)
    share = batch.mixing.view(-1, 1, 1, 1)
    single = single + share * (single.roll(1, 0) - single)
    quarters = _render(pictures, batch.mosaic, size=size // 2).unflatten(0, (-1, 4))
    above, below = torch.cat(quarters[:, :2].unbind(1), 3), torch.cat(quarters[:, 2:].unbind(1), 3)
    images = recolour(torch.cat([single, torch.cat([above, below], 2)]), batch.colours)
    return images.sub_(MEAN).div_(STD).contiguous(memory_format=torch.channels_last)
