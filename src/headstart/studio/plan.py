"""The page of a plan: predicted costs, a time budget, and forms that start a training or comparison."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Form, Request
from starlette.responses import Response

from headstart.backbones.onnx.file import SUFFIXES
from headstart.backbones.pixels import asked_pixels
from headstart.costs.budgets import CAREFUL
from headstart.errors import OptionError, printable
from headstart.runs import HEADS
from headstart.runs.formatting import human_seconds
from headstart.studio.datasets import Collection
from headstart.studio.folders import inside
from headstart.studio.jobs import job_of, told_of
from headstart.studio.state import CollectionOf, Studio, StudioOf
from headstart.studio.templating import page
from headstart.web.app import leave

router = APIRouter()

BUDGETS = (5, 10, 20, 30, 60, 120, 300, 600, 1800, 3600)
"""Seconds at the notches of the slider; the notch after the last is "no limit"."""

DEEPER = "deeper"
"""As a row's depth: the head alone, then stages fine-tuned too, kept where validation says so."""

MOST_EPOCHS = 500
MOST_VIEWS = 16


@router.get("/data/{identity}/plan")
def plan_page(
    request: Request, studio: StudioOf, collection: CollectionOf, notch: int = len(BUDGETS), chosen: str = ""
) -> Response:
    """The plan as a table; a budget says which rows fit, and one of them is trained."""
    kept = studio.collections.read(collection, "plan")
    if kept is not None and not all("accuracy" in row for row in kept["plan"]["rows"]):
        kept = None  # an earlier version's
    job = job_of(studio, "plan", collection.id)
    if kept is None and (job is None or job.state == "done"):
        job = studio.add("plan", name=collection.id, body=_asked(collection))
    notch = min(max(notch, 0), len(BUDGETS))
    rows = [_row(row, budget=budget_of(notch)) for row in kept["plan"]["rows"]] if kept else []
    best = [_best(rows, budget=budget_of(each)) for each in range(len(BUDGETS) + 1)] if rows else []
    cards = _cards(rows, balanced=best[-1]["key"]) if rows else []
    if not any(chosen == each["key"] for each in (*rows, *cards)):
        chosen = best[notch]["key"] if best else ""
    return page(
        request,
        "plan.html",
        collection=collection,
        **told_of(job),
        plan=kept["plan"] if kept else None,
        asked=kept["asked"] if kept else _asked(collection),
        rows=rows,
        chosen=chosen,
        cards=cards,
        on_card=notch == len(BUDGETS) and any(chosen == each["key"] for each in cards),
        best=best,
        notch=notch,
        notches=[*({"seconds": s, "text": human_seconds(s)} for s in BUDGETS), NO_LIMIT],
        backbones=choices(),
        network_places=places_of_files(studio),
    )


NO_LIMIT = {"seconds": None, "text": "no limit"}


def budget_of(notch: int) -> float | None:
    """Seconds at a notch; None at the last."""
    return float(BUDGETS[notch]) if 0 <= notch < len(BUDGETS) else None


def _best(rows: list[dict[str, Any]], *, budget: float | None) -> dict[str, Any]:
    """The row that is selected at first within a budget: its key, and why in a sentence."""
    from headstart.training.contenders import why
    from headstart.training.expected_accuracy import Expected, recommend

    expected = [Expected.from_dict(row["accuracy"]) for row in rows]
    seconds = [row["predicted_seconds"]["median"] for row in rows]
    limit = None if budget is None else CAREFUL * budget
    chosen = recommend([each.accuracy for each in expected], seconds, limit=limit)
    reason = why([row["label"] for row in rows], expected, seconds, chosen=chosen)
    return {"key": rows[chosen]["key"], "why": f"{rows[chosen]['label']}: {reason}"}


def _cards(rows: list[dict[str, Any]], *, balanced: str) -> list[dict[str, Any]]:
    """The choices that most people want, from quick to thorough; one that another is already is left out."""
    from headstart.training.depth_choice import DEEPER_STAGES
    from headstart.training.expected_accuracy import recommend

    middle = next(row for row in rows if row["key"] == balanced)
    heads = [row for row in rows if row["depth"] == "all"] or rows
    quick = min(heads, key=lambda row: row["predicted_seconds"]["median"])
    seconds = [row["predicted_seconds"]["median"] for row in rows]
    best = rows[recommend([row["accuracy"]["accuracy"] for row in rows], seconds, limit=math.inf)]
    thorough = {**best, "deeper": 0}
    if best is middle and best["depth"] == "all":
        depth = best["stages"] - DEEPER_STAGES
        found = [row for row in rows if row["name"] == best["name"] and row["depth"] == depth]
        if found:
            took = found[0]["predicted_seconds"]["median"]
            total = {"median": best["predicted_seconds"]["median"] + took}
            key = f"{balanced.rpartition('/')[0]}/{DEEPER}"
            thorough |= {"key": key, "predicted_seconds": total, "deeper": DEEPER_STAGES}
    cards = [("Quick", quick), ("Balanced", middle), ("Thorough", thorough)]
    return [
        {"title": title, "deeper": 0, **row}
        for title, row in cards
        if title == "Balanced" or row["key"] != balanced
    ]


def choices() -> list[str]:
    """The backbones that are on this machine, with the sizes offered of each."""
    from headstart.training.backbone_names import default_candidates

    return [f"{each.name}@{each.size}" if each.size else each.name for each in default_candidates()]


def places_of_files(studio: Studio) -> tuple[Path, ...]:
    """The folders below which a network's file may be named: the root, and one of the home's."""
    return studio.root, studio.home / "backbones"


def network_file(studio: Studio, text: str) -> str:
    """The ONNX or OpenVINO file that ``text`` names, absolute or below one of the places for them.

    Raises:
        OptionError: it lies outside them, links followed, is not there, or is no such file.
    """
    places = places_of_files(studio)
    for place in places:
        with suppress(OptionError):
            found = inside(place, text)
            if found.suffix in SUFFIXES and found.is_file() and str(found).isprintable():
                return str(found)
    raise OptionError(
        f"{printable(text.strip()[:120])}: no network's file ({' or '.join(SUFFIXES)}) below "
        f"{' or '.join(printable(place) for place in places)}"
    )


def _asked(collection: Collection, **changed: Any) -> dict[str, Any]:
    return {
        "data": collection.id,
        "backbones": choices(),
        "file": "",
        "preprocess": None,
        "head": "ridge",
        "views": 1,
        "epochs": None,
        **changed,
    }


def _row(row: dict[str, Any], *, budget: float | None) -> dict[str, Any]:
    frozen = row["depth"] == "all"
    trains = "none" if frozen else f"last {row['stages'] - row['depth']}"
    within = budget is None or row["predicted_seconds"]["median"] <= CAREFUL * budget
    return {
        **row,
        "key": f"{row['backbone']}@{row['size']}/{row['depth']}",
        "trains": trains,
        "within": within,
    }


def _settings(
    head: Annotated[str, Form()] = "ridge",
    views: Annotated[int, Form()] = 1,
    epochs: Annotated[str, Form()] = "",
) -> dict[str, Any]:
    if head not in HEADS:
        raise OptionError(f"head {head!r}: expected one of {', '.join(HEADS)}")
    if not 1 <= views <= MOST_VIEWS:
        raise OptionError(f"{views} views: expected 1 to {MOST_VIEWS}")
    if epochs.strip() and not (epochs.strip().isdecimal() and 1 <= int(epochs) <= MOST_EPOCHS):
        raise OptionError(f"epochs {epochs!r}: expected a number from 1 to {MOST_EPOCHS}, or nothing")
    return {"head": head, "views": views, "epochs": int(epochs) if epochs.strip() else None}


SettingsOf = Annotated[dict[str, Any], Depends(_settings)]
"""What every form of a plan says of the training."""


@router.post("/data/{identity}/plan")
def plan_again(
    request: Request,
    studio: StudioOf,
    collection: CollectionOf,
    settings: SettingsOf,
    backbones: Annotated[list[str] | None, Form()] = None,
    file: Annotated[str, Form()] = "",
    pixels: Annotated[str, Form()] = "",
) -> Response:
    """Plans for other networks or settings; a network's file is one of them."""
    known, own = choices(), network_file(studio, file) if file.strip() else ""
    wanted = [name for name in backbones or known if name in known]
    if not wanted:
        raise OptionError(f"expected one or more of {', '.join(known)}")
    preprocess = pixels.strip() if own else ""
    if preprocess:
        asked_pixels(preprocess)
    networks = {"backbones": [*wanted, *filter(None, [own])], "file": own, "preprocess": preprocess or None}
    body = _asked(collection, **networks, **settings)
    studio.add("plan", name=collection.id, body=body)
    return leave(request, f"/data/{collection.id}/plan")


@router.post("/data/{identity}/train")
def train(
    request: Request,
    studio: StudioOf,
    collection: CollectionOf,
    settings: SettingsOf,
    chosen: Annotated[str, Form()] = "",
    notch: Annotated[int, Form()] = len(BUDGETS),
    balanced: Annotated[str, Form()] = "",
) -> Response:
    """Starts the training that was chosen, and goes to where it can be watched."""
    backbone, size, depth = _parse(studio, collection, chosen)
    body = {
        "backbone": backbone,
        "size": size,
        "freeze": "auto" if depth == DEEPER else depth,
        "budget": budget_of(notch),
        "class_weights": "balanced" if balanced else None,
        "preprocess": _pixels(studio, collection, backbone),
        **settings,
    }
    return _begin(request, studio, "fit", collection=collection, body=body)


@router.post("/data/{identity}/compare")
def compare(
    request: Request,
    studio: StudioOf,
    collection: CollectionOf,
    settings: SettingsOf,
    rows: Annotated[list[str] | None, Form()] = None,
    seeds: Annotated[int, Form()] = 1,
) -> Response:
    """Trains several rows on one split, side by side."""
    parsed = [_parse(studio, collection, row) for row in rows or ()]
    if len(set(parsed)) < 2:
        raise OptionError("a comparison needs two choices or more: tick them in the table")
    if not 1 <= seeds <= 10:
        raise OptionError(f"{seeds} seeds: expected 1 to 10")
    networks = dict.fromkeys((backbone, size) for backbone, size, _ in parsed)
    body = {
        "candidates": [
            {
                "backbone": name,
                "size": size,
                "depths": [row[2] for row in parsed if row[:2] == (name, size)],
                "preprocess": _pixels(studio, collection, name),
            }
            for name, size in networks
        ],
        "seeds": seeds,
        **settings,
    }
    return _begin(request, studio, "compare", collection=collection, body=body)


def _begin(
    request: Request, studio: Studio, kind: str, *, collection: Collection, body: dict[str, Any]
) -> Response:
    collection.dataset()  # gone or changed meanwhile: said here rather than after waiting
    about = {"data": collection.id, "title": collection.name, "path": os.fsencode(collection.path).hex()}
    job = studio.add(kind, name=collection.id, body=about | body)
    return leave(request, f"/jobs/{job.id}")


def _planned(studio: Studio, collection: Collection) -> dict[str, Any]:
    """What the plan that is shown was asked for."""
    kept = studio.collections.read(collection, "plan")
    return dict(kept["asked"]) if kept else {}


def _pixels(studio: Studio, collection: Collection, backbone: str) -> str | None:
    """What the pixels of the planned file are, where that was said; None for other networks."""
    asked = _planned(studio, collection)
    return asked.get("preprocess") if backbone == asked.get("file") else None


def _parse(studio: Studio, collection: Collection, row: str) -> tuple[str, int, str]:
    """A table row's key, ``builtin@128/all``, of which nothing is trusted."""
    network, _, depth = row.rpartition("/")
    backbone, _, size = network.rpartition("@")
    names = {choice.rpartition("@")[0] or choice for choice in choices()} | set(choices())
    file = _planned(studio, collection).get("file")
    if file and backbone == Path(file).name:
        backbone = network_file(studio, file)  # looked at again: it may be gone, or lead elsewhere by now
        names.add(backbone)
    if backbone not in names or not size.isdecimal() or not (depth in ("all", DEEPER) or depth.isdecimal()):
        raise OptionError("choose one of the options of the plan")
    return backbone, int(size), depth
