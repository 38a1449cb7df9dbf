"""Labels as other programs write them: COCO's classification, Label Studio's JSON, FiftyOne's.

Forms: https://cocodataset.org/#format-data (annotations without boxes), https://labelstud.io/guide/export
("JSON"), https://docs.voxel51.com/user_guide/import_datasets.html (FiftyOneImageClassificationDataset's
`labels.json`, FiftyOneDataset's `samples.json`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

from headstart.data.dataset.columns import LabelTable
from headstart.data.dataset.delimited import JsonLines
from headstart.data.dataset.values import Dataset
from headstart.data.sources.names import is_image_name
from headstart.data.sources.parquet import MAX_ROWS
from headstart.errors import DatasetError, OptionError, printable
from headstart.files import Unreadable, parse_json
from headstart.heads.tasks import REGRESSION

_Row = tuple[str, list[str] | None, str | None]
"""A path, the labels (None: nobody has looked at it yet), the split."""

_UPLOADED = re.compile(r"[0-9a-f]{8}-")
"""What Label Studio puts before the name of a file that was sent to it."""

_LONGEST = 120
"""Characters of a reason."""

_BOXES = "has boxes and no labels of whole images; a classifier needs one label for each image"


def read_label_file(data: bytes, name: str) -> LabelTable:
    """A table of path, label and split from such a file.

    Raises:
        DatasetError: it is of another form, has boxes alone, or is damaged.
    """
    shown = printable(name)
    try:
        found = parse_json(data)
        rows = list(_form(found)(found))
    except Unreadable as error:
        raise DatasetError(f"{shown}: {error}") from None
    except DatasetError as error:
        raise DatasetError(f"{shown}: {error}") from None
    except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
        what = printable(f"{type(error).__name__}: {error}"[:_LONGEST])
        raise DatasetError(f"{shown}: not as its program writes it ({what})") from None
    if len(rows) > MAX_ROWS:
        raise DatasetError(f"{shown}: more than {MAX_ROWS:,} images; split it")
    several = any(labels and len(labels) > 1 for _, labels, _ in rows)
    objects: list[tuple[int, dict[str, object]]] = []
    for number, (path, labels, split) in enumerate(rows, 1):
        if labels or (several and labels is not None):
            label: object = labels if several else labels[0]
            objects.append((number, {"path": path, "label": label} | ({"split": split} if split else {})))
    left = len(rows) - len(objects)
    return JsonLines(
        names=("path", "label", *(["split"] if any(split for *_, split in rows) else [])),
        size=len(data),
        notes=(f"{shown}: without a label and left out: {left:,}",) if left else (),
        objects=tuple(objects),
    )


def _form(found: Any) -> Callable[[Any], Iterator[_Row]]:
    """How to read it."""
    if isinstance(found, dict):
        if {"images", "annotations", "categories"} <= found.keys():
            return _coco
        if isinstance(found.get("samples"), list):
            return _fiftyone_samples
        if isinstance(found.get("labels"), dict):
            return _fiftyone
    if isinstance(found, list) and found and all(isinstance(each, dict) and "data" in each for each in found):
        return _label_studio
    raise DatasetError(
        "no labels in a form that is known (COCO's classification, Label Studio's JSON, FiftyOne's); "
        "write them as a table of path and label"
    )


def _coco(found: Mapping[str, Any]) -> Iterator[_Row]:
    if any(each.get("bbox") or each.get("segmentation") for each in found["annotations"]):
        raise DatasetError(_BOXES)
    names = {each["id"]: str(each["name"]) for each in found["categories"]}
    labels: dict[Any, list[str]] = {}
    for each in found["annotations"]:
        labels.setdefault(each["image_id"], []).append(names[each["category_id"]])
    for image in found["images"]:
        yield str(image["file_name"]), list(dict.fromkeys(labels.get(image["id"], []))), None


def _label_studio(found: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    seen, controls = False, dict[str, None]()
    for task in found:
        done = [each for each in task.get("annotations", []) if not each.get("was_cancelled")]
        done = [each for each in done if each.get("ground_truth")] or done[-1:]
        results = [result for each in done for result in each.get("result", [])]
        chosen = [result for result in results if result.get("type") == "choices"]
        if results and not chosen and not seen:
            raise DatasetError(_BOXES)
        seen = seen or bool(chosen)
        controls |= dict.fromkeys(str(result.get("from_name")) for result in chosen)
        if len(controls) > 1:
            raise DatasetError(
                f"choices of several controls ({', '.join(map(printable, controls))}); export one"
            )
        path = _image_of(task["data"], chosen)
        labels = [str(each) for result in chosen for each in result["value"]["choices"]]
        yield _of_label_studio(str(path)), list(dict.fromkeys(labels)) if done else None, None


def _image_of(data: Mapping[str, Any], chosen: Sequence[Mapping[str, Any]]) -> str:
    """The image of a task: what its choices are of, else the one text that is an image's address."""
    key = str(chosen[0].get("to_name")) if chosen else ""
    if isinstance(data.get(key), str):
        return str(data[key])
    texts = [each for each in data.values() if isinstance(each, str)]
    images = [each for each in texts if is_image_name(urlsplit(each).path) or "/local-files/" in each]
    if len(images or texts) != 1:
        raise DatasetError(
            f"a task has {len(images)} images ({', '.join(map(printable, data))}); export with one"
        )
    return (images or texts)[0]


def _of_label_studio(path: str) -> str:
    """The file that Label Studio's address is of."""
    parts = urlsplit(path)
    if parts.path.endswith("/local-files/"):
        return parse_qs(parts.query)["d"][0]
    if "/upload/" in parts.path:
        return _UPLOADED.sub("", parts.path.rpartition("/")[2], count=1)
    return path


def _fiftyone(found: Mapping[str, Any]) -> Iterator[_Row]:
    classes = found.get("classes")
    for path, given in found["labels"].items():
        several = given if isinstance(given, list) else [] if given is None else [given]
        plain = [each["label"] if isinstance(each, dict) else each for each in several]
        if classes and any(isinstance(each, int) and not 0 <= each < len(classes) for each in plain):
            raise ValueError(f"{len(classes)} classes, and the class {plain}")
        labels = [classes[each] if classes and isinstance(each, int) else each for each in plain]
        yield str(path), None if given is None else [str(each) for each in labels], None


def _fiftyone_samples(found: Mapping[str, Any]) -> Iterator[_Row]:
    kinds = ("Classification", "Classifications")
    fields = dict.fromkeys(
        name
        for sample in found["samples"]
        for name, value in sample.items()
        if isinstance(value, dict) and value.get("_cls") in kinds
    )
    if not fields:
        raise DatasetError(_BOXES)
    if len(fields) > 1 and "ground_truth" not in fields:
        told = ", ".join(map(printable, fields))
        raise DatasetError(f"several fields of labels ({told}); keep one, or name it ground_truth")
    name = "ground_truth" if "ground_truth" in fields else next(iter(fields))
    for sample in found["samples"]:
        value = sample.get(name) or {}
        labels = [each["label"] for each in value.get("classifications", [value] if value else [])]
        sides = [tag for tag in sample.get("tags", []) if tag in ("train", "validation", "val", "test")]
        known = [str(each) for each in labels] if value else None
        yield str(sample["filepath"]), known, sides[0] if sides else None


# ------------------------------------------------------------------------------------------------- out


def label_file(dataset: Dataset, form: str) -> str:
    """The labels of a data set, as another program reads them.

    Args:
        dataset: of one label or several for each image.
        form: "coco", "label-studio" or "fiftyone".

    Raises:
        OptionError: there is no such form, or the labels are numbers.
        DatasetError: FiftyOne's form cannot tell two of the images.
    """
    if form not in FORMS:
        raise OptionError(f"--to {form!r}: expected one of {', '.join(FORMS)}")
    if dataset.task == REGRESSION:
        raise OptionError("regression: label files of other programs hold classes; take a table of numbers")
    images = [
        (sample.name, [dataset.classes[label] for label in dataset.classes_of(sample)])
        for sample in dataset.samples
    ]
    found = FORMS[form](images, list(dataset.classes))
    return json.dumps(found, indent=1, ensure_ascii=False)


_Images = Sequence[tuple[str, list[str]]]


def _as_coco(images: _Images, classes: list[str]) -> Any:
    numbers = {name: number for number, name in enumerate(classes, 1)}
    pairs = [(image, label) for image, (_, labels) in enumerate(images, 1) for label in labels]
    return {
        "images": [{"id": number, "file_name": path} for number, (path, _) in enumerate(images, 1)],
        "categories": [{"id": number, "name": name} for name, number in numbers.items()],
        "annotations": [
            {"id": number, "image_id": image, "category_id": numbers[label]}
            for number, (image, label) in enumerate(pairs, 1)
        ],
    }


def _as_label_studio(images: _Images, classes: list[str]) -> Any:
    def result(labels: list[str]) -> dict[str, Any]:
        return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": labels}}

    return [
        {
            "id": number,
            "data": {"image": f"/data/local-files/?d={quote(path)}"},
            "annotations": [{"result": [result(labels)] if labels else []}],
        }
        for number, (path, labels) in enumerate(images, 1)
    ]


def _as_fiftyone(images: _Images, classes: list[str]) -> Any:
    several = any(len(labels) != 1 for _, labels in images)
    found: dict[str, Any] = {}
    for path, labels in images:
        stem = path.rpartition(".")[0] or path
        if stem in found:
            raise DatasetError(f"{path}: another image differs in its ending alone, and FiftyOne has none")
        found[stem] = labels if several else classes.index(labels[0])
    return {"classes": None if several else classes, "labels": found}


FORMS: Mapping[str, Callable[[_Images, list[str]], Any]] = {
    "coco": _as_coco,
    "label-studio": _as_label_studio,
    "fiftyone": _as_fiftyone,
}
"""How labels can be written, by what `headstart labels --to` takes."""
