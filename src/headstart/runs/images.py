"""What a run's folder says of its images: what was predicted of each, where each lies, what was left out."""

import hashlib
import heapq
import json
import os
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import IO, Any, NotRequired, TypedDict

from headstart.errors import RunError, printable
from headstart.files import MEBI, Check, Mistyped, Unreadable, checker, read_json, whole, write_whole

PREDICTIONS_FILE = "predictions.json"
FOLDS_FILE = "folds.json"
"""Like `predictions.json`, of every image: what a head said of it that was trained without its fold."""

IMAGES_FILE = "images.json"
SKIPPED_FILE = "skipped.json"

_LARGEST = 1024 * MEBI
"""Bytes of a list of all images: 300 for each of a few millions."""


class _Image(TypedDict):
    path: str
    label: str
    split: str | None
    content: NotRequired[str]
    file: NotRequired[str]
    member: NotRequired[str]
    size: NotRequired[int | None]
    modified: NotRequired[int | None]
    weight: NotRequired[float]
    group: NotRequired[str]


class _Answer(_Image):
    predicted: str
    probability: NotRequired[float]  # of classes and labels
    value: NotRequired[float]  # of a number
    top: NotRequired[list[tuple[str, float]]]
    fold: NotRequired[int]
    likely: NotRequired[str]
    wrong: NotRequired[float]


class _Predictions(TypedDict):
    split: str
    images: list[_Answer]


class _Skipped(TypedDict):
    path: str
    reason: str


_IMAGES, _PREDICTIONS, _SKIPPED = checker(list[_Image]), checker(_Predictions), checker(list[_Skipped])


def read_predictions(
    folder: Path, *, classes: Collection[str] | None = None, name: str = PREDICTIONS_FILE
) -> dict[str, Any]:
    """What the run in ``folder`` said of each held-out image.

    Args:
        folder: of the run.
        classes: the run's; where given, no image may have another label.
        name: `FOLDS_FILE` for what a cross-validation said of every image; each has its ``fold`` then.

    Returns:
        ``split``: the fingerprint of the split, hex; ``images``: one entry per validation and test image with
        ``path``, ``content`` (hash, hex), ``split``, ``label``, ``predicted``, ``probability``, ``top`` and,
        where the image lies in a file, ``file`` (and ``member`` of a zip).

    Raises:
        RunError: the file is missing or damaged.
    """
    found = _read(folder, name, _PREDICTIONS)
    known = None if classes is None else set(classes)
    if known and any(not {image["label"], image["predicted"]} <= known for image in found["images"]):
        raise RunError(f"{printable(folder)}/{name} is damaged: it names classes that the run has not")
    return {"split": found["split"], "images": found["images"]}


def read_label_errors(folder: Path, *, classes: Collection[str]) -> list[dict[str, Any]]:
    """Images of the run in ``folder`` whose label is likely wrong, the likeliest first.

    Each has what `read_predictions` says of it, ``likely``, a class, and ``wrong``, the probability that its
    label is wrong (see `headstart.heads.label_errors`); the mean of the first N is the share of them to
    expect.

    Raises:
        RunError: it was trained without ``folds``, or the file is damaged.
    """
    if not (folder / FOLDS_FILE).exists():
        raise RunError(
            f"{printable(folder)} was trained without folds, which find likely label errors; fit again with "
            "--folds 5"
        )
    images = read_predictions(folder, classes=classes, name=FOLDS_FILE)["images"]
    known = set(classes)
    found = [image for image in images if image.get("likely") in known and "wrong" in image]
    return sorted(found, key=lambda image: -image["wrong"])


def read_images(folder: Path, *, name: str = IMAGES_FILE) -> list[dict[str, Any]]:
    """Every image of the run in ``folder``, as `write_images` wrote it.

    Raises:
        RunError: the file is missing or damaged.
    """
    found: list[dict[str, Any]] = _read(folder, name, _IMAGES)
    return found


def read_skipped(folder: Path) -> list[dict[str, str]]:
    """``path`` and ``reason`` of each file that was left out; none where that cannot be read."""
    try:
        found: list[dict[str, str]] = _read(folder, SKIPPED_FILE, _SKIPPED)
    except RunError:
        return []
    return found


def _read(folder: Path, name: str, check: Check) -> Any:
    file = folder / name
    try:
        return check(read_json(file, limit=_LARGEST, below=folder))
    except (Unreadable, Mistyped) as error:
        if not file.is_symlink() and not file.exists():
            raise RunError(f"{printable(folder)} has no {name}; fit again to have one") from None
        raise RunError(
            f"{printable(file)} is damaged ({printable(str(error))}); fit again or restore the folder"
        ) from None


_TOP = 3
"""Labels kept for each image: the one called, and the two that it was nearly called."""


def answer(
    probabilities: Sequence[float],
    classes: Sequence[str],
    *,
    task: str = "single-label",
    thresholds: Sequence[float] = (),
    called: int | None = None,
) -> dict[str, Any]:
    """What was said of an image, as `predictions.json` has it beside what `dataset.describe` says.

    Of several labels ``predicted`` has bars between those that are called, and ``probability`` is the
    likeliest's; of a number ``predicted`` is its text, and there is no probability. ``called`` is the class
    that costs of mistakes decide for; None for the likeliest.
    """
    if task == "regression":
        return {"predicted": f"{probabilities[0]:.7g}", "value": probabilities[0]}
    best = heapq.nlargest(_TOP, range(len(classes)), key=probabilities.__getitem__)
    top = [[classes[i], round(probabilities[i], 5)] for i in best]
    first = best[0] if called is None else called
    predicted = classes[first]
    if task == "multi-label":
        limits = thresholds or [0.5] * len(classes)
        found = zip(classes, probabilities, limits, strict=True)
        predicted = "|".join(name for name, share, limit in found if share >= limit)
    return {"predicted": predicted, "probability": round(probabilities[first], 5), "top": top}


def write_predictions(
    folder: Path, images: Iterable[Mapping[str, Any]], *, split: str, name: str = PREDICTIONS_FILE
) -> None:
    """Write what `read_predictions` reads.

    In ASCII, like all of these files (`json.dumps` escapes the rest): the name of a file that is no UTF-8
    must come back as it was, and a folder reads the same under every locale.
    """
    with whole(folder / name) as draft, draft.open("w", encoding="ascii") as file:
        file.write(f'{{"split": {json.dumps(split)}, "images": ')
        _write_list(file, images)
        file.write("}")


def write_images(
    folder: Path, images: Iterable[Mapping[str, Any]], *, skipped: Iterable[tuple[str, str]]
) -> None:
    """What a report or a person may want later: every image, its side and its place; the files left out.

    Args:
        folder: of the run.
        images: each as `dataset.describe` says it; to each are added the size of its file and the time of its
            change, by which a change is noticed.
        skipped: name and reason of each file that was left out.
    """
    with whole(folder / IMAGES_FILE) as draft, draft.open("w", encoding="ascii") as file:
        _write_list(file, ({**image, **_stamp(str(image.get("file", "")))} for image in images))
    _stamp.cache_clear()
    left_out = [{"path": name, "reason": reason} for name, reason in skipped]
    write_whole(folder / SKIPPED_FILE, json.dumps(left_out, indent=1))


def _write_list(file: IO[str], images: Iterable[Mapping[str, Any]]) -> None:
    """A JSON list, one image after the other: there may be a million."""
    file.write("[")
    for number, image in enumerate(images):
        file.write((", " if number else "") + json.dumps(image))
    file.write("]")


@lru_cache(maxsize=64)
def _stamp(file: str) -> dict[str, int]:
    """Size and time of change, asked for once where an archive has many images."""
    try:
        found = os.stat(file) if file else None
    except OSError:
        found = None
    return {} if found is None else {"size": found.st_size, "modified": found.st_mtime_ns}


def fingerprint(images: Iterable[tuple[bytes | None, str | None, str]]) -> str:
    """Hex digits that change with any image's content, side or label: results on it can be compared.

    Args:
        images: content hash (None where it could not be read), side and label of each.
    """
    lines = [f"{content.hex()} {split} {label}" for content, split, label in images if content is not None]
    return hashlib.blake2b("\n".join(sorted(lines)).encode(), digest_size=12).hexdigest()
