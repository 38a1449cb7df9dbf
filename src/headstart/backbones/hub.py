"""Finds the published weights of a timm name: in the Hugging Face cache, or by a guarded download."""

import os
import threading
from pathlib import Path

from headstart.errors import BackboneError, MissingWeights

_REACH_SECONDS = 3.0  # a hub that does not answer a HEAD request by then counts as absent
_FILES = ("model.safetensors", "pytorch_model.bin")  # timm's own order


def find_weights(name: str) -> Path:
    """The file of weights of a timm name, downloaded if need be and possible.

    Raises:
        BackboneError: timm knows no published weights for the name.
        MissingWeights: They are not on this machine and the hub cannot be reached.
    """
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
    return _download(name, repository=repository, files=files)


def cache_folder() -> Path:
    """Where the Hugging Face hub keeps downloads on this machine; it need not exist."""
    for variable, below in (("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")):
        if os.environ.get(variable):
            return Path(os.environ[variable]).expanduser() / below
    return Path.home() / ".cache" / "huggingface" / "hub"


def _download(name: str, *, repository: str, files: tuple[str, ...]) -> Path:
    from huggingface_hub import constants, hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    if constants.HF_HUB_OFFLINE or not _reachable(constants.ENDPOINT):
        raise _missing(name, repository=repository, file=files[0])
    reason = "no such file"
    for file in files:
        try:
            return Path(hf_hub_download(repository, file, etag_timeout=_REACH_SECONDS))
        except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
            if isinstance(error, EntryNotFoundError) and not isinstance(error, LocalEntryNotFoundError):
                continue
            reason = str(error).splitlines()[0]
            break
        except EntryNotFoundError:
            continue
    raise _missing(name, repository=repository, file=files[0], reason=reason)


def _missing(
    name: str, *, repository: str, file: str, reason: str = "the hub cannot be reached"
) -> MissingWeights:
    return MissingWeights(
        f"backbone {name}: its weights are not on this machine and could not be fetched ({reason}); "
        f"three ways out: (1) where there is a network run `hf download {repository} {file}` and copy that "
        f"machine's cache folder to {cache_folder()}, (2) give a local .safetensors or .pth file, "
        f"(3) take 'builtin', which needs no download"
    )


def _reachable(endpoint: str) -> bool:
    """Whether the hub answers at all within `_REACH_SECONDS`, name resolution included.

    Asked in a thread that is left behind, because resolving a name cannot be given a time limit.
    """
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    answers: list[bool] = []

    def ask() -> None:
        try:
            urlopen(Request(endpoint, method="HEAD"), timeout=_REACH_SECONDS).close()
            answers.append(True)
        except HTTPError:
            answers.append(True)  # it answered, if only to object
        except (URLError, OSError, ValueError):
            answers.append(False)

    thread = threading.Thread(target=ask, name="headstart-hub-probe", daemon=True)
    thread.start()
    thread.join(_REACH_SECONDS + 0.5)
    return bool(answers and answers[0])
