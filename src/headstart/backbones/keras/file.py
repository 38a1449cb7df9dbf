"""Backbones from a `.keras` file: what it is, from its own configuration; Keras itself opens it once.

A `.keras` file can ask Keras to run code that came with it. Nothing of the kind is opened: its configuration
is read first, as data, and whatever is not Keras's own is refused by name.
"""

import contextlib
import hashlib
import os
import re
import zipfile
import zlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.backbones.exported import CUT_SO, from_record
from headstart.backbones.keras.pixels import objects_in, pixels_of
from headstart.errors import BackboneError, MissingExtra, printable
from headstart.files import HEADROOM, Unreadable, open_regular, parse_json
from headstart.files.descriptors import standard_error_without

SUFFIX = ".keras"
SUFFIXES = (SUFFIX, ".h5", ".hdf5")
"""Files that Keras writes; the older ones are recognised to say what to do with them."""

_CHUNK_BYTES = 1 << 20

_TIMES_THE_FILE = 4
"""How much larger a file's contents may be than the file, which Keras does not compress."""

_LARGEST_CONFIG = 16 << 20
"""Bytes; the largest of Keras's applications has one of half a megabyte."""

_DEEPEST_CONFIG = 128
"""Levels; a layer in a model in a model lies at sixteen."""

_LOG_LEVEL, _ERRORS_ONLY = "TF_CPP_MIN_LOG_LEVEL", "2"
"""How much TensorFlow logs, and the level from which only errors are left (2, as warnings are 1)."""

_INFORMATION = re.compile(
    rb"I\d{4} \d\d:\d\d:|\d{4}-\d\d-\d\d [\d:.]+: I |WARNING: All log messages before absl::"
)
"""How a line of information of TensorFlow's begins (month and day, or the date), and the line that announces
that they come unasked."""

_PUBLIC = (
    *("activations", "constraints", "initializers", "layers", "losses"),
    *("metrics", "models", "ops", "optimizers"),
)

_KERAS = (
    *(f"keras.{room}." for room in _PUBLIC),
    *(f"keras.src.{room}." for room in ("activations", "applications", "layers", "models", "ops")),
    "keras.regularizers.",
)
"""Where Keras keeps what networks are made of."""

_KERAS_ITSELF = ("DTypePolicy", "DTypePolicyMap", "Functional", "Model", "Sequential", "Variable")
"""And what it keeps at its top."""


def load_keras_file(path: Path, *, size: int | None, asked: str | None) -> Backbone:
    """The backbone of a saved Keras model, its classification head left out.

    Args:
        path: A `.keras` file.
        size: Pixels a side; None for what the model is built for.
        asked: What its pixels are, where the file does not say: a family of Keras's applications
            (``mobilenet_v2``), or see `headstart.backbones.pixels.asked_pixels`.

    Raises:
        MissingExtra: Keras is not installed.
        BackboneError: The file is missing or unusable, brings code of its own, is no image network, or
            nothing says what its pixels are.
    """
    if path.suffix != SUFFIX:
        raise BackboneError(
            f"backbone {path}: the older HDF5 format can hold code and is not opened; open it where it was "
            f"made and write model.save('{path.stem}{SUFFIX}')"
        )
    config, content_hash = _read(path)
    _refuse_code(config, path=path)
    pixels = pixels_of(config, asked=asked, path=path)
    parts = (content_hash, pixels.mean, pixels.std, pixels.blue_first, *pixels.geometry)

    def export(key: str) -> dict[str, Any]:
        if find_spec("keras") is None:
            raise MissingExtra(f"backbone {path.name}, for its first use,", extra="keras")
        with _without_log_lines():
            from headstart.backbones.keras.network import export_model

        return export_model(path, key=key, size=size, pixels=pixels)

    return from_record(path.stem, identity=f"keras:{CUT_SO}:{parts}", size=size, export=export, weights=None)


@contextlib.contextmanager
def _without_log_lines() -> Iterator[None]:
    """Keep TensorFlow, while it is imported, from reporting on itself among our messages.

    The level that it reads from the environment does not hold for what its libraries write as they are
    loaded, so what is written to file descriptor 2 meanwhile goes on to it without the lines of information.
    Where the user has set that level, nothing is touched.
    """
    if _LOG_LEVEL in os.environ:
        yield
        return
    os.environ[_LOG_LEVEL] = _ERRORS_ONLY  # also for what comes after the import
    with standard_error_without(lambda line: bool(_INFORMATION.match(line))):
        yield


def _read(path: Path) -> tuple[dict[str, Any], str]:
    """The model's configuration, as data, and a hash of it and the weights (the file itself is dated)."""
    state = hashlib.blake2b(digest_size=16)
    shown = printable(path)
    try:
        with os.fdopen(open_regular(path), "rb") as file, zipfile.ZipFile(file) as archive:
            whole = sum(member.file_size for member in archive.infolist())
            if whole > _TIMES_THE_FILE * os.fstat(file.fileno()).st_size + HEADROOM:
                raise BackboneError(f"backbone {shown}: expands to {whole // 2**20:,} MiB; refused as a bomb")
            with archive.open("config.json") as settings:
                text = settings.read(_LARGEST_CONFIG + 1)
            state.update(text)
            with archive.open("model.weights.h5") as weights:
                while chunk := weights.read(_CHUNK_BYTES):
                    state.update(chunk)
        if len(text) > _LARGEST_CONFIG:
            raise BackboneError(f"backbone {shown}: its config.json is larger than any network's")
        config = parse_json(text, depth=_DEEPEST_CONFIG)
    except OSError as error:
        raise BackboneError(f"backbone {shown}: no such file, or not readable ({error.strerror})") from error
    except (zipfile.BadZipFile, zlib.error, KeyError, ValueError, Unreadable, NotImplementedError) as error:
        reason = f": {error}" if isinstance(error, Unreadable) else ""
        raise BackboneError(
            f"backbone {shown}: no model in the .keras format{reason}; open it where it was made and write "
            "model.save('model.keras')"
        ) from error
    return config, state.hexdigest()


def _refuse_code(config: Any, *, path: Path) -> None:
    """Refuse a file that names any code but Keras's.

    Raises:
        BackboneError: Names the layer.
    """
    for item in objects_in(config):
        kind, module = str(item["class_name"]), item.get("module")
        settings = item.get("config")
        name = printable(str(settings.get("name", kind) if isinstance(settings, dict) else settings)[:80])
        if kind in ("Lambda", "__lambda__"):
            raise BackboneError(
                f"backbone {path}: layer '{name}' is a Lambda, which is code, and running code from a file "
                "is refused; replace it by layers of Keras, such as Rescaling, and save again"
            )
        top = module == "keras" and kind in _KERAS_ITSELF
        if "module" not in item or top or f"{module}.".startswith(_KERAS):
            continue  # without a module: values that JSON lacks, such as a tuple
        code = printable(f"{module}.{kind}"[:120] if module else kind[:80])
        raise BackboneError(
            f"backbone {path}: '{name}' ({code}) is not Keras's own, and code from a file is not run; save "
            "the part of the model that has Keras's layers only"
        )
