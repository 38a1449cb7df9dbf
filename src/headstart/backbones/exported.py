"""Backbones from timm and from files: exported once to a staged graph, then loaded without PyTorch."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from headstart.backbones import records
from headstart.backbones.backbone import Backbone, Recipe, Stage
from headstart.errors import BackboneError, ParityError
from headstart.preprocess import Preprocess

_TOLERANCE = 1e-3  # of the largest feature: float32 in another order, through up to a hundred layers


@dataclass(frozen=True)
class Origin:
    """What is known of a backbone once its weights are found.

    Attributes:
        recipe: How to make the module.
        preprocess: Of the weights.
        pretrained: False for random weights.
        notes: What the user should know.
    """

    recipe: Recipe
    preprocess: Preprocess
    pretrained: bool = True
    notes: tuple[str, ...] = ()


def load_exported(
    name: str, *, identity: str, size: int | None, resolve: Callable[[], Origin], weights: Path | None
) -> Backbone:
    """The backbone from its exported graph, exporting it first where that has not been done.

    Args:
        name: What the user asked for.
        identity: Changes with anything that the weights or the architecture depend on.
        size: Pixels a side; None for the weights' own.
        resolve: Finds out the rest; needs timm, so it is called for the first export only.
        weights: The file of weights, which may have moved since the export.

    Raises:
        BackboneError: The backbone cannot be made, cut or exported.
    """
    key = digest(identity, str(records.FORMAT))
    path = records.graphs_folder() / f"{key}-{size or 'default'}.json"
    record = records.read_record(path)
    if record is None or not (path.parent / record["graph"]).exists():
        record = _export(name, key=key, size=size, origin=resolve())
        records.write_record(path, record)
    recipe = record["recipe"]
    return Backbone(
        name=name,
        architecture=recipe["architecture"].split(".")[0],
        preprocess=Preprocess.from_dict(record["preprocess"]),
        weights_hash=key,
        pretrained=record["pretrained"],
        stages=tuple(map(Stage.from_dict, record["stages"])),
        dimensions=record["dimensions"],
        graph=path.parent / record["graph"],
        recipe=Recipe(recipe["architecture"], recipe["timm_kwargs"], weights, recipe["seed"]),
        notes=tuple(record["notes"]),
    )


def digest(*parts: str) -> str:
    """Thirty-two hex digits of some strings."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _export(name: str, *, key: str, size: int | None, origin: Origin) -> dict[str, Any]:
    from headstart.backbones.graph import measure

    preprocess = origin.preprocess if size is None else replace(origin.preprocess, size=size)
    staged = _checked_module(name, origin.recipe, size=preprocess.size)
    graph = records.graphs_folder() / f"{key}-{preprocess.size}.onnx"
    records.write_whole(
        graph, lambda draft: _write_checked_graph(staged, draft, name=name, size=preprocess.size)
    )
    measured, dimensions = measure(graph, stages=staged.names, size=preprocess.size)
    return {
        "graph": graph.name,
        "recipe": {
            "architecture": origin.recipe.architecture,
            "timm_kwargs": dict(origin.recipe.timm_kwargs),
            "seed": origin.recipe.seed,
        },
        "preprocess": preprocess.to_dict(),
        "pretrained": origin.pretrained,
        "dimensions": dimensions,
        "stages": [{**fact, **own} for fact, own in zip(measured, staged.facts(), strict=True)],
        "notes": list(origin.notes),
    }


def _checked_module(name: str, recipe: Recipe, *, size: int) -> Any:
    """The staged module, after checking that its stages compute what timm's model computes."""
    import torch

    from headstart.backbones.building import make_model
    from headstart.backbones.staged import StagedModule

    model = make_model(recipe, size=size, name=name)
    staged = StagedModule.of(model, architecture=recipe.architecture).eval()
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected, found = model(image), staged(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise BackboneError(
            f"backbone {name}: cannot take images of {size} px: {reason}; try another size"
        ) from error
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=1e-5, atol=1e-6):
        raise BackboneError(
            f"backbone {name}: cut into stages, {recipe.architecture} computes something else"
        )
    return staged


def _write_checked_graph(staged: Any, path: Path, *, name: str, size: int) -> None:
    import numpy as np
    import torch

    from headstart.backbones.engine import openvino
    from headstart.backbones.tracing import export_staged

    export_staged(staged, path, size=size)
    core = openvino().Core()
    model = core.read_model(path.read_bytes())
    model.reshape({"image": [2, 3, size, size]})
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = staged(image).numpy()
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image.numpy())["features"]
    error = float(np.abs(found - expected).max()) / max(float(np.abs(expected).max()), 1e-12)
    if not error <= _TOLERANCE:
        raise ParityError(
            f"backbone {name}: its exported graph differs by {error:.1e}, allowed {_TOLERANCE:.0e}"
        )
