"""A backbone as PyTorch stages that can be split, purely, into a frozen part and a trainable part."""

import copy
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
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
    """A timm model cut into its ordered stages; see `headstart.backbones.cutting.cut_into_stages`."""

    def __init__(
        self,
        stages: Iterable[tuple[str, nn.Module]],
        pool: nn.Module,
        *,
        prefix_tokens: Sequence[int],
        places: Sequence[str],
        blocks_joined: bool = False,
    ) -> None:
        """Put the parts together.

        Args:
            stages: Modules with their names; each takes the map of the one before it.
            pool: Turns the last stage's map into the features ``[N, D]``; its weights count to that stage.
            prefix_tokens: Of each stage: class, distillation and register tokens before the patch tokens (0
                for maps).
            places: Of each stage the module of the whole network that gives its map, by its name; empty where
                none does.
            blocks_joined: Whether the network has more blocks than stages.
        """
        super().__init__()
        self.names, modules = zip(*stages, strict=True)
        self.stages, self.pool = nn.ModuleList(modules), pool
        self.prefix_tokens, self.places = tuple(prefix_tokens), tuple(places)
        self.blocks_joined = blocks_joined

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """``[N, 3, S, S]``, normalised, to the features ``[N, D]``."""
        return self.outputs(image)["features"]

    def outputs(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
        """The map of each stage, by its name, and ``features``."""
        maps = {}
        for name, stage in zip(self.names, self.stages, strict=True):
            maps[name] = image = stage(image)
        return {**maps, "features": self.pool(image)}

    def facts(self) -> list[dict[str, Any]]:
        """Per stage its name, its number of trainable numbers, and how many tokens precede the patches."""
        counted: set[nn.Parameter] = set()  # what several stages use counts to the first
        counts = []
        for stage in (*self.stages, self.pool):
            own = set(stage.parameters()) - counted
            counted |= own
            counts.append(sum(weight.numel() for weight in own))
        counts[-2:] = [sum(counts[-2:])]
        return [
            {"name": name, "parameters": count, "prefix_tokens": prefix}
            for name, count, prefix in zip(self.names, counts, self.prefix_tokens, strict=True)
        ]

    def in_rows(self, size: int) -> bool:
        """Whether the first tokens stand for the image's patches row by row; true where there are maps alone.

        A change in one quarter of the image must change a token of that quarter most.
        """
        images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(2)).repeat(5, 1, 1, 1)
        half, margin = size // 2, size // 8
        for image, (row, column) in zip(
            images[1:], ((0, 0), (0, half), (half, 0), (half, half)), strict=True
        ):
            image[:, row + margin : row + half - margin, column + margin : column + half - margin] *= -1
        with torch.no_grad():
            for stage, prefix in zip(self.stages, self.prefix_tokens, strict=True):
                images = stage(images)
                side = round((images.shape[1] - prefix) ** 0.5)
                if images.ndim == 3 and side**2 == images.shape[1] - prefix:
                    changes = (images[1:] - images[:1])[:, prefix:].abs().sum(2).unflatten(1, (side, side))
                    quarters = nn.functional.adaptive_avg_pool2d(changes, 2).flatten(1)
                    return quarters.argmax(1).tolist() == [0, 1, 2, 3]
        return True

    def load_part(self, name: str, weights: Mapping[str, torch.Tensor]) -> None:
        """Put trained weights into a stage (or ``pool``), in place, by the names that `after` gives them.

        Older versions had further modules around a stage's own, whose names came first.
        """
        module = self.pool if name == "pool" else self.stages[self.names.index(name)]
        wanted = module.state_dict().keys()
        while weights.keys() != wanted and all("." in key for key in weights):
            first, *others = {key.partition(".")[0] for key in weights}
            if others:
                break
            weights = {key.removeprefix(f"{first}."): value for key, value in weights.items()}
        module.load_state_dict(weights)

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
