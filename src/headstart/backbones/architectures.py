"""What timm knows of an architecture: that it exists, and what its images look like."""

import difflib
from collections.abc import Mapping
from typing import Any

from headstart.backbones.builtin import BUILTIN
from headstart.errors import BackboneError, printable
from headstart.preprocess import Preprocess

_SUGGESTIONS = 3


def known_name(name: str) -> str:
    """The name that timm has today for a network, which is another one for what was renamed.

    Raises:
        BackboneError: timm has no such name; the nearest ones are suggested.
    """
    import timm

    name = _renamed().get(name, name)
    base = name.split(".")[0]
    if timm.is_model(base) and (base == name or name in timm.list_pretrained(f"{base}.*")):
        return name
    wrong_tag = base != name and timm.is_model(base)
    known = timm.list_pretrained(f"{base}.*") if wrong_tag else [*BUILTIN, *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=_SUGGESTIONS, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `headstart backbones` lists what there is"
    raise BackboneError(f"unknown backbone {printable(name[:80])!r}{hint}")


def _renamed() -> Mapping[str, str]:
    """Today's name by the old one."""
    from timm.models._registry import get_deprecated_models  # nothing public tells it

    names: Mapping[str, str | None] = get_deprecated_models()
    return {old: today for old, today in names.items() if today}


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
