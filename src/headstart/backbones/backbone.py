"""The values that describe a backbone: stages, layers, and where its graph and weights are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.building import Recipe, build
from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, OptionError

if TYPE_CHECKING:
    from headstart.backbones.staged import StagedModule

BYTES_PER_VALUE = 2
"""Cached maps are half precision."""

TAP_GRIDS = (1, 2, 4)
"""Cells a side that a stage's map may be averaged over; see `Backbone.layers` for which."""

_FINE_WIDTH = 1024
"""Numbers that a layer of the finest grid may have; wider ones cost more than they say."""

_FINE_SIDE = 16
"""Rows and columns of a map that the finest grid may average; larger maps hold edges rather than parts."""


@dataclass(frozen=True)
class Stage:
    """One ordered group of a backbone's layers, measured for one image of the backbone's size."""

    name: str  # `stem`, `block1` … and, where convolutions follow the blocks, `last`
    parameters: int  # trainable numbers; the last stage's include those between its map and the features
    multiply_adds: int  # of convolutions and matrix products
    shape: tuple[int, ...]  # of the output for one image, `(C, H, W)` or `(tokens, C)`
    prefix_tokens: int = 0  # how many of `tokens` come before the patches (class, distillation, registers)
    in_rows: bool = True  # false where the patches come in another order than row by row

    @property
    def bytes_per_image(self) -> int:
        """Of the output at two bytes a value."""
        return prod(self.shape) * BYTES_PER_VALUE

    @property
    def channels(self) -> int:
        """``C``, wherever it stands in ``shape``."""
        return self.shape[0] if len(self.shape) == 3 else self.shape[-1]

    @property
    def patch_grid(self) -> tuple[int, int] | None:
        """Rows and columns of the map or of the patch tokens; None where the patches form no square."""
        if len(self.shape) == 3:
            return self.shape[1], self.shape[2]
        if not self.in_rows:
            return None
        patches = self.shape[0] - self.prefix_tokens
        side = round(patches**0.5)
        return (side, side) if side * side == patches else None

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON-ready values."""
        return {**asdict(self), "shape": list(self.shape)}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Stage:
        """The inverse of `to_dict`."""
        return cls(**{**fields, "shape": tuple(fields["shape"])})


@dataclass(frozen=True)
class FeatureLayer:
    """A stage whose map, averaged over ``grid`` x ``grid`` cells, a head may read."""

    stage: str
    grid: int

    @property
    def name(self) -> str:
        """``features``, ``block5@1x1``, ``block5@2x2``."""
        return self.stage if self.stage == "features" else f"{self.stage}@{self.grid}x{self.grid}"

    @classmethod
    def parse(cls, name: str) -> FeatureLayer:
        """The inverse of `name`; OptionError for what is not of that form."""
        if name == "features":
            return cls("features", 1)
        stage, at, cells = name.partition("@")
        for grid in TAP_GRIDS:
            if stage and at and cells == f"{grid}x{grid}":
                return cls(stage, grid)
        raise OptionError(f"layer {name!r}: expected 'features' or a stage with a grid, like 'block5@2x2'")

    def width(self, backbone: Backbone) -> int:
        """How many numbers it gives for one image; OptionError where the backbone has no such stage."""
        if self.stage == "features":
            return backbone.dimensions
        return backbone.stage(self.stage).channels * self.grid * self.grid


@dataclass(frozen=True)
class Backbone:
    """A pre-trained network without its classification head, ready to be executed or split."""

    name: str  # what the user asked for
    architecture: str  # timm's name of the network
    preprocess: Preprocess  # what its images must look like
    weights_hash: str  # hex digits that change with any weight
    pretrained: bool  # false for random weights
    stages: tuple[Stage, ...]  # ordered and complete, input to output
    dimensions: int  # `D`, the length of the feature vector
    graph: Path
    """The staged ONNX file: input `image`, float32 `[N, 3, S, S]`, normalised; one output per stage, named
    as the stage; `features` `[N, D]`."""
    recipe: Recipe | None = None  # how to make the PyTorch module; None where only the graph is left
    notes: tuple[str, ...] = ()  # what the user should know of how it was loaded, one sentence each
    card: str = field(default="", repr=False)
    """Where its weights come from and what they are worth, Markdown; may be empty."""

    def stage(self, name: str) -> Stage:
        """The stage of that name; OptionError where there is none."""
        found = next((stage for stage in self.stages if stage.name == name), None)
        if found is None:
            raise OptionError(f"backbone {self.name}: no stage {name!r}; it has {self._stage_names()}")
        return found

    def depth(self, freeze: int | str) -> int:
        """How many stages ``freeze`` means: a number, ``all``, ``none``, or the last frozen stage's name.

        Raises:
            OptionError: It means none of these for this backbone.
        """
        count = len(self.stages)
        text = str(freeze).strip().lower()
        if text in ("all", "none"):
            return count if text == "all" else 0
        if text.lstrip("-").isdecimal():
            if 0 <= int(text) <= count:
                return int(text)
            raise OptionError(
                f"freeze {text}: backbone {self.name} has {count} stages; give 0 to {count} or 'all'"
            )
        for position, stage in enumerate(self.stages, start=1):
            if stage.name == text:
                return position
        raise OptionError(
            f"freeze {freeze!r}: expected all, none, 0 to {count}, or one of {self._stage_names()}"
        )

    def feature_layers(self) -> tuple[FeatureLayer, ...]:
        """Every layer, input to output; the last one is ``features``.

        The mean of the last map is left out where it is what ``features`` already says. The finest grid is
        for middle stages: where things stand is worth most there, and their layers stay narrow.
        """
        found = []
        for position, stage in enumerate(self.stages, start=1):
            for grid in TAP_GRIDS:
                repeats = position == len(self.stages) and grid == 1 and len(stage.shape) == 3
                if not repeats and _offers(stage, grid):
                    found.append(FeatureLayer(stage.name, grid))
        return (*found, FeatureLayer("features", 1))

    def module(self) -> StagedModule:
        """A new PyTorch module with these weights, in eval mode.

        Raises:
            MissingExtra: PyTorch or timm is not installed.
            BackboneError: Nothing is known of how to make it, or its weights are gone.
        """
        if self.recipe is None:
            raise BackboneError(
                f"backbone {self.name} is a finished graph: it has no PyTorch module to run or to train; "
                "take runtime openvino and freeze=all"
            )
        return build(self.recipe, size=self.preprocess.size, name=self.name)

    def _stage_names(self) -> str:
        return ", ".join(stage.name for stage in self.stages)


def _offers(stage: Stage, grid: int) -> bool:
    """Whether a stage's map has the cells for a grid and, for the finest, is worth it."""
    if grid == 1:
        return True
    cells = stage.patch_grid
    if cells is None or min(cells) < grid:
        return False
    if grid < TAP_GRIDS[-1]:
        return True
    whole = not any(side % grid for side in cells)
    return whole and max(cells) <= _FINE_SIDE and stage.channels * grid**2 <= _FINE_WIDTH
