"""Writes a run's folder, and checks that what was written says what the training said."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone, Tap
from headstart.classifier import MODEL_FILE, WEIGHTS_FILE, Classifier, check_parity
from headstart.classifier.onnx_graph import compose
from headstart.dataset import describe
from headstart.runs import FitConfig, write_images
from headstart.training.prepared import Prepared
from headstart.training.trained import Trained, predict_images, thawed_graph

_PARITY_IMAGES = 8


def save_model(
    folder: Path, prepared: Prepared, backbone: Backbone, trained: Trained, *, config: FitConfig
) -> None:
    """Write everything of a run's folder but the record of the run itself."""
    taps = [Tap.parse(name) for name in trained.taps or ("features",)]
    graph = None
    if trained.tail is not None:
        graph = thawed_graph(backbone, trained, depth=config.depth, path=folder / "stages.onnx")
    (folder / MODEL_FILE).write_bytes(compose(backbone, taps=taps, head=trained.head, graph=graph))
    if graph is not None:
        graph.unlink()
    _save_weights(folder, trained)
    _save_details(folder, prepared)
    classifier = Classifier(
        classes=prepared.dataset.classes,
        preprocess=backbone.preprocess,
        model=folder / MODEL_FILE,
        about={
            "backbone": config.backbone,
            "architecture": backbone.architecture,
            "depth": config.depth,
            "stages": config.stages,
            "head": trained.head.kind,
            "taps": [tap.name for tap in taps],
            "temperature": trained.head.temperature,
        },
    )
    classifier.save(folder)


def _save_weights(folder: Path, trained: Trained) -> None:
    """`model.safetensors`: what was trained, and nothing else."""
    from safetensors.numpy import save_file

    tensors = {"head.weight": trained.head.weight, "head.bias": trained.head.bias}
    if trained.tail is not None:
        tensors |= {f"tail.{name}": value.numpy() for name, value in trained.tail.state_dict().items()}
    metadata = {
        "temperature": repr(trained.head.temperature),
        "taps": ",".join(trained.taps or ("features",)),
    }
    save_file(
        {name: np.ascontiguousarray(value) for name, value in tensors.items()},
        folder / WEIGHTS_FILE,
        metadata,
    )


def _save_details(folder: Path, prepared: Prepared) -> None:
    samples, hashes = prepared.dataset.samples, prepared.extraction.hashes
    images = [
        describe(sample, label=prepared.dataset.classes[sample.label], split=split, content=content)
        for sample, split, content in zip(samples, prepared.splits, hashes, strict=True)
    ]
    write_images(folder, images, skipped=[(item.name, item.reason) for item in prepared.skipped])


def check_saved(folder: Path, prepared: Prepared, trained: Trained, *, precision: str) -> float:
    """Reload from disk and compare the probabilities of a few images with those in memory.

    Args:
        folder: what was saved.
        prepared: the images and their features.
        trained: what was trained.
        precision: of the features; what was saved computes in float32, so that decides what may differ.

    Returns:
        The largest difference of a probability.

    Raises:
        ParityError: it is more than the precision explains.
    """
    train_images = prepared.images("train")
    few: NDArray[np.int64] = train_images[:: max(1, len(train_images) // _PARITY_IMAGES)][:_PARITY_IMAGES]
    samples = [prepared.dataset.samples[i] for i in few]
    expected = predict_images(prepared, trained, images=few)
    return check_parity(samples, expected, where=folder, computed=precision)
