"""What timm knows of an architecture: that it exists, and what its images look like."""

import difflib
from typing import Any

from headstart.backbones.builtin import BUILTIN
from headstart.errors import BackboneError
from headstart.preprocess import Preprocess

_SUGGESTIONS = 3


def check_known(name: str) -> None:
    """Refuse a name that timm does not have, suggesting the nearest ones.

    Raises:
        BackboneError: With those suggestions.
    """
    import timm

    base = name.split(".")[0]
    if timm.is_model(base) and (base == name or name in timm.list_pretrained(f"{base}.*")):
        return
    wrong_tag = base != name and timm.is_model(base)
    known = timm.list_pretrained(f"{base}.*") if wrong_tag else [*BUILTIN, *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=_SUGGESTIONS, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `headstart backbones` lists what there is"
    raise BackboneError(f"unknown backbone {name!r}{hint}")


def published_preprocess(name: str) -> Preprocess:
    """What timm's published weights of that name were evaluated with.

    Raises:
        BackboneError: timm says nothing of it.
    """
    import timm
    from timm.data.config import resolve_data_config

    configuration: Any = timm.get_pretrained_cfg(name)
    if configuration is None:
        raise BackboneError(f"backbone {name}: timm does not say what its images look like")
    resolve: Any = resolve_data_config
    data = resolve({}, pretrained_cfg=configuration.to_dict(), verbose=False)
    return Preprocess(
        size=int(data["input_size"][-1]),
        crop_fraction=float(data["crop_pct"]),
        interpolation=str(data["interpolation"]),
        crop_mode=str(data["crop_mode"]),
        mean=tuple(data["mean"]),
        std=tuple(data["std"]),
    )
