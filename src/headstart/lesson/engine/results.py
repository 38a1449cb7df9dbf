"""What an experiment leaves behind: plain values that are stored as JSON and read back the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from headstart.errors import RunError
from headstart.web.plots import Plot, Series, Table, Value


@dataclass(frozen=True)
class Outcome:
    """What an experiment's own function gives: the declared fields, the table, and what to draw."""

    fields: Mapping[str, Value]
    table: Table
    plots: tuple[Plot, ...]


@dataclass(frozen=True)
class ExperimentResult:
    """A finished experiment.

    Attributes:
        id: Unique among the stored results.
        name: The experiment's.
        size: "small" or "normal".
        parameters: Every parameter with the value it had.
        varied: Names of those that were given a value other than the declared one. Prose reads only results
            where nothing was varied.
        fields: What the lesson's pack declares, and nothing else.
        plots: What to draw.
        table: The numbers, one row per thing that was compared.
        notes: What one must know to read them: what was missing, what was cut short.
        data: Which images.
        own_data: Whether they were the learner's own.
        machine: Processor, cores, memory, system.
        versions: Of Headstart and of what computed.
        seed: Random seed.
        seconds: Wall-clock seconds of the whole experiment.
        processor_seconds: What was computed in them; 0 in old results, whose trainings may have been cut
            short, so that prose no longer quotes them.
        busy: Whether other work kept the processor from this one.
        predicted_seconds: What was said before it began, the median.
        created: When it ended, UTC, ISO 8601.
        predicted: What was said: low, median, high in seconds, and its source; empty in old results.
    """

    id: str
    name: str
    size: str
    parameters: Mapping[str, Value]
    varied: tuple[str, ...]
    fields: Mapping[str, Value]
    plots: tuple[Plot, ...]
    table: Table
    notes: tuple[str, ...]
    data: str
    own_data: bool
    machine: Mapping[str, Value]
    versions: Mapping[str, str]
    seed: int
    seconds: float
    predicted_seconds: float
    created: str
    predicted: Mapping[str, float | str] = field(default_factory=dict)
    processor_seconds: float = 0.0
    busy: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ExperimentResult:
        """The inverse of `to_dict`, also after a way through JSON; unknown keys are left aside.

        Raises:
            RunError: a part is missing.
        """
        added: dict[str, Any] = {"predicted": {}, "processor_seconds": 0.0, "busy": False}
        names = [field.name for field in fields(cls)]
        try:
            known = added | {name: data[name] for name in names if name not in added or name in data}
            return cls(
                **{
                    **known,
                    "varied": tuple(known["varied"]),
                    "notes": tuple(known["notes"]),
                    "plots": tuple(_plot(plot) for plot in known["plots"]),
                    "table": _table(known["table"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"this is no stored result of an experiment: {error!r}; run it again") from error


def _plot(data: Mapping[str, Any]) -> Plot:
    series = tuple(
        Series(entry["name"], tuple((x, y) for x, y in entry["points"])) for entry in data["series"]
    )
    return Plot(data["kind"], data["title"], data["x"], data["y"], series)


def _table(data: Mapping[str, Any]) -> Table:
    return Table(tuple(data["columns"]), tuple(tuple(row) for row in data["rows"]))
