"""Cuts a timm model into ordered stages, family by family.

Each family is recognised by the containers that its timm class has (``conv_stem`` and ``blocks``, ``layer1``
… ``layer4``, ``patch_embed`` and ``blocks``, …), so that variants of a family need no list of their names.
What is cut is checked twice: here that every weight belongs to exactly one stage, and by
[`headstart.backbones.tracing`][] that the stages compute what the model computes.
"""

import copy
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn

from headstart.backbones.staged import StagedModule
from headstart.errors import BackboneError

SUPPORTED = (
    "mobilenetv2, mobilenetv3, efficientnet, resnet, convnext, edgenext, "
    "regnet, repvgg, densenet, vit, deit, swin"
)


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


def cut_into_stages(model: Any, *, architecture: str) -> StagedModule:
    """Cut ``model`` (a timm model made with ``num_classes=0``) into stages, which take over its modules.

    Raises:
        BackboneError: The family is unknown, or some of its weights would belong to no stage.
    """
    for containers, cut in _FAMILIES:
        if all(hasattr(model, name) for name in containers):
            staged = cut(model)
            if _weights(model) == _weights(staged):
                return staged
            break
    raise BackboneError(
        f"backbone {architecture!r}: its layers cannot be cut into stages; supported families: {SUPPORTED}"
    )


def _weights(module: nn.Module) -> list[int]:
    """Which weights and buffers a module has, however often."""
    modules = [*module.stages, module.pool] if isinstance(module, StagedModule) else [module]
    return sorted(id(each) for part in modules for each in (*part.parameters(), *part.buffers()))


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


def _efficientnet(model: Any) -> StagedModule:
    stages = [("stem", nn.Sequential(model.conv_stem, model.bn1)), *_blocks(model.blocks)]
    return StagedModule(_with_end(stages, nn.Sequential(model.conv_head, model.bn2)), model.global_pool)


def _mobilenetv3(model: Any) -> StagedModule:
    stages = [("stem", nn.Sequential(model.conv_stem, model.bn1)), *_blocks(model.blocks)]
    pool = nn.Sequential(model.global_pool, model.conv_head, model.norm_head, model.act2, model.flatten)
    return StagedModule(tuple(stages), pool)


def _resnet(model: Any) -> StagedModule:
    stem = nn.Sequential(model.conv1, model.bn1, model.act1, model.maxpool)
    blocks = _blocks((model.layer1, model.layer2, model.layer3, model.layer4))
    return StagedModule((("stem", stem), *blocks), model.global_pool)


def _densenet(model: Any) -> StagedModule:
    groups: list[list[nn.Module]] = [[]]
    for name, module in model.features.named_children():
        if name.startswith("denseblock"):
            groups.append([])
        groups[-1].append(module)
    stem, *blocks = (nn.Sequential(*group) for group in groups)
    return StagedModule((("stem", stem), *_blocks(blocks)), model.global_pool)


def _regnet(model: Any) -> StagedModule:
    stages = [("stem", model.stem), *_blocks((model.s1, model.s2, model.s3, model.s4))]
    return StagedModule(_with_end(stages, model.final_conv), model.head)


def _stem_and_stages(model: Any, *, end: str) -> StagedModule:
    stages = _with_end([("stem", model.stem), *_blocks(model.stages)], getattr(model, end))
    return StagedModule(stages, model.head)


def _vit(model: Any) -> StagedModule:
    stages = (("stem", TokenStem(model)), *_blocks(model.blocks))
    return StagedModule(stages, TokenPool(model), prefix_tokens=int(model.num_prefix_tokens))


def _swin(model: Any) -> StagedModule:
    stem = ChannelsFirst(model.patch_embed, takes_map=False)
    blocks = _blocks(ChannelsFirst(layer) for layer in model.layers)
    pool = ChannelsFirst(nn.Sequential(model.norm, model.head), gives_map=False)
    return StagedModule((("stem", stem), *blocks), pool)


_FAMILIES: tuple[tuple[tuple[str, ...], Callable[[Any], StagedModule]], ...] = (
    (("conv_stem", "blocks", "conv_head", "bn2", "global_pool"), _efficientnet),
    (("conv_stem", "blocks", "conv_head", "norm_head", "act2", "flatten"), _mobilenetv3),
    (("conv1", "bn1", "act1", "maxpool", "layer1", "layer4", "global_pool"), _resnet),
    (("features", "global_pool", "head_drop"), _densenet),
    (("stem", "s1", "s2", "s3", "s4", "final_conv", "head"), _regnet),
    (("stem", "stages", "final_conv", "head"), partial(_stem_and_stages, end="final_conv")),
    (("stem", "stages", "norm_pre", "head"), partial(_stem_and_stages, end="norm_pre")),
    (("patch_embed", "pos_embed", "blocks", "norm", "fc_norm", "num_prefix_tokens"), _vit),
    (("patch_embed", "layers", "norm", "head"), _swin),
)
