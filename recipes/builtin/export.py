"""Turns a trained timm module into the files of a built-in backbone: graph, weights, facts.

    python recipes/builtin/export.py WEIGHTS.safetensors NAME OUT_DIR

WEIGHTS carries ``architecture``, ``timm_kwargs``, ``mean``, ``std``, ``interpolation`` and ``input_size`` in
its metadata. Everything is half precision; the graph has BatchNorm folded and takes images of any size. Then
add NAME to `headstart.backbones.builtin.BUILTIN` and write the model card NAME.md.
"""

import argparse
import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from headstart.backbones.cutting import cut_into_stages
from headstart.backbones.openvino import measure
from headstart.backbones.staged import StagedModule
from headstart.backbones.tracing import export_staged
from headstart.data.preprocess import Preprocess

_TOLERANCE = 1e-4  # of the largest feature; both sides compute in float32 with the same weights


def export(
    module: nn.Module,
    name: str,
    out_dir: Path,
    *,
    architecture: str,
    timm_kwargs: Mapping[str, Any],
    preprocess: Preprocess,
    transfer: float | None = None,
) -> dict[str, Any]:
    """Write ``NAME.onnx``, ``NAME.safetensors`` and ``NAME.json`` into ``out_dir``.

    Args:
        module: A timm model with ``num_classes=0``; it is not changed.
        name: Of the built-in backbone.
        out_dir: ``src/headstart/backbones/weights`` to ship it.
        architecture: timm's name of the module.
        timm_kwargs: What ``timm.create_model`` needs besides to make it.
        preprocess: What its images look like; its size is the backbone's default.
        transfer: Where it stands on the scale of published accuracies (docs/choice.md); None: unknown.

    Returns:
        The facts in ``NAME.json``.

    Raises:
        ValueError: The graph does not compute what the module computes.
    """
    out_dir.mkdir(parents=True, exist_ok=True)
    kwargs = {key: value for key, value in timm_kwargs.items() if key != "num_classes"}
    rounded = copy.deepcopy(module).eval().half().float()
    metadata = {
        "architecture": architecture,
        "timm_kwargs": json.dumps(kwargs),
        "preprocess": json.dumps(preprocess.to_dict()),
        "license": "Apache-2.0",
    }
    # The counters of seen batches say nothing about the weights and cost 8 bytes a layer plus a header entry.
    weights = {
        key: value.half().contiguous()
        for key, value in rounded.state_dict().items()
        if value.is_floating_point()
    }
    save_file(weights, out_dir / f"{name}.safetensors", metadata=metadata)

    staged = cut_into_stages(rounded, architecture=architecture, size=preprocess.size)
    graph = out_dir / f"{name}.onnx"
    export_staged(staged, graph, size=preprocess.size, any_size=True, half=True)
    _check(graph, staged, size=preprocess.size)
    _check(graph, staged, size=preprocess.size + 29)  # an odd size pads differently on its two sides

    measured, dimensions = measure(graph, stages=staged.names, size=preprocess.size)
    stages = [{**fact, **own} for fact, own in zip(measured, staged.facts(), strict=True)]
    facts = {
        "architecture": architecture,
        "timm_kwargs": kwargs,
        **({} if transfer is None else {"transfer": transfer}),
        "preprocess": preprocess.to_dict(),
        "dimensions": dimensions,
        "stages": stages,
    }
    (out_dir / f"{name}.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    return facts


def _check(graph: Path, staged: StagedModule, *, size: int) -> None:
    import openvino

    core = openvino.Core()
    model = core.read_model(graph)
    model.reshape({"image": [2, 3, size, size]})
    image = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = staged(image).numpy()
    found = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})(image.numpy())["features"]
    error = float(np.abs(found - expected).max() / np.abs(expected).max())
    if error > _TOLERANCE:
        raise ValueError(
            f"{graph}: differs from the module by {error:.1e} at {size} px, allowed {_TOLERANCE:.0e}"
        )


def _three(text: str) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in text.split(","))
    return red, green, blue


def _known(facts: Path) -> float | None:
    """The `transfer` of the backbone that is to be replaced."""
    return json.loads(facts.read_text(encoding="utf-8")).get("transfer") if facts.exists() else None


def main() -> None:
    """Export a file of weights."""
    import timm

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("weights", type=Path)
    parser.add_argument("name")
    parser.add_argument("out_dir", type=Path)
    parser.add_argument("--crop-fraction", type=float, default=0.875)
    parser.add_argument(
        "--transfer",
        type=float,
        help="ImageNet-like accuracy in percent, docs/choice.md; by default what OUT_DIR has",
    )
    options = parser.parse_args()
    with safe_open(options.weights, framework="pt") as file:
        metadata = file.metadata()
        weights = {key: file.get_tensor(key).float() for key in file.keys()}  # noqa: SIM118 (no dict)
    kwargs = json.loads(metadata["timm_kwargs"])
    module = timm.create_model(metadata["architecture"], pretrained=False, **{**kwargs, "num_classes": 0})
    module.load_state_dict(weights, strict=False)
    preprocess = Preprocess(
        size=int(metadata["input_size"]),
        crop_fraction=options.crop_fraction,
        interpolation=metadata["interpolation"],
        crop_mode="center",
        mean=_three(metadata["mean"]),
        std=_three(metadata["std"]),
    )
    facts = export(
        module,
        options.name,
        options.out_dir,
        architecture=metadata["architecture"],
        timm_kwargs=kwargs,
        preprocess=preprocess,
        transfer=_known(options.out_dir / f"{options.name}.json")
        if options.transfer is None
        else options.transfer,
    )
    print(json.dumps({key: facts[key] for key in ("architecture", "dimensions")}))


if __name__ == "__main__":
    main()
