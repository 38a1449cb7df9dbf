"""The heat map of one image, by the method that fits the classifier."""

import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.building import require_timm
from headstart.classifier import Classifier
from headstart.errors import BackboneError, ImageError, MissingExtra, OptionError
from headstart.explanations.activation import class_activation
from headstart.explanations.inside import inner_maps
from headstart.explanations.occlusion import occlusion
from headstart.explanations.readings import Reading, readings_of

METHODS = ("auto", "cam", "grad-cam", "occlusion")

_WORDS = {
    "cam": "class activation map",
    "grad-cam": "gradient-weighted class activation map",
    "occlusion": "occlusion",
}

Signed = NDArray[np.float32]


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
        return f"{heat} {self.label} ({self.probability:.1%}; {_WORDS[self.method]})"


def heat_map(
    classifier: Classifier, image: Any, *, label: str | None = None, method: str = "auto"
) -> HeatMap:
    """Which parts of an image speak for a label.

    Args:
        classifier: a trained one.
        image: a file, a file's bytes, or pixels, uint8 [H, W, 3].
        label: one of the classifier's; None for the likeliest.
        method: "auto"; "cam", exact where nothing but averages lies between a map and the head; "grad-cam",
            which needs PyTorch where that is not so; "occlusion".

    Raises:
        OptionError: the label or the method is unknown, or the method cannot be had for this classifier.
        ImageError: the image cannot be read.
        MissingExtra: "grad-cam" without PyTorch.
    """
    if method not in METHODS:
        raise OptionError(f"method {method!r}: expected one of {', '.join(METHODS)}")
    pixels = _pixels(classifier, image)
    return heat_map_of_pixels(classifier, pixels, label=label, method=method)


def heat_map_of_pixels(
    classifier: Classifier, pixels: NDArray[np.uint8], *, label: str | None = None, method: str = "auto"
) -> HeatMap:
    """`heat_map` for an image that is rendered already, uint8 [S, S, 3]."""
    readings = readings_of(classifier)
    probabilities = classifier.probabilities(pixels[None])[0]
    chosen = int(probabilities.argmax()) if label is None else _index(classifier, label)
    ways: dict[str, Callable[[], Signed]] = {
        "cam": lambda: _closed_form(classifier, pixels, readings, label=chosen),
        "grad-cam": lambda: _gradient(classifier, pixels, readings, label=chosen),
        "occlusion": lambda: occlusion(classifier, pixels, label=chosen),
    }
    used, signed = _first(ways, readings) if method == "auto" else (method, ways[method]())
    heat = np.maximum(signed, 0)
    top = float(heat.max())
    return HeatMap(
        values=(heat / top if top > 0 else heat).astype(np.float32),
        label=classifier.classes[chosen],
        probability=float(probabilities[chosen]),
        method=used,
        pixels=pixels,
    )


def _first(ways: dict[str, Callable[[], Signed]], readings: tuple[Reading, ...]) -> tuple[str, Signed]:
    """The closed form where there is one; a gradient where there is PyTorch; else occlusion."""
    if all(reading.tensor is not None for reading in readings):
        return "cam", ways["cam"]()
    try:
        return "grad-cam", ways["grad-cam"]()
    except (
        MissingExtra,
        BackboneError,
        OptionError,
    ):  # no PyTorch, no weights, no gradient to be had
        return "occlusion", ways["occlusion"]()


def _closed_form(
    classifier: Classifier, pixels: NDArray[np.uint8], readings: tuple[Reading, ...], *, label: int
) -> Signed:
    if any(reading.tensor is None for reading in readings):
        raise OptionError(
            "method cam: between the last map and the head this network does more than average; "
            "take grad-cam, occlusion or auto"
        )
    names = sorted({str(reading.tensor) for reading in readings})
    return class_activation(inner_maps(classifier, pixels, names), readings, label=label, side=len(pixels))


def _gradient(
    classifier: Classifier, pixels: NDArray[np.uint8], readings: tuple[Reading, ...], *, label: int
) -> Signed:
    require_timm("method grad-cam")
    from headstart.explanations.gradient import gradient_activation

    return gradient_activation(classifier, pixels, readings, label=label)


def _index(classifier: Classifier, label: str) -> int:
    if label not in classifier.classes:
        known = ", ".join(classifier.classes[:6]) + (", …" if len(classifier.classes) > 6 else "")
        raise OptionError(f"label {label!r}: this classifier knows {known}")
    return classifier.classes.index(label)


def _pixels(classifier: Classifier, image: Any) -> NDArray[np.uint8]:
    """An image, from wherever, as the classifier sees it, uint8 [S, S, 3]."""
    from headstart.sources import FileSource

    if not isinstance(image, str | os.PathLike):
        return rendered(classifier, image)
    try:
        return rendered(classifier, FileSource(os.fspath(image)).read())
    except ImageError as error:
        raise ImageError(f"{image}: {error}") from error


def rendered(classifier: Classifier, data: bytes | NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A file's bytes, or pixels, as the classifier sees them, uint8 [S, S, 3]; may raise ImageError."""
    from headstart.images import CENTRE, open_image, render, shortest_side_needed

    image, _ = open_image(data, shortest_side=shortest_side_needed(classifier.preprocess, (CENTRE,)))
    return render(image, classifier.preprocess, CENTRE)
