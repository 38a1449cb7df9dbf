"""Backbones from timm and from files: exported once to a staged graph, then loaded without PyTorch."""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import records
from headstart.backbones.backbone import Backbone, Stage
from headstart.backbones.building import Recipe
from headstart.backbones.cuts import MOST_STAGES
from headstart.backbones.openvino import measure, the_core
from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, ParityError, reason_of
from headstart.files import whole

TOLERANCE = 1e-3  # of the largest feature: float32 in another order, through up to a hundred layers

CUT_SO = 2
"""Raised when files of graphs (ONNX, Keras) are cut at other places than before."""


@dataclass(frozen=True)
class Origin:
    """What is known of a backbone once its weights are found."""

    recipe: Recipe  # how to make the module
    preprocess: Preprocess  # of the weights
    pretrained: bool = True  # false for random weights
    notes: tuple[str, ...] = ()  # what the user should know


def load_exported(
    name: str,
    *,
    identity: str,
    size: int | None,
    resolve: Callable[[], Origin],
    weights: Path | None,
    most: int = MOST_STAGES,
) -> Backbone:
    """The backbone from its exported graph, exporting it first where that has not been done.

    Args:
        name: What the user asked for.
        identity: Changes with anything that the weights or the architecture depend on.
        size: Pixels a side; None for the weights' own.
        resolve: Finds out the rest; needs timm, so it is called for the first export only.
        weights: The file of weights, which may have moved since the export.
        most: How many stages it may have.
    """
    return from_record(
        name,
        identity=identity,
        size=size,
        export=lambda key: _export(name, key=key, size=size, origin=resolve()),
        weights=weights,
        most=most,
    )


def with_stages(backbone: Backbone, count: int) -> Backbone:
    """The same network cut as for a run that had so many stages, before neighbours were joined.

    Finished graphs, and networks that have no more blocks than stages, are as they are.
    """
    if backbone.recipe is None or count <= max(MOST_STAGES, len(backbone.stages)):
        return backbone
    recipe = replace(backbone.recipe, most_stages=count)
    origin = Origin(recipe, backbone.preprocess, pretrained=backbone.pretrained, notes=backbone.notes)
    return load_exported(
        backbone.name,
        identity=f"{backbone.weights_hash}:{count} stages",
        size=backbone.preprocess.size,
        resolve=lambda: origin,
        weights=recipe.weights,
        most=count,
    )


def from_record(
    name: str,
    *,
    identity: str,
    size: int | None,
    export: Callable[[str], dict[str, Any]],
    weights: Path | None,
    most: int = MOST_STAGES,
) -> Backbone:
    """The backbone that a record beside its graph describes; ``export`` makes both from a key if need be."""
    key = digest(identity, str(records.FORMAT))
    path = records.graphs_folder() / f"{key}-{size or 'default'}.json"
    record = records.read_record(path)
    known = record is not None and len(record["stages"]) <= most  # earlier versions had one for each block
    if record is None or not known or not _is_whole(path.parent / record["graph"], record.get("graph_bytes")):
        record = export(key)
        record["graph_bytes"] = (path.parent / record["graph"]).stat().st_size
        records.write_record(path, record)
    return Backbone(
        name=name,
        architecture=record["recipe"]["architecture"].split(".")[0] if record["recipe"] else record["family"],
        preprocess=Preprocess.from_dict(record["preprocess"]),
        weights_hash=digest(key, "joined") if record.get("joined") else key,
        pretrained=record["pretrained"],
        stages=tuple(map(Stage.from_dict, record["stages"])),
        dimensions=record["dimensions"],
        graph=path.parent / record["graph"],
        recipe=_recipe(record["recipe"], weights),
        notes=tuple(record["notes"]),
    )


def _is_whole(graph: Path, size: int | None) -> bool:
    """Whether a graph is there and as long as its record says, which older records do not."""
    found = records.stamp(graph)
    return found is not None and size in (None, found[0])


def _recipe(fields: Mapping[str, Any] | None, weights: Path | None) -> Recipe | None:
    """None where no PyTorch module can be made, as of a Keras file."""
    if fields is None:
        return None
    most = fields.get("most_stages", MOST_STAGES)
    return Recipe(fields["architecture"], fields["timm_kwargs"], weights, fields["seed"], most)


def digest(*parts: str) -> str:
    """Thirty-two hex digits of some strings."""
    return hashlib.blake2b("\0".join(parts).encode(), digest_size=16).hexdigest()


def _export(name: str, *, key: str, size: int | None, origin: Origin) -> dict[str, Any]:
    preprocess = origin.preprocess if size is None else replace(origin.preprocess, size=size)
    staged = _checked_module(name, origin.recipe, size=preprocess.size)
    graph = records.graphs_folder() / f"{key}-{preprocess.size}.onnx"
    try:
        with whole(graph) as draft:
            _write_checked_graph(staged, draft, name=name, size=preprocess.size)
        measured, dimensions = measure(graph, stages=staged.names, size=preprocess.size)
    except RuntimeError as error:  # OpenVINO's
        raise BackboneError(f"backbone {name}: OpenVINO cannot run its graph: {reason_of(error)}") from error
    own = [{**fact, "in_rows": staged.in_rows(preprocess.size)} for fact in staged.facts()]
    return {
        "graph": graph.name,
        "recipe": {
            "architecture": origin.recipe.architecture,
            "timm_kwargs": dict(origin.recipe.timm_kwargs),
            "seed": origin.recipe.seed,
            "most_stages": origin.recipe.most_stages,
        },
        "joined": staged.blocks_joined,
        "preprocess": preprocess.to_dict(),
        "pretrained": origin.pretrained,
        "dimensions": dimensions,
        "stages": [{**one, **other} for one, other in zip(measured, own, strict=True)],
        "notes": list(origin.notes),
    }


def _checked_module(name: str, recipe: Recipe, *, size: int) -> Any:
    """The staged module, after checking that its stages compute what timm's model computes."""
    import torch

    from headstart.backbones.building import make_model, staged_model

    model = make_model(recipe, size=size, name=name)
    image = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    try:
        with torch.no_grad():
            expected = model(image)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise BackboneError(
            f"backbone {name}: cannot take images of {size} px: {reason_of(error)}; try another size"
        ) from error
    staged = staged_model(model, recipe, size=size)
    with torch.no_grad():
        found = staged(image)
    if expected.shape != found.shape or not torch.allclose(expected, found, rtol=1e-5, atol=1e-6):
        raise BackboneError(
            f"backbone {name}: cut into stages, {recipe.architecture} computes something else"
        )
    return staged


def _write_checked_graph(staged: Any, path: Path, *, name: str, size: int) -> None:
    import torch

    from headstart.backbones.tracing import export_staged

    try:
        export_staged(staged, path, size=size)
    except BackboneError as error:
        raise BackboneError(f"backbone {name}: {error}") from error
    image = torch.randn(3, 3, size, size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = {output: value.numpy() for output, value in staged.outputs(image).items()}
    check_graph(path, image.numpy(), expected, name=name)


def check_graph(
    path: Path, images: NDArray[np.float32], expected: Mapping[str, NDArray[np.float32]], *, name: str
) -> None:
    """Compare what the staged ONNX file gives for a few images, [n, 3, S, S], with what its network gave."""
    core = the_core()
    model = core.read_model(path.read_bytes())
    model.reshape({"image": list(images.shape)})
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(images)
    for output, values in expected.items():
        with np.errstate(invalid="ignore"):  # infinities differ from everything
            error = float(np.abs(found[output] - values).max()) / max(float(np.abs(values).max()), 1e-12)
        if not error <= TOLERANCE:
            raise ParityError(
                f"backbone {name}: its exported graph's {output} differ by {error:.1e}, "
                f"allowed {TOLERANCE:.0e}"
            )
