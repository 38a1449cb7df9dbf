"""Cuts a PyTorch network into ordered stages, wherever one tensor alone carries everything on.

There is no list of families. The network's forward pass is recorded as a graph of its modules
(`headstart.backbones.recording`); its cuts are the tensors that everything behind them is made of, and
nothing else of the image (`headstart.backbones.cuts`). Stages end at the cuts between the network's own
blocks, of which neighbours are joined where there are many; where it has none, as
`headstart.backbones.cuts.stages_of` says. That the stages compute what the
network computes is checked by `headstart.backbones.exported`.
"""

import contextlib
import operator
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from math import isqrt
from typing import Any

import torch
from torch import fx, nn

from headstart.backbones.cuts import MOST_STAGES, Cut, Form, form_of, joined, stages_of
from headstart.backbones.recording import Recording, carries, matrices, record
from headstart.backbones.staged import StagedModule
from headstart.errors import BackboneError, reason_of

_FEWEST = 3
"""A network of fewer stages has no blocks of its own to go by."""


class ChannelsFirst(nn.Module):
    """Lets a channels-last stage speak ``[N, C, H, W]``, so that maps look alike in every family."""

    def __init__(self, inner: nn.Module, *, takes_map: bool = True, gives_map: bool = True) -> None:
        super().__init__()
        self.inner, self.takes_map, self.gives_map = inner, takes_map, gives_map

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Run the stage between two permutations."""
        x = self.inner(x.permute(0, 2, 3, 1) if self.takes_map else x)
        return x.permute(0, 3, 1, 2) if self.gives_map else x


def cut_into_stages(
    model: nn.Module, *, architecture: str, size: int, most: int = MOST_STAGES
) -> StagedModule:
    """Cut ``model`` (a timm model made with ``num_classes=0``) into stages, which take over its modules.

    Args:
        model: In eval mode.
        architecture: Its name, for messages.
        size: Pixels a side of its images.
        most: How many stages there may be.

    Raises:
        BackboneError: It cannot be followed, gives no vector of features, or has nowhere to cut.
    """
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(0)).repeat(2, 1, 1, 1)
    images[1, :, : size // 2, : size // 2] *= -1  # see `headstart.backbones.cuts.form_of`
    try:
        found = _Cutter(model, record(model, images))
        ends = found.ends()
        if len(ends) < _FEWEST:
            with contextlib.suppress(Exception):  # then it stays with what was found
                deeper = _Cutter(model, record(model, images, deeper=True))
                if len(more := deeper.ends()) > len(ends):
                    found, ends = deeper, more
        if not ends:
            return found.in_one_stage()
        blocks, ends = len(ends), joined(ends, most=most)
        parts = [found.part(start, end) for start, end in pairwise([None, *ends, None])]
    except Exception as error:  # what a network's code raises where it cannot be followed may be anything
        raise BackboneError(
            f"backbone {architecture!r}: cannot be cut into stages at {size} px: {reason_of(error)}"
        ) from error
    return StagedModule(
        zip(found.names(ends), parts[:-1], strict=True),
        parts[-1],
        prefix_tokens=[end.prefix_tokens for end in ends],
        places=[str(end.port.target) if end.port.op == "call_module" else "" for end in ends],
        blocks_joined=len(ends) < blocks,
    )


@dataclass(frozen=True)
class _Cutter:
    """A network with its recording; the port of a cut is a node of its graph."""

    model: nn.Module
    recording: Recording

    @cached_property
    def nodes(self) -> list[fx.Node]:
        """In the order in which they are computed; the last one but one is the features."""
        nodes = [*self.recording.graph.nodes]
        features = nodes[-1].args[0]
        if not isinstance(features, fx.Node) or self.recording.values[features].ndim != 2:
            raise BackboneError("it gives no vector of features for an image")
        return nodes[: nodes.index(features) + 1]

    @cached_property
    def positions(self) -> dict[fx.Node, int]:
        """Of each node."""
        return {node: position for position, node in enumerate(self.nodes)}

    # -------------------------------------------------------------------------------------- where

    @cached_property
    def cuts(self) -> tuple[Cut, ...]:
        """Every tensor that alone carries everything on, and is a map or tokens."""
        values, work = self.recording.values, self.recording.work
        carried = {node for node in self.recording.from_image if carries(values[node])}
        last_read = {each: place for place, node in enumerate(self.nodes) for each in node.all_input_nodes}
        alive = {self.nodes[0]}
        found: dict[fx.Node, Cut] = {}
        done = parameters = 0
        for place, node in enumerate(self.nodes[1:-1], start=1):
            module = self.called(node)
            done += 0 if module is None else work.get(str(node.target), 0)
            parameters += 0 if module is None else sum(weight.numel() for weight in module.parameters())
            alive = {each for each in alive | ({node} & carried) if last_read.get(each, -1) > place}
            if len(alive) != 1:
                continue
            (only,) = alive
            if (
                only not in found
                and only.op != "placeholder"
                and (form := self._form(only, before=[*found.values()]))
            ):
                layout, shape, prefix = form
                found[only] = Cut(only.name, layout, shape, done, parameters, prefix, only)
        return tuple(found.values())

    def _form(self, node: fx.Node, *, before: Sequence[Cut]) -> Form | None:
        value = self.recording.values[node]
        images = self.recording.values[self.nodes[0]]
        if not isinstance(value, torch.Tensor) or not value.is_floating_point() or len(value) != len(images):
            return None
        sizes = tuple(value.shape[1:])
        if len(sizes) == 3 and sizes[1:] == (1, 1):  # of an image so small that one cell is left
            return "NCHW", sizes, 0
        form = form_of(sizes, before=before, changes=lambda: (value[1] - value[0]).abs().numpy())
        if form is None or form[0] == "NC":
            return None
        layout, shape, prefix = form
        said = getattr(self.model, "num_prefix_tokens", 0)  # decides where other numbers leave a square, too
        if layout == "NTC" and 0 < said < shape[0] and isqrt(shape[0] - said) ** 2 == shape[0] - said:
            prefix = said
        return layout, shape, prefix

    def ends(self) -> list[Cut]:
        """Where stages end: the last cut before each next block."""
        blocks = [place for place, node in enumerate(self.nodes) if self._is_block(node)]
        found: list[Cut] = []
        for start, following in pairwise([-1, *blocks, len(self.nodes)]):
            inside = [cut for cut in self.cuts if start <= self.positions[cut.port] < following]
            if inside and any(self.matrices(node) for node in self.between(found[-1:], inside[-1])):
                found.append(inside[0] if following == len(self.nodes) else inside[-1])
        if len(found) < _FEWEST:
            found = [*stages_of(self.cuts)]
        return self._with_end(found) if found else []

    def _is_block(self, node: fx.Node) -> bool:
        """Whether it is a module with several matrices, or beside such ones of the same class."""
        count = self.matrices(node)
        return count > 1 or (count > 0 and self._kind(node) in self._block_kinds)

    @cached_property
    def _block_kinds(self) -> set[tuple[str, type]]:
        return {
            self._kind(node) for node in self.nodes if self.matrices(node) > 1 and "." in str(node.target)
        }

    def _kind(self, node: fx.Node) -> tuple[str, type]:
        return str(node.target).rpartition(".")[0], type(self.called(node))

    def _with_end(self, ends: list[Cut]) -> list[Cut]:
        """With what follows the last block before pooling: a stage of its own if it has convolutions."""
        *before, end = ends
        found = end
        by_node = {cut.port: cut for cut in self.cuts}
        for node in self.between([end], None):
            if any(word in str(node.target) for word in ("pool", "mean", "flatten")):
                break
            cut = by_node.get(node)
            if cut and cut.layout == end.layout == "NCHW" and cut.side == end.side:
                found = cut
        has_matrix = any(self.matrices(node) for node in self.between([end], found))
        return [*before, end, found] if has_matrix else [*before, found]

    def names(self, ends: Sequence[Cut]) -> list[str]:
        """``stem``, ``block1`` and so on, ``last``."""
        names = ["stem", *(f"block{number}" for number in range(1, len(ends)))]
        parts = [self.between([start], end) for start, end in pairwise(ends)]
        has_block = [any(map(self._is_block, part)) for part in parts]
        if any(has_block) and not has_block[-1]:
            names[-1] = "last"
        return names

    def called(self, node: fx.Node) -> nn.Module | None:
        """The module that a node calls, if it calls one."""
        return self.model.get_submodule(str(node.target)) if node.op == "call_module" else None

    def matrices(self, node: fx.Node) -> int:
        """How many weights of convolutions and matrix products it has."""
        module = self.called(node)
        return 0 if module is None else matrices(module)

    def between(self, start: Sequence[Cut], end: Cut | None) -> list[fx.Node]:
        """The nodes behind a cut (or the image) up to another (or the features)."""
        first = self.positions[start[0].port] + 1 if start else 1
        return self.nodes[first : None if end is None else self.positions[end.port] + 1]

    # --------------------------------------------------------------------------------------- what

    def in_one_stage(self) -> StagedModule:
        """All of a network in which no map and no tokens carry everything on: its features are the map."""
        width = self.recording.values[self.nodes[-1]].shape[1]
        stage = nn.Sequential(self.part(None, None), nn.Unflatten(1, (width, 1, 1)))
        return StagedModule([("stem", stage)], nn.Flatten(1), prefix_tokens=[0], places=[""])

    def part(self, start: Cut | None, end: Cut | None) -> nn.Module:
        """What the network computes from one cut (or the image) to the next (or the features)."""
        source = self.nodes[0] if start is None else start.port
        nodes = self.between([] if start is None else [start], end)
        module = self._chain(source, nodes) or self._graph(source, nodes)
        takes, gives = (cut is not None and cut.layout == "NHWC" for cut in (start, end))
        return ChannelsFirst(module, takes_map=takes, gives_map=gives) if takes or gives else module

    def _chain(self, source: fx.Node, nodes: Sequence[fx.Node]) -> nn.Module | None:
        """The modules themselves, where they are just called one after another."""
        for before, node in pairwise([source, *nodes]):
            if node.op != "call_module" or node.args != (before,) or node.kwargs:
                return None
        modules = [self.model.get_submodule(str(node.target)) for node in nodes]
        modules = [module for module in modules if type(module) is not nn.Identity]
        return modules[0] if len(modules) == 1 else nn.Sequential(*modules)

    def _graph(self, source: fx.Node, nodes: Iterable[fx.Node]) -> nn.Module:
        """A module that computes some of the nodes, with the network's own modules and weights."""
        recorded, graph = self.recording, fx.Graph()
        known: dict[fx.Node, Any] = {source: graph.placeholder("x")}

        def found(node: fx.Node) -> Any:
            """A node in the new graph; weights are copied into it, and numbers written out."""
            if node in known:
                return known[node]
            if node in recorded.from_image and carries(recorded.values[node]):
                raise BackboneError(f"what {node} computes is read behind a later cut")
            if node in recorded.from_image and node not in recorded.from_batch:
                return recorded.values[node]
            asked = [each for each in node.all_input_nodes if carries(recorded.values[each])]
            behind = any(each in recorded.from_image and each not in known for each in asked)
            known[node] = graph.node_copy(node, (lambda _: known[source]) if behind else found)
            return known[node]

        last = source
        for node in nodes:
            unread = node.target is operator.getitem and not node.users
            if node in recorded.from_image and carries(recorded.values[node]) and not unread:
                known[node] = graph.node_copy(node, found)
                last = node
        graph.output(known[last])
        return fx.GraphModule(self.model, graph)
