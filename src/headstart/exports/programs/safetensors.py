"""Weights in safetensors, put into timm's network by PyTorch; `model.json` says which and how."""

import json
from pathlib import Path
from typing import Any

from headstart.exports.programs.shared import Run


def open_model(folder: Path) -> Run:
    """The network of timm with the weights, what the head reads of it, and the head."""
    import timm
    import torch
    from safetensors.torch import load_file

    facts = json.loads((folder / "model.json").read_text(encoding="utf-8"))
    tensors = load_file(folder / "model.safetensors")
    network = timm.create_model(facts["architecture"], pretrained=False, **facts["timm_kwargs"])
    prefix = "backbone."
    network.load_state_dict({k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)})
    network.eval()
    seen: dict[str, Any] = {}

    def watch(layer: dict[str, Any]) -> None:
        def keep(module: Any, inputs: Any, output: Any) -> None:
            if output.ndim == 3:  # tokens, [N, T, C]: leave out those before the patches, then a square map
                patches = output[:, layer["prefix_tokens"] :].transpose(1, 2)
                side = round(patches.shape[2] ** 0.5)
                output = patches.unflatten(2, (side, side)) if layer["grid"] > 1 else patches[..., None]
            elif layer["channels_last"]:
                output = output.permute(0, 3, 1, 2)
            seen[layer["name"]] = torch.nn.functional.adaptive_avg_pool2d(output, layer["grid"]).flatten(1)

        network.get_submodule(layer["module"]).register_forward_hook(keep)

    for layer in facts["layers"]:
        if layer["module"]:
            watch(layer)
    mean, std = (torch.tensor(facts[name]).reshape(3, 1, 1) for name in ("mean", "std"))

    def run(pixels: Any) -> Any:
        with torch.inference_mode():
            image = (torch.tensor(pixels).permute(0, 3, 1, 2) / 255 - mean) / std
            seen["features"] = network(image)
            features = torch.cat([seen[layer["name"]] for layer in facts["layers"]], dim=1)
            logits = features @ tensors["head.weight"] + tensors["head.bias"]
            logits = logits / facts["temperature"]
            if facts["link"] == "softmax":
                logits = torch.softmax(logits, dim=1)
            return (torch.sigmoid(logits) if facts["link"] == "sigmoid" else logits).numpy()

    return run
