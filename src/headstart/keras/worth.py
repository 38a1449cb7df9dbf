"""Decides whether caching a model's frozen part pays, and says why."""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from typing import Any

import keras

from headstart.backbones.keras.graph import functional_of
from headstart.errors import OptionError
from headstart.files import cache_folder
from headstart.keras.caching import Features
from headstart.keras.cutting import Cut, cut_model
from headstart.keras.execution import PROBE, check_inputs, made_up, without_surprises
from headstart.keras.inputs import flat_arrays, refuse_misfit, refuse_random, why_not_source

BACKWARD = 2
"""Multiply-adds of a trained layer's backward pass, in forward passes: for the inputs and for the weights."""

WORTH = 1.1
"""Predicted speed-up from which caching is taken."""

_LIGHT_TAIL = 0.05
"""Of the multiply-adds: what a tail may have at most for OpenVINO to be the better runtime."""

_MEMORY_SHARE = 0.4
"""Of the available memory, what features in memory may take (Keras holds a second copy)."""

_OWN_METHODS = (
    "train_step",
    "test_step",
    "compute_loss",
    "compute_metrics",
    "get_metrics_result",
    "reset_metrics",
    "fit",
    "evaluate",
    "make_train_function",
)
"""Methods that, written by the user, may look at the images."""


@dataclass(frozen=True, eq=False)
class Verdict:
    """``cut`` is None where ``model.fit`` is called instead."""

    cut: Cut | None
    reason: str
    runtime: str = ""  # "openvino" or "keras"


def speed_up(cut: Cut, *, epochs: int, cached: bool = False) -> float:
    """Predicted time of ``model.fit`` over ours, counting multiply-adds.

    Args:
        cut: the model, divided.
        epochs: passes over the data.
        cached: whether the features are there already.
    """
    prefix, whole = cut.multiply_adds
    tail = max(1, (whole - prefix) * (1 + BACKWARD))
    ours = epochs * tail + (0 if cached else prefix)
    return epochs * (prefix + tail) / ours


def wants_keras(cut: Cut) -> bool:
    """Whether Keras itself should compute the features, though OpenVINO is faster.

    A tail that is deep, or normalises by batch statistics, amplifies differences in the last digit from step
    to step; and it takes so long itself that a faster prefix would not be noticed. Keras's own features are
    the very numbers that ``model.fit`` would see.
    """
    prefix, whole = cut.multiply_adds
    layers = [call.operation for call in cut.tail.calls]
    statistics = any(
        isinstance(layer, keras.layers.BatchNormalization) and layer.trainable for layer in layers
    )
    return statistics or whole - prefix > _LIGHT_TAIL * whole


def judge(
    model: Any,
    settings: dict[str, Any],
    *,
    cache: bool | str,
    runtime: str,
    traced: Cut | str | None = None,
    again: bool = False,
) -> Verdict:
    """Whether, and where, to cut.

    Args:
        model: a built one.
        settings: of ``model.fit``.
        cache: as `headstart.keras.fit` takes it.
        runtime: likewise.
        traced: a cut that holds though the layers say something else, or why ``model.fit`` must go on.
        again: whether it is trained for one epoch as the last time: a loop of calls is epochs, too.

    Raises:
        OptionError: random augmentation stands in front of the frozen layers, or comes with the data; or
            ``runtime`` is unknown.
    """
    if cache is False:
        return Verdict(None, "cache=False")
    reason = traced if isinstance(traced, str) else cannot(model)
    if reason is not None:
        return Verdict(None, reason)
    cut = traced if isinstance(traced, Cut) else cut_model(model)
    arrays = flat_arrays(model, settings["x"])
    if cut.own_code:
        few = made_up(cut.prefix) if arrays is None else [array[:PROBE] for array in arrays]
        cut = without_surprises(cut, check_inputs(few, cut.prefix))
    if not cut.multiply_adds[0]:
        return Verdict(None, f"nothing is frozen that computes anything{_first_stop(cut)}")
    for source in (settings["x"], _validation_source(settings)):
        if source is not None and flat_arrays(model, source) is None:
            reason = why_not_source(source)
            if reason:
                return Verdict(None, reason)
            refuse_misfit(source, model=model, inputs=[cut.graph.specs[key] for key in cut.graph.inputs])
            refuse_random(source)
    return _pays(model, settings, cut, cache=cache, runtime=_settle(cut, runtime), again=again)


def _settle(cut: Cut, runtime: str) -> str:
    if runtime not in ("auto", "openvino", "keras"):
        raise OptionError(f"runtime: expected auto, openvino or keras; got {runtime!r}")
    if runtime == "auto":
        return "keras" if wants_keras(cut) else "openvino"
    return runtime


def _validation_source(settings: dict[str, Any]) -> Any:
    data = settings["validation_data"]
    return data[0] if isinstance(data, tuple | list) and data else data


def epochs_of(settings: dict[str, Any]) -> int:
    """How many epochs ``model.fit`` is asked for."""
    return int(settings["epochs"]) - int(settings["initial_epoch"])


def _pays(
    model: Any, settings: dict[str, Any], cut: Cut, *, cache: bool | str, runtime: str, again: bool
) -> Verdict:
    epochs = epochs_of(settings)
    arrays = flat_arrays(model, settings["x"])
    ratio = speed_up(cut, epochs=epochs)
    if epochs == 1 and arrays is not None and Features(cut, model.dtype_policy, runtime).missing(arrays) == 0:
        ratio = speed_up(cut, epochs=1, cached=True)
    if cache is not True and ratio < WORTH and not (again and speed_up(cut, epochs=2) >= WORTH):
        why = "one epoch reuses nothing" if epochs == 1 else f"predicted {ratio:.2f} times as fast"
        return Verdict(None, f"{why}{_first_stop(cut)}")
    size = cut.bytes_per_image
    if arrays is not None and size is not None:
        need, memory, disk = size * len(arrays[0]), _available_memory(), _free_disk()
        for room, share, what in ((memory, _MEMORY_SHARE, "memory"), (disk, 1.0, "free disk")):
            if need > share * room:
                return Verdict(
                    None, f"features of {need / 1e9:.1f} GB do not fit {room / 1e9:.1f} GB of {what}"
                )
    return Verdict(cut, f"predicted {ratio:.1f} times as fast", runtime)


def _first_stop(cut: Cut) -> str:
    return f" (the frozen part ends at '{cut.stops[0].layer}': {cut.stops[0].reason})" if cut.stops else ""


def cannot(model: Any) -> str | None:
    """Why a model cannot be divided at all; None if it can."""
    if functional_of(model) is None:
        kind = type(model).__name__
        if isinstance(model, keras.Sequential):
            return f"the {kind} model is not built yet (model.build((None, 96, 96, 3)), for instance)"
        return f"{kind} is neither a Functional nor a Sequential model, so its layers cannot be told apart"
    for name in _OWN_METHODS:
        owner = next((base for base in type(model).__mro__ if name in vars(base)), None)
        if name in vars(model) or (owner is not None and not owner.__module__.startswith("keras.")):
            return f"the model has its own {name}"
    if getattr(model, "_distribute_strategy", None) or keras.distribution.distribution() is not None:
        return "the model is distributed"
    return None


def _available_memory() -> int:
    """Bytes, or a cautious guess where the system does not say."""
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return 4 << 30


def _free_disk() -> int:
    folder = cache_folder()
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free
