"""What a check found, in words and groups of pictures, for the page of a data set."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sized
from typing import Any

from headstart.runs import FitConfig

_GROUPS_SHOWN = 12
_FILES_SHOWN = 6
_FEW_TO_TEST = 50
"""Test photographs of which an accuracy of 80 % has a range of 20 points and more."""


def findings(report: dict[str, Any]) -> list[dict[str, Any]]:
    """Findings of a check, the worst first: title, meaning, groups of images."""
    told = [*report["contradictions"], *report["leaks"]]  # each of them is a copy too; once is enough
    found = [
        _groups(
            report["contradictions"],
            "with conflicting labels",
            "The same photograph with different labels: at least one of them is wrong.",
        ),
        _groups(
            report["leaks"],
            "in both training and held-out images",
            "Testing on images that were trained on makes the accuracy too high.",
        ),
        {
            "title": f"{len(report['skipped']):,} skipped",
            "meaning": "These files cannot be read as images.",
            "count": len(report["skipped"]),
            "files": report["skipped"][:_GROUPS_SHOWN],
        },
        _groups(
            [group for group in report["exact_duplicates"] if group not in told],
            "with exact duplicates",
            "Duplicates stay on one side of the split, so they do no harm.",
        ),
        _groups(
            [group for group in report["near_duplicates"] if group not in told],
            "with near-duplicates",
            "Shots of one scene, or one image saved twice. They stay on one side of the split.",
        ),
        _single(
            [(item["name"], f"{item['width']} × {item['height']}") for item in report["odd_sizes"]],
            "of odd size",
            "Much smaller or much longer than the others: check whether they belong.",
        ),
        _single(
            [(item["name"], f"{item['label']} · {item['reason']}") for item in report.get("plain", [])],
            "with next to nothing to see",
            "Black, white, of one colour or blurred: nothing can be learnt from them. Remove them from the "
            "folder, or leave them out.",
        ),
        *_of_classes(report),
        _few_held_out(report),
    ]
    return [each for each in found if each["count"]]


def _of_classes(report: dict[str, Any]) -> list[dict[str, Any]]:
    """What is to be said of classes: names that are nearly the same, few photographs, imbalance."""
    small, alike = report.get("small_classes", {}), report.get("alike_names", [])
    imbalance, counts = report["imbalance"], {n: sum(each.values()) for n, each in report["classes"].items()}
    if not counts:  # numbers
        return []
    least, most = min(counts, key=counts.__getitem__), max(counts, key=counts.__getitem__)
    return [
        {
            "title": "Class names that are nearly the same",
            "meaning": f"{'; '.join(' and '.join(names) for names in alike[:_GROUPS_SHOWN])}. If they are "
            "meant as one class, put their photographs into one folder and check again.",
            "count": len(alike),
        },
        {
            "title": f"{_counted(small, 'class', 'classes')} of three photographs or fewer",
            "meaning": f"{', '.join(list(small)[:_GROUPS_SHOWN])}: too few to learn from and to judge by. "
            "Add photographs of them, twenty and more, or leave these classes out.",
            "count": len(small),
        },
        {
            "title": "Classes are imbalanced",
            "meaning": f"{counts[most]:,} of {most}, {counts[least]:,} of {least}: rare classes are "
            "recognised worse. Class weights are an option of the training.",
            "count": imbalance is None or imbalance >= 5,
        },
    ]


def _few_held_out(report: dict[str, Any]) -> dict[str, Any]:
    """That the accuracy of so few test photographs will be uncertain."""
    from headstart.heads.metrics import wilson_interval

    sides: Counter[str] = sum((Counter(each) for each in report["classes"].values()), Counter())
    held_out = sides["test"] or round(FitConfig.test * report["images"])
    low, high = wilson_interval(0.8 * held_out, held_out) if held_out else (0.0, 1.0)
    return {
        "title": "Few photographs to test on",
        "meaning": f"{'' if sides['test'] else 'About '}{held_out:,} will be held out to test on, so an "
        f"accuracy of 80% would mean anything from {low:.0%} to {high:.0%}. More labelled photographs make "
        "it surer.",
        "count": held_out < _FEW_TO_TEST,
    }


def _groups(groups: list[dict[str, Any]], title: str, meaning: str) -> dict[str, Any]:
    shown = [
        {
            "files": [
                {
                    "name": file["name"],
                    "label": " · ".join(str(part) for part in (file["label"], file["split"]) if part),
                }
                for file in group["files"][:_FILES_SHOWN]
            ],
            "more": max(0, len(group["files"]) - _FILES_SHOWN),
        }
        for group in groups[:_GROUPS_SHOWN]
    ]
    return {
        "title": f"{_counted(groups, 'photograph')} {title}",
        "meaning": meaning,
        "count": len(groups),
        "groups": shown,
        "more": max(0, len(groups) - _GROUPS_SHOWN),
    }


def _single(images: list[tuple[str, str]], title: str, meaning: str) -> dict[str, Any]:
    """Images that are each a finding of their own: names, and what stands below."""
    shown = [{"files": [{"name": name, "label": label}]} for name, label in images[:_GROUPS_SHOWN]]
    return {
        "title": f"{_counted(images, 'photograph')} {title}",
        "meaning": meaning,
        "count": len(images),
        "groups": shown,
        "more": max(0, len(images) - _GROUPS_SHOWN),
    }


def _counted(things: Sized, one: str, many: str = "") -> str:
    return f"{len(things):,} {one if len(things) == 1 else many or one + 's'}"
