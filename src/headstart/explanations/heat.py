"""The heat map of one image, by the method that fits the classifier."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.building import require_timm
from headstart.backbones.runtimes.model import compile_model
from headstart.backbones.runtimes.protocol import FrozenPart
from headstart.classifier import Classifier
from headstart.data.images import load_pixels
from headstart.data.sources import FileSource
from headstart.errors import BackboneError, ImageError, MissingExtra, OptionError
from headstart.explanations.activation import class_activation
from headstart.explanations.head_inputs import Reading, readings_of
from headstart.explanations.occlusion import occlusion
from headstart.heads.decisions import decide
from headstart.heads.tasks import only_single_label
from headstart.runs.formatting import percent

if TYPE_CHECKING:
    from headstart.classifier.onnx_graph import SavedGraph

METHODS = ("auto", "cam", "grad-cam", "occlusion")

_WORDS = {
    "cam": "class activation map",
    "grad-cam": "gradient-weighted class activation map",
    "occlusion": "occlusion",
}

_BATCH = 32

Signed = NDArray[np.float32]
"""[S, S]: what speaks for the label is above 0, what speaks against it below."""


@dataclass(frozen=True, eq=False)
class HeatMap:
    """Where the evidence for a label is.

    Attributes:
        values: float32 [S, S], 0 to 1, over ``pixels``; 1 speaks most for the label, 0 does not or speaks
            against it. All 0 where nothing speaks for it.
        label: what the heat speaks for.
        probability: what the classifier gives that label.
        method: "cam", "grad-cam" or "occlusion".
        pixels: uint8 [S, S, 3], what the classifier saw: the image resized and cropped.
    """

    values: NDArray[np.float32] = field(repr=False)
    label: str
    probability: float
    method: str
    pixels: NDArray[np.uint8] = field(repr=False)

    def legend(self) -> str:
        """One sentence for people and for screen readers."""
        heat = "bright parts speak for" if self.values.any() else "nothing in the picture speaks for"
        return f"{heat} {self.label} ({percent(self.probability)}; {_WORDS[self.method]})"


def heat_map(
    classifier: Classifier, image: Any, *, label: str | None = None, method: str = "auto"
) -> HeatMap:
    """Which parts of an image speak for a label; for several images make one `Explainer`.

    Args:
        classifier: a trained one.
        image: a file, a file's bytes, or pixels, uint8 [H, W, 3].
        label: one of the classifier's; None for the one that it calls.
        method: "auto"; "cam", exact where nothing but averages lies between a map and the head; "grad-cam",
            which needs PyTorch where that is not so; "occlusion".

    Raises:
        OptionError: the label or the method is unknown, or the method cannot be had for this classifier.
        ImageError: the image cannot be read.
        MissingExtra: "grad-cam" without PyTorch.
    """
    return Explainer(classifier).heat_map(image, label=label, method=method)


class Explainer:
    """Makes the heat maps of one classifier; what is loaded for the first serves all others."""

    def __init__(self, classifier: Classifier) -> None:
        self.classifier = classifier
        self._compiled: dict[tuple[tuple[str, ...], int], FrozenPart] = {}

    def heat_map(self, image: Any, *, label: str | None = None, method: str = "auto") -> HeatMap:
        """See the function `heat_map`."""
        only_single_label(self.classifier.task, "an explanation")
        if method not in METHODS:
            raise OptionError(f"method {method!r}: expected one of {', '.join(METHODS)}")
        pixels = _pixels(self.classifier, image)
        probabilities = self.classifier.probabilities(pixels[None])[0]
        called = int(decide(probabilities[None], self.classifier.cost_matrix)[0])
        chosen = called if label is None else _index(self.classifier, label)
        used, signed = self._signed(pixels, label=chosen, method=method)
        heat = np.maximum(signed, 0)
        top = float(heat.max())
        return HeatMap(
            values=(heat / top if top > 0 else heat).astype(np.float32),
            label=self.classifier.classes[chosen],
            probability=float(probabilities[chosen]),
            method=used,
            pixels=pixels,
        )

    def _signed(self, pixels: NDArray[np.uint8], *, label: int, method: str) -> tuple[str, Signed]:
        """The method used, and its map: closed form, else a gradient, else occlusion."""
        if not self.classifier.about.get("in_rows", True):
            if method in ("cam", "grad-cam"):
                raise OptionError(
                    f"method {method}: this network keeps its patches in another order than row by row; "
                    "take occlusion or auto"
                )
            return "occlusion", occlusion(pixels, self._logits, label=label)
        closed = all(reading.tensor is not None for reading in self._readings)
        if method == "cam" or (method == "auto" and closed):
            if not closed:
                raise OptionError(
                    "method cam: between the last map and the head this network does more than average; "
                    "take grad-cam, occlusion or auto"
                )
            return "cam", self._class_activation(pixels, self._readings, label=label)
        if method in ("auto", "grad-cam"):
            try:
                return "grad-cam", self._gradient(pixels, label=label)
            except (MissingExtra, BackboneError, OptionError):
                if method == "grad-cam":
                    raise
        return "occlusion", occlusion(pixels, self._logits, label=label)

    def _class_activation(
        self, pixels: NDArray[np.uint8], readings: Sequence[Reading], *, label: int
    ) -> Signed:
        maps = self._maps(pixels, {str(reading.tensor) for reading in readings})
        return class_activation(maps, readings, label=label, side=len(pixels))

    def _gradient(self, pixels: NDArray[np.uint8], *, label: int) -> Signed:
        require_timm("method grad-cam")
        from headstart.explanations.gradient import gradient_activation

        if not any(reading.is_features for reading in self._readings):
            return self._class_activation(pixels, self._readings, label=label)
        last, pool = self._pool
        names = {str(reading.tensor) for reading in self._readings if not reading.is_features}
        maps = self._maps(pixels, names | {last})
        return gradient_activation(maps, pool, self._readings, last=last, label=label, side=len(pixels))

    def _maps(self, pixels: NDArray[np.uint8], names: set[str]) -> dict[str, NDArray[np.float32]]:
        """Maps of one image, uint8 [S, S, 3], by the names that they have in the graph."""
        ((_, found),) = self._network(tuple(sorted(names)), batch_size=1).stream([(0, pixels[None])])
        return {name: found[name][0] for name in names}

    def _logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Logits [N, C], divided by the temperature, of images uint8 [N, S, S, 3]."""
        name = str(self._graph.makers["probabilities"].input[0])
        batches = ((start, pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
        found = self._network((name,), batch_size=_BATCH).stream(batches)
        return np.concatenate([outputs[name] for _, outputs in found])

    def _network(self, names: tuple[str, ...], *, batch_size: int) -> FrozenPart:
        key = names, batch_size
        if key not in self._compiled:
            self._compiled[key] = compile_model(
                self.classifier.model,
                size=self.classifier.preprocess.size,
                batch_size=batch_size,
                precision=self.classifier.precision,
                outputs=self.classifier.outputs,
                inner=names,
            )
        return self._compiled[key]

    @cached_property
    def _graph(self) -> "SavedGraph":
        from headstart.classifier.onnx_graph import SavedGraph

        return SavedGraph.read(self.classifier.model)

    @cached_property
    def _readings(self) -> tuple[Reading, ...]:
        return readings_of(self._graph, self.classifier.about["layers"])

    @cached_property
    def _pool(self) -> tuple[str, Any]:
        from headstart.explanations.gradient import trained_pool

        return trained_pool(self.classifier)


def _index(classifier: Classifier, label: str) -> int:
    if label not in classifier.classes:
        known = ", ".join(classifier.classes[:6]) + (", …" if len(classifier.classes) > 6 else "")
        raise OptionError(f"label {label!r}: this classifier knows {known}")
    return classifier.classes.index(label)


def _pixels(classifier: Classifier, image: Any) -> NDArray[np.uint8]:
    """An image, from wherever, as the classifier sees it, uint8 [S, S, 3]."""
    if not isinstance(image, str | os.PathLike):
        return load_pixels(image, classifier.preprocess)
    try:
        return load_pixels(FileSource(os.fspath(image)).read(), classifier.preprocess)
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error
