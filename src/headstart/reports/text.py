"""What a report says in words, and the whole of it as Markdown: the same facts as the page."""

from collections.abc import Iterable, Sequence
from typing import Any

from headstart.formatting import interval, percent, points

NO_CHOICE = "No candidate was trained on all images, and only among those is one chosen."


def markdown(facts: dict[str, Any]) -> str:
    """The report's facts as Markdown."""
    parts = _run(facts) if facts["kind"] == "run" else _comparison(facts)
    return "\n\n".join(part for part in parts if part) + "\n"


def _run(facts: dict[str, Any]) -> Iterable[str]:
    yield f"# {facts['data']}: {headline(facts)}"
    yield f"Run {facts['id']}, {facts['created']}"
    yield _table(
        ["images", "number", "accuracy", "95% interval", "macro-F1", "calibration error"],
        [
            [
                s["split"],
                s["images"],
                percent(s["accuracy"]),
                interval(s["interval"]),
                f"{s['macro_f1']:.3f}",
                f"{s['calibration_error']:.3f}",
            ]
            for s in facts["scores"]
        ],
    )
    yield _bullets([*facts["notes"], *facts["findings"]])
    yield "## What was trained" if facts["trained"] else "## What was measured"
    yield _table(["", ""], facts["setting"])
    yield "## Time"
    yield time_sentence(facts)
    yield _table(
        ["phase", "seconds", "predicted"],
        [[p["phase"], f"{p['seconds']:.2f}", _seconds(p["predicted"])] for p in facts["phases"]],
    )
    if facts["history"]:
        keys = list(facts["history"][0])
        yield "## Learning curve"
        yield _table(keys, [[_number(entry.get(key)) for key in keys] for entry in facts["history"]])
    if facts["per_class"]:
        yield "## Classes"
        yield _table(
            ["class", "images", "precision", "recall", "F1"],
            [
                [c["name"], c["support"], percent(c["precision"]), percent(c["recall"]), f"{c['f1']:.3f}"]
                for c in facts["per_class"]
            ],
        )
    if facts["confusions"]:
        yield "## What was mixed up"
        yield _table(
            ["is", "was called", "images", "for example"],
            [
                [c["label"], c["predicted"], c["count"], c["images"][0]["path"]]
                for c in facts["confusions"][:20]
            ],
        )
    if facts["calibration"]:
        yield "## Calibration"
        yield _table(
            ["probability", f"{facts['calibration_split']} images", "mean probability", "share right"],
            [
                [
                    interval([b["low"], b["high"]]),
                    b["images"],
                    percent(b["confidence"]),
                    percent(b["accuracy"]),
                ]
                for b in facts["calibration"]
            ],
        )
        yield calibration_sentence(facts)
    if facts["skipped"]:
        yield "## Files left out"
        yield _table(["file", "reason"], [[item["path"], item["reason"]] for item in facts["skipped"]])
    yield "## To repeat it"
    yield f"    {facts['command']}"
    yield facts["unrepeated"]


def _comparison(facts: dict[str, Any]) -> Iterable[str]:
    yield f"# {facts['data']}: {headline(facts)}"
    yield f"Comparison {facts['id']}, {facts['created']}; {facts['validation_images']} validation images"
    if facts["choice"]:
        yield _bullets(facts["choice"]["reasons"])
        yield apart_sentence(facts)
        yield test_sentence(facts)
    else:
        yield NO_CHOICE
    yield "## Candidates"
    yield _table(
        ["candidate", "accuracy", "95% interval", "over seeds", "seconds", "Pareto front"],
        [
            [
                row["name"],
                percent(row["accuracy"]),
                interval(row["interval"]),
                "-" if row["trials"] == 1 else interval(row["spread"]),
                f"{row['seconds']:.2f}",
                "yes" if row["on_front"] else "",
            ]
            for row in facts["rows"]
        ],
    )
    if facts["differences"]:
        yield "## Against the choice, on the same images"
        yield _table(
            ["candidate", "difference in points", "95% interval", "told apart"],
            [
                [
                    d["name"],
                    points(d["difference"]),
                    f"{points(d['interval'][0])} to {points(d['interval'][1])}",
                    "yes" if d["significant"] else "no",
                ]
                for d in facts["differences"]
            ],
        )
        yield seeds_sentence(facts)
    yield from _curves(facts)
    yield "## What it cost to find out"
    yield cost_sentence(facts)
    yield _bullets(facts["notes"])
    if facts["command"]:
        yield "## To have it"
        yield f"    {facts['command']}"


def _curves(facts: dict[str, Any]) -> Iterable[str]:
    """The tables of a comparison's other plots."""
    if facts["time_to_accuracy"]:
        yield "## Time to accuracy"
        yield _table(
            ["candidate", "seconds", "accuracy"],
            [
                [found["name"], f"{seconds:.2f}", percent(accuracy)]
                for found in facts["time_to_accuracy"]
                for seconds, accuracy in found["points"]
            ],
        )
    for key, title in (("by_depth", "How much to freeze"), ("by_images", "With fewer images")):
        if facts[key]:
            yield f"## {title}"
            yield _table(
                ["candidate", "frozen", "images", "accuracy", "over seeds"],
                [
                    [
                        found["name"],
                        row["frozen"],
                        row["images"],
                        percent(row["accuracy"]),
                        "-" if row["trials"] == 1 else interval(row["spread"]),
                    ]
                    for found in facts[key]
                    for row in found["points"]
                ],
            )


def headline(facts: dict[str, Any]) -> str:
    """The one sentence that a report begins with."""
    if facts["kind"] == "comparison":
        return f"take {facts['choice']['candidate']['name']}" if facts["choice"] else "no choice"
    if facts["scores"]:
        honest = facts["scores"][-1]  # the test images where there are any: nothing was chosen on them
        return f"{percent(honest['accuracy'])} of {honest['images']} {honest['split']} images right"
    found = facts["leave_one_out"]
    return f"{percent(found)} leave-one-out accuracy" if found is not None else "no image held out"


def time_sentence(facts: dict[str, Any]) -> str:
    """How long it took, against what was predicted."""
    text = f"{facts['seconds']:.1f} s in all"
    expected = facts["predicted_seconds"]
    if expected:
        inside = expected["low"] <= facts["seconds"] <= expected["high"]
        text += (
            f"; predicted {expected['median']:.1f} s ({expected['low']:.1f} to {expected['high']:.1f}), "
            f"which {'holds' if inside else 'was wrong'}"
        )
    use = facts["cache"]
    if use.get("hits"):
        text += f". {use['hits']:,} of {use['hits'] + use['misses']:,} renderings were in the feature cache"
    return text + "."


def cost_sentence(facts: dict[str, Any]) -> str:
    """How long a comparison took, against what was predicted."""
    text = f"{facts['seconds']:.1f} s in all"
    expected = facts["predicted_seconds"]
    if expected:
        text += f", predicted {expected['low']:.1f} to {expected['high']:.1f} s"
    return text + "; one pass over the images of each backbone and size was shared by all its candidates."


def apart_sentence(facts: dict[str, Any]) -> str:
    """Which candidates the choice cannot be told apart from; empty where there are none."""
    names = [found["name"] for found in facts["differences"] if not found["significant"]]
    if not names:
        return ""
    return (
        f"Not significant: these {facts['validation_images']} images cannot tell it apart from "
        f"{'; '.join(names)}."
    )


def seeds_sentence(facts: dict[str, Any]) -> str:
    """Which intervals do not know what other seeds would give; empty where all do."""
    names = [found["name"] for found in facts["differences"] if found["seeds_unknown"]]
    if not names:
        return ""
    return f"Trained with one seed, so the interval leaves out what others would give: {'; '.join(names)}."


def calibration_sentence(facts: dict[str, Any]) -> str:
    """What images the calibration is told from, and whether they flatter it."""
    text = f"Told from the {facts['calibration_split']} images"
    if facts["calibration_fitted"]:
        text += ", on which training chose the temperature of the probabilities, so it flatters"
    return text + "."


def test_sentence(facts: dict[str, Any]) -> str:
    """What the test images said of the choice."""
    read = facts["choice"]["test"]
    if not read:
        return "There are no test images, so the accuracy of the choice is flattered by having been chosen."
    return (
        f"On {read['images']} test images, read once and for the choice alone: {percent(read['accuracy'])} "
        f"({interval(read['interval'])})."
    )


def _seconds(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4f}"
    return str(value)


def _table(header: Sequence[Any], rows: Sequence[Sequence[Any]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(
        "| " + " | ".join(str(cell).replace("|", "\\|") for cell in line) + " |" for line in lines
    )


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
