"""What a run noted of its images, and what was put right since."""

from __future__ import annotations

from typing import Any

from headstart.curation import corrections_of
from headstart.errors import HeadstartError, RunError
from headstart.runs import IMAGES_FILE, Run, read_images, read_predictions


def corrected(run: Run) -> dict[str, Any] | None:
    """How many labels of this run's data were put right; None where that cannot be done for it."""
    if run.config.thawed or not (run.path / IMAGES_FILE).exists():
        return None
    try:
        return {"count": len(corrections_of(run).current())}
    except HeadstartError:
        return None


def image_of(run: Run, content: str) -> dict[str, Any] | None:
    """What a run noted of an image, found by its content's hash; None where it knows no such image."""
    try:
        images = read_images(run.path)
        found = next((each for each in images if content and each.get("content") == content), None)
        if found is None:  # runs of earlier versions noted the places of held-out images alone
            held_out = read_predictions(run.path)["images"]
            found = next((each for each in held_out if each.get("content") == content), None)
    except RunError:
        return None
    return found
