"""A linear classifier on cached features: softmax, cross-entropy, Adam.

Its defaults are those of a Keras `Dense(classes, activation="softmax")` compiled with "adam": Glorot uniform
weights, zero bias, learning rate 0.001, batches of 32. The losses and accuracies per epoch are what such a
`fit` prints: averages over the epoch's batches as they were seen, each before its own update.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike

from headstart.errors import OptionError
from headstart.heads.linear import (
    Floats,
    Integers,
    LinearHead,
    calibrate_temperature,
    checked,
    class_weight_vector,
    log_losses,
    softmax,
)
from headstart.heads.threads import threads_for

Epoch = dict[str, float]


@dataclass(frozen=True, eq=False)
class SoftmaxFit:
    """A softmax head and how it came about."""

    head: LinearHead  # over raw features
    history: tuple[Epoch, ...]
    """One row per epoch with `epoch`, `loss`, `accuracy` and, given validation images, `validation_loss` and
    `validation_accuracy`; accuracies 0 to 1."""


@dataclass
class Adam:
    """Adam as Keras runs it: the bias corrections go into the step and epsilon stays outside them.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015, the form at the end of
    section 2; the defaults are Keras's.
    """

    learning_rate: float = 1e-3
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-7
    step: int = 0
    _first: dict[int, Floats] = field(default_factory=dict)
    _second: dict[int, Floats] = field(default_factory=dict)

    def update(self, parameters: Sequence[Floats], gradients: Sequence[Floats]) -> None:
        """Moves the parameters in place, one step down their gradients."""
        self.step += 1
        correction = np.sqrt(1 - self.beta2**self.step) / (1 - self.beta1**self.step)
        rate = np.float32(self.learning_rate * correction)
        for index, (parameter, gradient) in enumerate(zip(parameters, gradients, strict=True)):
            first = self._first.setdefault(index, np.zeros_like(parameter))
            second = self._second.setdefault(index, np.zeros_like(parameter))
            first += np.float32(1 - self.beta1) * (gradient - first)
            second += np.float32(1 - self.beta2) * (np.square(gradient) - second)
            parameter -= rate * first / (np.sqrt(second) + np.float32(self.epsilon))


def fit_softmax(
    features: ArrayLike,
    labels: ArrayLike,
    *,
    classes: int,
    epochs: int = 10,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    validation: tuple[ArrayLike, ArrayLike] | None = None,
    class_weights: str | Mapping[int, float] | Sequence[float] | None = None,
    standardise: bool = False,
    calibrate: bool = False,
    image_weights: ArrayLike | None = None,
    progress: Callable[[Epoch], object] | None = None,
) -> SoftmaxFit:
    """Trains a softmax head on features.

    Args:
        features: [N, D].
        labels: [N], 0 to C - 1.
        classes: C.
        epochs: Passes over the images, each in a new order.
        batch_size: Images per step; the last batch of an epoch may be smaller.
        learning_rate: Adam's.
        seed: Of the first weights and the orders.
        validation: `(features [M, D], labels [M])`, evaluated after every epoch.
        class_weights: None, "balanced", a mapping or C numbers; they multiply the images' losses.
        standardise: Train on standardised features (and fold that into the head). Off by default, as a dense
            layer in Keras would not; on, it converges in fewer epochs.
        calibrate: Choose the temperature on the validation images instead of leaving it at 1.
        image_weights: [N], above zero; they multiply the images' losses, too.
        progress: Called with the history's row after each epoch; training ends where it returns True.

    Returns:
        The last epoch's head and the history.

    Raises:
        OptionError: No images, shapes or labels that do not fit, or options that cannot work.
    """
    x, y = checked(features, labels, classes=classes)
    held_out = checked(*validation, classes=classes) if validation is not None else None
    _check_options(len(y), epochs, batch_size, learning_rate)
    if calibrate and held_out is None:
        raise OptionError("calibrating a softmax head needs validation images; give some, or calibrate=False")
    mean, deviation = np.zeros(x.shape[1], dtype=np.float32), np.ones(x.shape[1], dtype=np.float32)
    if standardise:
        mean, deviation = _standardisation(x)
        x = (x - mean) / deviation
        held_out = ((held_out[0] - mean) / deviation, held_out[1]) if held_out is not None else None
    weights = class_weight_vector(class_weights, np.bincount(y, minlength=classes)).astype(np.float32)
    own = weights[y]
    if image_weights is not None:
        own = own * np.asarray(image_weights, dtype=np.float32)
    generator = np.random.default_rng(seed)
    weight = glorot_uniform(x.shape[1], classes, generator=generator)
    bias = np.zeros(classes, dtype=np.float32)
    optimizer = Adam(learning_rate)
    history: list[Epoch] = []
    for epoch in range(1, epochs + 1):
        row = {"epoch": float(epoch)}
        order = generator.permutation(len(y))
        with threads_for(batch_size * weight.size):
            row |= _train_epoch(x, y, own, order, (weight, bias), optimizer, batch_size=batch_size)
        if held_out is not None:
            row |= _scores_on(held_out, weight, bias)
        history.append(row)
        if progress is not None and progress(row) is True:
            break
    temperature = 1.0
    if held_out is not None and calibrate:
        temperature = calibrate_temperature(held_out[0] @ weight + bias, held_out[1])
    weight /= deviation[:, None]
    bias -= mean @ weight
    return SoftmaxFit(LinearHead("softmax", weight, bias, temperature), tuple(history))


def _scores_on(held_out: tuple[Floats, Integers], weight: Floats, bias: Floats) -> Epoch:
    """Validation loss and accuracy."""
    logits = held_out[0] @ weight + bias
    accuracy = float((logits.argmax(axis=1) == held_out[1]).mean())
    return {"validation_loss": float(log_losses(logits, held_out[1]).mean()), "validation_accuracy": accuracy}


def _train_epoch(
    x: Floats,
    y: Integers,
    image_weights: Floats,
    order: Integers,
    parameters: tuple[Floats, Floats],
    optimizer: Adam,
    *,
    batch_size: int,
) -> Epoch:
    """One pass; updates the parameters in place and returns the loss and accuracy seen on the way."""
    weight, bias = parameters
    loss = 0.0
    correct = 0
    for start in range(0, len(order), batch_size):
        batch = order[start : start + batch_size]
        rows, targets = x[batch], y[batch]
        logits = rows @ weight + bias
        loss += float(log_losses(logits, targets) @ image_weights[batch])
        correct += int((logits.argmax(axis=1) == targets).sum())
        gradient = softmax(logits)
        gradient[np.arange(len(batch)), targets] -= 1
        gradient *= image_weights[batch, None] / np.float32(len(batch))
        optimizer.update((weight, bias), (rows.T @ gradient, gradient.sum(axis=0)))
    return {"loss": loss / len(order), "accuracy": correct / len(order)}


def glorot_uniform(width: int, classes: int, *, generator: np.random.Generator) -> Floats:
    """First weights, float32 [D, C], uniform within `sqrt(6 / (D + C))`.

    Source: Glorot and Bengio, "Understanding the difficulty of training deep feedforward neural networks",
    2010.
    """
    limit = np.sqrt(6 / (width + classes))
    return generator.uniform(-limit, limit, (width, classes)).astype(np.float32)


def _standardisation(x: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation of each column; a constant column keeps its scale."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    return mean, np.where(deviation > 1e-6 * np.abs(mean), deviation, 1).astype(np.float32)


def _check_options(images: int, epochs: int, batch_size: int, learning_rate: float) -> None:
    if images == 0:
        raise OptionError("there are no images to fit a head on")
    if epochs < 1 or batch_size < 1:
        raise OptionError(f"epochs and batch_size must be at least 1, got {epochs} and {batch_size}")
    if not learning_rate > 0:
        raise OptionError(f"learning_rate must be above zero, got {learning_rate}")
