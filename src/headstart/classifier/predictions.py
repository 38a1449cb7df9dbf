"""What a classifier says of images, one by one and as a table."""

from dataclasses import dataclass
from typing import Any

from headstart.errors import MissingExtra
from headstart.heads import REGRESSION


@dataclass(frozen=True)
class Prediction:
    """What a classifier says of one image.

    Attributes:
        path: the image's name.
        label: the likeliest, or that of the least expected cost where mistakes have costs.
        probability: of that label.
        top: the likeliest labels with their probabilities.
        familiarity: the share of images like the training images that are at least as strange as this one,
            above 0 and at most 1; None where the classifier does not say.
        known: whether the familiarity is at least the share that was asked for; None where none was.
        labels: those that make up the asked coverage, the likeliest first, and ``label``; None where none was
            asked for. Of a multi-label classifier: those at or above their thresholds, perhaps none.
        value: the number, where one is predicted; ``label`` then says it as text, without a probability.
        interval: around the number, holding 90 % of images' numbers, or the asked coverage; None where too
            few images are known.
    """

    path: str
    label: str
    probability: float
    top: tuple[tuple[str, float], ...]
    familiarity: float | None = None
    known: bool | None = None
    labels: tuple[str, ...] | None = None
    value: float | None = None
    interval: tuple[float, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """What `headstart predict --json` prints."""
        facts = {
            "path": self.path,
            "label": self.label,
            "probability": self.probability,
            "top": [list(pair) for pair in self.top],
            "familiarity": self.familiarity,
            "known": self.known,
            "labels": None if self.labels is None else list(self.labels),
            "value": self.value,
            "interval": None if self.interval is None else list(self.interval),
        }
        if self.value is not None:
            del facts["label"], facts["probability"], facts["top"]
        return {name: value for name, value in facts.items() if value is not None}

    def row(self) -> dict[str, object]:
        """One row of a table: plain numbers, and no more than one value in a cell."""
        found: dict[str, object] = {"path": self.path, "familiarity": self.familiarity, "known": self.known}
        if self.value is not None:
            return (
                found | {"value": self.value} | dict(zip(("low", "high"), self.interval or (), strict=False))
            )
        labels = "|".join(self.labels or ())
        return found | {"label": self.label, "probability": self.probability, "labels": labels}


@dataclass(frozen=True)
class PredictOptions:
    """What is asked about every image.

    Attributes:
        top: how many of the likeliest labels to give.
        reject: the share of images like the training images that may be taken for unknown, such as 0.05.
        coverage: the share of images whose set of labels shall hold the right one, such as 0.9.
    """

    top: int = 5
    reject: float | None = None
    coverage: float | None = None


USUAL = PredictOptions()


def columns(task: str) -> tuple[str, ...]:
    """Of a table of predictions; see `Prediction.row`."""
    answer = ("value", "low", "high") if task == REGRESSION else ("label", "probability")
    return ("path", *answer, "familiarity", "known", *(() if task == REGRESSION else ("labels",)))


class Predictions(list[Prediction]):
    """Predictions of several images, in their order."""

    def to_frame(self) -> Any:
        """A table of pandas with a row for each image; a column that nothing was asked of is left out.

        Raises:
            MissingExtra: pandas is not installed.
        """
        try:
            import pandas
        except ImportError:
            raise MissingExtra("a table of pandas", extra="notebook") from None
        task = REGRESSION if self and self[0].value is not None else ""
        rows = [each.row() for each in self]
        used = [name for name in columns(task) if any(row.get(name) not in (None, "") for row in rows)]
        return pandas.DataFrame(rows, columns=used or columns(task))
