"""Candidates, trials and comparisons that nobody trained."""

from typing import Any

from headstart.comparisons import Candidate, Comparison, Trial


def candidate(name: str = "net", **changes: Any) -> Candidate:
    return Candidate(name, 64, changes.pop("depth", 4), 4, **changes)


def trial(of: Candidate, right: list[bool], *, seconds: float = 1.0, seed: int = 0, **changes: Any) -> Trial:
    """A trial that is right (label 0) or wrong on each validation image."""
    values = {
        "candidate": of,
        "seed": seed,
        "images": 40,
        "predicted": tuple(int(not r) for r in right),
        "accuracy": sum(right) / len(right),
        "macro_f1": 0.5,
        "log_loss": 0.5,
        "calibration_error": 0.1,
        "seconds": {"features": 0.5, "train": seconds - 0.5, "evaluate": 0.0},
    }
    return Trial(**{**values, **changes})


def comparison(*trials: Trial) -> Comparison:
    images = len(trials[0].predicted)
    return Comparison(
        id="c",
        path=None,
        created="now",
        data="photos",
        classes=("yes", "no"),
        images={"train": 40, "validation": images, "test": 0, "skipped": 0},
        split="abc",
        labels=(0,) * images,
        trials=trials,
    )
