"""What a report says in words, and the whole of it as Markdown: the same facts as the page."""

from collections.abc import Iterable, Sequence
from typing import Any

from headstart.heads.tasks import SINGLE_LABEL
from headstart.reports.tables import TextTable, tables
from headstart.runs.formatting import cross_validated, interval, percent
from headstart.runs.scores import SCORES, in_words, score_of

NO_CHOICE = "No candidate was trained on all images, and only among those is one chosen."


def markdown(facts: dict[str, Any]) -> str:
    """The report's facts as Markdown."""
    parts = _run(facts) if facts["kind"] == "run" else _comparison(facts)
    return "\n\n".join(part for part in parts if part) + "\n"


def _run(facts: dict[str, Any]) -> Iterable[str]:
    found = tables(facts)
    yield f"# {facts['data']}: {headline(facts)}"
    yield f"Run {facts['id']}, {facts['created']}"
    yield from _section("", found.get("scores"))
    if facts["cross_validation"]:
        yield "## Cross-validation"
        yield folds_sentence(facts)
        yield from _section("", found["folds"])
    yield _bullets([*facts["notes"], *facts["findings"]])
    yield from _section("What was trained" if facts["trained"] else "What was measured", found["setting"])
    yield "## Time"
    yield time_sentence(facts)
    yield from _section("", found.get("phases"))
    yield from _section("Learning curve", found.get("history"))
    yield from _section("Classes", found.get("classes"))
    yield from _section("Confusions", found.get("confusions"))
    yield from _section("Largest errors", found.get("residuals"))
    yield from _section("Calibration", found.get("calibration"))
    if facts["calibration"]:
        yield calibration_sentence(facts)
    if curve := facts["precision_recall"]:
        yield from _section(f"Precision and recall of {curve['class']}", found["precision_recall"])
        yield precision_recall_sentence(facts)
    yield from _section("Files left out", found.get("skipped"))
    yield "## To repeat it"
    yield f"    {facts['command']}"
    yield facts["unrepeated"]


def _comparison(facts: dict[str, Any]) -> Iterable[str]:
    found = tables(facts)
    yield f"# {facts['data']}: {headline(facts)}"
    yield f"Comparison {facts['id']}, {facts['created']}; {facts['validation_images']} validation images"
    if facts["choice"]:
        yield _bullets(facts["choice"]["reasons"])
        yield apart_sentence(facts)
        yield test_sentence(facts)
    else:
        yield NO_CHOICE
    yield from _section("Candidates", found.get("candidates"))
    yield from _section("Differences from the choice", found.get("differences"))
    yield seeds_sentence(facts)
    yield from _section("Time to accuracy", found.get("time_to_accuracy"))
    yield from _section("How much to freeze", found.get("by_depth"))
    yield from _section("With fewer images", found.get("by_images"))
    yield "## Cost"
    yield cost_sentence(facts)
    yield from _section("", found.get("passes"))
    yield _bullets(facts["notes"])
    if facts["command"]:
        yield "## To train the choice"
        yield f"    {facts['command']}"


def _section(title: str, table: TextTable | None) -> Iterable[str]:
    if table is not None:
        yield f"## {title}" if title else ""
        yield table.markdown()


def headline(facts: dict[str, Any]) -> str:
    """The one sentence that a report begins with."""
    if facts["kind"] == "comparison":
        return f"take {facts['choice']['candidate']['name']}" if facts["choice"] else "no choice"
    if facts["scores"]:
        honest = facts["scores"][-1]  # the test images where there are any: nothing was chosen on them
        if facts["task"] != SINGLE_LABEL:
            name = score_of(honest)
            return f"{in_words(name, honest[name])} on {honest['images']} {honest['split']} images"
        return f"{percent(honest['accuracy'])} of {honest['images']} {honest['split']} images right"
    found = facts["leave_one_out"]
    if found is not None and facts["task"] != SINGLE_LABEL:
        return f"{in_words(SCORES[facts['task']], found)}, leave-one-out"
    return f"{percent(found)} leave-one-out accuracy" if found is not None else "no image held out"


def folds_sentence(facts: dict[str, Any]) -> str:
    """How good the method is over all images, each judged by a head that had not seen it."""
    return (
        f"{cross_validated(facts['cross_validation'])}. Each image was judged by a head that had not seen it."
    )


def precision_recall_sentence(facts: dict[str, Any]) -> str:
    """What to do with a precision-recall curve."""
    found, split = facts["precision_recall"], facts["calibration_split"]
    measured = f"Average precision {found['average_precision']:.3f} on the {split} images."
    return (
        f"{measured} To call {found['class']} from a probability t on, say with --costs that missing it "
        "costs (1 - t) / t false alarms."
    )


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


def _bullets(lines: Sequence[str]) -> str:
    return "\n".join(f"- {line}" for line in lines)
