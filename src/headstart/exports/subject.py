"""What is exported: a classifier, the record of its training, and the images that the record names."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.classifier import Classifier, load
from headstart.dataset import FileSource, Sample, list_images, read_dataset
from headstart.errors import DatasetError, OptionError, RunError
from headstart.runs import RUN_FILE, Run, read_images, read_predictions, read_run


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
    place = Path(images) if images is not None else _recorded_place(subject)
    if place is None or not place.exists():
        raise OptionError(
            f"the run's images are needed to check the export and are not at "
            f"{place or 'a place that the run names'}; give their folder or zip, or any images, with --images"
        )
    sides = _recorded_sides(subject, place)
    if not sides.for_parity:
        return Sides(other=list_images([place]))
    return sides


def _recorded_place(subject: Subject) -> Path | None:
    """The folder or zip that the run's held-out images lie in, by their recorded places."""
    try:
        entries = read_predictions(subject.folder)["images"]
    except RunError:
        return None
    for entry in entries:
        file = str(entry.get("file", ""))
        if "member" in entry:
            return Path(file)
        if file.endswith("/" + entry["path"]):
            return Path(file.removesuffix("/" + entry["path"]))
    return None


def _recorded_sides(subject: Subject, place: Path) -> Sides:
    """The images below ``place`` that the run knows, by side."""
    try:
        known = read_images(subject.folder)
    except RunError:
        return Sides()
    by_name = _samples_by_name(place)
    classes = {name: i for i, name in enumerate(subject.classifier.classes)}
    found: dict[str, list[Sample]] = {"train": [], "validation": [], "test": []}
    for entry in known:
        sample = by_name(entry["path"])
        if sample is not None and entry["split"] in found and entry["label"] in classes:
            found[entry["split"]].append(replace(sample, label=classes[entry["label"]], split=entry["split"]))
    return Sides(**{side: tuple(samples) for side, samples in found.items()})


def _samples_by_name(place: Path) -> Any:
    if place.is_dir():

        def from_folder(name: str) -> Sample | None:
            file = place / name
            return Sample(name, -1, None, FileSource(str(file))) if file.is_file() else None

        return from_folder
    try:
        known = read_dataset(place, for_training=False, split_by_folder=False)  # the names alone
        listed = {sample.name: sample for sample in known.samples}
    except DatasetError:
        listed = {}
    return listed.get


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
