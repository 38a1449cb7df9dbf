"""Exports of the PyTorch network: weights as timm names them (safetensors), and TorchScript.

Importing this module costs nothing; PyTorch and timm are imported where they are used.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import RunError
from headstart.heads.tasks import LINK_OF
from headstart.runs import todays_names

if TYPE_CHECKING:
    from headstart.backbones import FeatureLayer
    from headstart.exports.subject import Subject

_WEIGHTS_FILE = "model.safetensors"


@dataclass(frozen=True)
class _Network:
    """A run's network, as trained.

    Attributes:
        model: timm's model without its classifier.
        staged: the same modules, cut into stages.
        architecture: what ``timm.create_model`` was given, with ``arguments``.
        layers: what the head reads.
        head: ``head.weight`` [D, C] and ``head.bias`` [C].
        temperature: divides the logits.
    """

    model: Any
    staged: Any
    architecture: str
    arguments: dict[str, Any]
    layers: "tuple[FeatureLayer, ...]"
    head: dict[str, Any]
    temperature: float
    link: str  # what becomes of the head's scores


def write_safetensors(subject: "Subject", folder: Path) -> None:
    """`model.safetensors`: `backbone.*` as timm names them, and the head; `model.json` says what they are."""
    from safetensors.torch import save_file

    network = _trained(subject)
    weights = {f"backbone.{name}": value for name, value in network.model.state_dict().items()}
    tensors = {name: value.clone().contiguous() for name, value in (weights | network.head).items()}
    save_file(tensors, folder / _WEIGHTS_FILE, {"architecture": network.architecture})
    preprocess = subject.classifier.preprocess
    facts = {
        "architecture": network.architecture,
        "timm_kwargs": network.arguments,
        "mean": preprocess.mean,
        "std": preprocess.std,
        "layers": [_where(network, layer) for layer in network.layers],
        "temperature": network.temperature,
        "link": network.link,
        "classes": subject.classifier.classes,
        "reads": "(pixels / 255 - mean) / std -> backbone -> layers, averaged over grid x grid cells and "
        f"concatenated -> @ head.weight + head.bias -> / temperature -> {network.link}",
    }
    (folder / "model.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False), encoding="utf-8")


def write_torchscript(subject: "Subject", folder: Path) -> None:
    """`model.pt`: uint8 [N, S, S, 3] in, probabilities float32 [N, C] out."""
    import torch

    whole = _whole(_trained(subject), subject)
    size = subject.classifier.preprocess.size
    with warnings.catch_warnings(), torch.no_grad():
        # The tracer warns that newer exporters exist and about sizes that it fixes, which is meant; the
        # parity check that follows judges what it wrote.
        warnings.simplefilter("ignore")
        jit: Any = torch.jit  # it has no types
        traced = jit.trace(whole, torch.zeros(2, size, size, 3, dtype=torch.uint8), check_trace=False)
        jit.save(traced, folder / "model.pt")


def _trained(subject: "Subject") -> _Network:
    """Make the network of a run and put in what the run trained.

    Raises:
        RunError: the run's record or its trained weights are missing.
        BackboneError, MissingWeights, MissingExtra: the network cannot be made on this machine.
    """
    from headstart.backbones import FeatureLayer, backbone_of
    from headstart.backbones.building import make_model, staged_model, timm_arguments

    config = subject.recorded("this format").config
    backbone = backbone_of(config, seed=config.seed)
    if backbone.recipe is None:
        raise RunError(f"{config.backbone}: only its graph is here; take --to onnx or --to openvino")
    model = make_model(backbone.recipe, size=backbone.preprocess.size, name=config.backbone)
    staged = staged_model(model, backbone.recipe, size=backbone.preprocess.size)
    tensors, metadata = _trained_weights(subject.folder / _WEIGHTS_FILE)
    _put_fine_tuned(staged, tensors)
    return _Network(
        model=model,
        staged=staged,
        architecture=backbone.recipe.architecture,
        arguments=timm_arguments(backbone.recipe, size=backbone.preprocess.size),
        layers=tuple(map(FeatureLayer.parse, todays_names(metadata)["layers"].split(","))),
        head={name: tensors[name] for name in ("head.weight", "head.bias")},
        temperature=float(metadata["temperature"]),
        link=LINK_OF[subject.classifier.task],
    )


def _trained_weights(path: Path) -> tuple[dict[str, Any], dict[str, str]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata()  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); fit again or restore the folder") from error


def _put_fine_tuned(staged: Any, tensors: dict[str, Any]) -> None:
    """Put fine-tuned stages' weights (`trainable.STAGE.…`) where they belong, in place."""
    for name in (*staged.names, "pool"):
        prefix = f"tail.{name}."
        own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if own:
            staged.load_part(name, own)


def _where(network: _Network, layer: "FeatureLayer") -> dict[str, Any]:
    """A layer in timm's terms: the module whose output it is."""
    from headstart.backbones.cutting import ChannelsFirst

    if layer.stage == "features":
        return {"name": layer.name, "module": "", "grid": 1, "channels_last": False, "prefix_tokens": 0}
    staged = network.staged
    position = staged.names.index(layer.stage)
    stage = staged.stages[position]
    if not staged.places[position]:
        raise RunError(
            f"the head reads {layer.name}, which no module of {network.architecture} gives by itself; "
            "take --to torchscript or --to onnx"
        )
    return {
        "name": layer.name,
        "module": staged.places[position],
        "grid": layer.grid,
        "channels_last": isinstance(stage, ChannelsFirst) and stage.gives_map,
        "prefix_tokens": staged.prefix_tokens[position],
    }


def _whole(network: _Network, subject: "Subject") -> Any:
    """Pixels to probabilities as one module, for tracing."""
    import torch
    from torch import nn
    from torch.nn import functional

    preprocess, staged = subject.classifier.preprocess, network.staged
    prefixes = dict(zip(staged.names, staged.prefix_tokens, strict=True))

    def pool(output: Any, *, prefix: int, grid: int) -> Any:
        if output.ndim == 3:
            patches = output[:, prefix:].transpose(1, 2)
            side = round(float(patches.shape[2]) ** 0.5)
            output = patches.unflatten(2, (side, side)) if grid > 1 else patches.unsqueeze(3)
        return functional.adaptive_avg_pool2d(output, grid).flatten(1)

    class Whole(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.staged = staged
            for name in ("mean", "std"):
                self.register_buffer(name, torch.tensor(getattr(preprocess, name)).reshape(3, 1, 1))
            self.weight = nn.Parameter(network.head["head.weight"] / network.temperature, False)
            self.bias = nn.Parameter(network.head["head.bias"] / network.temperature, False)

        def forward(self, pixels: Any) -> Any:
            outputs = self.staged.outputs((pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std)
            read = []
            for layer in network.layers:
                output, prefix = outputs[layer.stage], prefixes.get(layer.stage, 0)
                read.append(
                    output if layer.stage == "features" else pool(output, prefix=prefix, grid=layer.grid)
                )
            features = torch.cat(read, dim=1)
            scores = features @ self.weight + self.bias
            if network.link == "softmax":
                return torch.softmax(scores, dim=1)
            return torch.sigmoid(scores) if network.link == "sigmoid" else scores

    return Whole().eval()
