"""What the student is asked to match, through adapters that are thrown away afterwards.

Deep hints (FitNets, Romero et al. 2015): the student's intermediate maps, through 1 x 1 convolutions, against
the teacher's, each channel standardised so that no channel and no stage dominates. Beside them the pooled
vector and the class distribution (Hinton et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class LossWeights:
    """How much each term counts; the terms are all of order one at the start."""

    hints: tuple[float, ...] = (0.3, 0.3, 0.3, 0.3, 0.3)  # one per map in networks.HINTS
    last_map: float = 0.5
    pooled: float = 0.5
    classes: float = 0.5  # Kullback-Leibler divergence of the class distributions
    temperature: float = 2.0
    labels: float = 0.0  # cross-entropy with the data set's own labels


@dataclass(frozen=True)
class Answers:
    """What a network says about n images: maps at the hints, the last map, the pooled vector."""

    maps: list[Tensor]
    last_map: Tensor
    pooled: Tensor


def answers(maps: list[Tensor], last_map: Tensor) -> Answers:
    """Complete a network's maps by the pooled vector."""
    return Answers(maps, last_map, last_map.mean(dim=(2, 3)))


def to_grid(larger: Tensor, smaller: Tensor) -> tuple[Tensor, Tensor]:
    """Average whichever of two maps is finer down to the other's grid."""
    side = min(larger.shape[-1], smaller.shape[-1])
    return tuple(m if m.shape[-1] == side else F.adaptive_avg_pool2d(m, side) for m in (larger, smaller))  # type: ignore[return-value]


class Objective(nn.Module):
    """The distillation loss and its adapters.

    The teacher's mean and spread per channel, and the adapters' start, come from `prepare` on some first
    answers: least squares is a better start than noise, and spares the student the gradients of bad adapters.
    """

    def __init__(
        self,
        student_widths: list[int],
        teacher_widths: list[int],
        *,
        classifier: tuple[Tensor, Tensor],
        weights: LossWeights,
        labels: int,
    ) -> None:
        """Widths: channels of the maps, then of the pooled vector; labels: how many classes the data has."""
        super().__init__()
        self.weights = weights
        self.adapters = nn.ModuleList(
            nn.Conv2d(s, t, 1) for s, t in zip(student_widths, teacher_widths, strict=True)
        )
        self.to_pooled = nn.Linear(student_widths[-1], teacher_widths[-1])
        self.to_labels = nn.Linear(student_widths[-1], labels)
        self.register_buffer("class_weight", classifier[0])
        self.register_buffer("class_bias", classifier[1])
        for i, width in enumerate([*teacher_widths, teacher_widths[-1]]):
            self.register_buffer(f"mean{i}", torch.zeros(width))
            self.register_buffer(f"spread{i}", torch.ones(width))

    def _standard(self, i: int, teacher: Tensor) -> Tensor:
        shape = (1, -1, 1, 1) if teacher.ndim == 4 else (1, -1)
        return (teacher - self.get_buffer(f"mean{i}").view(shape)) / self.get_buffer(f"spread{i}").view(shape)

    @torch.no_grad()
    def prepare(self, student: Answers, teacher: Answers) -> None:
        """Set the teacher's statistics and start every adapter at its least-squares solution."""
        pairs = list(zip([*student.maps, student.last_map], [*teacher.maps, teacher.last_map], strict=True))
        for i, (mine, theirs) in enumerate(pairs):
            mine, theirs = to_grid(mine, theirs)
            adapter = self.adapters[i]
            x, y = (m.permute(0, 2, 3, 1).flatten(0, 2) for m in (mine, theirs))
            weight, bias = self._least_squares(i, x, y)
            adapter.weight.copy_(weight.view_as(adapter.weight))
            adapter.bias.copy_(bias)
        weight, bias = self._least_squares(len(pairs), student.pooled, teacher.pooled)
        self.to_pooled.weight.copy_(weight)
        self.to_pooled.bias.copy_(bias)

    def _least_squares(self, i: int, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Ridge regression of the standardised y [n, t] on x [n, s]; weight [t, s] and bias [t]."""
        self.get_buffer(f"mean{i}").copy_(y.mean(0))
        dead = 0.05 * y.std()  # keeps a channel that hardly varies from being blown up to the others' size
        self.get_buffer(f"spread{i}").copy_(y.std(0) + dead)
        y = self._standard(i, y)
        x, y = x.double(), y.double()
        centre, spread = x.mean(0), x.std(0) + 1e-3
        z = (x - centre) / spread
        gram = z.T @ z + 0.3 * len(z) * torch.eye(z.shape[1], dtype=z.dtype, device=z.device)
        weight = torch.linalg.solve(gram, z.T @ (y - y.mean(0))).T / spread
        return weight.float(), (y.mean(0) - weight @ centre).float()

    def forward(
        self, student: Answers, teacher: Answers, labels: Tensor | None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss and its terms, each a scalar; `labels` are int64 [n], read where they have a weight."""
        weights, terms = self.weights, {}
        pairs = zip([*student.maps, student.last_map], [*teacher.maps, teacher.last_map], strict=True)
        total = student.pooled.new_zeros(())
        for i, (mine, theirs) in enumerate(pairs):
            mine, theirs = to_grid(mine, theirs)
            last = i == len(weights.hints)
            term = F.mse_loss(self.adapters[i](mine), self._standard(i, theirs))
            terms["last_map" if last else f"hint{i}"] = term
            total = total + (weights.last_map if last else weights.hints[i]) * term
        index = len(weights.hints) + 1
        guess = self.to_pooled(student.pooled)
        terms["pooled"] = F.mse_loss(guess, self._standard(index, teacher.pooled))
        logits = F.linear(
            guess * self.get_buffer(f"spread{index}") + self.get_buffer(f"mean{index}"),
            self.class_weight,
            self.class_bias,
        )
        expected = F.linear(teacher.pooled, self.class_weight, self.class_bias)
        t = weights.temperature
        terms["classes"] = F.kl_div(
            F.log_softmax(logits / t, 1),
            F.log_softmax(expected / t, 1),
            log_target=True,
            reduction="batchmean",
        )
        total = total + weights.pooled * terms["pooled"] + weights.classes * terms["classes"]
        if weights.labels and labels is not None:
            terms["labels"] = F.cross_entropy(self.to_labels(student.pooled), labels, label_smoothing=0.1)
            total = total + weights.labels * terms["labels"]
        return total, terms
