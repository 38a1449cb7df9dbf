"""The values of a comparison: plain data that is stored as JSON and read back the same."""

from collections.abc import Mapping, Sequence, Set
from dataclasses import asdict, dataclass, field, fields, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.errors import OptionError, RunError, printable
from headstart.runs import FitConfig, Method, todays_names


@dataclass(frozen=True)
class Candidate(Method):
    """A way to train that is compared with others, perhaps on fewer images."""

    layers: str | tuple[str, ...] | None = "last"
    images: int | None = None  # training images of each class, at most; None for all of them
    label: str | None = None  # what a lesson or a person calls it; None for a name made of the rest
    apart: str | None = field(default=None, compare=False)  # tells it from its namesakes, see `disambiguate`

    def config(self, common: FitConfig, *, seed: int) -> FitConfig:
        """What `fit` would be told for the same training; ``common`` is what all candidates share."""
        own: dict[str, Any] = {each.name: getattr(self, each.name) for each in fields(Method)}
        return replace(common, **own, seed=seed).settled()

    @property
    def frozen(self) -> str:
        """``all``, ``none`` or the number of frozen stages."""
        return {self.stages: "all", 0: "none"}.get(self.depth, str(self.depth))

    @property
    def name(self) -> str:
        """What tables and plots call it."""
        name = self.network if self.label else f"{self.network}, {self._training()}"
        if self.images is None:
            return name
        return f"{name}, {self.images} image{'s' if self.images > 1 else ''} a class"

    @property
    def network(self) -> str:
        """The name without how it is trained: its label, or the backbone and its size."""
        called = self.label or f"{printable(Path(self.backbone).stem)} {self.size} px"
        return called if self.apart is None else f"{called} ({self.apart})"

    @property
    def untrained(self) -> "Candidate":
        """What all ways to train one network have in common."""
        plain = Candidate(self.backbone, self.size, 0, 0)
        return replace(plain, architecture=self.architecture, preprocess=self.preprocess)

    def _training(self) -> str:
        if not self.pretrained:
            return "from scratch"
        if not self.fine_tuned:
            return f"all frozen, {self.head}"
        return "nothing frozen" if self.depth == 0 else f"{self.depth} of {self.stages} frozen"

    @property
    def whole(self) -> "Candidate":
        """The same on all training images."""
        return replace(self, images=None)

    @property
    def random(self) -> bool:
        """Whether a seed changes the result: a ridge head on all images has nothing random in it."""
        return not self.closed_form or self.images is not None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "name": self.name, "frozen": self.frozen}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Candidate":
        """The inverse of `to_dict`; unknown keys are left aside."""
        data = todays_names(data)
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return cls(**{**known, "views": tuple(known["views"])})


def disambiguate(candidates: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """The same candidates; those that would have one name are given what they differ in.

    ``exp1/best.pth`` and ``exp2/best.pth`` are both called best, and views are in no name.
    """
    plain = [replace(each, apart=None) for each in candidates]
    alike: dict[str, list[Candidate]] = {}
    for each in plain:
        alike.setdefault(each.whole.name, []).append(each.whole)
    return tuple(replace(each, apart=_apart(each.whole, alike[each.whole.name])) for each in plain)


def _apart(candidate: Candidate, namesakes: Sequence[Candidate]) -> str | None:
    """What of a candidate its namesakes do not have; None where they are all the same."""
    own = vars(candidate)
    differing = [
        f.name
        for f in fields(Candidate)
        if f.compare and any(vars(each)[f.name] != own[f.name] for each in namesakes)
    ]
    said = [
        _end(candidate.backbone, {each.backbone for each in namesakes})
        if name == "backbone"
        else f"{name} {_worded(own[name])}"
        for name in differing
    ]
    return ", ".join(said) or None


def _end(path: str, others: Set[str]) -> str:
    """As many of a path's last parts as no other ends in."""
    parts = Path(path).parts
    for count in range(1, len(parts) + 1):
        if sum(Path(other).parts[-count:] == parts[-count:] for other in others) == 1:
            return printable("/".join(parts[-count:]))
    return printable(path)


def _worded(value: Any) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value or "as usual")


@dataclass(frozen=True)
class Trial:
    """One training of one candidate, measured on the comparison's validation images.

    ``predicted`` has a class index for each validation image, in the comparison's order. ``seconds`` are
    wall-clock: ``features`` (the pass over the images, shared by all trials of a backbone and counted in full
    for each, from an empty cache), ``train`` and ``evaluate``.
    """

    candidate: Candidate
    seed: int
    images: int  # training images
    predicted: tuple[int, ...]
    accuracy: float
    macro_f1: float
    log_loss: float
    calibration_error: float
    seconds: Mapping[str, float]
    history: tuple[Mapping[str, Any], ...] = ()

    @property
    def total(self) -> float:
        """Seconds from the images to the evaluation."""
        return float(sum(self.seconds.values()))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "candidate": self.candidate.to_dict(),
            "total": round(self.total, 3),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Trial":
        """The inverse of `to_dict`."""
        known = {f.name: data[f.name] for f in fields(cls)}
        return cls(
            **{
                **known,
                "candidate": Candidate.from_dict(data["candidate"]),
                "predicted": tuple(data["predicted"]),
                "history": tuple(data["history"]),
            }
        )


@dataclass(frozen=True)
class Choice:
    """What to take, and why, in plain words; ``test`` is its accuracy on images read once, at the end."""

    candidate: Candidate
    reasons: tuple[str, ...]
    not_significant: tuple[str, ...]
    command: str
    test: Mapping[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "candidate": self.candidate.to_dict()}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> "Choice":
        """The inverse of `to_dict`."""
        return cls(
            candidate=Candidate.from_dict(data["candidate"]),
            reasons=tuple(data["reasons"]),
            not_significant=tuple(data["not_significant"]),
            command=data["command"],
            test=data["test"],
        )


@dataclass(frozen=True)
class Comparison:
    """Candidates trained on one split; ``labels`` are the validation images' classes, as indices."""

    id: str
    path: Path | None
    created: str
    data: str
    classes: tuple[str, ...]
    images: Mapping[str, int]  # by split, and "skipped"
    split: str  # fingerprint: contents, labels and sides
    labels: tuple[int, ...]
    trials: tuple[Trial, ...]
    choice: Choice | None = None
    passes: tuple[Mapping[str, Any], ...] = ()  # one per pass: backbone, seconds, hits, misses, bytes
    seconds: float = 0.0  # wall-clock of the whole comparison
    notes: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    predicted_seconds: Mapping[str, float] = field(default_factory=dict)  # low, median, high; before the work
    source: str | None = None  # folder, table or zip; None for arrays
    settings: Mapping[str, Any] = field(default_factory=dict)  # what all candidates share, by option of `fit`

    def __repr__(self) -> str:
        chosen = self.choice.candidate.name if self.choice else "none"
        return f"Comparison({self.id!r}: {len(self.candidates)} candidates, choice: {chosen})"

    def _repr_html_(self) -> str | None:
        import headstart

        found: str | None = headstart.report(self)._repr_html_()
        return found

    @property
    def candidates(self) -> tuple[Candidate, ...]:
        """Each once, in the order of training."""
        return tuple(dict.fromkeys(trial.candidate for trial in self.trials))

    def of(self, candidate: Candidate) -> tuple[Trial, ...]:
        """The candidate's trials, one per seed.

        Raises:
            OptionError: the comparison has none.
        """
        found = tuple(trial for trial in self.trials if trial.candidate == candidate)
        if not found:
            raise OptionError(f"comparison {self.id} has no candidate {candidate.name}")
        return found

    def correct(self, candidate: Candidate) -> NDArray[np.bool_]:
        """Which validation images each trial got right, [trials, images]."""
        predicted = np.array([trial.predicted for trial in self.of(candidate)])
        right: NDArray[np.bool_] = predicted == self._labels
        return right

    @cached_property
    def _labels(self) -> NDArray[np.int64]:
        return np.array(self.labels, np.int64)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "comparison": self.id,
            **{f.name: getattr(self, f.name) for f in fields(self)},
            "path": str(self.path) if self.path else None,
            "trials": [trial.to_dict() for trial in self.trials],
            "choice": self.choice.to_dict() if self.choice else None,
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], *, path: Path | None = None) -> "Comparison":
        """The inverse of `to_dict`; ``path`` is where the folder lies now."""
        known = {f.name: data[f.name] for f in fields(cls) if f.name in data}
        return cls(
            **{
                **known,
                "path": path or (Path(data["path"]) if data["path"] else None),
                "classes": tuple(data["classes"]),
                "labels": tuple(data["labels"]),
                "trials": tuple(Trial.from_dict(trial) for trial in data["trials"]),
                "choice": Choice.from_dict(data["choice"]) if data["choice"] else None,
                "passes": tuple(data["passes"]),
                "notes": tuple(data["notes"]),
            }
        )


def same_split(named: Sequence[tuple[str, str]]) -> None:
    """Refuse to compare what was measured on different images.

    Args:
        named: (name, fingerprint of its split) of each.

    Raises:
        RunError: two differ.
    """
    for name, fingerprint in named[1:]:
        if fingerprint != named[0][1]:
            raise RunError(
                f"{name} and {named[0][0]} were measured on different splits ({fingerprint[:8]} and "
                f"{named[0][1][:8]}), so their accuracies cannot be compared; fit both on the same images "
                "with the same --validation and --test"
            )
