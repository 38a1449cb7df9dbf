"""What a comparison says: intervals, paired differences, Pareto front, curves, a choice with reasons."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headstart.comparisons.command_lines import fit_command
from headstart.comparisons.values import Candidate, Choice, Comparison, Trial, disambiguate
from headstart.errors import OptionError
from headstart.heads.metrics import wilson_interval
from headstart.runs.formatting import human_seconds, interval, percent

_Z95 = 1.959963984540054
"""97.5 % quantile of the standard normal distribution."""

# fmt: off
_T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.160, 2.145,
        2.131, 2.120, 2.110, 2.101, 2.093, 2.086, 2.080, 2.074, 2.069, 2.064, 2.060, 2.056, 2.052, 2.048,
        2.045, 2.042)
# fmt: on
"""97.5 % quantiles of Student's t with 1 to 30 degrees of freedom, from any table of it."""

Points = tuple[tuple[float, float], ...]


@dataclass(frozen=True)
class Summary:
    """A candidate over its seeds. Accuracies are shares of the validation images, seconds wall-clock.

    ``interval`` is what other images would give (95 % Wilson interval of the mean accuracy);
    ``seed_interval`` what other seeds would give on these images (95 % t interval of the mean), None where
    there is one trial.
    """

    candidate: Candidate
    trials: int
    images: int  # training images
    accuracy: float
    interval: tuple[float, float]
    seed_interval: tuple[float, float] | None
    spread: tuple[float, float]  # lowest and highest over the seeds
    macro_f1: float
    calibration_error: float
    seconds: float  # median over the seeds
    features_seconds: float
    train_seconds: float
    on_front: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**vars(self), "candidate": self.candidate.to_dict()}


@dataclass(frozen=True)
class Difference:
    """Accuracy of one candidate minus another's on the same images: its 95 % interval and standard error.

    ``seeds_unknown`` where neither was trained with two seeds although a seed changes one of them: the
    interval then leaves out what other seeds would give.
    """

    difference: float
    interval: tuple[float, float]
    standard_error: float
    seeds_unknown: bool = False

    @property
    def significant(self) -> bool:
        """Whether the interval leaves zero out."""
        return self.interval[0] > 0 or self.interval[1] < 0

    def points(self) -> str:
        """In percentage points, for people."""
        low, high = self.interval
        unsaid = "; what seeds vary is not known" if self.seeds_unknown else ""
        return f"{100 * self.difference:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f}{unsaid})"


def summaries(comparison: Comparison) -> tuple[Summary, ...]:
    """Every candidate over its seeds, the most accurate first; those on the Pareto front are marked."""
    rows = [_summary(comparison, candidate) for candidate in comparison.candidates]
    front = {id(row) for row in pareto_front(rows)}
    marked = [
        Summary(**{**vars(row), "on_front": True}) if id(row) in front else row  # frozen, so made anew
        for row in rows
    ]
    return tuple(sorted(marked, key=lambda row: (-row.accuracy, row.seconds)))


def _summary(comparison: Comparison, candidate: Candidate) -> Summary:
    trials = comparison.of(candidate)
    shares = np.array([trial.accuracy for trial in trials])
    images = len(comparison.labels)
    mean = float(shares.mean())

    def middle(values: Sequence[float]) -> float:
        return float(np.median(values))

    return Summary(
        candidate=candidate,
        trials=len(trials),
        images=trials[0].images,
        accuracy=mean,
        interval=wilson_interval(round(mean * images), images),
        seed_interval=_mean_interval(shares),
        spread=(float(shares.min()), float(shares.max())),
        macro_f1=float(np.mean([trial.macro_f1 for trial in trials])),
        calibration_error=float(np.mean([trial.calibration_error for trial in trials])),
        seconds=middle([trial.total for trial in trials]),
        features_seconds=middle([trial.seconds.get("features", 0.0) for trial in trials]),
        train_seconds=middle([trial.seconds.get("train", 0.0) for trial in trials]),
    )


def _mean_interval(values: "np.ndarray[Any, np.dtype[np.float64]]") -> tuple[float, float] | None:
    if len(values) < 2:
        return None
    half = _t(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values))
    return max(0.0, float(values.mean()) - half), min(1.0, float(values.mean()) + half)


def _t(freedom: int) -> float:
    return _T95[freedom - 1] if freedom <= len(_T95) else _Z95


def paired_difference(comparison: Comparison, first: Candidate, second: Candidate) -> Difference:
    """Accuracy of ``first`` minus that of ``second``, image by image on the same validation images.

    Over images: the adjusted Wald interval of Bonett and Price, "Adjusted Wald confidence interval for a
    difference of binomial proportions based on paired data", Journal of Educational and Behavioral Statistics
    37 (2012): one image more for either side, so that few disagreements do not give an interval of no width.
    An image's share of right seeds takes the place of right or wrong. Over seeds: Student's two-sample t
    interval with pooled variance, which also stands for a side that has one seed of many. The two half
    widths are added as squares, as they vary independently.

    Raises:
        OptionError: the comparison has no such candidate.
    """
    right_first, right_second = comparison.correct(first), comparison.correct(second)
    by_image = right_first.mean(axis=0) - right_second.mean(axis=0)
    padded = np.append(by_image, (1.0, -1.0))
    image_error = float(padded.std()) / math.sqrt(len(padded))
    varying = [
        right.mean(axis=1)
        for candidate, right in ((first, right_first), (second, right_second))
        if candidate.random or len(right) > 1
    ]
    seed_error, freedom = _seed_error(varying)
    half = math.hypot(_Z95 * image_error, _t(freedom) * seed_error if freedom else 0.0)
    centre, difference = float(padded.mean()), float(by_image.mean())
    return Difference(
        difference=difference,
        interval=(max(-1.0, centre - half), min(1.0, centre + half)),
        standard_error=math.hypot(image_error, seed_error),
        seeds_unknown=bool(varying) and not freedom,
    )


def _seed_error(sides: Sequence["np.ndarray[Any, np.dtype[np.float64]]"]) -> tuple[float, int]:
    """Standard error of the difference of means over seeds, and its degrees of freedom; 0 if unknown."""
    freedom = sum(len(values) - 1 for values in sides)
    if not freedom:
        return 0.0, 0
    variance = sum(float(np.square(values - values.mean()).sum()) for values in sides) / freedom
    return math.sqrt(variance * sum(1 / len(values) for values in sides)), freedom


def pareto_front(rows: Sequence[Summary]) -> tuple[Summary, ...]:
    """Those that no other beats in accuracy at the same or fewer seconds, the fastest first.

    Only candidates that were trained on all images take part.
    """
    front: list[Summary] = []
    whole = [row for row in rows if row.candidate.images is None]
    for row in sorted(whole, key=lambda row: (row.seconds, -row.accuracy)):
        if not front or row.accuracy > front[-1].accuracy:
            front.append(row)
    return tuple(front)


# ------------------------------------------------------------------------------------------------ curves


def time_to_accuracy(comparison: Comparison) -> dict[Candidate, Points]:
    """(seconds, validation accuracy) as training went on, mean over the seeds; closed form has one point.

    Seconds count the pass over the images and what begins a training. Where an epoch's own time was not
    recorded, as in a run, the epochs share the training time equally. A seed that was stopped early stays
    as accurate as it was.
    """
    curves = {}
    for candidate in comparison.candidates:
        if candidate.images is not None:
            continue
        lines = [_curve(trial) for trial in comparison.of(candidate)]
        length = max(map(len, lines))
        mean = np.array([_lengthened(line, length=length) for line in lines]).mean(axis=0)
        curves[candidate] = tuple((float(seconds), float(accuracy)) for seconds, accuracy in mean)
    return curves


def _curve(trial: Trial) -> list[tuple[float, float]]:
    epochs = [entry for entry in trial.history if "validation_accuracy" in entry]
    start = trial.seconds.get("features", 0.0)
    if not epochs:
        return [(trial.total, trial.accuracy)]
    each = trial.seconds.get("train", 0.0) / len(epochs)
    return [
        (start + float(entry.get("seconds", each * number)), float(entry["validation_accuracy"]))
        for number, entry in enumerate(epochs, start=1)
    ]


def _lengthened(line: list[tuple[float, float]], *, length: int) -> list[tuple[float, float]]:
    """The curve as if it had gone on, as fast as before and learning nothing more."""
    seconds, accuracy = line[-1]
    each = (seconds - line[0][0]) / max(1, len(line) - 1)
    return line + [(seconds + each * more, accuracy) for more in range(1, length - len(line) + 1)]


def seconds_to(points: Points, *, accuracy: float) -> float | None:
    """Seconds until a curve first reaches an accuracy; None where it never does."""
    return next((seconds for seconds, reached in points if reached >= accuracy), None)


def accuracy_by_depth(comparison: Comparison) -> dict[str, tuple[Summary, ...]]:
    """Per pre-trained backbone, one summary for each depth, rising; of several heads the best."""
    series: dict[Candidate, dict[int, Summary]] = {}
    for row in summaries(comparison):
        candidate = row.candidate
        if candidate.pretrained and candidate.images is None:
            series.setdefault(candidate.untrained, {}).setdefault(candidate.depth, row)
    return {
        network.network: tuple(found[depth] for depth in sorted(found))
        for network, found in zip(disambiguate(tuple(series)), series.values(), strict=True)
        if len(found) > 1
    }


def accuracy_by_images(comparison: Comparison) -> dict[Candidate, tuple[Summary, ...]]:
    """Per candidate, one summary for each number of training images, rising."""
    series: dict[Candidate, list[Summary]] = {}
    for row in summaries(comparison):
        series.setdefault(row.candidate.whole, []).append(row)
    return {
        candidate: tuple(sorted(rows, key=lambda row: row.images))
        for candidate, rows in series.items()
        if len(rows) > 1
    }


# ------------------------------------------------------------------------------------------------ choice


def choose(comparison: Comparison) -> Choice:
    """The fastest candidate within one standard error of the most accurate, with the reasons.

    The one-standard-error rule: Breiman, Friedman, Olshen and Stone, "Classification and Regression Trees"
    (1984); the standard error is that of the paired difference. Candidates on all training images take part.

    Raises:
        OptionError: no candidate was trained on all images.
    """
    rows = [row for row in summaries(comparison) if row.candidate.images is None]
    if not rows:
        raise OptionError(
            "no candidate was trained on all images, so none can be chosen; add 'all' to --images"
        )
    best = rows[0]
    against_best = {
        row.candidate: paired_difference(comparison, row.candidate, best.candidate) for row in rows
    }
    close = [
        row
        for row in rows
        if row is best
        or -against_best[row.candidate].difference <= against_best[row.candidate].standard_error
    ]
    chosen = min(close, key=lambda row: row.seconds)
    return Choice(
        candidate=chosen.candidate,
        reasons=tuple(_reasons(comparison, chosen, best=best, rows=rows)),
        not_significant=tuple(_not_significant(comparison, chosen, rows=rows)),
        command=fit_command(
            chosen.candidate, source=comparison.source or comparison.data, settings=comparison.settings
        ),
    )


def _reasons(comparison: Comparison, chosen: Summary, *, best: Summary, rows: Sequence[Summary]) -> list[str]:
    low, high = best.interval
    verdict = "has" if len(rows) == 1 else "is the most accurate:"
    reasons = [
        f"{best.candidate.name} {verdict} {percent(best.accuracy)} of {len(comparison.labels)} "
        f"validation images ({interval((low, high))}), in {human_seconds(best.seconds)}"
    ]
    if len(rows) == 1:
        reasons.append("nothing else was trained to compare it with")
    elif chosen is not best:
        found = paired_difference(comparison, chosen.candidate, best.candidate)
        reasons.append(
            f"{chosen.candidate.name} is within one standard error of it: {found.points()}, and needs "
            f"{human_seconds(chosen.seconds)}, {best.seconds / max(chosen.seconds, 1e-9):.1f} times less"
        )
    else:
        faster = [row for row in rows if row.seconds < best.seconds]
        reasons += [_price(comparison, row, best=best) for row in faster[:1]]
        if not faster:
            reasons.append("it is also the fastest")
    reasons += _against_scratch(comparison, chosen, rows=rows)
    if chosen.seed_interval:
        reasons.append(
            f"over {chosen.trials} seeds it was between {chosen.spread[0]:.1%} and {chosen.spread[1]:.1%}"
        )
    return reasons


def _against_scratch(comparison: Comparison, chosen: Summary, *, rows: Sequence[Summary]) -> Iterator[str]:
    """What pre-training is worth, which the same network from random weights tells; or how far another is."""
    scratch = [row.candidate for row in rows if not row.candidate.pretrained]
    if not scratch or not chosen.candidate.pretrained:
        return
    twin = next((each for each in scratch if each.untrained == chosen.candidate.untrained), None)
    points = paired_difference(comparison, chosen.candidate, twin or scratch[0]).points()
    if twin:
        epochs = len(comparison.of(twin)[0].history)
        trained = f", trained for {epochs} epoch{'s' if epochs > 1 else ''}" if epochs else ""
        yield f"pre-training is worth {points} here against {twin.name}{trained}"
    else:
        yield f"{chosen.candidate.name}: {points} against {scratch[0].name}, which is another network"


def _price(comparison: Comparison, row: Summary, *, best: Summary) -> str:
    found = paired_difference(comparison, row.candidate, best.candidate)
    return (
        f"the best of the faster ones, {row.candidate.name}, is more than one standard error below: "
        f"{found.points()}; it would save {human_seconds(best.seconds - row.seconds)}"
    )


def _not_significant(comparison: Comparison, chosen: Summary, *, rows: Sequence[Summary]) -> list[str]:
    lines = []
    for row in rows:
        if row is chosen:
            continue
        found = paired_difference(comparison, row.candidate, chosen.candidate)
        if not found.significant:
            lines.append(f"{row.candidate.name}: {found.points()} against the choice")
    return lines
