"""Embeddings: what a pre-trained network says of each image, for searching, grouping or another library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from headstart.data.dataset import Sample, Skipped, list_unlabelled
from headstart.data.images import CENTRE
from headstart.data.sources.parquet import libraries
from headstart.errors import OptionError, printable
from headstart.features.cache import FeatureCache
from headstart.features.extraction import FeatureSpec, Progress, extract
from headstart.files import cache_folder, whole, write_whole
from headstart.files.spreadsheets import as_csv
from headstart.runs import FitConfig, refuse_others

if TYPE_CHECKING:
    from numpy.typing import NDArray

FORMATS = (".npy", ".parquet")

_OF_NETWORK = ("backbone", "size", "architecture", "preprocess", "runtime", "precision")


@dataclass(frozen=True)
class Embeddings:
    """A vector for each image.

    Attributes:
        paths: N names, as the images were given.
        vectors: float32 [N, D].
        skipped: images that could not be read, each with the reason.
        backbone: the network.
        layer: which of its feature layers was read.
    """

    paths: tuple[str, ...]
    vectors: NDArray[np.float32]
    skipped: tuple[Skipped, ...]
    backbone: str
    layer: str

    def save(self, file: str | Path) -> Path:
        """Write ``file``: .parquet with columns path and vector, or F.npy with the paths in F.npy.paths.csv.

        Raises:
            OptionError: the name ends otherwise, or its folder does not exist.
            MissingExtra: .parquet without pyarrow.
        """
        target = check_target(file)
        if target.suffix == ".npy":
            with whole(target) as partial, partial.open("wb") as opened:
                np.save(opened, self.vectors)
            beside = target.with_name(f"{target.name}.paths.csv")
            write_whole(beside, as_csv(("path",), [(path,) for path in self.paths]))
            return target
        arrow, parquet = libraries()
        flat = arrow.array(self.vectors.reshape(-1))
        vectors = arrow.FixedSizeListArray.from_arrays(flat, self.vectors.shape[1])
        about = {"backbone": self.backbone, "layer": self.layer}
        table = arrow.table({"path": list(self.paths), "vector": vectors}).replace_schema_metadata(about)
        with whole(target) as partial:
            parquet.write_table(table, partial)
        return target

    def nearest(self, image: int | NDArray[np.float32], *, k: int = 8) -> list[tuple[str, float]]:
        """The images most like one of these, or like a vector: names and cosines, the nearest first.

        Args:
            image: its place, below 0 from the end, and it is left out itself; or a vector of the same layer,
                float32 [D].
            k: how many, at most.

        Raises:
            OptionError: a vector of another length, or no such place.
        """
        own = -1
        if isinstance(image, int | np.integer):
            if not -len(self.paths) <= image < len(self.paths):
                raise OptionError(f"image {image}: there are {len(self.paths)}, from 0 on")
            own = int(image) % len(self.paths)
            image = self.vectors[own]
        sought = np.asarray(image, np.float32).ravel()
        if sought.shape != self.vectors.shape[1:]:
            raise OptionError(f"a vector of {len(sought)} numbers: expected {self.vectors.shape[1]}")
        lengths = np.linalg.norm(self.vectors, axis=1) * np.linalg.norm(sought)
        cosines = self.vectors @ sought / np.maximum(lengths, 1e-12)
        order = [each for each in np.argsort(-cosines, kind="stable") if each != own]
        return [(self.paths[each], round(float(cosines[each]), 4)) for each in order[:k]]


def check_target(file: str | Path) -> Path:
    """Where embeddings shall be saved; OptionError where they cannot be."""
    target = Path(file)
    if target.suffix not in FORMATS:
        raise OptionError(f"{printable(target)}: expected a name that ends in {' or '.join(FORMATS)}")
    if target.is_dir() or not target.parent.is_dir():
        raise OptionError(f"{printable(target)}: expected a file in a folder that exists")
    if target.suffix == ".parquet":
        libraries()
    return target


def embed(
    images: str | Path | Sequence[str | Path],
    *,
    layer: str | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> Embeddings:
    """Embed images with a pre-trained network, through the feature cache.

    Args:
        images: a file, a folder, an archive, or several of them.
        layer: one of the backbone's feature layers (``headstart backbones NAME`` lists them); None for the
            last one, the input of its own classifier.
        progress: called with (phase, done, total).
        options: which network, by the names of `FitConfig`'s fields: ``backbone``, ``size``,
            ``architecture``, ``preprocess``, ``runtime``, ``precision``.

    Raises:
        DatasetError: a path does not exist, a folder has no image, or no image can be read.
        OptionError: the backbone has no such layer.
        TypeError: an option is of training, and not of the network.
    """
    from headstart.backbones import backbone_of
    from headstart.backbones.runtimes import select
    from headstart.errors import DatasetError

    refuse_others(options, known=_OF_NETWORK)
    config = FitConfig.from_options(**options).checked()
    if config.chooses:
        raise OptionError("backbone='auto' needs labels to choose by; name a network")
    given = [images] if isinstance(images, str | Path) else images
    found = list_unlabelled(given)
    backbone = backbone_of(config)
    names = [each.name for each in backbone.feature_layers()]
    layer = layer or names[-1]
    if layer not in names:
        raise OptionError(f"layer {layer!r}: {backbone.name} has {', '.join(names)}")
    spec = FeatureSpec(depth=len(backbone.stages), views=(CENTRE,), layers=layer != names[-1])
    runtime = select(config.runtime, precision=config.precision)
    cache = FeatureCache(cache_folder())
    samples: tuple[Sample, ...] = found.samples
    features = extract(samples, backbone, spec=spec, runtime=runtime, cache=cache, progress=progress)
    usable = np.array([i for i, content in enumerate(features.hashes) if content is not None], np.int64)
    skipped = (*found.skipped, *features.skipped)
    if not len(usable):
        raise DatasetError(f"no image can be read; {skipped[0].name}: {skipped[0].reason}")
    vectors = features.features(usable, layers=[layer], view=CENTRE)
    return Embeddings(tuple(samples[i].name for i in usable), vectors, skipped, backbone.name, layer)
