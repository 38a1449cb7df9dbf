"""What a report says about a comparison, as plain data."""

from typing import Any

from headstart.comparisons import (
    Candidate,
    Comparison,
    accuracy_by_depth,
    accuracy_by_images,
    paired_difference,
    summaries,
    time_to_accuracy,
)


def comparison_facts(comparison: Comparison) -> dict[str, Any]:
    """Everything in the report on a comparison; JSON-ready."""
    rows = summaries(comparison)
    choice = comparison.choice
    chosen = choice.candidate if choice else None
    return {
        "kind": "comparison",
        "id": comparison.id,
        "created": comparison.created,
        "data": comparison.data,
        "classes": list(comparison.classes),
        "images": dict(comparison.images),
        "split": comparison.split,
        "validation_images": len(comparison.labels),
        "choice": choice.to_dict() if choice else None,
        "rows": [_row(row, chosen=chosen) for row in rows],
        "differences": _differences(comparison, chosen=chosen) if chosen else [],
        "time_to_accuracy": [
            {"name": candidate.name, "points": [list(point) for point in points]}
            for candidate, points in time_to_accuracy(comparison).items()
        ],
        "by_depth": [
            {"name": name, "points": [_row(row, chosen=chosen) for row in found]}
            for name, found in accuracy_by_depth(comparison).items()
        ],
        "by_images": [
            {"name": candidate.name, "points": [_row(row, chosen=chosen) for row in found]}
            for candidate, found in accuracy_by_images(comparison).items()
        ],
        "passes": [dict(found) for found in comparison.passes],
        "seconds": comparison.seconds,
        "predicted_seconds": dict(comparison.predicted_seconds),
        "notes": list(comparison.notes),
        "command": choice.command if choice else None,
        "versions": dict(comparison.versions),
    }


def _row(row: Any, *, chosen: Candidate | None) -> dict[str, Any]:
    candidate = row.candidate
    return {
        "name": candidate.name,
        "depth": candidate.depth,
        "stages": candidate.stages,
        "frozen": candidate.frozen,
        "pretrained": candidate.pretrained,
        "images_per_class": candidate.images,
        "images": row.images,
        "trials": row.trials,
        "accuracy": row.accuracy,
        "interval": list(row.interval),
        "seed_interval": list(row.seed_interval) if row.seed_interval else None,
        "spread": list(row.spread),
        "macro_f1": row.macro_f1,
        "seconds": row.seconds,
        "features_seconds": row.features_seconds,
        "train_seconds": row.train_seconds,
        "on_front": row.on_front,
        "chosen": candidate == chosen,
    }


def _differences(comparison: Comparison, *, chosen: Candidate) -> list[dict[str, Any]]:
    """Each candidate on all images against the choice, on the same validation images."""
    found = []
    for row in summaries(comparison):
        if row.candidate == chosen or row.candidate.images is not None:
            continue
        difference = paired_difference(comparison, row.candidate, chosen)
        found.append(
            {
                "name": row.candidate.name,
                "difference": difference.difference,
                "interval": list(difference.interval),
                "significant": difference.significant,
                "seeds_unknown": difference.seeds_unknown,
            }
        )
    return found
