"""What a report says about a run, as plain data."""

from collections import Counter
from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headstart.comparisons.command_lines import run_command
from headstart.errors import RunError, printable
from headstart.heads.metrics import precision_recall
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from headstart.runs import Run, read_label_errors, read_predictions, read_skipped
from headstart.runs.callbacks import Range
from headstart.runs.scores import score_of

MISTAKES = 12
"""Most confident mistakes shown."""

RESIDUALS = 200
"""Dots of a plot of predicted numbers."""

IMAGES_PER_CELL = 8
_BINS = 10
"""Of the calibration plot; fewer than the 15 of the calibration error, since each bin must show something."""

_THRESHOLDS = (0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
"""Of the table beside a precision-recall curve."""

_PHASES = ("startup", "choice", "check", "features", "train", "folds", "evaluate", "save")


def run_facts(run: Run, *, looked_at: Container[str] = ()) -> dict[str, Any]:
    """Everything in the report on a run; JSON-ready, pictures by path.

    Mistakes whose content hash is in ``looked_at`` are not shown again.
    """
    single = run.config.task == SINGLE_LABEL
    entries, problem = _predictions(run)
    split = "validation" if run.evaluation.get("validation") else "test"
    shown = [entry for entry in entries if entry["split"] == split]
    evaluation = run.evaluation.get(split)
    notes = list(run.notes) + ([problem] if problem else [])
    honest = "test" if run.evaluation.get("test") else split
    return {
        "kind": "run",
        "task": run.config.task,
        "trained": run.trained,
        "id": run.id,
        "created": run.created,
        "data": run.config.data,
        "classes": list(run.classes),
        "images": dict(run.images),
        "scores": [
            _score(name, run.evaluation[name]) for name in ("validation", "test") if run.evaluation.get(name)
        ],
        "cross_validation": run.cross_validation and dict(run.cross_validation),
        "leave_one_out": run.head_fit.get("loo_accuracy"),
        "split": split,
        "setting": _setting(run),
        "phases": _phases(run),
        "seconds": run.seconds.get("total"),
        "predicted_seconds": _predicted_seconds(run),
        "cache": dict(run.cache),
        "history": [dict(entry) for entry in run.history],
        "confusion": evaluation.get("confusion") if evaluation else None,
        "confusions": _confusions(shown, classes=run.classes) if single else [],
        "residuals": _residuals(shown) if run.config.task == REGRESSION else [],
        "mistakes": _mistakes(
            [entry for entry in shown if entry.get("content") not in looked_at], task=run.config.task
        ),
        "label_errors": [_image(each) for each in _label_errors(run) if each.get("content") not in looked_at],
        "per_class": evaluation.get("per_class", []) if evaluation else [],
        "calibration": _calibration([e for e in entries if e["split"] == honest]) if single else [],
        "precision_recall": _precision_recall(
            [entry for entry in entries if single and entry["split"] == honest], classes=run.classes
        ),
        "calibration_split": honest,
        "calibration_error": run.evaluation[honest].get("calibration_error") if evaluation else None,
        "calibration_fitted": honest == "validation" and run.config.fine_tuned,
        "notes": notes,
        "findings": _findings(run),
        "skipped": [{"path": each["path"], "reason": each["reason"]} for each in read_skipped(run.path)],
        "command": run_command(run, source=run.source or _root(entries) or run.config.data),
        "unrepeated": _unrepeated(run),
        "versions": dict(run.versions),
    }


def _phases(run: Run) -> list[dict[str, Any]]:
    """What each phase took and was predicted to take; None for what was over when the prediction was made."""
    return [
        {"phase": phase, "seconds": run.seconds[phase], "predicted": run.predicted_phases.get(phase)}
        for phase in _PHASES
        if phase in run.seconds
    ]


def _predictions(run: Run) -> tuple[list[dict[str, Any]], str | None]:
    try:
        known = run.classes if run.config.task == SINGLE_LABEL else None
        images = read_predictions(run.path, classes=known)["images"]
    except RunError as error:
        return [], f"no pictures and no calibration plot: {printable(str(error))}"
    return images, None


def _label_errors(run: Run) -> list[dict[str, Any]]:
    """Images whose label is likely wrong, the likeliest first; none where the run has no folds."""
    if run.cross_validation is None:
        return []
    try:
        return read_label_errors(run.path, classes=run.classes)
    except RunError:
        return []


def _score(split: str, found: Any) -> dict[str, Any]:
    if score_of(found) != "accuracy":
        return {"split": split, **{key: value for key, value in found.items() if key != "per_class"}}
    keys = ("images", "accuracy", "interval", "macro_f1", "calibration_error", "log_loss", "mean_cost")
    return {"split": split, **{key: found[key] for key in keys if key in found}}


def _setting(run: Run) -> list[list[str]]:
    """What was trained or measured, as (word, value) for people."""
    config = run.config
    if not run.trained:
        return [
            ["backbone", f"{printable(config.backbone)} at {config.size} px"],
            ["trained", "elsewhere"],
            ["head", config.head],
            ["runtime", f"{config.runtime}, {config.precision}"],
        ]
    frozen = "all" if config.depth == config.stages else f"{config.depth} of {config.stages} stages"
    weights = "pre-trained" if config.pretrained else "random (from scratch)"
    rows = [
        ["backbone", f"{printable(config.backbone)} at {config.size} px, {weights}"],
        ["frozen", frozen],
        ["head", config.head + (f", reading {', '.join(config.layers)}" if config.layers else "")],
        ["views of each training image", ", ".join(config.views)],
        ["runtime", f"{config.runtime}, {config.precision}"],
        ["seed", str(config.seed)],
    ]
    if config.epochs:
        ended = 0 < len(run.history) < config.epochs
        shown = f"{len(run.history)} of at most {config.epochs}" if ended else str(config.epochs)
        rows.insert(3, ["epochs", f"{shown}, {config.batch_size} images a step"])
    return rows


def _predicted_seconds(run: Run) -> dict[str, float] | None:
    """What the plan said before the run began, where there was a plan."""
    found = Range.from_dict(run.predicted_seconds)
    return found.to_dict() if found else None


def _confusions(entries: Sequence[dict[str, Any]], *, classes: Sequence[str]) -> list[dict[str, Any]]:
    """Each pair of label and wrong prediction, the most frequent first, with the images behind it."""
    wrong = [entry for entry in entries if entry["label"] != entry["predicted"]]
    counts = Counter((entry["label"], entry["predicted"]) for entry in wrong)
    place = {name: index for index, name in enumerate(classes)}
    found = []
    for (label, predicted), count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        images = [e for e in wrong if (e["label"], e["predicted"]) == (label, predicted)]
        images.sort(key=lambda entry: -entry["probability"])
        found.append(
            {
                "label": label,
                "predicted": predicted,
                "cell": f"cell-{place[label]}-{place[predicted]}",
                "count": count,
                "images": [_image(entry) for entry in images[:IMAGES_PER_CELL]],
            }
        )
    return found


def mistakes_of(run: Run, *, most: int = MISTAKES) -> tuple[str, list[dict[str, Any]]]:
    """Which images a run is judged by, and its most confident mistakes on them."""
    split = "validation" if run.evaluation.get("validation") else "test"
    shown = [entry for entry in _predictions(run)[0] if entry["split"] == split]
    return split, _mistakes(shown, task=run.config.task, most=most)


def _mistakes(entries: Sequence[dict[str, Any]], *, task: str, most: int = MISTAKES) -> list[dict[str, Any]]:
    wrong = [entry for entry in entries if entry["label"] != entry["predicted"]]
    wrong.sort(key=lambda entry: -_confidence(entry, task=task))
    return [_image(entry) for entry in wrong[:most]]


def _confidence(entry: dict[str, Any], *, task: str) -> float:
    """How sure a wrong answer was: of labels called wrongly the likeliest; of a number, how far it is off."""
    if task != MULTI_LABEL:
        return float(entry.get("probability", 0.0)) or _error(entry)
    top = dict(entry.get("top", ()))
    wrong = set(entry["predicted"].split("|")) - {*entry["label"].split("|"), ""}
    return max((float(top.get(name, min(top.values(), default=0.0))) for name in wrong), default=0.0)


def _error(entry: dict[str, Any]) -> float:
    """How far a predicted number is off."""
    return abs(float(entry["value"]) - float(entry["label"])) if "value" in entry else 0.0


def _residuals(entries: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Numbers and predictions of up to `RESIDUALS` images, evenly over the numbers, the lowest first."""
    known = sorted((e for e in entries if "value" in e), key=lambda entry: float(entry["label"]))
    step = -(-len(known) // RESIDUALS) or 1
    return [
        {**_image(entry), "number": float(entry["label"]), "value": entry["value"], "error": _error(entry)}
        for entry in known[::step]
    ]


def _image(entry: dict[str, Any]) -> dict[str, Any]:
    keys = ("path", "label", "predicted", "probability", "likely", "wrong", "file", "member", "content")
    return {key: entry[key] for key in keys if key in entry}


def _calibration(entries: Sequence[dict[str, Any]]) -> list[dict[str, float]]:
    """Bins of equal width of the probability of the called class, the empty ones left out."""
    bins: dict[int, list[dict[str, Any]]] = {}
    for entry in entries:
        bins.setdefault(min(int(entry["probability"] * _BINS), _BINS - 1), []).append(entry)
    return [
        {
            "low": number / _BINS,
            "high": (number + 1) / _BINS,
            "images": len(members),
            "confidence": sum(e["probability"] for e in members) / len(members),
            "accuracy": sum(e["label"] == e["predicted"] for e in members) / len(members),
        }
        for number, members in sorted(bins.items())
    ]


def _precision_recall(entries: Sequence[dict[str, Any]], *, classes: Sequence[str]) -> dict[str, Any] | None:
    """Of two classes, how well the rarer one is found at each threshold of its probability."""
    labels = Counter(entry["label"] for entry in entries)
    if len(classes) != 2 or len(labels) != 2 or not all("top" in entry for entry in entries):
        return None
    rarer = min(reversed(classes), key=labels.__getitem__)
    scores = np.array([dict(entry["top"]).get(rarer, 0.0) for entry in entries])
    positive = np.array([entry["label"] == rarer for entry in entries])
    thresholds, precision, recall = precision_recall(scores, positive)
    rows = []
    for threshold in _THRESHOLDS:
        called = scores >= threshold
        right, found = int((called & positive).sum()), int(called.sum())
        share = right / found if found else None
        rows.append({"threshold": threshold, "precision": share, "recall": right / int(positive.sum())})
    return {
        "class": rarer,
        "average_precision": float((np.diff(recall, prepend=0.0) * precision).sum()),
        "curve": [list(map(float, each)) for each in zip(thresholds, precision, recall, strict=True)],
        "rows": rows,
    }


def _findings(run: Run) -> list[str]:
    """What the checks found in the data, one sentence each."""
    data = run.data
    counted = (
        ("contradictions", "image content under several labels: at least one label is wrong"),
        ("leaks", "group of duplicates on both sides of a split: the score flatters"),
        ("exact_duplicates", "group of identical files"),
        ("near_duplicates", "group of nearly identical images"),
        ("odd_sizes", "image of unusual size"),
    )
    found: list[str] = []
    said: list[Any] = []
    for key, text in counted:
        items = [item for item in data.get(key) or [] if item not in said]
        said += items
        if items:
            names = [_names(item) for item in items[:3]]
            more = f" and {len(items) - 3} more" if len(items) > 3 else ""
            found.append(f"{len(items)} × {text}: {'; '.join(names)}{more}")
    imbalance = data.get("imbalance")
    if imbalance and imbalance >= 2:
        found.append(f"the largest class has {imbalance:.1f} times the images of the smallest")
    return found


def _names(item: Any) -> str:
    files = item.get("files")
    if not files:
        return str(item.get("name", item))
    return ", ".join(str(file["name"] if isinstance(file, dict) else file) for file in files[:3])


def _unrepeated(run: Run) -> str:
    """What of the run the command does not repeat; empty where it repeats all."""
    if not any(note.startswith("budget ") for note in run.notes):
        return ""
    return "The run kept to a budget, which the command does not: it takes all images and ends all epochs."


def _root(entries: Sequence[dict[str, Any]]) -> str | None:
    """The folder or zip of an earlier version's run, as far as an image's place tells."""
    if not entries or "file" not in entries[0]:
        return None
    file, path = entries[0]["file"], entries[0]["path"]
    if "member" in entries[0]:
        return str(file)
    return str(Path(file[: -len(path)])) if file.endswith(path) else None
