"""`prefix`: what `fit` would cache, before anything runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from headstart.errors import OptionError
from headstart.keras.cutting import Cut, Stop, cut_model
from headstart.keras.worth import WORTH, cannot, speed_up, wants_keras

_SHOWN_STOPS = 3


@dataclass(frozen=True)
class Prefix:
    """The part of a model that would run once per image. ``print`` it to read it.

    Attributes:
        model: its name.
        layers: calls of layers in the prefix, and in the whole model.
        multiply_adds: of one image's forward pass: of the prefix, and of the whole model.
        tensors: what is cached: the layer that gives it, and its shape without the batch.
        bytes_per_image: of all tensors; None where a dimension is only known from the data.
        stops: layers at which the prefix ends, and why.
        epochs: what ``speed_up`` is predicted for.
        speed_up: predicted time of ``model.fit`` over `fit`'s, counting multiply-adds; a run also has costs
            that do not depend on the model, so a small one gains less.
        runtime: what would compute the features, unless it turns out to differ from Keras.
        reason: why nothing would be cached; empty where something would.
    """

    model: str
    layers: tuple[int, int]
    multiply_adds: tuple[int, int]
    tensors: tuple[tuple[str, tuple[int | None, ...]], ...]
    bytes_per_image: int | None
    stops: tuple[Stop, ...]
    epochs: int
    speed_up: float
    runtime: str
    reason: str

    @property
    def share(self) -> float:
        """The prefix's part of the multiply-adds, 0 to 1."""
        return self.multiply_adds[0] / max(1, self.multiply_adds[1])

    def __str__(self) -> str:
        if self.reason:
            return f"{self.model}: nothing to cache: {self.reason}"
        size = (
            "a size that depends on x" if self.bytes_per_image is None else f"{self.bytes_per_image:,} bytes"
        )
        epochs = "1 epoch" if self.epochs == 1 else f"{self.epochs} epochs"
        lines = [
            f"{self.model}: {self.layers[0]} of {self.layers[1]} layers are fixed, "
            f"{100 * self.share:.1f} % of {self.multiply_adds[1] / 1e6:,.1f} million multiply-adds",
            f"cached per image: {size} ({', '.join(f'{name} {shape}' for name, shape in self.tensors)})",
            f"expected over {epochs}: {self.speed_up:.1f} times as fast, by {self.runtime}",
        ]
        if self.speed_up < WORTH:
            lines.append("which does not pay: headstart.keras.fit calls model.fit, unless told cache=True")
        lines += [f"ends at '{stop.layer}': {stop.reason}" for stop in self.stops[:_SHOWN_STOPS]]
        return "\n".join(lines)


def prefix(model: Any, *, epochs: int = 10) -> Prefix:
    """What `fit` would cache of a built model, its share of the work, and the expected saving.

    Raises:
        OptionError: random augmentation stands in front of frozen layers, or ``epochs`` is not positive.
    """
    if epochs < 1:
        raise OptionError(f"epochs: expected 1 or more, got {epochs}")
    reason = cannot(model)
    if reason is not None:
        return Prefix(str(model.name), (0, 0), (0, 0), (), 0, (), epochs, 1.0, "", reason)
    cut = cut_model(model)
    share = cut.multiply_adds
    return Prefix(
        model=str(model.name),
        layers=(len(cut.prefix.calls), len(cut.graph.calls)),
        multiply_adds=share,
        tensors=_tensors(cut),
        bytes_per_image=cut.bytes_per_image,
        stops=cut.stops,
        epochs=epochs,
        speed_up=speed_up(cut, epochs=epochs),
        runtime="Keras" if wants_keras(cut) else "OpenVINO",
        reason="" if share[0] else "no layer that computes is fixed",
    )


def _tensors(cut: Cut) -> tuple[tuple[str, tuple[int | None, ...]], ...]:
    makers = {key: call.name for call in cut.prefix.calls for key in call.outputs}
    return tuple((makers[key], tuple(cut.graph.specs[key].shape[1:])) for key in cut.cached)
