"""Makes the PyTorch module of a backbone: timm's architecture with the weights of a file, or random ones."""

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.checkpoints import read_checkpoint, without_prefix
from headstart.backbones.cuts import MOST_STAGES
from headstart.errors import BackboneError, MissingExtra, printable, reason_of

if TYPE_CHECKING:
    from headstart.backbones.staged import StagedModule

_BUFFERS_MADE_ANEW = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask")
_KEYS_SHOWN = 3

_TIMES_THE_WEIGHTS, _SMALL = 4, 2**22
"""How many times the numbers of its file a network may have before it is made, and how many any may."""


@dataclass(frozen=True)
class Recipe:
    """How the PyTorch module of a backbone is made."""

    architecture: str  # a name that `timm.create_model` knows
    timm_kwargs: Mapping[str, Any]
    """What else `create_model` needs to make the module that the weights belong to."""
    weights: Path | None  # the file of weights, or None for random ones
    seed: int = 0  # for the random ones
    most_stages: int = MOST_STAGES  # that it may be cut into


def has_timm() -> bool:
    """Whether networks can be made and trained here: PyTorch and timm are installed."""
    return find_spec("torch") is not None and find_spec("timm") is not None


def require_timm(feature: str) -> None:
    """Refuse early, naming the extra, where PyTorch or timm is missing.

    Raises:
        MissingExtra: One of them is not installed.
    """
    if not has_timm():
        raise MissingExtra(feature, extra="torch")


def build(recipe: Recipe, *, size: int, name: str) -> "StagedModule":
    """A new `StagedModule` in eval mode, with the recipe's weights in float32."""
    require_timm(f"PyTorch module of backbone {name}")
    return staged_model(make_model(recipe, size=size, name=name), recipe, size=size)


def staged_model(model: Any, recipe: Recipe, *, size: int) -> "StagedModule":
    """A recipe's model (see `make_model`) in stages, which take over its modules."""
    from headstart.backbones.cutting import cut_into_stages

    most = recipe.most_stages
    return cut_into_stages(model, architecture=recipe.architecture, size=size, most=most).eval()


def make_model(recipe: Recipe, *, size: int, name: str) -> Any:
    """The timm model of a recipe, without its classifier, in eval mode."""
    import timm
    import torch

    kwargs = timm_arguments(recipe, size=size)
    weights = None if recipe.weights is None else read_checkpoint(recipe.weights)[0]
    try:
        if weights is not None:
            _refuse_larger(recipe, kwargs, weights)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = timm.create_model(recipe.architecture, pretrained=False, **kwargs)
    except BackboneError:
        raise
    except Exception as error:  # what timm raises for a bad size or argument depends on the architecture
        reason = reason_of(error)
        raise BackboneError(
            f"backbone {name}: timm cannot make {recipe.architecture} at {size} px: {reason}"
        ) from error
    if weights is not None and recipe.weights is not None:
        _load_weights(model, weights, path=recipe.weights, architecture=recipe.architecture)
    return model.eval()


def _refuse_larger(recipe: Recipe, kwargs: Mapping[str, Any], weights: Mapping[str, Any]) -> None:
    """Refuse a file that asks for a network far larger than its weights, before that takes any memory."""
    import timm
    import torch

    with torch.device("meta"):
        model = timm.create_model(recipe.architecture, pretrained=False, **kwargs)
    asked = sum(parameter.numel() for parameter in model.parameters())
    there = sum(value.numel() for value in weights.values())
    if asked > _TIMES_THE_WEIGHTS * there + _SMALL:
        raise BackboneError(
            f"{printable(recipe.weights or '')}: weights do not fit {recipe.architecture}: "
            f"{there:,} numbers for a network of {asked:,}; name the architecture they were trained with"
        )


def timm_arguments(recipe: Recipe, *, size: int) -> dict[str, Any]:
    """What ``timm.create_model`` needs beside the architecture to make a recipe's network for a size."""
    import timm

    configuration = timm.get_pretrained_cfg(recipe.architecture)
    sized = configuration is not None and configuration.fixed_input_size
    return {**recipe.timm_kwargs, "num_classes": 0} | ({"img_size": size} if sized else {})


def _load_weights(model: Any, weights: Mapping[str, Any], *, path: Path, architecture: str) -> None:
    import torch

    wanted: Mapping[str, torch.Tensor] = model.state_dict()
    try:
        weights = without_prefix(weights, wanted)
    except BackboneError as error:
        raise BackboneError(f"{printable(path)}: {error}") from None
    classifiers = model.pretrained_cfg.get("classifier") or ()
    heads = (classifiers,) if isinstance(classifiers, str) else tuple(classifiers)
    state = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
        if not key.startswith(tuple(f"{head}." for head in heads))
    }
    if any(key not in state or state[key].shape != value.shape for key, value in wanted.items()):
        state = _as_timm_would(state, model)
    missing = [key for key in wanted if key not in state and not key.endswith(_BUFFERS_MADE_ANEW)]
    extra = [key for key in state if key not in wanted and not key.endswith(_BUFFERS_MADE_ANEW)]
    unlike = [
        f"{key} {tuple(state[key].shape)} instead of {tuple(wanted[key].shape)}"
        for key in wanted
        if key in state and state[key].shape != wanted[key].shape
    ]
    faults = [
        f"{len(keys)} {what} ({printable(', '.join(keys[:_KEYS_SHOWN]))}"
        f"{', …' if len(keys) > _KEYS_SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", extra), ("of another shape", unlike))
        if keys
    ]
    if faults:
        raise BackboneError(
            f"{printable(path)}: weights do not fit {architecture}: {'; '.join(faults)}; "
            f"name the architecture they were trained with"
        )
    model.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def _as_timm_would(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Rename original authors' keys and resample position embeddings, with timm's filter for the model.

    EfficientNet-PyTorch's keys are not among those that timm knows; its layers are the same, in timm's order.
    """
    if "_conv_stem.weight" in state:
        own = [value for key, value in state.items() if not key.startswith("_fc.")]
        wanted = model.state_dict()
        return dict(zip(wanted, own, strict=True)) if len(own) == len(wanted) else state
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        adapted: dict[str, Any] = adapt(dict(state), model)
    except (KeyError, RuntimeError, ValueError, AttributeError, AssertionError):
        return state  # the comparison of keys that follows says what does not fit
    return adapted
