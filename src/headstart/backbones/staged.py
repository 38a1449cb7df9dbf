"""A backbone as PyTorch stages that can be split, purely, into a frozen part and a trainable part."""

import copy
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any, Self

import torch
from torch import nn

from headstart.errors import OptionError


class FrozenStages(nn.Sequential):
    """The frozen stages: no gradients, and always in eval mode, so that BatchNorm buffers cannot move."""

    def __init__(self, modules: "OrderedDict[str, nn.Module]") -> None:
        super().__init__(modules)
        self.requires_grad_(False)
        self.train(False)

    @classmethod
    def of(cls, modules: Iterable[nn.Module]) -> Self:
        """Freeze modules that are run one after another (they are taken over, not copied)."""
        return cls(OrderedDict((str(position), module) for position, module in enumerate(modules)))

    def train(self, mode: bool = True) -> Self:
        """Stay in eval mode, whatever is asked: a container may call this on all that it holds."""
        del mode
        return super().train(False)


class StagedModule(nn.Module):
    """A timm model cut into its ordered stages; see `headstart.backbones.families.cut_into_stages`."""

    def __init__(
        self, stages: Iterable[tuple[str, nn.Module]], pool: nn.Module, *, prefix_tokens: int = 0
    ) -> None:
        """Put the parts together.

        Args:
            stages: Modules with their names; each takes the map of the one before it.
            pool: Turns the last stage's map into the features ``[N, D]``; its weights count to that stage.
            prefix_tokens: Class, distillation and register tokens before the patch tokens (0 for maps).
        """
        super().__init__()
        self.names, modules = zip(*stages, strict=True)
        self.stages, self.pool, self.prefix_tokens = nn.ModuleList(modules), pool, prefix_tokens

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[N, 3, S, S]``, normalised, to the features ``[N, D]``."""
        for stage in self.stages:
            image = stage(image)
        features: torch.Tensor = self.pool(image)
        return features

    def facts(self) -> list[dict[str, Any]]:
        """Per stage its name, its number of trainable numbers, and how many tokens precede the patches."""
        counts = [sum(weight.numel() for weight in stage.parameters()) for stage in self.stages]
        counts[-1] += sum(weight.numel() for weight in self.pool.parameters())
        return [
            {"name": name, "parameters": count, "prefix_tokens": self.prefix_tokens}
            for name, count in zip(self.names, counts, strict=True)
        ]

    def split(self, depth: int) -> tuple[nn.Module, nn.Module]:
        """Two new modules, the frozen part and the trainable part; neither shares a weight with anything.

        Below full depth ``frozen(x)`` is the map of stage ``depth`` and ``trainable(map)`` the features ``[N,
        D]``; at full depth ``frozen(x)`` is the features and the trainable part passes them on. The children
        of both are named as the stages (then ``pool``), so a training loop can set each group explicitly.

        Raises:
            OptionError: ``depth`` is not between 0 and the number of stages.
        """
        frozen, _ = self._groups(depth)
        return FrozenStages(OrderedDict(copy.deepcopy(frozen))), self.after(depth)

    def after(self, depth: int) -> nn.Module:
        """The trainable part of `split` alone: the frozen stages are not copied for it."""
        _, fine_tuned = self._groups(depth)
        trainable = nn.Sequential(OrderedDict(copy.deepcopy(fine_tuned))) if fine_tuned else nn.Identity()
        return trainable.requires_grad_(True).eval()

    def _groups(self, depth: int) -> tuple[list[tuple[str, nn.Module]], list[tuple[str, nn.Module]]]:
        """The frozen and the fine-tuned parts by name, as they are."""
        count = len(self.stages)
        if not 0 <= depth <= count:
            raise OptionError(f"freeze depth {depth}: this backbone has {count} stages; give 0 to {count}")
        groups = [*zip(self.names, self.stages, strict=True), ("pool", self.pool)]
        cut = depth if depth < count else len(groups)
        return groups[:cut], groups[cut:]

    def joined(self, trainable: nn.Module, *, depth: int) -> "StagedModule":
        """A new backbone: copies of the first ``depth`` stages, then of the rest that ``split(depth)`` gave.

        Raises:
            OptionError: The trainable part is of another depth.
        """
        expected = [*self.names[depth:], "pool"] if depth < len(self.names) else []
        fine_tuned = dict(trainable.named_children())
        if list(fine_tuned) != expected:
            raise OptionError(
                f"the trainable part is not of depth {depth}: expected the parts {', '.join(expected)}"
            )
        whole = copy.deepcopy(self)
        for position, name in enumerate(self.names):
            if name in fine_tuned:
                whole.stages[position] = copy.deepcopy(fine_tuned[name])
        whole.pool = copy.deepcopy(fine_tuned.get("pool", self.pool))
        return whole.requires_grad_(False).eval()
