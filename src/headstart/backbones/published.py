"""timm's names: that there is such a network, what its images look like, where its published weights are.

Weights come from the Hugging Face cache of this machine, or by a guarded download.
"""

import os
import threading
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.backbones import records
from headstart.backbones.backbone import Backbone
from headstart.backbones.building import Recipe, require_timm
from headstart.backbones.builtin import BUILTIN
from headstart.backbones.exported import Origin, digest, load_exported
from headstart.data.preprocess import Preprocess
from headstart.errors import BackboneError, MissingExtra, MissingWeights, printable, reason_of

_SUGGESTIONS = 3
_REACH_SECONDS = 3.0  # a hub that does not answer a HEAD request by then counts as absent
_FILES = ("model.safetensors", "pytorch_model.bin")  # timm's own order


def load_published(name: str, *, size: int | None) -> Backbone:
    """The network of a timm name with its published weights.

    Where they are is remembered, so that timm is imported for the first use only.
    """
    pointer = records.graphs_folder() / f"timm-{digest(name)}.json"
    known = records.read_record(pointer)
    if known is None or records.stamp(Path(known["weights"])) != known["stamp"]:
        require_timm(f"backbone {name!r} is not built in ({', '.join(BUILTIN)}); a timm name")
        found = _find_weights(known_name(name))
        known = {"weights": str(found), "stamp": records.stamp(found), "hash": records.hash_file(found)}
        records.write_record(pointer, known)
    weights = Path(known["weights"])

    def resolve() -> Origin:
        today = known_name(name)
        return Origin(Recipe(today, {}, weights), published_preprocess(today))

    identity = f"timm:{name}:{known['hash']}"
    return load_exported(name, identity=identity, size=size, resolve=resolve, weights=weights)


def known_name(name: str) -> str:
    """The name that timm has today for a network, which is another one for what was renamed.

    Raises:
        BackboneError: timm has no such name; the nearest ones are suggested.
    """
    import difflib

    import timm
    from timm.models._registry import get_deprecated_models  # nothing public tells what was renamed

    renamed: Mapping[str, str | None] = get_deprecated_models()
    name = renamed.get(name) or name
    base = name.split(".")[0]
    if timm.is_model(base) and (base == name or name in timm.list_pretrained(f"{base}.*")):
        return name
    wrong_tag = base != name and timm.is_model(base)
    known = timm.list_pretrained(f"{base}.*") if wrong_tag else [*BUILTIN, *timm.list_models()]
    near = difflib.get_close_matches(name, known, n=_SUGGESTIONS, cutoff=0.5)
    hint = f"; did you mean {' or '.join(near)}?" if near else "; `headstart backbones` lists what there is"
    raise BackboneError(f"unknown backbone {printable(name[:80])!r}{hint}")


def published_preprocess(name: str) -> Preprocess:
    """What timm's published weights of that name were evaluated with; BackboneError where it does not say."""
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


def _find_weights(name: str) -> Path:
    """The file of weights of a timm name, downloaded if need be and possible."""
    import timm
    from huggingface_hub import try_to_load_from_cache

    configuration = timm.get_pretrained_cfg(name)
    if configuration is None or not configuration.hf_hub_id:
        raise BackboneError(
            f"backbone {name}: timm publishes no weights for it; pass a local file, or train --scratch"
        )
    repository = str(configuration.hf_hub_id)
    files = (str(configuration.hf_hub_filename),) if configuration.hf_hub_filename else _FILES
    for file in files:
        cached = try_to_load_from_cache(repository, file)
        if isinstance(cached, str):
            return Path(cached)
    return download(name, repository=repository, files=files)


def hub_folder() -> Path:
    """Where the Hugging Face hub keeps downloads on this machine; it need not exist."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser() / below
    return Path.home() / ".cache" / "huggingface" / "hub"


def download(name: str, *, repository: str, files: tuple[str, ...]) -> Path:
    """The first of some files that a Hugging Face repository has, downloaded into the cache.

    Raises:
        MissingWeights: it has none of them, or the hub cannot be reached.
        MissingExtra: what downloads is not installed.
    """
    if find_spec("huggingface_hub") is None:
        raise MissingExtra(f"backbone {name}: it is not in {hub_folder()}, and downloading it", extra="hub")
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    reason = "the hub cannot be reached"
    if not constants.HF_HUB_OFFLINE and _reachable(constants.ENDPOINT):
        reason = "no such file"
        for file in files:
            try:
                return Path(hf_hub_download(repository, file, etag_timeout=_REACH_SECONDS))
            except (EntryNotFoundError, HfHubHTTPError, OSError) as error:
                if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                    continue
                reason = reason_of(error)
                break
    raise MissingWeights(
        f"backbone {name}: its weights are not on this machine and could not be fetched ({reason}); "
        f"three ways out: (1) where there is a network run `hf download {repository} {files[0]}` and copy "
        f"that machine's cache folder to {hub_folder()}, (2) give a local file of weights or of ONNX, "
        f"(3) take 'builtin', which needs no download"
    )


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all within `_REACH_SECONDS`, name resolution included.

    Asked in a thread that is left behind, because resolving a name cannot be given a time limit.
    """
    from urllib.error import HTTPError
    from urllib.request import Request, urlopen

    answers: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(endpoint, method="HEAD"), timeout=_REACH_SECONDS).close()
            answers.append(True)
        except HTTPError:
            answers.append(True)  # it answered, if only to object
        except (OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, name="headstart-hub-probe", daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS + 0.5)
    return bool(answers and answers[0])
