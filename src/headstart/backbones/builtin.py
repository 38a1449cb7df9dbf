"""The backbones whose weights are part of the package: no download, no account, no PyTorch."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from headstart.backbones import records
from headstart.backbones.backbone import Backbone, Stage
from headstart.backbones.building import Recipe
from headstart.backbones.openvino import measure
from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, OptionError

WEIGHTS = Path(__file__).parent / "weights"

BUILTIN: tuple[str, ...] = ("builtin", "builtin-large")
"""Names; each has NAME.onnx, NAME.safetensors, NAME.json and NAME.md in the folder `weights`.

`recipes/builtin/export.py` writes the first three.
"""

MIN_SIZE = 32
"""Pixels a side: below, the last map has less than one cell's worth of image."""


def load_builtin(name: str, *, size: int | None = None) -> Backbone:
    """A backbone of the table `BUILTIN`, for images of ``size`` pixels a side (default: its own)."""
    graph = WEIGHTS / f"{name}.onnx"
    try:
        facts = json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
        weights_hash = records.hash_file(graph)
    except OSError as error:
        raise BackboneError(f"built-in backbone {name}: {error}; reinstall headstart") from error
    card = WEIGHTS / f"{name}.md"
    chosen = facts["preprocess"]["size"] if size is None else size
    if chosen < MIN_SIZE:
        raise OptionError(f"size {chosen}: backbone {name} needs images of at least {MIN_SIZE} pixels a side")
    return Backbone(
        name=name,
        architecture=facts["architecture"],
        preprocess=Preprocess.from_dict({**facts["preprocess"], "size": chosen}),
        weights_hash=weights_hash,
        pretrained=True,
        stages=_stages(facts, graph=graph, weights_hash=weights_hash, size=chosen),
        dimensions=facts["dimensions"],
        graph=graph,
        recipe=Recipe(facts["architecture"], facts["timm_kwargs"], WEIGHTS / f"{name}.safetensors"),
        card=card.read_text(encoding="utf-8") if card.exists() else "",
    )


def builtin_info(name: str) -> tuple[Path, int]:
    """The file of a built-in backbone's weights and its default size in pixels."""
    facts = json.loads((WEIGHTS / f"{name}.json").read_text(encoding="utf-8"))
    return WEIGHTS / f"{name}.safetensors", int(facts["preprocess"]["size"])


def _stages(facts: Mapping[str, Any], *, graph: Path, weights_hash: str, size: int) -> tuple[Stage, ...]:
    """The stages as shipped, or measured once for another size and remembered."""
    if size == facts["preprocess"]["size"]:
        return tuple(map(Stage.from_dict, facts["stages"]))
    path = records.graphs_folder() / f"{weights_hash}-{size}.json"
    record = records.read_record(path)
    if record is None:
        measured, _ = measure(graph, stages=[stage["name"] for stage in facts["stages"]], size=size)
        record = {"stages": [{**old, **new} for old, new in zip(facts["stages"], measured, strict=True)]}
        records.write_record(path, record)
    return tuple(map(Stage.from_dict, record["stages"]))
