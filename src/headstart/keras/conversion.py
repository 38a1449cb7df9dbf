"""`to_classifier`: a trained Keras model as a Headstart classifier: evaluate, report, export, serve it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from headstart.backbones.keras.export import write_onnx
from headstart.backbones.pixels import RANGES
from headstart.classifier import MODEL_FILE, Classifier
from headstart.data.preprocess import Preprocess
from headstart.errors import OptionError, ParityError

_PARITY_IMAGES = 4
_PARITY = 1e-3
"""The largest difference of a probability that float32 in another runtime explains."""


def to_classifier(
    model: Any,
    folder: str | Path,
    *,
    classes: Sequence[str],
    pixels: str | Preprocess = "-1..1",
    logits: bool = False,
) -> Classifier:
    """Save a trained Keras model as a `Classifier` in ``folder``, and check that it predicts the same.

    Args:
        model: image classifier with one input [N, S, S, 3] and one output: softmax over the classes, or one
            sigmoid for two classes, or logits.
        folder: made if need be; gets `model.onnx` and `classifier.json`.
        classes: labels in the order of the outputs.
        pixels: what the model was trained on: "0..255", "0..1" or "-1..1" (images squashed to S x S), or a
            `Preprocess` that says it in full.
        logits: whether the output still needs a softmax.

    Raises:
        OptionError: the model's input or output is not as above.
        MissingExtra: what writes ONNX files is not installed.
        ParityError: the saved model predicts something else.
    """
    preprocess = _preprocess(model, pixels)
    whole = _whole(model, preprocess, classes=classes, logits=logits)
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    size = preprocess.size
    signature = keras.InputSpec(shape=(None, size, size, 3), dtype="uint8", name="pixels")
    write_onnx(whole, target / MODEL_FILE, signature=signature, outputs=["probabilities"])
    about = {
        "backbone": f"keras:{model.name}",
        "architecture": type(model).__name__,
        "head": "softmax",
        "layers": [],
        "temperature": 1.0,
    }
    classifier = Classifier(
        classes=tuple(classes), preprocess=preprocess, model=target / MODEL_FILE, precision="f32", about=about
    )
    _check(classifier, whole)
    classifier.save(target)
    return classifier


def _preprocess(model: Any, pixels: str | Preprocess) -> Preprocess:
    shape = getattr(model, "input_shape", None)
    if isinstance(shape, list) or shape is None or len(shape) != 4 or shape[-1] != 3:
        raise OptionError(f"model '{model.name}': expected one input [N, S, S, 3], got {shape}")
    if isinstance(pixels, Preprocess):
        if any(side not in (None, pixels.size) for side in shape[1:3]):
            raise OptionError(f"model '{model.name}' sees {shape[1:3]} pixels; pixels says {pixels.size}")
        return pixels
    if pixels not in RANGES:
        raise OptionError(f"pixels: expected {', '.join(RANGES)} or a Preprocess; got {pixels!r}")
    if shape[1] is None or shape[1] != shape[2]:
        raise OptionError(f"model '{model.name}' sees {shape[1:3]} pixels: say the size with a Preprocess")
    mean, std = RANGES[pixels]
    return Preprocess(int(shape[1]), 1.0, "bilinear", "squash", mean, std)


def _whole(model: Any, preprocess: Preprocess, *, classes: Sequence[str], logits: bool) -> Any:
    """From bytes to probabilities, as one Keras model."""
    scale = 1.0 / (255.0 * np.array(preprocess.std))
    offset = -np.array(preprocess.mean) / np.array(preprocess.std)

    class Whole(keras.Model):  # type: ignore[misc]
        """Calls the user's model without becoming part of its graph."""

        def __init__(self) -> None:
            super().__init__(name="classifier")
            self.inner = model
            self.prepare = keras.layers.Rescaling(scale.tolist(), offset.tolist(), name="prepare")

        def call(self, images: Any) -> Any:
            found = self.inner(self.prepare(keras.ops.cast(images, "float32")), training=False)
            found = keras.ops.cast(found, "float32")
            if logits:
                return keras.ops.softmax(found, axis=-1)
            return keras.ops.concatenate([1.0 - found, found], axis=-1) if binary else found

    outputs = getattr(model, "output_shape", None)
    width = outputs[-1] if isinstance(outputs, tuple) and len(outputs) == 2 else None
    binary = width == 1 and len(classes) == 2 and not logits
    if width != len(classes) and not binary:
        raise OptionError(f"model '{model.name}' gives {outputs}: expected {len(classes)} classes")
    whole = Whole()
    found = np.asarray(whole.predict_on_batch(_images(preprocess.size)))
    if found.min() < 0 or not np.allclose(found.sum(axis=1), 1, atol=1e-3):
        raise OptionError(f"model '{model.name}' gives no probabilities: pass logits=True")
    return whole


def _images(size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A few noisy images, the same every time."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (_PARITY_IMAGES, size, size, 3)).astype(np.uint8)


def _check(classifier: Classifier, whole: Any) -> None:
    pixels = _images(classifier.preprocess.size)
    expected = np.asarray(whole.predict_on_batch(pixels))
    difference = float(np.abs(classifier.probabilities(pixels) - expected).max())
    if not difference <= _PARITY:
        raise ParityError(
            f"{classifier.model}: probabilities differ by {difference:.3g} from the Keras model's "
            f"(at most {_PARITY:g} expected); please report this"
        )
