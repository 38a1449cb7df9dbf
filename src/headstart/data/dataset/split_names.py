"""Recognises the names of splits: `train`, `dev`, `test_set`, `seg_train`, `val2017`, `hold-out`."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

_WORDS = {
    "train": ("train", "training", "trainings", "trn", "trainval", "entrainement", "apprentissage"),
    "validation": (
        "val", "vals", "valid", "validate", "validating", "validation", "validations", "dev", "devel",
        "development", "validierung", "validierungs",
    ),
    "test": ("test", "tests", "testing", "holdout", "heldout"),
    "evaluation": ("eval", "evals", "evaluate", "evaluation", "evaluations"),
}  # fmt: skip
"""English, and the German and French words that mean nothing else. `trains` is a vehicle."""

_DECORATION = frozenset({
    "set", "sets", "data", "dataset", "datasets", "split", "splits", "part", "seg", "folder", "dir",
    "image", "images", "img", "imgs", "photo", "photos", "picture", "pictures", "pic", "pics", "samples",
    "public", "private",
    "examples", "daten", "datensatz", "bild", "bilder", "fotos", "donnees", "jeu", "de", "d",
})  # fmt: skip
"""What stands beside such a word, or is written together with it, and says nothing."""

_PARTS = frozenset({
    "part", "parts", "batch", "chunk", "shard", "archive", "volume", "vol", "disk", "folder", "dir", "fold",
    "subset", "images", "image", "img", "imgs", "photos", "pictures", "data", "dataset",
})  # fmt: skip
"""What is numbered where a collection is in pieces; `type_1` and `grade_2` are classes."""

_SIDES = {word: side for side, words in _WORDS.items() for word in words}
_CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")
_LETTERS = re.compile(r"[^\W\d_]+")


def split_of(name: str) -> str | None:
    """The split that a name means by itself: train, validation or test; None for all other names."""
    side, rest = _parsed(name)
    return None if side is None or rest else _settled(side, others=())


def sides_of(names: Iterable[str]) -> dict[str, str]:
    """The split of each name that means one, among names of folders or files beside each other.

    A word that all of them share says nothing: `flowers_train` and `flowers_val` are splits of flowers. An
    `eval` is the test images, or the validation images where other names mean the test images.
    """
    parsed = {name: found for name in names if (found := _parsed(name))[0] is not None}
    families: dict[tuple[str, ...], set[str]] = {}
    for side, rest in parsed.values():
        families.setdefault(rest, set()).add(str(side))
    best = max(
        families, key=lambda rest: ("train" in families[rest], len(families[rest]), not rest), default=()
    )
    if best and len(families[best]) < 2:  # one name of several words: who knows what it means
        return {}
    return {
        name: _settled(str(side), others=families[rest])
        for name, (side, rest) in parsed.items()
        if rest == best
    }


def families_of(names: Iterable[str]) -> dict[str, list[str]]:
    """Classes whose splits are folders beside each other: `ants_train`, `ants_test`, `bees_train`."""
    found: dict[str, dict[str, str]] = {}
    for name in names:
        side, rest = _parsed(name)
        if side is not None and rest:
            found.setdefault(" ".join(rest), {})[name] = side
    whole = {rest: list(sides) for rest, sides in found.items() if len({*sides.values()}) > 1}
    return whole if len(whole) > 1 else {}


def parts_of_one(names: Iterable[str]) -> bool:
    """Whether names differ by a number alone that counts parts: `images_part_1`, `images_part_2`."""
    plain = [re.sub(r"\d+", "#", name.casefold()) for name in names]
    words = set(_LETTERS.findall(plain[0].replace("_", " "))) if plain else set()
    return len(plain) > 1 and len({*plain}) == 1 and bool(words & _PARTS)


def means_unlabelled(name: str) -> bool:
    """Whether a folder's name says that its images have no class."""
    return (
        re.fullmatch(r"un[_ -]?(labell?ed|sup|supervised|sorted|annotated)([_ -]\w+)?", name.casefold())
        is not None
    )


def _settled(side: str, *, others: Iterable[str]) -> str:
    if side != "evaluation":
        return side
    return "validation" if "test" in others else "test"


def _parsed(name: str) -> tuple[str | None, tuple[str, ...]]:
    """The one split that a name means, and its other words."""
    plain = unicodedata.normalize("NFKD", _CAMEL.sub(" ", name))
    plain = "".join(letter for letter in plain if not unicodedata.combining(letter)).lower()
    plain = re.sub(r"\b(hold|held)[\W_]*out", r"\1out", plain.replace("_", " "))
    sides: set[str] = set()
    rest = []
    for word in _LETTERS.findall(plain):
        side = _SIDES.get(word) or _SIDES.get(_undecorated(word))
        if side is not None:
            sides.add(side)
        elif word not in _DECORATION:
            rest.append(word)
    if sides == {"train", "validation"}:  # train_val: both together are what is trained on
        sides = {"train"}
    return (sides.pop() if len(sides) == 1 else None), tuple(rest)


def _undecorated(word: str) -> str:
    for ending in sorted(_DECORATION, key=len, reverse=True):
        if len(ending) > 2 and word.endswith(ending) and len(word) > len(ending):
            return word.removesuffix(ending).removesuffix("s")
    return word
