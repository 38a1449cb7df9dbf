"""Four shapes of comparison that answer the questions people have; each is a call that a lesson can make."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from headstart.backbones import load_backbone
from headstart.comparisons.training import compare, grid
from headstart.comparisons.values import Candidate, Comparison
from headstart.errors import OptionError


@dataclass(frozen=True)
class Network:
    """A backbone as a shape wants it: its name, and pixels a side where not its own."""

    backbone: str
    size: int | None = None


def pretrained_against_scratch(
    source: Any,
    *,
    network: Network | str = "builtin",
    images: Sequence[int | None] = (10, 30, 100, None),
    epochs: int | None = None,
    **options: Any,
) -> Comparison:
    """What are the pre-trained weights worth, with few images and with many?

    Args:
        source: what `fit` takes.
        network: frozen whole with a ridge head, against the same network from random weights.
        images: training images of each class; None for all.
        epochs: of the training from scratch.
        options: passed on to `compare`.
    """
    known = _network(network)
    candidates = grid(backbones=[known.backbone], size=known.size, scratch=True, images=images, epochs=epochs)
    return compare(source, candidates, **options)


def freeze_depth(
    source: Any,
    *,
    network: Network | str = "builtin",
    depths: Sequence[int | str] | None = None,
    epochs: int | None = None,
    **options: Any,
) -> Comparison:
    """How much should be frozen?

    Args:
        source: what `fit` takes.
        network: the pre-trained backbone.
        depths: what to freeze; None for everything, three quarters, half and nothing.
        epochs: of the thawed stages.
        options: passed on to `compare`.
    """
    known = _network(network)
    if depths is None:
        stages = len(load_backbone(known.backbone, size=known.size).stages)
        depths = tuple(dict.fromkeys((stages, round(0.75 * stages), round(0.5 * stages), 0)))
    candidates = grid(backbones=[known.backbone], size=known.size, depths=depths, epochs=epochs)
    return compare(source, candidates, **options)


def model_choice(
    source: Any,
    *,
    small: Network | str = "builtin",
    large: Network | str | None = None,
    shallow: Network | str | None = None,
    epochs: int | None = None,
    **options: Any,
) -> Comparison:
    """Which kind of model: small or very large pre-trained, small or shallower without pre-training?

    Args:
        source: what `fit` takes.
        small: a small efficient backbone; it takes part pre-trained and from scratch.
        large: a very large pre-trained one; None leaves it out.
        shallow: a shallower one, from scratch; None leaves it out.
        epochs: of the trainings from scratch.
        options: passed on to `compare`.
    """
    first = _network(small)
    pretrained, scratch = grid(backbones=[first.backbone], size=first.size, scratch=True, epochs=epochs)
    candidates = [
        replace(pretrained, label="small, pre-trained"),
        replace(scratch, label="small, from scratch"),
    ]
    if large is not None:
        candidates.append(replace(_frozen(_network(large)), label="large, pre-trained"))
    if shallow is not None:
        known = _network(shallow)
        basis = replace(_frozen(known), depth=0, taps="last", pretrained=False, epochs=epochs)
        candidates.append(replace(basis, label="shallower, from scratch"))
    return compare(source, candidates, **options)


def fast_against_accurate(
    source: Any, *, fast: Network | str, accurate: Network | str, **options: Any
) -> Comparison:
    """Is the slower model worth its extra accuracy? Both are frozen whole.

    Args:
        source: what `fit` takes.
        fast: a backbone; `Network("builtin", 64)` is the built-in one on small images.
        accurate: a slower one.
        options: passed on to `compare`.

    Raises:
        OptionError: the two are the same.
    """
    candidates = (_frozen(_network(fast)), _frozen(_network(accurate)))
    if candidates[0] == candidates[1]:
        raise OptionError(f"fast and accurate are both {candidates[0].name}; give two different ones")
    return compare(source, candidates, **options)


def _frozen(network: Network) -> Candidate:
    return grid(backbones=[network.backbone], size=network.size)[0]


def _network(given: Network | str) -> Network:
    return Network(given) if isinstance(given, str) else given
