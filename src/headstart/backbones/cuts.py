"""Finds where a network can be cut: the places where one tensor alone carries everything on.

Everything here reads an OpenVINO graph and changes nothing. The graph has static shapes; its batch may be
any number, as every measure is for one image. A cut is a tensor through which every way from the image to the
output leads, a dominator of the output (https://doi.org/10.1145/357062.357071); weights, and what is computed
of weights or shapes alone, are on no such way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from math import isqrt, prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from headstart.backbones.openvino import cost_before
from headstart.errors import BackboneError, printable

MOST_STAGES = 9
"""Each stage is a depth to try and a layer to read. EfficientNets have nine: stem, seven blocks, last."""

Layout = Literal["NCHW", "NHWC", "NTC", "NC"]

_PRODUCTS = ("MatMul", "Convolution")

_AFTER_CLASSIFIER = frozenset(
    {
        *("Add", "Concat", "Convert", "Divide", "FakeQuantize", "Identity", "LogSoftmax", "Maximum"),
        *("Multiply", "NormalizeL2", "Power", "ReduceL2", "ReduceMean", "ReduceSum", "Reshape", "Sigmoid"),
        *("Softmax", "Sqrt", "Squeeze", "Subtract", "Transpose", "Unsqueeze"),
    }
)
"""What turns scores into an answer, or an embedding into one of length 1. Any other operation computes on."""

_IMAGENET_CLASSES = (1000, 1001, 21841, 21843)
"""Outputs of these widths are scores of ImageNet's classes, whatever computes them."""

_MUCH_MORE = 1.5  # times a stage's share of the arithmetic
_MOST_PREFIX_TOKENS = 16  # DINOv3 has five
_NO_LARGER = 1.1  # a class token beside 49 patches adds 2 %


@dataclass(frozen=True)
class Cut:
    """A tensor through which everything goes from the image to the output."""

    tensor: str  # a name that the graph gives it; empty where it has none
    layout: Layout  # of the tensor as it is; an `NC` may have further axes of length 1
    shape: tuple[int, ...]  # for one image as a stage has it: `(C, H, W)`, `(tokens, C)` or `(C,)`
    multiply_adds: int  # of everything that it needs
    parameters: int  # numbers of the weights that it needs
    prefix_tokens: int = 0  # tokens before those of the patches (class, distillation, registers)
    port: Any = field(default=None, repr=False, compare=False)  # OpenVINO's, in the graph that was read

    @property
    def channels(self) -> int:
        """``C``, wherever it stands in ``shape``."""
        return self.shape[-1] if self.layout == "NTC" else self.shape[0]

    @property
    def side(self) -> int:
        """Rows of the map, or of the square that the patches form; 0 where there are none."""
        if self.layout == "NTC":
            return isqrt(self.shape[0] - self.prefix_tokens)
        return self.shape[1] if len(self.shape) == 3 else 0

    @property
    def kind(self) -> str:
        """In words: a map, tokens with or without a class token, or a vector."""
        if self.layout == "NTC":
            return "tokens with a class token" if self.prefix_tokens else "tokens"
        return "map" if self.side else "vector"

    @property
    def pooling(self) -> str:
        """How one vector is made of it, in words; empty for a vector."""
        if self.layout == "NTC":
            return "class token" if self.prefix_tokens else "mean of the patches"
        return "mean of the map" if self.side else ""


@dataclass(frozen=True)
class Staging:
    """A network in ordered stages, without its classifier."""

    stages: tuple[Cut, ...]  # where each ends, input to output; at least one
    features: Cut  # what the last classifier reads, or the last cut; `Cut.pooling` makes a vector of it
    classifier: str  # the operation that reads it, by its name in the graph; empty where there is none

    @property
    def names(self) -> tuple[str, ...]:
        """``stem``, then ``block1`` and so on."""
        return ("stem", *(f"block{number}" for number in range(1, len(self.stages))))


def staging_of(model: Any, *, output: str | None = None, most: int = MOST_STAGES) -> Staging:
    """The stages and the features of an OpenVINO model.

    Where nothing but vectors can be cut, one stage is left: all up to the features.

    Args:
        model: One input that is an image, static shapes, batch first.
        output: The output to lead to, by name; None for the only one.
        most: How many stages there may be.

    Raises:
        BackboneError: see `cuts_of`; or nothing is computed of the image before the classifier.
    """
    cuts = cuts_of(model, output=output)
    features, classifier = features_of(model, cuts)
    if not features.multiply_adds:
        raise BackboneError("it computes no features: no weights stand in front of its classifier")
    cuts = cuts[: cuts.index(features) + 1]
    return Staging(stages_of(cuts, most=most) or (features,), features, classifier)


def cuts_of(model: Any, *, output: str | None = None) -> tuple[Cut, ...]:
    """Every cut behind the image, input to output, the output itself included.

    Left out are tensors of other forms than `Cut.layout` has, such as maps that are no square.

    Raises:
        BackboneError: there are several inputs, no such output or several, a shape is not static, or there is
            no cut at all.
    """
    if len(model.inputs) != 1 or model.inputs[0].get_partial_shape().is_dynamic:
        raise BackboneError("expected one input with a static shape, an image")
    batch = int(model.inputs[0].get_shape()[0])
    found: list[Cut] = []
    seen: set[str] = set()
    work = weights = 0
    for port in _dominators(model, _output(model, output)):
        more_work, more_weights = cost_before(port.get_node(), seen)
        work, weights = work + more_work, weights + more_weights
        if form := _form(model, port, batch=batch, before=found):
            layout, shape, prefix = form
            name = min(port.get_names(), key=lambda text: (len(text), text), default="")
            found.append(Cut(name, layout, shape, work // batch, weights, prefix, port))
    if not found:
        raise BackboneError("nowhere in the network one tensor alone carries everything on")
    return tuple(found)


def features_of(model: Any, cuts: Sequence[Cut]) -> tuple[Cut, str]:
    """What the last classifier reads, and its name; the last cut and an empty name where there is none.

    The classifier is the last product with weights on the only way to the output. It reads a vector, and what
    follows it turns scores into an answer; where more is computed of them (as by an activation), they were
    none. Scores of ImageNet's classes are known by their number, also where they were read off a map.

    Args:
        model: The graph that the cuts are of.
        cuts: As `cuts_of` gives them, or fewer.
    """
    last = cuts[-1]
    by_port = {_key(cut.port): cut for cut in cuts}
    behind: set[str] = set()
    for node, read in reversed(_way(model, last.port)) if last.layout == "NC" else ():
        if node.get_type_name() not in _PRODUCTS or len(read) != 1:
            behind.add(node.get_type_name())
            continue
        found = by_port.get(_key(read[0])) if _key(node.output(0)) in by_port else None
        answers = found and found.layout == "NC" and behind <= _AFTER_CLASSIFIER
        if found and (answers or last.channels in _IMAGENET_CLASSES):
            return found, str(node.get_friendly_name())
        break
    return last, ""


def stages_of(cuts: Sequence[Cut], *, most: int = MOST_STAGES) -> tuple[Cut, ...]:
    """Where stages end: the last cut of each image size, and further ones where most of the arithmetic is.

    Passed over is a cut that is wider than a later one: inverted bottlenecks widen their tensors in between.
    What costs nothing and makes the tensor no larger, as pooling or a norm does, belongs to the stage before
    it. Vectors end no stage.
    """
    usable = _narrow([cut for cut in cuts if cut.side > 1 and cut.multiply_adds])
    last_of_size = {_size(cut): cut for cut in usable}
    ends = {_with_free(end, usable).multiply_adds: _with_free(end, usable) for end in last_of_size.values()}
    found = joined([ends[work] for work in sorted(ends)], most=most)
    return _divided(found, usable, most=most)


def joined(ends: Sequence[Cut], *, most: int = MOST_STAGES) -> list[Cut]:
    """Where stages end when no more than ``most`` are left, each with about its share of the arithmetic.

    Neighbours that have the least arithmetic together become one stage; those of one image size first.
    """
    found = list(ends)
    while len(found) > most:
        works = [one + other for one, other in pairwise(_works(found))]
        alike = [place for place, (one, other) in enumerate(pairwise(found)) if _size(one) == _size(other)]
        del found[min(alike or range(len(works)), key=works.__getitem__)]
    return found


def _size(cut: Cut) -> tuple[bool, int]:
    """Of the image as it is there; tokens are apart from maps."""
    return cut.layout == "NTC", cut.side


def _narrow(cuts: Sequence[Cut]) -> list[Cut]:
    """Those with no more channels than any later one."""
    fewest, kept = cuts[-1].channels if cuts else 0, []
    for cut in reversed(cuts):
        if cut.channels <= fewest:
            kept.append(cut)
            fewest = cut.channels
    return kept[::-1]


def _with_free(end: Cut, cuts: Sequence[Cut]) -> Cut:
    """The last cut that takes no further arithmetic and is no larger."""
    most = _NO_LARGER * prod(end.shape)
    free = [cut for cut in cuts if cut.multiply_adds == end.multiply_adds and prod(cut.shape) <= most]
    return free[-1]


def _works(ends: Sequence[Cut]) -> list[int]:
    """Multiply-adds of each stage alone."""
    return [after - before for before, after in pairwise([0, *(end.multiply_adds for end in ends)])]


def _divided(ends: Sequence[Cut], cuts: Sequence[Cut], *, most: int) -> tuple[Cut, ...]:
    """Further ends, in equal shares of the arithmetic, while a stage has much more than its share."""
    works = _works(ends)
    inner = [_inside(end, work, cuts) for end, work in zip(ends, works, strict=True)]
    pieces = [1] * len(ends)
    while ends and sum(pieces) < most:
        shares = [
            work / count if count <= len(places) else 0.0
            for work, count, places in zip(works, pieces, inner, strict=True)
        ]
        if max(shares) < _MUCH_MORE * sum(works) / most:
            break
        pieces[shares.index(max(shares))] += 1
    found: list[Cut] = []
    for end, work, count, places in zip(ends, works, pieces, inner, strict=True):
        near = set()
        for piece in range(1, count):
            target = end.multiply_adds - work * piece / count
            near.add(min(places, key=lambda place: abs(place - target)))
        found += [*(places[place] for place in sorted(near)), end]
    return tuple(found)


def _inside(end: Cut, work: int, cuts: Sequence[Cut]) -> dict[int, Cut]:
    """By the work before them the cuts inside a stage, of its end's size; of equal ones the last."""
    start = end.multiply_adds - work
    return {
        cut.multiply_adds: cut
        for cut in cuts
        if _size(cut) == _size(end) and start < cut.multiply_adds < end.multiply_adds
    }


# --------------------------------------------------------------------------------------- the graph


def _output(model: Any, name: str | None) -> Any:
    """What an output is of: the port that the graph hands out."""
    found = [port for port in model.outputs if name is None or name in port.get_names()]
    if len(found) != 1:
        names = ", ".join(printable(min(port.get_names(), default="?")) for port in model.outputs)
        asked = "one output" if name is None else f"an output {printable(name)}"
        raise BackboneError(f"expected {asked}; the network has {names}")
    return found[0].get_node().input_value(0)


def _key(port: Any) -> tuple[str, int]:
    return port.get_node().get_name(), port.get_index()


def _way(model: Any, end: Any) -> list[tuple[Any, list[Any]]]:
    """The operations that an image goes through to a port, in order, each with the ports that it reads.

    Weights are not among what is read, nor are shapes, which say nothing of what is in the image.
    """
    reached: dict[str, tuple[Any, list[Any]]] = {}
    for node in model.get_ordered_ops():
        sources = [port.get_source_output() for port in node.inputs()]
        read = [source for source in sources if source.get_node().get_name() in reached]
        if node.get_type_name() == "Parameter" or (read and node.get_type_name() != "ShapeOf"):
            reached[node.get_name()] = node, read
    wanted, way = {end.get_node().get_name()}, []
    for name in reversed(reached):
        if name in wanted:
            way.append(reached[name])
            wanted.update(source.get_node().get_name() for source in reached[name][1])
    return way[::-1]


def _dominators(model: Any, end: Any) -> list[Any]:
    """The ports, in order, that all ways from the image to a port go through: as many as there are at all."""
    way = _way(model, end)
    into: dict[str, int] = {}  # how many ways lead from the image to an operation
    for node, read in way:
        into[node.get_name()] = sum(into[port.get_node().get_name()] for port in read) if read else 1
    on: dict[tuple[str, int], int] = {_key(end): 1}  # how many lead from a port to the end
    ordered: list[Any] = []
    for node, read in reversed(way):
        ports = [port for port in node.outputs() if _key(port) in on]
        ordered += reversed(ports)
        for port in read:
            on[_key(port)] = on.get(_key(port), 0) + sum(on[_key(own)] for own in ports)
    total = into.get(end.get_node().get_name(), 0)
    return [
        port
        for port in reversed(ordered)
        if total
        and port.get_node().get_type_name() != "Parameter"
        and into[port.get_node().get_name()] * on[_key(port)] == total
    ]


Form = tuple[Layout, tuple[int, ...], int]
"""How a tensor is laid out, its shape as of a stage, and its prefix tokens."""


def _form(model: Any, port: Any, *, batch: int, before: Sequence[Cut]) -> Form | None:
    if port.get_partial_shape().is_dynamic or list(port.get_shape())[:1] != [batch]:
        return None
    sizes = tuple(int(size) for size in port.get_shape())[1:]
    if len(sizes) == 2 and _is_turned(port):
        return None
    return form_of(sizes, before=before, changes=lambda: _changes_at(model, port))


def form_of(
    sizes: Sequence[int], *, before: Sequence[Cut], changes: Callable[[], NDArray[np.float32]]
) -> Form | None:
    """The form of a tensor of these sizes, without the batch's; None for what can be no stage's output.

    Args:
        sizes: Of one image's.
        before: The cuts that lead to it, as the sizes alone can leave two readings of tokens.
        changes: By how much each of its numbers changes with the upper left quarter of the image, as an array
            of these sizes; asked where all three sizes are equal.
    """
    wide = [size for size in sizes if size > 1]
    if sizes and len(sizes) <= 3 and len(wide) <= 1:
        return "NC", tuple(wide or [1]), 0
    if len(sizes) == 2:
        return "NTC", tuple(sizes), _prefix_tokens(sizes[0], before)
    if len(sizes) != 3:
        return None
    first, second, third = sizes
    if second == third and not (first == second and _is_rows_first(changes())):
        return "NCHW", tuple(sizes), 0
    return ("NHWC", (third, first, second), 0) if first == second else None


def _is_rows_first(changes: NDArray[np.float32]) -> bool:
    """Whether the first axis of a map is the image's rows and the last one its channels, by where it changes.

    A change in a corner of the image is one in a corner of the map, and in any channel.
    """
    first, last = changes.sum((1, 2)), changes.sum((0, 1))
    half = len(first) // 2
    return bool(first[:half].sum() > last[:half].sum())


def _changes_at(model: Any, port: Any) -> NDArray[np.float32]:
    """Of one image, how a tensor changes with the upper left quarter of it."""
    from openvino import Model

    from headstart.backbones.openvino import the_core

    shape = [int(size) for size in model.inputs[0].get_shape()]
    images = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    others, half = images.copy(), max(shape[1:]) // 2
    others[(slice(None), *(slice(size if size <= 4 else half) for size in shape[1:]))] *= -1
    compiled = the_core().compile_model(
        Model([port], model.get_parameters()), "CPU", {"INFERENCE_PRECISION_HINT": "f32"}
    )
    before, after = (np.array(compiled(each)[0][0], dtype=np.float32) for each in (images, others))
    changes: NDArray[np.float32] = np.abs(after - before)
    return changes


def _is_turned(port: Any) -> bool:
    """Whether all that reads a tensor transposes it: channels come before tokens, still."""
    readers = [reader.get_node().get_type_name() for reader in port.get_target_inputs()]
    return bool(readers) and set(readers) == {"Transpose"}


def _prefix_tokens(tokens: int, before: Sequence[Cut]) -> int:
    """How many tokens are more than the patches of the last map, or more than a square."""
    last = next((cut.side for cut in reversed(before) if len(cut.shape) == 3), 0)
    for side in (last, isqrt(tokens)):
        if side and 0 <= tokens - side**2 <= min(_MOST_PREFIX_TOKENS, 2 * side):
            return tokens - side**2
    return 0
