"""The model card beside an export: what it is, what it was made of, how well it does, what limits it."""

import json
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from headstart.exports.formats import ExportFormat
from headstart.exports.parity import Parity
from headstart.exports.quantisation import Int8Cost
from headstart.exports.subject import Subject
from headstart.heads.tasks import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from headstart.runs import Run, timestamp
from headstart.runs.formatting import markdown_table, percent
from headstart.runs.scores import FURTHER, name_in_words, score_of, span_in_words, value_in_words

_OUTPUTS = {
    SINGLE_LABEL: "probabilities, float32 [N, C], in the order of the classes; each row adds up to 1",
    MULTI_LABEL: "probabilities, float32 [N, C], of each label by itself, in the order of the classes; a "
    "label is called from its threshold on",
    REGRESSION: "value, float32 [N, 1], the number",
}

_ANSWERS_ALL = {
    SINGLE_LABEL: "It answers every picture with one of its {} classes, also pictures of something else.",
    MULTI_LABEL: "It knows {} labels and nothing else; a picture of something else may still be given some.",
    REGRESSION: "It answers every picture with a number, also pictures that have none.",
}

_UNKNOWN_LICENCE = "not recorded: ask where the weights came from before you pass this file on"
_WEAKEST = 3
"""Classes that the limits name."""

_FINDINGS = {
    "exact_duplicates": "groups of exact duplicates",
    "near_duplicates": "groups of near-duplicates",
    "contradictions": "images with two labels",
    "leaks": "groups of images on both sides of a split",
}
"""What of the data report counts here, and how it is said."""


def card(
    subject: Subject, form: ExportFormat, *, parity: Parity | None, int8: Int8Cost | None = None
) -> dict[str, Any]:
    """Everything that the card says, as plain data for JSON; without parity it is of the saved run itself."""
    run = subject.run
    return {
        "format": 1,
        "model": {
            **subject.classifier.about,
            "run": run.id if run else None,
            "export": form.name,
            "int8": int8 is not None,
            "made": timestamp(),
        },
        "task": subject.classifier.task,
        "classes": list(subject.classifier.classes),
        **({"costs": subject.classifier.costs} if subject.classifier.costs else {}),
        "thresholds": list(subject.classifier.thresholds),
        "input": _input(subject, form),
        "runtime": list(form.runtime),
        "output": _OUTPUTS[subject.classifier.task],
        "data": _data(run),
        "metrics": dict(run.evaluation) if run else {},
        "limits": limits(subject, int8=int8),
        "licence_of_weights": licence(subject),
        "parity": parity.to_dict() if parity else None,
        "int8": int8.to_dict() if int8 else None,
        "versions": versions(form, int8=int8 is not None),
        "training_versions": dict(run.versions) if run and run.trained else {},
    }


def write_card(folder: Path, facts: Mapping[str, Any]) -> None:
    """`card.json` and `card.md`."""
    text = json.dumps(facts, indent=1, ensure_ascii=False, default=str)
    (folder / "card.json").write_text(text, encoding="utf-8")
    (folder / "card.md").write_text(markdown(facts), encoding="utf-8")


def _input(subject: Subject, form: ExportFormat) -> dict[str, Any]:
    preprocess = subject.classifier.preprocess
    inside = (
        "inside the model" if form.name != "safetensors" else "in predict.py, with the numbers in model.json"
    )
    return {
        "name": "pixels",
        "type": "uint8",
        "shape": ["N" if form.name != "tflite" else 1, preprocess.size, preprocess.size, 3],
        "colours": "RGB, 0 to 255",
        "size": preprocess.size,
        "crop_fraction": preprocess.crop_fraction,
        "resized_side": preprocess.resized_side,
        "crop_mode": preprocess.crop_mode,
        "interpolation": preprocess.interpolation,
        "mean": list(preprocess.mean),
        "std": list(preprocess.std),
        "normalisation": f"(pixels / 255 - mean) / std, {inside}",
    }


def recipe(facts: Mapping[str, Any]) -> list[str]:
    """How a picture becomes the input, step by step."""
    wanted = facts["input"]
    side, size, how = wanted["resized_side"], wanted["size"], wanted["interpolation"]
    resize = (
        f"resize to {side} x {side}"
        if wanted["crop_mode"] == "squash"
        else f"resize the shorter side to {side}"
    )
    return [
        "turn the picture upright (EXIF orientation), put transparency on white, convert to RGB",
        f"{resize} pixels ({how}, with antialiasing as in Pillow)",
        f"cut out the {size} x {size} pixels in the middle",
        "hand over the bytes as they are, 0 to 255",
    ]


def _data(run: Run | None) -> dict[str, Any]:
    if run is None:
        return {}
    return {
        "name": run.config.data,
        "images": dict(run.images),
        "found": {key: len(run.data[key]) for key in _FINDINGS if key in run.data},
        "notes": list(run.notes),
    }


def limits(subject: Subject, *, int8: Int8Cost | None) -> list[str]:
    """What a user of the model should keep in mind, one sentence each."""
    classes, run = subject.classifier.classes, subject.run
    found = [_ANSWERS_ALL[subject.classifier.task].format(len(classes))]
    if run is None:
        return [*found, "No record of its training lies beside it, so nothing is known of its accuracy."]
    side = next((name for name in ("test", "validation") if name in run.evaluation), None)
    if side is None:
        found.append("No image was held out, so its accuracy was never measured.")
    else:
        found_there = run.evaluation[side]
        which = " of the same collection" if run.trained else ""
        score = name_in_words(score_of(found_there))
        found.append(
            f"Its {score} was measured on {found_there['images']} images{which}: "
            f"{span_in_words(found_there)} with 95 % confidence; expect less on pictures of another kind."
        )
        found += _weakest(found_there.get("per_class", ()))
    if "test" not in run.evaluation and side == "validation":
        found.append("The images that it was measured on may have been used to choose it.")
    if not run.trained:
        found.append(
            "It was trained elsewhere; whether on some of the images that it was measured on is not known."
        )
    if not run.config.pretrained:
        found.append("It was trained from random weights on this collection alone.")
    if int8 is not None:
        found.append("Its eight-bit arithmetic makes single probabilities differ from the original's.")
    return found


def _weakest(per_class: Sequence[Mapping[str, Any]]) -> list[str]:
    seen = [one for one in per_class if one["support"]]
    worst = sorted(seen, key=lambda one: one["recall"])[:_WEAKEST]
    if not worst or worst[0]["recall"] == 1:
        return []
    listed = ", ".join(f"{one['name']} {one['recall']:.0%} of {one['support']}" for one in worst)
    return [f"It recognises some classes less often than others; least: {listed}."]


def licence(subject: Subject) -> str:
    """The licence of the pre-trained weights, as far as their origin states it."""
    run = subject.run
    if run is None:
        return _UNKNOWN_LICENCE
    if not run.config.pretrained:
        return "none inherited: trained from random weights"
    from headstart.backbones.builtin import BUILTIN
    from headstart.backbones.imagenet import IMAGENET, LICENCE, package_of

    name = run.config.backbone
    if name in BUILTIN:
        return "Apache-2.0 (Headstart's own weights)"
    if name in IMAGENET:
        return f"{LICENCE} (as the package {package_of(name)} states for {name})"
    if Path(name).suffix == ".safetensors":
        return _licence_of_file(Path(name))
    return _licence_of_timm(name)


def _licence_of_file(path: Path) -> str:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy") as file:
            return str((file.metadata() or {}).get("license", _UNKNOWN_LICENCE))
    except (OSError, SafetensorError):
        return _UNKNOWN_LICENCE


def _licence_of_timm(name: str) -> str:
    try:
        import timm
    except ImportError:
        return _UNKNOWN_LICENCE
    base = name.split(".")[0]
    configuration = timm.get_pretrained_cfg(name) if timm.is_model(base) else None  # else a local file
    found = getattr(configuration, "license", None)
    return f"{found} (as timm states for {name})" if found else _UNKNOWN_LICENCE


def versions(form: ExportFormat, *, int8: bool) -> dict[str, str]:
    """What made the export and checked it."""
    wanted = ["headstart", "numpy", "pillow", "onnx", "openvino", *form.runtime, *(["nncf"] if int8 else [])]
    if form.extra == "tflite":
        wanted += ["onnx2tf"]
    found = {"python": sys.version.split()[0]}
    for name in dict.fromkeys(wanted):
        for package in (name, f"{name}-cpu"):  # TensorFlow comes under two names
            try:
                found[name] = metadata.version(package)
            except metadata.PackageNotFoundError:
                continue
            break
    return found


# ------------------------------------------------------------------------------------------ for people


def markdown(facts: Mapping[str, Any]) -> str:
    """The card for people."""
    model, wanted = facts["model"], facts["input"]
    eight = ", int8" if model["int8"] else ""
    frozen = f", {model['depth']} of {model['stages']} stages frozen" if "stages" in model else ""
    shape = ", ".join(map(str, wanted["shape"]))
    parts = [
        f"# Image classifier: {', '.join(facts['classes'][:8])}{' …' if len(facts['classes']) > 8 else ''}",
        f"Format: {model['export']}{eight}. Backbone: {model.get('backbone', 'unknown')} "
        f"({model.get('architecture', 'unknown')}){frozen}, head: {model.get('head', 'unknown')}. "
        f"Run: {model['run'] or 'not recorded'}. "
        f"Made: {model['made']}.",
        "## What goes in, what comes out",
        f"In: `{wanted['name']}`, {wanted['type']} [{shape}], {wanted['colours']}; then "
        f"{wanted['normalisation']}. Out: {facts['output']}.",
        "\n".join(f"{i}. {step}" for i, step in enumerate(recipe(facts), start=1)),
        facts.get("use")
        or f"`python predict.py photo.jpg` does all this; beside NumPy and Pillow it needs "
        f"{', '.join(facts['runtime'])}, and not Headstart.",
        "## Data",
        _data_text(facts["data"]),
        "## Classes and metrics",
        _metrics_text(facts["metrics"], facts["classes"]),
        "## Limits",
        "\n".join(f"- {line}" for line in facts["limits"]),
        "## Licence of the pre-trained weights",
        facts["licence_of_weights"],
        *_against_original(facts),
        "## Versions",
        ", ".join(f"{name} {version}" for name, version in facts["versions"].items()),
    ]
    return "\n\n".join(parts) + "\n"


def _against_original(facts: Mapping[str, Any]) -> list[str]:
    if facts["parity"] is None:
        return []
    return ["## This export against the original", parity_text(facts["parity"], facts["int8"])]


def _data_text(data: Mapping[str, Any]) -> str:
    if not data:
        return "Not recorded."
    counts = ", ".join(f"{count:,} {side}" for side, count in data["images"].items())
    findings = [f"{count} {_FINDINGS[key]}" for key, count in data["found"].items() if count]
    checked = f"The data report found {', '.join(findings)}." if findings else ""
    notes = "\n".join(f"- {note}" for note in data["notes"])
    return "\n\n".join(part for part in (f"{data['name']}: {counts}.", checked, notes) if part)


def _metrics_text(metrics: Mapping[str, Any], classes: Sequence[str]) -> str:
    if not metrics:
        return f"Classes: {', '.join(classes)}. Metrics: not recorded."
    side, found = list(metrics.items())[-1]
    first, others = score_of(found), [name for name in FURTHER if name in found]
    scores = [
        [
            side,
            found["images"],
            f"{value_in_words(first, found[first])} ({span_in_words(found)})",
            *(value_in_words(name, found[name]) for name in others),
        ]
        for side, found in metrics.items()
    ]
    header = ["images of", "images", f"{name_in_words(first)} (95 %)", *map(name_in_words, others)]
    if "per_class" not in found:
        return markdown_table(header, scores)
    keys = ("precision", "recall", "f1")
    by_class = [
        [one["name"], one["support"], *(f"{one[key]:.2f}" for key in keys)] for one in found["per_class"]
    ]
    of_classes = markdown_table([f"class ({side})", "images", "precision", "recall", "F1"], by_class)
    return f"{markdown_table(header, scores)}\n\n{of_classes}"


def parity_text(parity: Mapping[str, Any], int8: Mapping[str, Any] | None) -> str:
    """What the check of an export against the original found; the card and the studio say the same."""
    changed, images = parity["changed"], parity["images"]
    same = (
        "numbers, in the spread of those that were trained on,"
        if parity.get("numbers")
        else (f"{images - changed} have the same label, probabilities")
    )
    text = (
        f"Compared on {images} images with the classifier: {same} differ by at most "
        f"{parity['largest_difference']:.2g}"
    )
    text += f" (allowed: {parity['tolerance']:g})." if parity["tolerance"] is not None else "."
    if int8 is not None:
        text += (
            f"\n\nint8: accuracy {percent(int8['accuracy'])} against {percent(int8['original'])} in float32 "
            f"on {int8['images']} held-out images: {-int8['points']:+.1f} points (standard error "
            f"{int8['standard_error']:.1f}); {percent(int8['agreement'])} of labels agree. Calibrated with "
            f"{int8['calibration_images']} training images; the head"
            + (f" and the first {int8['float_layers']} layers stay" if int8["float_layers"] else " stays")
            + " in float32."
        )
    return text
