"""Networks cut where the hints are taken: every block's map, the last map, the pooled vector."""

from __future__ import annotations

from pathlib import Path

import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

HINTS = ("blocks.2", "blocks.3", "blocks.4", "blocks.5", "blocks.6")  # strides 8, 16, 16, 32, 32


class Staged(nn.Module):
    """A timm MobileNetV2-like network that hands out the maps of the blocks in HINTS.

    `forward` takes [n, 3, S, S] and returns those maps, input to output; `finish` turns the last of them
    into the network's last map [n, D, h, w], whose mean over h and w is the pooled vector [n, D].
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> list[Tensor]:
        """The maps at HINTS of a batch of images."""
        network = self.network
        x = network.bn1(network.conv_stem(images))
        maps = []
        for i, block in enumerate(network.blocks):
            x = block(x)
            if f"blocks.{i}" in HINTS:
                maps.append(x)
        return maps

    def finish(self, last: Tensor) -> Tensor:
        """The network's last map, from the map of its last block."""
        return self.network.bn2(self.network.conv_head(last))

    def pooled(self, images: Tensor) -> Tensor:
        """The vector [n, D] that a head would read."""
        return self.finish(self(images)[-1]).mean(dim=(2, 3))

    def widths(self) -> list[int]:
        """Channels of each map in HINTS."""
        training = self.training
        self.eval()
        with torch.inference_mode():
            blank = next(self.parameters()).new_zeros(1, 3, 32, 32)
            widths = [m.shape[1] for m in self(blank)]
        self.train(training)
        return widths


def build(architecture: str, *, weights: Path | None = None) -> Staged:
    """A network without its classifier; random weights unless a safetensors file is given.

    A classifier in the file is ignored. TensorFlow-style padding is used throughout, as the teacher has it.
    """
    network = timm.create_model(architecture, pad_type="same", num_classes=0)
    if weights is not None:
        state = {k: v.float() if v.is_floating_point() else v for k, v in load_file(weights).items()}
        network.load_state_dict({k: v for k, v in state.items() if not k.startswith("classifier.")})
    return Staged(network).to(memory_format=torch.channels_last)


def write(staged: Staged, path: Path) -> None:
    """Write a network's weights as `build` reads them; the file appears only when complete."""
    unfinished = path.with_suffix(".partial")
    save_file({k: v.cpu().contiguous() for k, v in staged.network.state_dict().items()}, unfinished)
    unfinished.replace(path)


def classifier_of(weights: Path) -> tuple[Tensor, Tensor]:
    """The classifier's weight [C, D] and bias [C] from a teacher's safetensors file."""
    with safe_open(weights, "pt") as opened:
        return opened.get_tensor("classifier.weight").float(), opened.get_tensor("classifier.bias").float()


def grow(small: Staged, architecture: str, *, noise: float = 0.02, seed: int = 0) -> Staged:
    """A wider network that computes (but for noise) what `small` computes: Net2Net's widening.

    Every channel of the wider network copies one of the smaller's; what reads copies divides by their number.
    The noise, as a share of each weight tensor's spread, lets copies part ways. Depths must agree.
    Source: Chen, Goodfellow, Shlens, "Net2Net: Accelerating Learning via Knowledge Transfer", 2016.

    Raises:
        ValueError: a layer of the wider network has fewer channels than the smaller's.
    """
    wide = build(architecture)
    source, target = small.state_dict(), wide.state_dict()
    generator = torch.Generator().manual_seed(seed)
    for name, old in source.items():
        new = target[name]
        if new.ndim == 0:
            new.copy_(old)
            continue
        if any(n < o for n, o in zip(new.shape, old.shape, strict=True)):
            raise ValueError(
                f"{architecture}: {name} has shape {tuple(new.shape)}, narrower than {tuple(old.shape)}"
            )
        grown = old[torch.arange(new.shape[0]) % old.shape[0]]
        if new.ndim == 4 and new.shape[1] != old.shape[1]:
            reads = torch.arange(new.shape[1]) % old.shape[1]
            copies = torch.bincount(reads, minlength=old.shape[1]).float()
            grown = grown[:, reads] / copies[reads].view(1, -1, 1, 1)
        if new.ndim == 4:
            grown = grown + noise * grown.std() * torch.randn(grown.shape, generator=generator)
        new.copy_(grown)
    wide.load_state_dict(target)
    return wide
