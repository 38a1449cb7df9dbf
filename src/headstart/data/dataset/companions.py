"""Finds pictures that belong to another picture and show no class: masks and thumbnails beside it.

Only where the other picture is there, under the same name: `mask/1.jpg` beside `no_mask/1.jpg` is a class.
"""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Sequence
from functools import lru_cache

from headstart.data.dataset.split_names import split_of

_MASK = r"masks?|segmentations?|ground[_ ]?truths?|segmap"
_THUMB = r"thumb(?:s|nails?)?"
_HINTS = ("mask", "seg", "truth", "thumb", "trimap", "annotation", "label", "gt")
"""Of these one is in every name that is looked at more closely: most data sets have none."""

_MASK_FILE = re.compile(rf"(?P<of>.+?)[ _.-]+(?:{_MASK}|gt|seg)(?:[ _-]?\d+)?", re.IGNORECASE)
_THUMB_FILE = re.compile(rf"(?P<of>.+?)[ _.-]+{_THUMB}|{_THUMB}[ _.-]+(?P<after>.+)", re.IGNORECASE)
_MASK_FOLDERS = re.compile(
    rf"(?:(?P<of>.+)[ _-])?(?:{_MASK}|segmentation[_ ]?(?:class|object)(?:aug)?|annotations?|labels?|trimaps?"
    "|gt)",
    re.IGNORECASE,
)
IMAGE_FOLDERS = ("images", "image", "imgs", "img", "jpegimages", "photos", "pictures", "originals", "inputs")
"""What the folder beside one of masks and one of images of no class are called."""

_THUMB_FOLDER = re.compile(rf"[._]?{_THUMB}", re.IGNORECASE)


def companions(paths: Sequence[str], *, top_folders: bool) -> dict[str, str]:
    """Why each image that belongs to another one is none of its class, by its path below the root.

    Args:
        paths: all images.
        top_folders: whether a top folder may be one of masks, and not always a class.
    """
    hinted = [path for path in paths if _is_hinted(path)]
    if not hinted:
        return {}
    there = {_stem(path): path for path in paths}
    found = {path: why for path in hinted if (why := _by_file(path, there))}
    for folder, inside in _by_folder(hinted).items():
        if not folder[0] and not top_folders:
            continue
        reasons = {path: _by_place(path, folder, there) for path in inside}
        if all(reasons.values()):  # else the folder has pictures of its own
            found |= {path: str(why) for path, why in reasons.items()}
    return found


def _is_hinted(text: str) -> bool:
    lower = text.casefold()
    return any(hint in lower for hint in _HINTS)


@lru_cache(maxsize=1024)
def _holds_companions(folder: str) -> bool:
    return bool(_MASK_FOLDERS.fullmatch(folder) or _THUMB_FOLDER.fullmatch(folder))


def _stem(path: str) -> str:
    return os.path.splitext(path)[0].casefold()


def _by_file(path: str, there: dict[str, str]) -> str | None:
    """A mask or thumbnail in the folder of its picture, by its name: `1_mask.png` beside `1.png`."""
    folder, slash, name = path.rpartition("/")
    stem = os.path.splitext(name)[0]
    if not _is_hinted(stem):
        return None
    for pattern, what in ((_MASK_FILE, "a mask"), (_THUMB_FILE, "a thumbnail")):
        match = pattern.fullmatch(stem)
        if match:
            of = match["of"] or match["after"]
            if other := there.get(f"{folder}{slash}{of}".casefold()):
                return f"{what} of {other}"
    return None


def _by_folder(paths: Collection[str]) -> dict[tuple[str, str], list[str]]:
    """Images below each folder that is called as masks or thumbnails are, by what it lies in and its name."""
    found: dict[tuple[str, str], list[str]] = {}
    for path in paths:
        parts = path.split("/")
        for number, part in enumerate(parts[:-1]):
            if _holds_companions(part):
                found.setdefault(("/".join(parts[:number]), part), []).append(path)
                break
    return found


def _by_place(path: str, folder: tuple[str, str], there: dict[str, str]) -> str | None:
    """A picture of the same name in the folder of the images beside, or of a thumbnail in the one around."""
    before, name = folder
    prefix = f"{before}/" if before else ""
    stem = _stem(path.removeprefix(f"{prefix}{name}/"))
    if _THUMB_FOLDER.fullmatch(name):
        other = there.get(f"{prefix}{stem}".casefold()) if before else None
        return f"a thumbnail of {other}" if other else None
    plain, of = _MASK_FILE.fullmatch(stem), _MASK_FOLDERS.fullmatch(name)
    if of and of["of"] and of["of"].casefold() not in IMAGE_FOLDERS and split_of(of["of"]) is None:
        return None  # face_mask/ beside face/ may be a class
    for beside in (of["of"],) if of and of["of"] else IMAGE_FOLDERS:
        for each in (stem, plain["of"] if plain else stem):
            if other := there.get(f"{prefix}{beside}/{each}".casefold()):
                return f"a mask of {other}"
    return None
