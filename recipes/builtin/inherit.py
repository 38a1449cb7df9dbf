"""A narrower network from a wider one of the same depth, in closed form: where training starts.

What a MobileNetV2 passes from block to block is linear (no activation follows a block's last convolution), so
each stage's channels can be replaced by fewer directions of them: those in which most of what the next layers
read varies. Inside a block there is an activation, so there channels are chosen: greedily, each next one the
one that explains most of what is still missing of the block's output. Every block's last convolution is
then a ridge regression on what the narrow network itself computes, which mends what the earlier blocks lost.
Sources: He, Zhang, Sun, "Channel Pruning for Accelerating Very Deep Neural Networks", 2017 (choosing
channels and regressing the output); orthogonal least squares (Chen, Billings, Luo, 1989).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import networks
import torch
from torch import Tensor, nn

BATCH = 64  # images at a time
RIDGE = 5e-2  # share of the mean variance added to every regressor's; README.md has what others gave


@dataclass
class Moments:
    """Sums from which means, covariances and regressions follow; rows come in any number of batches."""

    count: float = 0.0
    first: Tensor | float = 0.0  # [d]
    second: Tensor | float = 0.0  # [d, d]

    def add(self, rows: Tensor) -> None:
        """Rows float32 [n, d]."""
        rows = rows.double()
        self.count += len(rows)
        self.first = self.first + rows.sum(0)
        self.second = self.second + rows.T @ rows

    def mean(self) -> Tensor:
        """[d]."""
        return torch.as_tensor(self.first) / self.count

    def covariance(self) -> Tensor:
        """[d, d]."""
        mean = self.mean()
        return torch.as_tensor(self.second) / self.count - torch.outer(mean, mean)


def rows(maps: Tensor) -> Tensor:
    """Maps [n, C, h, w] as one row a position [n h w, C]."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def regression(moments: Moments, regressors: list[int] | range, targets: range) -> tuple[Tensor, Tensor]:
    """Weight [t, r] and bias [t] of targets on regressors, both columns of what was summed."""
    covariance, mean = moments.covariance(), moments.mean()
    x, y = torch.as_tensor(list(regressors)), torch.as_tensor(list(targets))
    gram = covariance[x][:, x]
    gram = gram + RIDGE * gram.diagonal().mean() * torch.eye(len(x), dtype=gram.dtype)
    weight = torch.linalg.solve(gram, covariance[x][:, y]).T
    return weight.float(), (mean[y] - weight @ mean[x]).float()


def choose(moments: Moments, regressors: int, count: int) -> list[int]:
    """The `count` of the first `regressors` columns that together explain most of the columns after them.

    Orthogonal least squares: take the best column, subtract from all others what it explains, repeat.
    """
    covariance = moments.covariance()
    gram, cross = covariance[:regressors, :regressors].clone(), covariance[:regressors, regressors:].clone()
    floor = RIDGE * gram.diagonal().mean()
    chosen: list[int] = []
    free = torch.ones(regressors, dtype=torch.bool)
    for _ in range(count):
        left = gram.diagonal() + floor
        gain = torch.where(free, cross.square().sum(1) / left, torch.tensor(-1.0, dtype=gram.dtype))
        best = int(gain.argmax())
        column, row, scale = gram[:, best].clone(), cross[best].clone(), left[best]
        gram -= torch.outer(column, column) / scale
        cross -= torch.outer(column, row) / scale
        free[best] = False
        chosen.append(best)
    return sorted(chosen)


def set_layer(conv: nn.Conv2d, norm: nn.Module, weight: Tensor, bias: Tensor) -> None:
    """Give a convolution its weight, and the BatchNorm after it the bias; its statistics come later."""
    conv.weight.data.copy_(weight.view_as(conv.weight))
    norm.running_mean.zero_()
    norm.running_var.fill_(1.0)
    norm.weight.data.fill_((1.0 + norm.eps) ** 0.5)
    norm.bias.data.copy_(bias)


def folded(conv: nn.Conv2d, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """A convolution's weight and bias with the BatchNorm after it folded in."""
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    return conv.weight.detach() * scale.detach().view(-1, 1, 1, 1), (
        norm.bias - norm.running_mean * scale
    ).detach()


def directions(covariance: Tensor, readers: list[Tensor], count: int) -> Tensor:
    """The linear map [count, C] that keeps most of what `readers`, weights [k, C], read of C channels."""
    metric = sum(w.double().T @ w.double() for w in readers)
    metric = metric + 1e-3 * metric.diagonal().mean() * torch.eye(len(metric), dtype=metric.dtype)
    root = torch.linalg.cholesky(metric)  # metric = root rootᵀ
    _, vectors = torch.linalg.eigh(root.T @ covariance @ root)
    kept = vectors[:, -count:].flip(1).T @ root.T
    variances = (kept @ covariance * kept).sum(1)
    least = RIDGE * variances.max()  # a direction in which nothing varies stays small
    return (kept / variances.clamp(min=least).sqrt().view(-1, 1)).float()


class Inheritance:
    """Goes through two networks of the same depth, giving the narrow one what the wide one computes."""

    def __init__(self, wide: networks.Staged, narrow: networks.Staged, images: Tensor) -> None:
        """`images`: float32 [n, 3, S, S], normalised; a thousand are enough."""
        self.wide, self.narrow = wide.eval().network, narrow.eval().network
        self.images = images

    def _batches(self, *tensors: Tensor) -> list[tuple[Tensor, ...]]:
        return list(zip(*(t.split(BATCH) for t in tensors), strict=True))

    def _through(self, block: Callable[[Tensor], Tensor], maps: Tensor) -> Tensor:
        return torch.cat([block(part) for part in maps.split(BATCH)])

    @torch.no_grad()
    def run(self) -> None:
        """Set every weight of the narrow network, from input to output."""
        wide, narrow = self.wide, self.narrow
        theirs, mine, reading = self.images, self.images, None
        for number, (stage, small) in enumerate(zip(wide.blocks, narrow.blocks, strict=True)):
            outputs = self._outputs(number, theirs)
            theirs = outputs[-1]
            keep, centre = self._directions(number, outputs, width=self._width(small))
            for large, block, output in zip(stage, small, outputs, strict=True):
                wanted = ((output.permute(0, 2, 3, 1) - centre) @ keep.T).permute(0, 3, 1, 2)
                if reading is None:
                    mine = self._first(block, large, wanted)
                else:
                    mine = self._block(block, large, reading, mine, wanted)
                reading = self._reading(mine, output)
        assert reading is not None, "a network has stages"
        set_layer(narrow.conv_head, narrow.bn2, *_composed(folded(wide.conv_head, wide.bn2), reading))
        self._settle()

    def _outputs(self, number: int, maps: Tensor) -> list[Tensor]:
        """What the blocks of one of the wide network's stages make of the maps that enter it."""
        wide, outputs = self.wide, []
        for i, block in enumerate(wide.blocks[number]):
            first = number == i == 0
            maps = self._through(nn.Sequential(wide.conv_stem, wide.bn1, block) if first else block, maps)
            outputs.append(maps)
        return outputs

    def _width(self, stage: nn.Module) -> int:
        last = stage[-1]
        return int((last.conv_pwl if hasattr(last, "conv_pwl") else last.conv_pw).weight.shape[0])

    def _directions(self, number: int, outputs: list[Tensor], *, width: int) -> tuple[Tensor, Tensor]:
        """The map from the wide stage's channels to the narrow one's, and the point it sends to zero."""
        moments = Moments()
        for output in outputs:
            for part in output.split(BATCH):
                moments.add(rows(part))
        blocks = self.wide.blocks
        readers = [folded(b.conv_pw, b.bn1)[0].flatten(1) for b in list(blocks[number])[1:]]
        if number + 1 < len(blocks):
            after = blocks[number + 1][0]
            readers.append(folded(after.conv_pw, after.bn1)[0].flatten(1))
        else:
            readers.append(folded(self.wide.conv_head, self.wide.bn2)[0].flatten(1))
        return directions(moments.covariance(), readers, width), moments.mean().float()

    def _reading(self, mine: Tensor, theirs: Tensor) -> tuple[Tensor, Tensor]:
        """How the wide stage's channels follow from the narrow one's: weight [C, c] and bias [C]."""
        moments, width = Moments(), mine.shape[1]
        for a, b in self._batches(mine, theirs):
            moments.add(torch.cat([rows(a), rows(b)], 1))
        return regression(moments, range(width), range(width, width + theirs.shape[1]))

    def _first(self, small: nn.Module, large: nn.Module, wanted: Tensor) -> Tensor:
        """The stem and the first, depthwise separable block."""
        wide, narrow = self.wide, self.narrow
        moments = Moments()
        for images, target in self._batches(self.images, wanted):
            hidden = large.bn1(large.conv_dw(wide.bn1(wide.conv_stem(images))))
            moments.add(torch.cat([rows(hidden), rows(target)], 1))
        count = wide.conv_stem.weight.shape[0]
        chosen = choose(moments, count, narrow.conv_stem.weight.shape[0])
        for conv, norm, of, of_norm in (
            (narrow.conv_stem, narrow.bn1, wide.conv_stem, wide.bn1),
            (small.conv_dw, small.bn1, large.conv_dw, large.bn1),
        ):
            weight, bias = folded(of, of_norm)
            set_layer(conv, norm, weight[chosen], bias[chosen])
        weight, bias = regression(moments, chosen, range(count, count + wanted.shape[1]))
        set_layer(small.conv_pw, small.bn2, weight, bias)
        return self._through(nn.Sequential(narrow.conv_stem, narrow.bn1, small), self.images)

    def _block(
        self, small: nn.Module, large: nn.Module, reading: tuple[Tensor, Tensor], mine: Tensor, wanted: Tensor
    ) -> Tensor:
        """An inverted residual block; `reading` gives the wide channels from the narrow ones that enter."""
        expand = _composed(folded(large.conv_pw, large.bn1), reading)
        spatial = folded(large.conv_dw, large.bn2)
        residual = bool(small.has_skip)

        def hidden(maps: Tensor) -> Tensor:
            inner = nn.functional.conv2d(maps, expand[0][:, :, None, None], expand[1]).clamp_(0, 6)
            return large.bn2(large.conv_dw(inner))

        moments, count = Moments(), len(expand[1])
        for maps, target in self._batches(mine, wanted):
            missing = target - maps if residual else target
            moments.add(torch.cat([rows(hidden(maps)), rows(missing)], 1))
        chosen = choose(moments, count, small.conv_pw.weight.shape[0])
        set_layer(small.conv_pw, small.bn1, expand[0][chosen], expand[1][chosen])
        set_layer(small.conv_dw, small.bn2, spatial[0][chosen], spatial[1][chosen])
        set_layer(
            small.conv_pwl, small.bn3, *regression(moments, chosen, range(count, count + wanted.shape[1]))
        )
        return self._through(small, mine)

    def _settle(self) -> None:
        """Give every BatchNorm the statistics of what it sees and undo them in its scale: nothing changes."""
        network = self.narrow
        norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
        seen: dict[nn.Module, Moments] = {}

        def note(norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            part = inputs[0].double()
            sums = seen.setdefault(norm, Moments())
            sums.count += part.numel() / part.shape[1]
            sums.first = sums.first + part.sum((0, 2, 3))
            sums.second = sums.second + part.square().sum((0, 2, 3))

        hooks = [norm.register_forward_pre_hook(note) for norm in norms]
        for part in self.images.split(BATCH):
            network.forward_features(part)
        for hook in hooks:
            hook.remove()
        for norm in norms:
            mean = seen[norm].mean()
            variance = torch.as_tensor(seen[norm].second) / seen[norm].count - mean.square()
            norm.running_mean.copy_(mean)
            norm.running_var.copy_(variance.clamp(min=1e-8))
            norm.weight.data.copy_((norm.running_var + norm.eps).sqrt())
            norm.bias.data.add_(norm.running_mean)


def _composed(layer: tuple[Tensor, Tensor], reading: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """The layer that does to what is read what a 1 x 1 `layer` does to what that stands for."""
    weight = layer[0].flatten(1)
    return weight @ reading[0], layer[1] + weight @ reading[1]


def inherit(wide: networks.Staged, architecture: str, images: Tensor) -> networks.Staged:
    """A narrower network that computes, as nearly as its width allows, what `wide` computes.

    Args:
        wide: of any width; it is not changed.
        architecture: timm's name of one of the same depth.
        images: float32 [n, 3, S, S], normalised, of the kind that both will see; a thousand are enough.
    """
    narrow = networks.build(architecture)
    Inheritance(wide, narrow, images).run()
    return narrow
