"""Predictions as rows: of a table for spreadsheets, and of a Parquet file, which keeps types."""

from collections.abc import Iterable, Mapping
from typing import Any

from headstart.classifier.predictions import Prediction
from headstart.data.dataset import Skipped
from headstart.data.sources.parquet import libraries
from headstart.heads import REGRESSION

_KINDS = {
    "path": "string",
    "label": "string",
    "probability": "double",
    "value": "double",
    "low": "double",
    "high": "double",
    "familiarity": "double",
    "known": "bool",
    "labels": "labels",
    "note": "string",
}


def columns(task: str) -> tuple[str, ...]:
    """Names of what is said of an image; ``note`` is why it could not be read."""
    answer = ("value", "low", "high") if task == REGRESSION else ("label", "probability")
    labels = () if task == REGRESSION else ("labels",)
    return ("path", *answer, "familiarity", "known", *labels, "note")


def row_of(each: Prediction | Skipped) -> dict[str, Any]:
    """What is said of one image, by column; what is not said is not there."""
    if not isinstance(each, Prediction):
        return {"path": each.name, "note": each.reason}
    found: dict[str, Any] = {"path": each.path, "familiarity": each.familiarity, "known": each.known}
    if each.value is not None:
        return found | {"value": each.value} | dict(zip(("low", "high"), each.interval or (), strict=False))
    return found | {"label": each.label, "probability": each.probability, "labels": each.labels}


def as_table(said: Iterable[Prediction | Skipped], *, task: str) -> Any:
    """A `pyarrow.Table` with a row for each image, of the same columns whatever is said.

    Raises:
        MissingExtra: pyarrow is not installed.
    """
    arrow, _ = libraries()
    kinds: Mapping[str, Any] = {
        "string": arrow.string(),
        "double": arrow.float64(),
        "bool": arrow.bool_(),
        "labels": arrow.list_(arrow.string()),
    }
    schema = arrow.schema([(name, kinds[_KINDS[name]]) for name in columns(task)])
    return arrow.Table.from_pylist(list(map(row_of, said)), schema=schema)
