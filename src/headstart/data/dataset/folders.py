"""Folders and archives with one folder for each class, with or without splits around or inside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from headstart.data.dataset.companions import IMAGE_FOLDERS, companions
from headstart.data.dataset.rows import LabelledRow, build
from headstart.data.dataset.split_names import families_of, means_unlabelled, parts_of_one, sides_of
from headstart.data.dataset.values import Dataset, Skipped
from headstart.data.sources import Listing
from headstart.data.sources.listing import wrapper_of
from headstart.errors import DatasetError, printable

_NO_CLASS = "lies in no class folder, so it has no label"
_SETTLE = "or take the outer folders for the classes (--splits none; in Python: split_by_folder=False)"


@dataclass(frozen=True)
class _Layout:
    """Where in an image's path its class and its split are."""

    above: str = ""  # the folders around everything, with a slash at the end
    label: int = 0
    split: int | None = None
    sides: Mapping[str, str] = field(default_factory=dict)  # of the folders at that place

    @property
    def depth(self) -> int:
        """Folders that an image must lie in."""
        return max(self.label, self.split or 0) + 1


@dataclass(frozen=True)
class _Top:
    """What a top folder holds: images directly in it, and folders in it that hold images."""

    direct: int
    folders: frozenset[str]


def from_folders(name: str, listing: Listing, *, where: str, split_by_folder: bool) -> Dataset:
    """The data set of a folder's or archive's class folders; `where` is shown in errors."""
    images, skipped = listing.images()
    beside = companions([path for path, _ in images], top_folders=split_by_folder)
    skipped += [Skipped(printable(path), printable(why)) for path, why in beside.items()]
    images = [(path, source) for path, source in images if path not in beside]
    layout = _layout(listing, [path for path, _ in images], where=where) if split_by_folder else _Layout()
    rows: list[LabelledRow] = []
    loose = 0
    for path, source in images:
        parts = path.removeprefix(layout.above).split("/", layout.depth)
        if len(parts) <= layout.depth:
            skipped.append(Skipped(printable(path), _NO_CLASS))
            loose += 1
            continue
        split = None if layout.split is None else layout.sides.get(parts[layout.split])
        if layout.split is not None and split is None:
            reason = f"{printable(parts[layout.split])}/ lies beside train/ and is no split"
            skipped.append(Skipped(printable(path), reason))
        else:
            rows.append(LabelledRow(path, parts[layout.label], split, source))
    unnamed = _unnamed(rows) if layout.split == 0 else frozenset()
    skipped += [Skipped(printable(row.path), _NO_CLASS) for row in rows if row.label in unnamed]
    rows = [row for row in rows if row.label not in unnamed]
    if not rows and loose:
        raise DatasetError(
            f"{where}: {loose} images but no class folders; put each class into a folder of its own"
        )
    classes = [each for each in _class_folders(listing.folders, layout) if each not in unnamed]
    _refuse_empty_classes(where, classes, {str(row.label) for row in rows}, skipped)
    return build(name, rows, skipped, where=where, notes=_folders_in_classes(rows, layout))


def _folders_in_classes(rows: Sequence[LabelledRow], layout: _Layout) -> list[str]:
    """A sentence where a class folder holds nothing but folders, which may have been meant for classes."""
    below: dict[str, set[str]] = {}
    for row in rows:
        inside = row.path.removeprefix(layout.above).split("/")[layout.depth : -1]
        below.setdefault(str(row.label), set()).add(inside[0] if inside else "")
    parts = {label: sorted(found) for label, found in below.items() if len(found) > 1 and "" not in found}
    if not parts:
        return []
    label, found = next(iter(parts.items()))
    also = f"; so it is in {len(parts)} classes" if len(parts) > 1 else ""
    told = f"{_shown([label])} holds folders ({_shown(found[:3])}); their images count as {printable(label)}"
    return [told + also]


def _unnamed(rows: Sequence[LabelledRow]) -> frozenset[str]:
    """Folders of held-out images that are no class: `val/images/` where `train/` has no such folder."""
    trained = {str(row.label) for row in rows if row.split == "train"}
    others = {str(row.label) for row in rows} - trained
    return frozenset(label for label in others if trained and label.casefold() in IMAGE_FOLDERS)


def are_splits(tops: Sequence[str]) -> bool:
    """Whether folders of these names are splits with classes inside, and not classes themselves.

    `train` is also a vehicle: it takes another split beside it, or nothing else, to make it a split.
    """
    sides = sides_of(tops)
    return "train" in sides.values() and (len(sides) == len(tops) or len({*sides.values()}) > 1)


def _layout(listing: Listing, images: Sequence[str], *, where: str) -> _Layout:
    """Where classes and splits are."""
    above = wrapper_of(images)
    inner = {path.removeprefix(above).split("/", 1)[0] for path in images} if above else set()
    if above and are_splits(sorted(inner)):  # data/train/ants and data/val/ants: what is around says nothing
        below = [path.removeprefix(above) for path in images]
        return _Layout(above=above, label=_label_below_splits(below), split=0, sides=sides_of(inner))
    tops = _tops(listing, images)
    sides = sides_of(tops)
    with_classes = [top for top in sides if tops[top].folders]
    if sides and (len(sides) == len(tops) or (with_classes and are_splits(list(tops)))):
        inside_splits = [path for path in images if path.split("/", 1)[0] in sides]
        return _Layout(label=_label_below_splits(inside_splits), split=0, sides=sides)
    inside = {top: sides_of(found.folders) for top, found in tops.items() if found.direct or found.folders}
    split_inside = [top for top, found in inside.items() if "train" in found.values() and len(found) > 1]
    if split_inside:
        if all(inside[top].keys() == tops[top].folders and not tops[top].direct for top in inside):
            return _Layout(
                label=0, split=1, sides={k: v for found in inside.values() for k, v in found.items()}
            )
        other = next(
            (top for top in inside if inside[top].keys() != tops[top].folders or tops[top].direct), ""
        )
        _ask(
            where,
            f"{_shown(split_inside[:1])} holds splits ({_shown(sorted(inside[split_inside[0]]))}) and "
            f"{_shown([other])} other images; give every class the same splits",
        )
    for top, found in tops.items():
        if not found.direct and len(same := found.folders & (tops.keys() - {top})) > 1:
            _ask(
                where,
                f"{_shown([top])} holds folders called as those beside it ({_shown(sorted(same)[:2])}); move "
                "it away if it is a copy",
            )
    if pairs := families_of(tops):
        first = next(iter(pairs.values()))
        _ask(where, f"{_shown(first)} look like splits of one class; put them into train/, val/ and test/")
    _ask_about_same_names(where, tops)
    if parts_of_one(tops):
        _ask(
            where,
            f"{_shown(list(tops)[:2])} are called parts of one collection; give the table that labels its "
            "images, or put each class into a folder of its own",
        )
    held_out = [top for top, side in sides.items() if side != "train" and tops[top].direct]
    if held_out and sum(bool(found.direct) for top, found in tops.items() if top not in sides) > 1:
        # `test` beside `control` is a class; beside several classes it is more often what was held out
        _ask(
            where,
            f"{_shown(held_out[:1])} lies beside class folders; move it away if its images are held out and "
            "have no class",
        )
    unlabelled = [top for top, found in tops.items() if found.direct and means_unlabelled(top)]
    if unlabelled and len(tops) > 2:
        _ask(where, f"{_shown(unlabelled[:1])} lies beside class folders; move it away if it is no class")
    return _Layout()


def _label_below_splits(images: Sequence[str]) -> int:
    """Where classes are below folders of splits: mostly directly, or within one that says the same again.

    `seg_train/seg_train/ants` or `train/images/ants`, where each split has one such folder and nothing else.
    """
    inside: dict[str, set[str]] = {}
    deep = False
    for path in images:
        parts = path.split("/", 3)
        inside.setdefault(parts[0], set()).add(parts[1] if len(parts) > 2 else "")
        deep = deep or len(parts) > 3
    again = all(
        len(folders) == 1 and ((only := next(iter(folders))) == top or only.casefold() in IMAGE_FOLDERS)
        for top, folders in inside.items()
    )
    return 2 if deep and again else 1


def _ask_about_same_names(where: str, tops: Mapping[str, _Top]) -> None:
    """Refuse to guess where folders hold folders of the same names: collections, or classes in parts."""
    holders: dict[str, list[str]] = {}
    for top, found in tops.items():
        if not found.direct:
            for folder in found.folders:
                holders.setdefault(folder.casefold(), []).append(top)
    shared: dict[tuple[str, ...], list[str]] = {}
    for folder, holding in holders.items():
        if len(holding) > 1:
            shared.setdefault(tuple(holding[:2]), []).append(folder)
    for both, names in shared.items():
        if len(names) > 1 or all(len(tops[top].folders) > 1 for top in both):
            _ask(
                where,
                f"{_shown(both)} hold folders of the same names ({_shown(sorted(names)[:3])}), which may be "
                "the classes; name the outer folders train, val and test if they are splits",
            )


def _ask(where: str, what: str) -> None:
    raise DatasetError(f"{where}: {what}, {_SETTLE}")


def _shown(names: Iterable[str]) -> str:
    return " and ".join(f"{printable(name)}/" for name in names)


def _tops(listing: Listing, images: Sequence[str]) -> dict[str, _Top]:
    direct: dict[str, int] = {folder: 0 for folder in listing.folders if "/" not in folder}
    folders: dict[str, set[str]] = {folder: set() for folder in direct}
    for path in images:
        parts = path.split("/", 2)
        if len(parts) == 2:
            direct[parts[0]] += 1
        elif len(parts) == 3:
            folders[parts[0]].add(parts[1])
    return {top: _Top(count, frozenset(folders[top])) for top, count in direct.items()}


def _class_folders(folders: Sequence[str], layout: _Layout) -> list[str]:
    folders = [each.removeprefix(layout.above) for each in folders if each.startswith(layout.above)]
    if layout.label == 0:
        return [folder for folder in folders if "/" not in folder]
    paths = [folder.split("/") for folder in folders if folder.count("/") == layout.label]
    return [parts[-1] for parts in paths if parts[0] in layout.sides]


def _refuse_empty_classes(where: str, classes: list[str], used: set[str], skipped: list[Skipped]) -> None:
    if not used:
        count = sum(item.files for item in skipped)
        others = ""
        if skipped:
            others = f" ({count:,} left out; {skipped[0].name}: {skipped[0].reason})"
        raise DatasetError(f"{where}: no images{others}; expected a folder with one folder per class")
    empty = sorted(set(classes) - used)
    if empty:
        shown = ", ".join(printable(folder) for folder in empty[:3])
        more = f" and {len(empty) - 3} more" if len(empty) > 3 else ""
        why = next((item for item in skipped if f"/{printable(empty[0])}/" in f"/{item.name}"), None)
        because = f" ({why.name}: {why.reason})" if why else ""
        raise DatasetError(
            f"{where}: no images in class folder {shown}{more}{because}; add images or remove the folder"
        )
