"""Measured seconds of finished phases, over what the formulas give: what a recorder keeps as timings."""

from dataclasses import replace

from headstart.backbones import Backbone
from headstart.costs.formulas import (
    ImageCounts,
    check_step,
    closing_steps,
    data_key,
    decode_base,
    frozen_base,
    hit_base,
    network_key,
    open_step,
    pass_key,
    training_steps,
)
from headstart.costs.timings import Timings
from headstart.features import CacheUse, FeatureSpec
from headstart.runs import FitConfig
from headstart.runs.callbacks import Phase, PhaseTimer
from headstart.runs.store import Timing

_FEWEST_IMAGES = 64
"""A pass over fewer images says more about filling the pipeline than about its speed."""

_LEAST_SHARE = 0.1
"""What is left for the network once decoding is taken off must be at least this share of the pass."""


def of_features(
    phase: Phase,
    use: CacheUse,
    *,
    config: FitConfig,
    backbone: Backbone,
    images: int,
    spec: FeatureSpec,
    timings: Timings,
) -> list[Timing]:
    """From one pass over so many images; nothing where cached and computed features cannot be told apart."""
    if phase.ended is None:
        return []
    seconds, views = phase.ended - phase.begun, len(spec.views)
    data = data_key(config, backbone)
    if not use.misses:
        return [Timing("hit", data, seconds / (0.01 + hit_base(views=views) * images))]
    computed = images - use.hits / views
    if phase.first is None or use.hits > use.misses / 10 or computed < _FEWEST_IMAGES:
        return []
    opened = phase.first[0] - phase.begun
    each = (seconds - opened) / max(1, images - phase.first[1])
    decoding, running = decode_base(backbone, views=views), frozen_base(config, backbone, spec)
    found = [Timing("pass", pass_key(config, backbone, spec), each / (decoding + running))]
    if not running:
        return [*found, Timing("decode", data, each / decoding)]
    network = network_key(config, backbone, spec)
    opening = open_step(network, timings)
    usual, _ = timings.scale("decode", data, spread=0.0)
    own = max(each - usual * decoding, _LEAST_SHARE * each)  # the network's share, for other images
    return [
        *found,
        Timing(opening.name, opening.key, opened / opening.base),
        Timing("prefix", network, own / running),
    ]


def of_check(phase: Phase, counts: ImageCounts) -> list[Timing]:
    """From drawing the splits and looking for problems."""
    step = check_step(counts)
    return (
        [] if phase.ended is None else [Timing(step.name, step.key, (phase.ended - phase.begun) / step.base)]
    )


def of_training(
    timer: PhaseTimer, *, config: FitConfig, backbone: Backbone, counts: ImageCounts, spec: FeatureSpec
) -> list[Timing]:
    """From one training that has just ended."""
    phase = timer.phases["train"]
    if phase.ended is None:
        return []
    seconds = phase.ended - phase.begun
    epochs = timer.phases.get("epochs")
    if config.head == "softmax" and not config.fine_tuned and epochs and epochs.last:
        config = replace(config, epochs=epochs.last[1])  # an early stop is no fast head
    parts = {step.name: step for step in training_steps(config, backbone, counts, spec=spec)}
    if not config.fine_tuned:
        return [Timing(step.name, step.key, seconds / step.base) for step in parts.values()]
    if epochs is None or epochs.first is None or epochs.last is None:
        return []
    (first, first_epoch), (last, last_epoch) = epochs.first, epochs.last
    if last_epoch == first_epoch:
        return []
    each = (last - first) / (last_epoch - first_epoch)
    step, start = parts["epoch"], parts["torch"]
    # An early stop is no slowness: what came before the first epoch is the rest.
    before = max(seconds - each * (last_epoch - first_epoch + 1), 0.05)
    return [
        Timing("epoch", step.key, each * (config.epochs or 1) / step.base),
        Timing("torch", start.key, before / start.base),
    ]


def of_closing(
    seconds: dict[str, float],
    *,
    config: FitConfig,
    backbone: Backbone,
    counts: ImageCounts,
    spec: FeatureSpec,
) -> list[Timing]:
    """From evaluating and saving."""
    found = closing_steps(config, backbone, counts, spec=spec)
    return [
        Timing(each.name, each.key, seconds[each.phase] / each.base)
        for each in found
        if each.phase in seconds
    ]
