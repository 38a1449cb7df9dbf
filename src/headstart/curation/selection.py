"""Which training images look like this one, and which unlabelled images would teach the most."""

import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import WEIGHTS_FILE
from headstart.curation.images import collect, corrections_of, network_of, wanted_of
from headstart.curation.likeness import scaled
from headstart.data.dataset import ArraySource, Sample, list_images, place_of
from headstart.data.images import CENTRE
from headstart.data.sources import BytesSource, FileSource
from headstart.errors import ImageError, OptionError, RunError
from headstart.features import Extraction, FeatureCache, Progress, extract
from headstart.files import cache_folder
from headstart.heads import LinearHead
from headstart.runs import Run

_POOL = 10
"""So many of the most uncertain images compete for each place among the suggestions."""


@dataclass(frozen=True, kw_only=True)
class _Pointed:
    """An image that is pointed out: its name, label and content hash, and where it can be read again."""

    path: str
    label: str
    content: str
    file: str | None = None
    member: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON-ready values."""
        return asdict(self)


@dataclass(frozen=True, kw_only=True)
class Neighbour(_Pointed):
    """A training image near another one; ``similarity`` is a cosine, -1 to 1."""

    similarity: float


@dataclass(frozen=True, kw_only=True)
class Suggestion(_Pointed):
    """An image worth a label.

    ``label`` and ``probability`` are the classifier's guess; ``margin`` is how much likelier that is than the
    next label: 0 where it is torn between two.
    """

    probability: float
    margin: float


def nearest_training_images(run: Run, image: Any, *, k: int = 8) -> tuple[Neighbour, ...]:
    """The training images nearest to an image, in the space that the run's head reads; nearest first.

    Features are centred and scaled by the training images' first, column by column: what all images share
    says nothing of who is near whom.

    Args:
        run: whose stages were all frozen.
        image: a file, a file's bytes, or pixels, uint8 [H, W, 3].
        k: how many.

    Raises:
        ImageError: the image cannot be read.
        OptionError: ``k`` is below 1, or the run trained stages too.
        RunError: the run does not remember its images.
    """
    _check_count(k)
    collected = collect(run, corrections_of(run))
    train = np.array([i for i in collected.usable if collected.splits[i] == "train"], np.int64)
    known = _read(run, collected.extraction, train)
    query = _read(run, _extract(run, [_sample(image)]), np.zeros(1, np.int64))
    (asked,) = scaled(query, known)
    similarity = scaled(known, known) @ asked
    order = np.argsort(-similarity, kind="stable")[:k]
    found = []
    for row in order:
        index = int(train[row])
        sample, content = collected.samples[index], collected.extraction.hashes[index] or b""
        found.append(
            Neighbour(
                path=sample.name,
                label=collected.labels[index],
                content=content.hex(),
                similarity=round(float(similarity[row]), 4),
                **place_of(sample),
            )
        )
    return tuple(found)


def most_useful(
    run: Run,
    unlabelled: str | Path | Iterable[str | Path],
    *,
    k: int,
    progress: Progress | None = None,
) -> tuple[Suggestion, ...]:
    """The unlabelled images that would teach the run's head most, the first being the one to label first.

    Among the images with the smallest margin between the two likeliest labels (Scheffer, Decomain and Wrobel,
    "Active Hidden Markov Models", IDA 2001), each pick is the one farthest from all images that have a label
    or were picked before (k-centre: Sener and Savarese, "Active Learning for Convolutional Neural Networks: A
    Core-Set Approach", ICLR 2018); so the picks are doubtful and unlike each other.

    Args:
        run: whose stages were all frozen.
        unlabelled: a folder, a file, or several; unreadable files and images with a label are passed over.
        k: how many at most.
        progress: called with (phase, done, total).

    Raises:
        DatasetError: there is no image.
        OptionError: ``k`` is below 1, or the run trained stages too.
        RunError: the run does not remember its images.
    """
    _check_count(k)
    paths = [unlabelled] if isinstance(unlabelled, str | os.PathLike) else unlabelled
    samples = list_images(paths)
    corrections = corrections_of(run)
    collected = collect(run, corrections)
    extraction = _extract(run, samples, progress=progress)
    seen = {*collected.extraction.hashes, *map(bytes.fromhex, corrections.current())}
    fresh = _first_of_each(extraction.hashes, seen)
    if not len(fresh):
        return ()
    features = _read(run, extraction, fresh)
    probabilities = _head(run).probabilities(features)
    best = np.sort(probabilities, axis=1)
    margins = best[:, -1] - best[:, -2]
    pool = np.argsort(margins, kind="stable")[: _POOL * k]
    known = _read(run, collected.extraction, np.array(collected.usable, np.int64))
    picked = pool[_spread_out(scaled(features[pool], known), scaled(known, known), k=k)]
    found = []
    for row in picked:
        sample, content = samples[fresh[row]], extraction.hashes[fresh[row]] or b""
        label = int(probabilities[row].argmax())
        found.append(
            Suggestion(
                path=sample.name,
                label=run.classes[label],
                content=content.hex(),
                probability=round(float(probabilities[row, label]), 4),
                margin=round(float(margins[row]), 4),
                **place_of(sample),
            )
        )
    return tuple(found)


def _spread_out(candidates: NDArray[np.float32], known: NDArray[np.float32], *, k: int) -> NDArray[np.int64]:
    """Greedy k-centre: rows of the candidates, each the farthest from the known ones and those before it."""
    nearest = 1 - (candidates @ known.T).max(axis=1, initial=-1.0)
    picked = []
    for _ in range(min(k, len(candidates))):
        row = int(nearest.argmax())
        picked.append(row)
        nearest = np.minimum(nearest, 1 - candidates @ candidates[row])
        nearest[picked] = -np.inf
    return np.array(picked, np.int64)


def _first_of_each(hashes: Iterable[bytes | None], seen: Iterable[bytes | None]) -> NDArray[np.int64]:
    """Readable images that nobody has labelled, each content once."""
    known, rows = set(seen), []
    for index, content in enumerate(hashes):
        if content is not None and content not in known:
            known.add(content)
            rows.append(index)
    return np.array(rows, np.int64)


def _check_count(k: int) -> None:
    if k < 1:
        raise OptionError(f"k={k}: expected 1 or more")


def _sample(image: Any) -> Sample:
    if isinstance(image, str | os.PathLike):
        return Sample(str(image), -1, None, FileSource(os.fspath(image)))
    source = BytesSource(image) if isinstance(image, bytes) else ArraySource(np.asarray(image))
    return Sample("image", -1, None, source)


def _extract(run: Run, samples: Any, *, progress: Progress | None = None) -> Extraction:
    backbone, runtime = network_of(run)
    wanted = wanted_of(run, backbone)
    wanted = type(wanted)(depth=wanted.depth, views=(CENTRE,), layers=wanted.layers)
    cache = FeatureCache(cache_folder())
    found = extract(samples, backbone, spec=wanted, runtime=runtime, cache=cache, progress=progress)
    if len(samples) == 1 and found.skipped:
        raise ImageError(f"{found.skipped[0].name}: {found.skipped[0].reason}")
    return found


def _read(run: Run, extraction: Extraction, images: NDArray[np.int64]) -> NDArray[np.float32]:
    return extraction.features(images, layers=run.config.layers, view=CENTRE)


def _head(run: Run) -> LinearHead:
    from safetensors import safe_open

    file = run.path / WEIGHTS_FILE
    try:
        with safe_open(file, framework="numpy") as tensors:
            temperature = float((tensors.metadata() or {})["temperature"])
            weight, bias = tensors.get_tensor("head.weight"), tensors.get_tensor("head.bias")
    except Exception as error:  # safetensors raises its own kinds for damaged files
        raise RunError(f"{file} is missing or damaged ({error}); fit again") from error
    return LinearHead(run.config.head, weight, bias, temperature)
