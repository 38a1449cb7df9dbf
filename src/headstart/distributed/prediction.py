"""Predictions of any number of images as one Parquet file, exactly one row for each, in their order.

Images go in shards. The rows of a shard are a small file beside the one that is wanted; where the command
ends early, the next one takes up what is there. In the end the small files become one, in one step.
"""

import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from headstart.backbones.records import hash_file
from headstart.classifier import Classifier, PredictOptions
from headstart.classifier.tables import as_table
from headstart.data.dataset import Sample, place_of
from headstart.data.sources.parquet import libraries
from headstart.distributed.carrying import Carried
from headstart.distributed.images import portable, refuse_unseen
from headstart.distributed.places import HERE, Place
from headstart.errors import DatasetError, InternalError, OptionError, printable
from headstart.features import Progress
from headstart.features.shards import Shard, cut_shards
from headstart.files import Unreadable, make, mark_output, read_json, whole, write_whole

_ROWS_PER_GROUP = 1 << 16
_ABOUT = "about.json"


@dataclass(frozen=True)
class Written:
    """What was written: rows, how many of them are of unreadable images, how many were there already."""

    images: int
    unreadable: int
    found: int


def check_table(file: str | Path) -> Path:
    """Where predictions shall be; OptionError where they cannot be.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    target = Path(file)
    if target.suffix != ".parquet":
        raise OptionError(f"--out {printable(target)}: expected a name that ends in .parquet")
    if target.is_dir() or not target.parent.is_dir():
        raise OptionError(f"--out {printable(target)}: expected a file in a folder that exists")
    libraries()
    return target


def predict_table(
    classifier: Classifier,
    samples: Sequence[Sample],
    out: str | Path,
    options: PredictOptions,
    *,
    place: Place = HERE,
    progress: Progress | None = None,
) -> Written:
    """Label images into a Parquet file.

    Args:
        classifier: who is asked.
        samples: the images.
        out: the file; while it is being made there is a folder of the same name with ``.parts`` behind it.
        options: what is asked about every image.
        place: where.
        progress: called with (phase, done, total).

    Raises:
        DatasetError: a machine does not see the images.
        OptionError: the classifier cannot answer what is asked, or the file cannot be there.
    """
    target = check_table(out)
    classifier.refuse(options)
    carried = place.carried(classifier, "model")
    cut = cut_shards([sample.name for sample in samples])
    shards = [replace(shard, name=_with_state(shard, samples[shard.range])) for shard in cut]
    parts = _parts_folder(target, about=_identity(classifier, options))
    missing = [shard for shard in shards if not _is_whole(_part(parts, shard), shard)]
    found = len(samples) - sum(shard.stop - shard.start for shard in missing)
    done = found
    items = _Windows(place, samples, missing)
    for position, rows in place.each(partial(_predict, carried, options), items):
        write_whole(_part(parts, missing[position]), rows)
        done += missing[position].stop - missing[position].start
        if progress:
            progress("predict", done, len(samples))
    images, unreadable = _join(parts, shards, target)
    if images != len(samples):
        raise InternalError(f"{target}: {images:,} rows of {len(samples):,} images; please report this")
    shutil.rmtree(parts, ignore_errors=True)
    return Written(images, unreadable, found)


def _with_state(shard: Shard, samples: Sequence[Sample]) -> str:
    """A shard's name that changes with where its images lie and, on this machine, with sizes and times."""
    found: list[Any] = []
    for sample in samples:
        place = place_of(portable(sample))
        with suppress(OSError):
            status = os.stat(place.get("file", ""))
            found.append([status.st_size, status.st_mtime_ns])
        found.append([place.get("file", ""), place.get("member", "")])
    text = json.dumps([shard.name, found])
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


class _Windows(Sequence[tuple[Sample, ...]]):
    """The samples of each shard, made when they are sent."""

    def __init__(self, place: Place, samples: Sequence[Sample], shards: Sequence[Shard]) -> None:
        self._place, self._samples, self._shards = place, samples, shards

    def __len__(self) -> int:
        return len(self._shards)

    def __getitem__(self, position: Any) -> Any:
        return self._place.sent(self._samples[self._shards[position].range])


def _predict(classifier: Carried[Classifier], options: PredictOptions, samples: Sequence[Sample]) -> bytes:
    """The rows of some images, as a Parquet file."""
    refuse_unseen(samples)
    known = classifier.here
    table = as_table(known.predict_each(samples, options), task=known.task)
    _, parquet = libraries()
    with io.BytesIO() as file:
        parquet.write_table(table, file)
        return file.getvalue()


def _identity(known: Classifier, options: PredictOptions) -> str:
    """Hex digits that change with the classifier and what is asked."""
    facts: list[Any] = [hash_file(known.model), known.classes, known.preprocess.to_dict(), known.precision]
    facts += [known.task, known.thresholds, known.errors, known.right, known.costs, asdict(options)]
    return hashlib.blake2b(json.dumps(facts).encode(), digest_size=16).hexdigest()


def _parts_folder(target: Path, *, about: str) -> Path:
    """The folder of shards' rows; those of another classifier, or of another question, are removed."""
    folder = target.with_name(f"{target.name}.parts")
    if folder.is_dir() and any(folder.iterdir()):
        said: Any = None
        with suppress(OSError, Unreadable):
            said = read_json(folder / _ABOUT)
        if not isinstance(said, dict) or said.keys() != {"predictions"}:
            raise OptionError(f"{printable(folder)}: in the way, and no unfinished predictions; move it away")
        if said["predictions"] != about:
            shutil.rmtree(folder)
    make(folder)
    write_whole(folder / _ABOUT, json.dumps({"predictions": about}))
    mark_output(folder)
    return folder


def _part(folder: Path, shard: Shard) -> Path:
    return folder / f"{shard.name}.parquet"


def _is_whole(path: Path, shard: Shard) -> bool:
    arrow, parquet = libraries()
    try:
        return bool(parquet.read_metadata(path).num_rows == shard.stop - shard.start)
    except (OSError, arrow.ArrowException):
        return False


def _join(folder: Path, shards: Sequence[Shard], target: Path) -> tuple[int, int]:
    """All rows in the order of the images; how many, and how many of them have no answer."""
    arrow, parquet = libraries()
    if not shards:
        raise DatasetError("no image to predict")
    images = unreadable = 0
    with whole(target) as draft:
        writer: Any = None
        waiting: list[Any] = []
        rows = 0
        for position, shard in enumerate(shards):
            table = parquet.read_table(_part(folder, shard))
            unreadable += len(table) - table["note"].null_count
            images += len(table)
            waiting.append(table)
            rows += len(table)
            if rows >= _ROWS_PER_GROUP or position == len(shards) - 1:
                writer = writer or parquet.ParquetWriter(draft, table.schema)
                writer.write_table(arrow.concat_tables(waiting))
                waiting, rows = [], 0
        writer.close()
    return images, unreadable
