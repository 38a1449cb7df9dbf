"""Compiles OpenVINO models, keeping what was compiled: loading that again takes a fraction of the time."""

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from headstart.backbones.openvino import openvino
from headstart.files import cache_folder, make, write_whole

_FORMAT = 3  # raised when models are built differently from the same identity
_MARK = b"headstart compiled 1\n"  # a file cut short by a power failure lacks its end
_MOST_BYTES = 1 << 30  # of all compiled models together; the ones used longest ago go first


def compile_cached(
    core: Any, settings: Mapping[str, Any], *, identity: Mapping[str, Any], make: Callable[[], Any]
) -> Any:
    """A compiled model, from the cache folder if this one was compiled on this processor before.

    Args:
        core: OpenVINO's.
        settings: For compiling on the CPU.
        identity: Everything that the model depends on, JSON-ready; version, processor and settings are added.
        make: Builds the model; not called where the cache has it.
    """
    facts = {
        **identity,
        "format": _FORMAT,
        "openvino": openvino().get_version(),
        "processor": core.get_property("CPU", "FULL_DEVICE_NAME"),
        "settings": dict(settings),
    }
    text = json.dumps(facts, sort_keys=True)
    path = cache_folder() / "compiled" / f"{hashlib.blake2b(text.encode(), digest_size=16).hexdigest()}.blob"
    compiled = _load(core, path, settings)
    if compiled is None:
        compiled = core.compile_model(make(), "CPU", settings)
        _save(compiled, path)
    return compiled


def _load(core: Any, path: Path, settings: Mapping[str, Any]) -> Any:
    try:
        content = path.read_bytes()
    except OSError:
        return None
    if not content.startswith(_MARK) or not content.endswith(_MARK):
        return None
    import io

    try:
        compiled = core.import_model(io.BytesIO(content[len(_MARK) : -len(_MARK)]), "CPU", settings)
        path.touch()
    except (RuntimeError, OSError):
        return None  # another build of OpenVINO, or a read-only cache: compiling anew is always right
    return compiled


def _save(compiled: Any, path: Path) -> None:
    try:
        content = _MARK + compiled.export_model().getvalue() + _MARK
        make(path.parent)
        write_whole(path, content)
        _prune(path.parent)
    except (RuntimeError, OSError):
        return  # a full or read-only disk costs the next start its head start, nothing else


def _prune(folder: Path) -> None:
    found = sorted(((file.stat().st_mtime_ns, file) for file in folder.glob("*.blob")), reverse=True)
    total = 0
    for place, (_, file) in enumerate(found):
        total += file.stat().st_size
        if place > 0 and total > _MOST_BYTES:
            file.unlink(missing_ok=True)
