"""Cuts a timm model into ordered stages, family by family.

Each family is recognised by the containers that its timm class has (``conv_stem`` and ``blocks``, ``layer1``
… ``layer4``, ``patch_embed`` and ``blocks``, …), so that variants of a family need no list of their names.
What is cut is checked twice: here that every weight belongs to exactly one stage, and by
[`headstart.backbones.tracing`][] that the stages compute what the model computes.
"""

import copy
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from headstart.errors import BackboneError

SUPPORTED = (
    "mobilenetv2, mobilenetv3, efficientnet, resnet, convnext, edgenext, "
    "regnet, repvgg, densenet, vit, deit, swin"
)


@dataclass(frozen=True)
class Partition:
    """A model's layers as named groups, input to output."""

    stages: tuple[tuple[str, nn.Module], ...]  # with their names; each takes the map of the one before
    pool: nn.Module  # turns the last stage's map into the features `[N, D]`; its weights count to that stage
    prefix_tokens: int = 0  # class, distillation and register tokens before the patch tokens (0 for maps)


class TokenStem(nn.Module):
    """A vision transformer up to its first block: patches, class token, position embedding."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        kept = ("patch_embed", "pos_drop", "patch_drop", "norm_pre")
        self.shell = _shell(
            model, modules=kept, parameters=("cls_token", "reg_token", "dist_token", "pos_embed")
        )

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[N, 3, S, S]`` to ``[N, tokens, C]``."""
        shell: Any = self.shell
        tokens: torch.Tensor = shell.norm_pre(shell.patch_drop(shell._pos_embed(shell.patch_embed(image))))
        return tokens


class TokenPool(nn.Module):
    """A vision transformer after its last block: norm, then the token (or mean) that its head reads."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        kept = ("norm", "fc_norm", "head_drop", "attn_pool", "head", "head_dist")
        self.shell = _shell(model, modules=kept, parameters=())

    def forward(self, tokens: torch.Tensor) -> torch.Tensor:
        """``[N, tokens, C]`` to ``[N, D]``."""
        shell: Any = self.shell
        features: torch.Tensor = shell.forward_head(shell.norm(tokens), pre_logits=True)
        return features


class ChannelsFirst(nn.Module):
    """Lets a channels-last stage speak ``[N, C, H, W]``, so that maps look alike in every family."""

    def __init__(self, inner: nn.Module, *, takes_map: bool = True, gives_map: bool = True) -> None:
        super().__init__()
        self.inner, self.takes_map, self.gives_map = inner, takes_map, gives_map

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the stage between two permutations."""
        x = self.inner(x.permute(0, 2, 3, 1) if self.takes_map else x)
        return x.permute(0, 3, 1, 2) if self.gives_map else x


def partition(model: Any, *, architecture: str) -> Partition:
    """Cut ``model`` (a timm model made with ``num_classes=0``) into stages that share its modules.

    Raises:
        BackboneError: The family is unknown, or some of its weights would belong to no stage.
    """
    for containers, cut in _FAMILIES:
        if all(hasattr(model, name) for name in containers):
            parts = cut(model)
            _check_complete(model, parts, architecture=architecture)
            return parts
    raise _unsupported(architecture)


def _unsupported(architecture: str) -> BackboneError:
    return BackboneError(
        f"backbone {architecture!r}: its layers cannot be cut into stages; supported families: {SUPPORTED}"
    )


def _check_complete(model: nn.Module, parts: Partition, *, architecture: str) -> None:
    whole = sorted(map(id, (*model.parameters(), *model.buffers())))
    groups = (*(module for _, module in parts.stages), parts.pool)
    cut = sorted(id(t) for group in groups for t in (*group.parameters(), *group.buffers()))
    if whole != cut:
        raise _unsupported(architecture)


def _shell(model: nn.Module, *, modules: Iterable[str], parameters: Iterable[str]) -> nn.Module:
    """The same object with fewer parts, so that timm's own code runs on the parts that are left."""
    shell = copy.copy(model)
    shell._modules = {name: model._modules[name] for name in modules if name in model._modules}
    shell._parameters = {name: model._parameters[name] for name in parameters if name in model._parameters}
    missing = [name for name in model._parameters if name not in shell._parameters]
    for name in missing:
        shell._parameters[name] = None
    return shell


def _blocks(modules: Iterable[nn.Module]) -> list[tuple[str, nn.Module]]:
    return [(f"block{number}", module) for number, module in enumerate(modules, start=1)]


def _with_end(stages: list[tuple[str, nn.Module]], end: nn.Module) -> tuple[tuple[str, nn.Module], ...]:
    """Append what follows the blocks: a stage of its own if it has weights, else part of the last block."""
    if any(True for _ in end.parameters()):
        return (*stages, ("last", end))
    name, block = stages[-1]
    return (*stages[:-1], (name, nn.Sequential(block, end)))


def _efficientnet(model: Any) -> Partition:
    stages = [("stem", nn.Sequential(model.conv_stem, model.bn1)), *_blocks(model.blocks)]
    return Partition(_with_end(stages, nn.Sequential(model.conv_head, model.bn2)), model.global_pool)


def _mobilenetv3(model: Any) -> Partition:
    stages = [("stem", nn.Sequential(model.conv_stem, model.bn1)), *_blocks(model.blocks)]
    pool = nn.Sequential(model.global_pool, model.conv_head, model.norm_head, model.act2, model.flatten)
    return Partition(tuple(stages), pool)


def _resnet(model: Any) -> Partition:
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
    blocks = _blocks((model.layer1, model.layer2, model.layer3, model.layer4))
    return Partition((("stem", stem), *blocks), model.global_pool)


def _densenet(model: Any) -> Partition:
    groups: list[list[nn.Module]] = [[]]
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            groups.append([])
        groups[-1].append(module)
    stem, *blocks = (nn.Sequential(*group) for group in groups)
    return Partition((("stem", stem), *_blocks(blocks)), model.global_pool)


def _regnet(model: Any) -> Partition:
    stages = [("stem", model.stem), *_blocks((model.s1, model.s2, model.s3, model.s4))]
    return Partition(_with_end(stages, model.final_conv), model.head)


def _byobnet(model: Any) -> Partition:
    return Partition(_with_end([("stem", model.stem), *_blocks(model.stages)], model.final_conv), model.head)


def _convnext(model: Any) -> Partition:
    return Partition(_with_end([("stem", model.stem), *_blocks(model.stages)], model.norm_pre), model.head)


def _vit(model: Any) -> Partition:
    stages = (("stem", TokenStem(model)), *_blocks(model.blocks))
    return Partition(stages, TokenPool(model), prefix_tokens=int(model.num_prefix_tokens))


def _swin(model: Any) -> Partition:
    stem = ChannelsFirst(model.patch_embed, takes_map=False)
    blocks = _blocks(ChannelsFirst(layer) for layer in model.layers)
    pool = ChannelsFirst(nn.Sequential(model.norm, model.head), gives_map=False)
    return Partition((("stem", stem), *blocks), pool)


_FAMILIES: tuple[tuple[tuple[str, ...], Callable[[Any], Partition]], ...] = (
    (("conv_stem", "blocks", "conv_head", "bn2", "global_pool"), _efficientnet),
    (("conv_stem", "blocks", "conv_head", "norm_head", "act2", "flatten"), _mobilenetv3),
    (("conv1", "bn1", "act1", "maxpool", "layer1", "layer4", "global_pool"), _resnet),
    (("features", "global_pool", "head_drop"), _densenet),
    (("stem", "s1", "s2", "s3", "s4", "final_conv", "head"), _regnet),
    (("stem", "stages", "final_conv", "head"), _byobnet),
    (("stem", "stages", "norm_pre", "head"), _convnext),
    (("patch_embed", "pos_embed", "blocks", "norm", "fc_norm", "num_prefix_tokens"), _vit),
    (("patch_embed", "layers", "norm", "head"), _swin),
)
