"""What the rest of the package needs of a runtime."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from headstart.backbones.backbone import Backbone, FeatureLayer
from headstart.errors import InternalError, OptionError

Pixels = npt.NDArray[np.uint8]
Arrays = dict[str, npt.NDArray[np.float32]]
Ticket = TypeVar("Ticket")

PRECISIONS = ("bf16", "f32")

ACTIVATION = "activation"
"""The output that carries the map of the last frozen stage."""


class FrozenPart(Protocol):
    """A frozen part ready to run."""

    outputs: tuple[str, ...]
    """``activation`` where the depth is below full, then the maps at further cuts, the deepest first, then
    the layers' names."""

    def stream(self, batches: Iterable[tuple[Ticket, Pixels]]) -> Iterator[tuple[Ticket, Arrays]]:
        """Run batches of at most the compiled size, in order, several in flight.

        Args:
            batches: What the caller wants handed back, and uint8 ``[n, S, S, 3]``; ``n`` may vary. The
                arrays may be reused by the caller as soon as the next batch is asked for.

        Yields:
            What the caller gave, and per output a float32 array ``[n, …]`` that is the caller's to keep.

        Raises:
            OptionError: An array has the wrong shape or type, or more images than were compiled for.
            InternalError: The network's numbers overflowed.
        """
        ...


class Runtime(ABC):
    """Executes prefixes."""

    name: str  # `openvino` or `torch`
    precision: str  # `bf16` or `f32`

    def best_batch_size(self, side: int) -> int:
        """How many images of so many pixels a side it runs fastest at once."""
        return 16

    def compile(
        self,
        backbone: Backbone,
        *,
        depth: int,
        layers: tuple[FeatureLayer, ...],
        batch_size: int = 32,
        also: tuple[int, ...] = (),
    ) -> FrozenPart:
        """Make the first ``depth`` stages ready to run on up to ``batch_size`` images at once.

        The maps at the shallower cuts ``also`` come out of the same pass, named ``activation-3`` and so on.

        Raises:
            OptionError: The backbone has no such depth or layer, a further cut is not between the pixels and
                the depth, nothing is asked for, or the batch is empty.
        """
        backbone.depth(depth)
        for cut in also:
            if not 0 < cut < depth or depth == len(backbone.stages):
                raise OptionError(f"backbone {backbone.name}: cut {cut} is not between 1 and depth {depth}")
        for layer in layers:
            layer.width(backbone)
        deepest = (ACTIVATION,) if depth < len(backbone.stages) else ()
        cuts = sorted(also, reverse=True)
        outputs = (*deepest, *(f"{ACTIVATION}-{cut}" for cut in cuts), *(layer.name for layer in layers))
        if not outputs:
            raise OptionError(
                f"backbone {backbone.name}: everything is frozen and no layer is asked for; give one"
            )
        if batch_size < 1:
            raise OptionError(f"batch size {batch_size}: expected at least 1")
        return self._compile(
            backbone, cuts=(depth, *cuts), layers=layers, batch_size=batch_size, outputs=outputs
        )

    @abstractmethod
    def _compile(
        self,
        backbone: Backbone,
        *,
        cuts: tuple[int, ...],
        layers: tuple[FeatureLayer, ...],
        batch_size: int,
        outputs: tuple[str, ...],
    ) -> FrozenPart:
        """What `compile` has checked; the deepest cut is the first."""


def chosen_precision(precision: str, *, fast: bool) -> str:
    """``auto`` is bfloat16 where it is fast; OptionError for an unknown word."""
    if precision not in ("auto", *PRECISIONS):
        raise OptionError(f"precision {precision!r}: expected auto, {' or '.join(PRECISIONS)}")
    return ("bf16" if fast else "f32") if precision == "auto" else precision


def check_batch(pixels: Any, *, size: int, batch_size: int) -> None:
    """Refuse a batch of the wrong type or shape, or of too many images, with an OptionError."""
    shape, kind = getattr(pixels, "shape", None), getattr(pixels, "dtype", None)
    if kind != np.uint8 or shape is None or len(shape) != 4 or shape[1:] != (size, size, 3):
        raise OptionError(f"batch: expected uint8 [n, {size}, {size}, 3], got {kind} {shape}")
    if not 1 <= shape[0] <= batch_size:
        raise OptionError(f"batch: expected 1 to {batch_size} images, got {shape[0]}")


def check_finite(arrays: Arrays) -> None:
    """Refuse results with infinities or NaN in them, with an InternalError."""
    for name, values in arrays.items():
        # The extremes carry any NaN or infinity, and finding them is cheaper than testing every value.
        if not (np.isfinite(values.min()) and np.isfinite(values.max())):
            raise InternalError(f"output {name}: the network's numbers overflowed; try precision f32")
