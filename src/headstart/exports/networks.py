"""Exports of the PyTorch network: weights as timm names them (safetensors), and TorchScript.

Importing this module costs nothing; PyTorch and timm are imported where they are used.
"""

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.errors import RunError
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
        "classes": subject.classifier.classes,
        "reads": "(pixels / 255 - mean) / std -> backbone -> layers, averaged over grid x grid cells and "
        "concatenated -> @ head.weight + head.bias -> / temperature -> softmax",
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
    from headstart.backbones.building import make_model, timm_arguments
    from headstart.backbones.families import cut_into_stages

    config = subject.recorded("this format").config
    backbone = backbone_of(config, seed=config.seed)
    if backbone.recipe is None:
        raise RunError(f"{config.backbone}: only its graph is here; take --to onnx or --to openvino")
    model = make_model(backbone.recipe, size=backbone.preprocess.size, name=config.backbone)
    staged = cut_into_stages(model, architecture=backbone.recipe.architecture).eval()
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
    parts = {**dict(zip(staged.names, staged.stages, strict=True)), "pool": staged.pool}
    for name, module in parts.items():
        prefix = f"tail.{name}."
        own = {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}
        if own:
            module.load_state_dict(own)


def _where(network: _Network, layer: "FeatureLayer") -> dict[str, Any]:
    """A layer in timm's terms: the module whose output it is."""
    from headstart.backbones.families import ChannelsFirst, TokenStem

    if layer.stage == "features":
        return {"name": layer.name, "module": "", "grid": 1, "channels_last": False, "prefix_tokens": 0}
    names = {id(module): name for name, module in network.model.named_modules()}
    module = network.staged.stages[network.staged.names.index(layer.stage)]
    channels_last = isinstance(module, ChannelsFirst)
    while id(module) not in names:
        if isinstance(module, ChannelsFirst):
            module = module.inner
        elif isinstance(module, TokenStem):
            module = module.shell.norm_pre
        else:
            module = list(module.children())[-1]  # a group of timm's modules, run one after another
    return {
        "name": layer.name,
        "module": names[id(module)],
        "grid": layer.grid,
        "channels_last": channels_last,
        "prefix_tokens": network.staged.prefix_tokens,
    }


def _whole(network: _Network, subject: "Subject") -> Any:
    """Pixels to probabilities as one module, for tracing."""
    import torch
    from torch import nn
    from torch.nn import functional

    preprocess, staged = subject.classifier.preprocess, network.staged

    def pool(output: Any, grid: int) -> Any:
        if output.ndim == 3:
            patches = output[:, staged.prefix_tokens :].transpose(1, 2)
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
            output = (pixels.permute(0, 3, 1, 2).float() / 255 - self.mean) / self.std
            seen = {}
            for name, stage in zip(self.staged.names, self.staged.stages, strict=True):
                output = stage(output)
                for layer in network.layers:
                    if layer.stage == name:
                        seen[layer.name] = pool(output, layer.grid)
            seen["features"] = self.staged.pool(output)
            features = torch.cat([seen[layer.name] for layer in network.layers], dim=1)
            return torch.softmax(features @ self.weight + self.bias, dim=1)

    return Whole().eval()
