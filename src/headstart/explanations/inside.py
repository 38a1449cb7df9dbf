"""Runs a saved classifier and hands out maps from inside its graph."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import Classifier
from headstart.explanations.keeping import kept
from headstart.runtimes.model import compile_model
from headstart.runtimes.protocol import CompiledPrefix

_BATCH = 32


def inner_maps(
    classifier: Classifier, pixels: NDArray[np.uint8], names: Sequence[str]
) -> dict[str, NDArray[np.float32]]:
    """Maps of one image, uint8 [S, S, 3], by the names that they have in the graph."""
    ((_, found),) = _compiled(classifier, names, batch_size=1).stream([(0, pixels[None])])
    return {name: found[name][0] for name in names}


def inner_rows(classifier: Classifier, pixels: NDArray[np.uint8], name: str) -> NDArray[np.float32]:
    """One inner tensor of many images, uint8 [N, S, S, 3], as rows [N, …]."""
    network = _compiled(classifier, (name,), batch_size=_BATCH)
    batches = ((start, pixels[start : start + _BATCH]) for start in range(0, len(pixels), _BATCH))
    return np.concatenate([found[name] for _, found in network.stream(batches)])


def _compiled(classifier: Classifier, names: Sequence[str], *, batch_size: int) -> CompiledPrefix:
    def load() -> CompiledPrefix:
        return compile_model(
            classifier.model,
            size=classifier.preprocess.size,
            batch_size=batch_size,
            precision=classifier.precision,
            inner=tuple(names),
        )

    return kept(classifier, ("compiled", tuple(names), batch_size), load)
