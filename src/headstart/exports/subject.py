"""What is exported: a classifier, the record of its training, and the images that the record names."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import Classifier, load
from headstart.data.dataset import Sample, Source, list_images, read_dataset
from headstart.data.sources import list_folder, source_at
from headstart.errors import DatasetError, OptionError, RunError, printable
from headstart.files import is_there
from headstart.heads import SINGLE_LABEL
from headstart.runs import RUN_FILE, Run, read_images, read_run


@dataclass(frozen=True)
class Subject:
    """A classifier with the record of its run (None where there is no record beside it)."""

    classifier: Classifier
    run: Run | None

    @classmethod
    def of(cls, thing: str | Path | Run | Classifier) -> "Subject":
        """From a run's folder or id, a run, or a classifier.

        Raises:
            RunError: there is no such run, or its folder is incomplete.
        """
        if isinstance(thing, Run):
            return cls(load(thing.path), thing)
        classifier = thing if isinstance(thing, Classifier) else load(thing)
        folder = classifier.model.parent
        return cls(classifier, read_run(folder) if (folder / RUN_FILE).exists() else None)

    @property
    def folder(self) -> Path:
        """Where the run lies."""
        return self.classifier.model.parent

    def recorded(self, what: str) -> Run:
        """The run, for what cannot be had without its record.

        Raises:
            RunError: there is none.
        """
        if self.run is None:
            raise RunError(
                f"{self.folder} has no {RUN_FILE}, which {what} needs; export the run's own folder"
            )
        if not self.run.trained:
            raise RunError(
                f"{self.folder} was trained elsewhere, and {what} needs the record of its training; onnx and "
                "openvino do not"
            )
        return self.run

    @cached_property
    def exact(self) -> Classifier:
        """The same classifier in float32: bf16 is this processor's shortcut, and no export should copy it."""
        return replace(self.classifier, precision="f32")


@dataclass(frozen=True)
class Images:
    """Rendered images: pixels uint8 [N, S, S, 3], labels int64 [N] (-1 where unknown), and their files."""

    pixels: NDArray[np.uint8]
    labels: NDArray[np.int64]
    samples: tuple[Sample, ...] = ()

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Sides:
    """Samples of the run's data by side; ``other`` has images that the run does not know."""

    train: tuple[Sample, ...] = ()
    validation: tuple[Sample, ...] = ()
    test: tuple[Sample, ...] = ()
    other: tuple[Sample, ...] = ()

    @property
    def for_parity(self) -> tuple[Sample, ...]:
        """Held-out images where there are any."""
        return self.validation or self.test or self.train or self.other


def find_images(subject: Subject, images: str | Path | None) -> Sides:
    """The images that the run was made of, where they lie now.

    Args:
        subject: what is exported.
        images: the run's data if it has moved, or any images; None for where the run found them.

    Raises:
        OptionError: the run's images are not there and no others were given.
        DatasetError: ``images`` does not exist or has no image in it.
    """
    if images is None:
        known = _known(subject)
        sides = _sides(subject, known, _where_it_was)
        if not sides.for_parity:
            first = next((printable(entry["file"]) for entry in known if "file" in entry), None)
            raise OptionError(
                "the run's images are needed to check the export and are not at "
                f"{first or 'a place that the run names'}; give their folder, zip or table, or any images, "
                "with --images"
            )
        return sides
    place, sides = Path(images), Sides()
    if place.exists():
        sides = _sides(subject, _known(subject), _below(place, task=subject.classifier.task))
    return sides if sides.for_parity else Sides(other=list_images([place]))


def _known(subject: Subject) -> list[dict[str, Any]]:
    """Every image of the run; none where it does not remember them."""
    try:
        return read_images(subject.folder)
    except RunError:
        return []


def _sides(
    subject: Subject, known: Sequence[dict[str, Any]], find: Callable[[dict[str, Any]], Source | None]
) -> Sides:
    """The images that the run knows and that are found, by side."""
    classes = {name: i for i, name in enumerate(subject.classifier.classes)}
    found: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
    for entry in known:
        label = classes.get(entry["label"]) if subject.classifier.task == SINGLE_LABEL else -1
        side = entry["split"]
        if side in found and label is not None and (source := find(entry)) is not None:
            found[side].append(Sample(entry["path"], label, side, source))
    return Sides(**{side: tuple(samples) for side, samples in found.items()})


def _where_it_was(entry: dict[str, Any]) -> Source | None:
    """A file, or a member of an archive or a table, as the run has it."""
    file = str(entry.get("file", ""))
    return source_at(file, entry.get("member")) if is_there(file, regular=True) else None


def _below(place: Path, *, task: str) -> Callable[[dict[str, Any]], Source | None]:
    """Finds the run's images by their names, as they are read from a folder, an archive or a table."""
    try:
        # of which the names alone are wanted
        known = read_dataset(place, for_training=False, split_by_folder=False, task=task)
        by_name = {sample.name: sample.source for sample in known.samples}
    except DatasetError:  # of some of its images, which form no data set any more
        files = list_folder(place).files if place.is_dir() else ()
        by_name = {printable(name): source for name, source in files}
    return lambda entry: by_name.get(entry["path"])


def render(classifier: Classifier, samples: Sequence[Sample], *, most: int) -> Images:
    """Pixels of up to ``most`` samples, evenly spread; unreadable ones are left out.

    Raises:
        DatasetError: none can be read.
    """
    spread = np.unique(np.linspace(0, len(samples) - 1, min(most, len(samples))).astype(int))
    chosen = [samples[i] for i in spread]
    rendered = classifier.render(chosen)
    good = [
        (pixels, sample)
        for pixels, sample in zip(rendered, chosen, strict=True)
        if not isinstance(pixels, str)
    ]
    if not good:
        raise DatasetError(
            f"no image to check the export with could be read; {chosen[0].name}: {rendered[0]}"
        )
    labels = np.array([sample.label for _, sample in good], np.int64)
    return Images(np.stack([pixels for pixels, _ in good]), labels, tuple(sample for _, sample in good))
