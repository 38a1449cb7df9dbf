"""Makes the PyTorch module of a backbone: timm's architecture with the weights of a file, or random ones."""

import sys
import warnings
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.backbones.backbone import Recipe
from headstart.errors import BackboneError, MissingExtra

if TYPE_CHECKING:
    from headstart.backbones.staged import StagedModule

_BUFFERS_MADE_ANEW = ("num_batches_tracked", "relative_position_index", "relative_coords_table", "attn_mask")
_KEYS_SHOWN = 3


def require_timm(feature: str) -> None:
    """Refuse early, naming the extra, where PyTorch or timm is missing.

    Raises:
        MissingExtra: One of them is not installed.
    """
    if find_spec("torch") is None or find_spec("timm") is None:
        raise MissingExtra(feature, extra="torch")


def build(recipe: Recipe, *, size: int, name: str) -> "StagedModule":
    """A new `StagedModule` in eval mode, with the recipe's weights in float32.

    Raises:
        MissingExtra: PyTorch or timm is not installed.
        BackboneError: The weights do not fit the architecture, or it cannot be made for this size or cut.
    """
    require_timm(f"PyTorch module of backbone {name}")
    from headstart.backbones.staged import StagedModule

    return StagedModule.of(make_model(recipe, size=size, name=name), architecture=recipe.architecture).eval()


def make_model(recipe: Recipe, *, size: int, name: str) -> Any:
    """The timm model of a recipe, without its classifier, in eval mode.

    Raises:
        BackboneError: As for `build`.
    """
    import timm
    import torch

    kwargs = timm_arguments(recipe, size=size)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(recipe.seed)
            model = timm.create_model(recipe.architecture, pretrained=False, **kwargs)
    except Exception as error:  # what timm raises for a bad size or argument depends on the architecture
        reason = _one_line(error)
        raise BackboneError(
            f"backbone {name}: timm cannot make {recipe.architecture} at {size} px: {reason}"
        ) from error
    if recipe.weights is not None:
        _load_weights(model, recipe.weights, architecture=recipe.architecture)
    return model.eval()


def timm_arguments(recipe: Recipe, *, size: int) -> dict[str, Any]:
    """What ``timm.create_model`` needs beside the architecture to make a recipe's network for a size."""
    import timm

    configuration = timm.get_pretrained_cfg(recipe.architecture)
    sized = configuration is not None and configuration.fixed_input_size
    return {**recipe.timm_kwargs, "num_classes": 0} | ({"img_size": size} if sized else {})


def read_checkpoint(path: Path) -> tuple[dict[str, Any], str | None]:
    """Tensors by name, and the architecture if the file names one, of a ``.safetensors`` or PyTorch file.

    PyTorch files are read with ``weights_only=True``: nothing in them is executed. Training checkpoints that
    wrap the weights (``state_dict``, ``model``, their averaged versions) are unwrapped.

    Raises:
        BackboneError: The file holds no named tensors.
    """
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        if path.suffix == ".safetensors":
            return load_file(path), None
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it cannot read it refuses; its doubts before that say less
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, SafetensorError) as error:
        raise BackboneError(f"{path}: no readable file of weights: {_one_line(error)}") from error
    except Exception as error:
        if type(error).__name__ != "UnpicklingError":
            raise
        raise BackboneError(
            f"{path}: holds more than weights, and running code from a file is refused; "
            f"save only the tensors: torch.save(model.state_dict(), PATH)"
        ) from error
    return _unwrap(content, path=path)


def _unwrap(content: Any, *, path: Path) -> tuple[dict[str, Any], str | None]:
    import torch

    architecture = None
    if isinstance(content, dict):
        named = content.get("architecture", content.get("arch"))
        architecture = named if isinstance(named, str) else None
        for key in ("state_dict_ema", "model_ema", "state_dict", "model"):
            if isinstance(content.get(key), dict):
                content = content[key]
                break
        weights = {
            str(key).removeprefix("module."): value
            for key, value in content.items()
            if isinstance(value, torch.Tensor)
        }
        if weights:
            return weights, architecture
    raise BackboneError(f"{path}: expected tensors by name (a state_dict), got {type(content).__name__}")


def _load_weights(model: Any, path: Path, *, architecture: str) -> None:
    import torch

    weights, _ = read_checkpoint(path)
    wanted: Mapping[str, torch.Tensor] = model.state_dict()
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
        f"{len(keys)} {what} ({', '.join(keys[:_KEYS_SHOWN])}{', …' if len(keys) > _KEYS_SHOWN else ''})"
        for what, keys in (("missing", missing), ("unexpected", extra), ("of another shape", unlike))
        if keys
    ]
    if faults:
        raise BackboneError(
            f"{path}: weights do not fit {architecture}: {'; '.join(faults)}; "
            f"name the architecture they were trained with"
        )
    model.load_state_dict({key: state[key] for key in wanted if key in state}, strict=False)


def _as_timm_would(state: dict[str, Any], model: Any) -> dict[str, Any]:
    """Rename original authors' keys and resample position embeddings, with timm's filter for the model."""
    adapt = getattr(sys.modules[type(model).__module__], "checkpoint_filter_fn", None)
    if adapt is None:
        return state
    try:
        adapted: dict[str, Any] = adapt(dict(state), model)
    except (KeyError, RuntimeError, ValueError, AttributeError, AssertionError):
        return state  # the comparison of keys that follows says what does not fit
    return adapted


def _one_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0][:200] if lines else type(error).__name__
