"""The images of a run as its folder remembers them, with the corrections on top.

Nothing is listed, read or hashed again unless a file's size or time of change says that it is another one
now.
"""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone, backbone_of
from headstart.backbones.runtimes import Runtime, select
from headstart.classifier import load
from headstart.curation.corrections import Correction, Corrections, content_of
from headstart.data.dataset import Dataset, Sample, Skipped, place_of
from headstart.data.images import View
from headstart.data.sources import LostSource, source_at
from headstart.errors import BackboneError, OptionError, RunError, printable
from headstart.features import CacheUse, Extraction, FeatureCache, FeatureSpec, extract, record_key
from headstart.features.extraction import partition_identity
from headstart.files import cache_folder, home_folder
from headstart.heads.tasks import only_single_label
from headstart.runs import IMAGES_FILE, Run, read_images

AS_GIVEN_FILE = "images-as-given.json"
"""In the folder of a retrained run: its images before any correction."""


@dataclass(frozen=True)
class Collected:
    """Images of a run, ready for a head: ``labels`` by name and ``splits`` run parallel to the samples."""

    samples: tuple[Sample, ...]
    labels: tuple[str, ...]
    splits: tuple[str | None, ...]
    extraction: Extraction

    @property
    def usable(self) -> list[int]:
        """Indices of the samples that have features."""
        return [index for index, content in enumerate(self.extraction.hashes) if content is not None]


def corrections_of(run: Run) -> Corrections:
    """The corrections of a run's data set, shared by all runs on it; kept under the home folder.

    Raises:
        RunError: the run does not remember its images.
    """
    return _kept_for(run.config.data, as_given(run))


def corrections_for(dataset: Dataset) -> Corrections:
    """The corrections that lie over a data set: those that `corrections_of` gives for runs on it."""
    entries = [{"path": sample.name, "content": "", **place_of(sample)} for sample in dataset.samples[:1]]
    if "file" not in entries[0]:  # arrays: known by what is in all of them
        entries = [{"content": content_of(sample)} for sample in dataset.samples]
    return _kept_for(dataset.name, entries)


def _kept_for(name: str, entries: Sequence[Mapping[str, Any]]) -> Corrections:
    stem = "".join(letter if letter.isalnum() else "-" for letter in name)[:40]

    def at(root: str) -> Path:
        digest = hashlib.blake2b(root.encode("utf-8", "surrogateescape"), digest_size=8).hexdigest()
        return home_folder() / "corrections" / f"{stem}-{digest}.jsonl"

    found, root = at(_root(entries)), str(entries[0].get("file", ""))
    if root and root == entries[0]["path"] and not found.exists() and at("").exists():
        found = at("")  # where earlier versions kept those of every table of absolute paths
    return Corrections(found)


def _root(entries: Sequence[Mapping[str, Any]]) -> str:
    """Where the data set lies: the folder, the zip, or for arrays what is in them."""
    first = entries[0]
    if "file" not in first:
        return " ".join(sorted(str(entry["content"]) for entry in entries))
    file, path = str(first["file"]), str(first["path"])
    if file == path:
        return os.path.dirname(file)
    return file[: -len(path)] if "member" not in first and file.endswith(path) else file


def as_given(run: Run) -> list[dict[str, Any]]:
    """Every image of a run before corrections, as `images.json` describes them.

    Raises:
        RunError: the run trained nothing; or the file is missing, or of a version that did not say where
            the images lie.
    """
    if not run.trained:
        raise RunError(
            f"run {run.id} evaluates a classifier that was trained elsewhere, so its head cannot be trained "
            "again; put labels right in the data itself, or fit a classifier on it"
        )
    name = AS_GIVEN_FILE if (run.path / AS_GIVEN_FILE).exists() else IMAGES_FILE
    entries = read_images(run.path, name=name)
    if not entries or any("content" not in entry for entry in entries):
        raise RunError(
            f"{run.path / name} is of an earlier version and does not say where the images lie; fit again"
        )
    return entries


def wanted_of(run: Run, backbone: Backbone) -> FeatureSpec:
    """The features that the run's head reads.

    Raises:
        OptionError: stages were fine-tuned, so the features are not those that are cached.
    """
    if run.config.fine_tuned:
        raise OptionError(
            f"run {run.id} trained {run.config.stages - run.config.depth} stages with its head, so its head "
            "alone cannot be trained again; fit anew (headstart fit … --corrections FILE)"
        )
    last = backbone.feature_layers()[-1].name
    return FeatureSpec(
        depth=len(backbone.stages),
        views=tuple(View(name) for name in run.config.views),
        layers=bool(set(run.config.layers or ()) - {last}),
    )


def network_of(run: Run) -> tuple[Backbone, Runtime]:
    """The run's backbone and runtime.

    Raises:
        BackboneError: the backbone is no longer to be had, or its file is another one now.
    """
    config = run.config
    backbone = backbone_of(config, seed=config.seed)
    trained_on = load(run.path).about.get("weights", backbone.weights_hash)
    if backbone.recipe is None and trained_on != backbone.weights_hash:
        raise BackboneError(
            f"backbone {printable(config.backbone)} is another network now, or is cut at other places, than "
            f"when run {run.id} was trained; put the old file back, or fit anew"
        )
    return backbone, select(config.runtime, precision=config.precision)


def collect(run: Run, corrections: Corrections | None) -> Collected:
    """The images of a run under their corrected labels, with features from the cache.

    Only images whose file has changed, that were added, or whose features are no longer cached are read.
    """
    only_single_label(run.config.task, "correcting labels and looking for neighbours")
    backbone, runtime = network_of(run)
    spec = wanted_of(run, backbone)
    current = corrections.current() if corrections is not None else {}
    given = as_given(run)
    rows = [_corrected(entry, current) for entry in given if entry["content"]]
    known = {str(entry["content"]) for entry in given}
    rows += [_added(each) for key, each in current.items() if key not in known and each.file]
    rows = [row for row in rows if row["label"] is not None]
    samples = tuple(_sample(row) for row in rows)
    return Collected(
        samples,
        labels=tuple(str(row["label"]) for row in rows),
        splits=tuple(row["split"] for row in rows),
        extraction=_extraction(rows, samples, backbone, runtime, spec=spec),
    )


def _corrected(entry: Mapping[str, Any], current: Mapping[str, Correction]) -> dict[str, Any]:
    correction = current.get(str(entry["content"]))
    return {**entry, "label": correction.label if correction else entry["label"]}


def _added(correction: Correction) -> dict[str, Any]:
    """A new image goes to the training side: it was picked for its use, so it would bend any score."""
    found: dict[str, Any] = {
        "path": correction.path,
        "label": correction.label,
        "split": "train",
        "content": correction.content,
        "file": correction.file,
        "size": None,  # not seen before: read it once
    }
    return found if correction.member is None else {**found, "member": correction.member}


def _sample(row: Mapping[str, Any]) -> Sample:
    file = row.get("file")
    source = source_at(file, row.get("member")) if file else LostSource("came as an array, which is gone")
    weight = float(row.get("weight", 1.0))
    return Sample(str(row["path"]), 0, row["split"], source, weight=weight, group=row.get("group"))


def _extraction(
    rows: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    backbone: Backbone,
    runtime: Runtime,
    *,
    spec: FeatureSpec,
) -> Extraction:
    cache = FeatureCache(cache_folder())
    partition = cache.partition(partition_identity(backbone, runtime))
    hashes: list[bytes | None] = [bytes.fromhex(str(row["content"])) for row in rows]
    records = spec.records(len(backbone.stages))

    def cached(content: bytes) -> bool:
        return partition.contains(record_key(content, view, name) for view in spec.views for name in records)

    same = _unchanged(rows)
    fresh = [i for i, content in enumerate(hashes) if content and not (same[i] and cached(content))]
    if any("file" not in rows[i] for i in fresh):
        raise RunError("these images came as arrays and their features are no longer cached; fit again")
    skipped: tuple[Skipped, ...] = ()
    use = CacheUse(hits=len(rows) - len(fresh))
    if fresh:
        found = extract([samples[i] for i in fresh], backbone, spec=spec, runtime=runtime, cache=cache)
        for index, content in zip(fresh, found.hashes, strict=True):
            hashes[index] = content
        skipped, use = found.skipped, CacheUse(use.hits + found.use.hits, found.use.misses, found.use.bytes)
    again = partial(extract, samples, backbone, spec=spec, runtime=runtime, cache=cache)
    return Extraction(tuple(hashes), (None,) * len(rows), skipped, use, partition, backbone, spec, again)


def _unchanged(rows: Sequence[Mapping[str, Any]]) -> list[bool]:
    """Whether each image's file is the one that was seen; images that lie in no file cannot change."""
    stamps: dict[str, tuple[int, int] | None] = {}
    found = []
    for row in rows:
        file = row.get("file")
        if file is not None and file not in stamps:
            try:
                status = os.stat(file)
                stamps[file] = (status.st_size, status.st_mtime_ns)
            except OSError:
                stamps[file] = None
        found.append(file is None or stamps[file] == (row.get("size"), row.get("modified")))
    return found
