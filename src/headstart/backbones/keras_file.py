"""Backbones from a `.keras` file: what it is, from its own configuration; Keras itself opens it once.

A `.keras` file can ask Keras to run code that came with it. Nothing of the kind is opened: its configuration
is read first, as data, and whatever is not Keras's own is refused by name.
"""

import contextlib
import hashlib
import os
import re
import sys
import tempfile
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from headstart.backbones.backbone import Backbone
from headstart.backbones.exported import from_record
from headstart.errors import BackboneError, MissingExtra, printable
from headstart.files import HEADROOM, Unreadable, open_regular, parse_json

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

_BYTES = ((0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255))
_UNIT = ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
_SIGNED = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_CAFFE = ((123.68 / 255, 116.779 / 255, 103.939 / 255), (1 / 255, 1 / 255, 1 / 255))
"""Mean and standard deviation of pixel / 255, red first. Source: ``keras.applications.imagenet_utils``."""

RANGES = {"0..255": _BYTES, "0..1": _UNIT, "-1..1": _SIGNED}

_FAMILIES = {
    "densenet": ("conv2_block1_concat", _IMAGENET),
    "inception_resnet_v2": ("mixed_7a", _SIGNED),
    "inception_v3": ("mixed9_1", _SIGNED),
    "mobilenet": ("conv_dw_1", _SIGNED),
    "mobilenet_v2": ("expanded_conv_project_BN", _SIGNED),
    "nasnet": ("stem_bn1", _SIGNED),
    "resnet": ("conv2_block1_3_bn", _CAFFE),
    "resnet_v2": ("conv2_block1_preact_bn", _SIGNED),
    "vgg": ("block5_conv3", _CAFFE),
    "xception": ("block2_sepconv1", _SIGNED),
}
"""Keras's applications that leave the pixels to ``preprocess_input``: a layer that only they have, and what
that makes of the pixels. The others (EfficientNet, MobileNetV3, ConvNeXt, …) scale them inside the model."""

_BLUE_FIRST = ("resnet", "vgg")

_SCALING = {"Rescaling", "Normalization", "Multiply", "Divide", "TrueDivide", "Add", "Subtract", "GetItem"}
"""Layers and operations that scale pixels where they stand in front of every layer with weights."""


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


@dataclass(frozen=True)
class Pixels:
    """What a Keras model wants its pixels to be.

    Attributes:
        mean: Of pixel / 255, red first.
        std: Likewise.
        blue_first: Whether the model itself reads blue, green, red.
        note: What the user should know of it.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    blue_first: bool = False
    note: str = ""


def load_keras_file(path: Path, *, size: int | None, architecture: str | None) -> Backbone:
    """The backbone of a saved Keras model, its classification head left out.

    Args:
        path: A `.keras` file.
        size: Pixels a side; None for what the model is built for.
        architecture: What its pixels are, where the file does not say: a family of Keras's applications
            (``mobilenet_v2``), a range (``0..1``) or ``MEAN/STD`` (three numbers each).

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
    pixels = _pixels(config, asked=architecture, path=path)
    parts = (content_hash, pixels.mean, pixels.std, pixels.blue_first)

    def export(key: str) -> dict[str, Any]:
        if find_spec("keras") is None:
            raise MissingExtra(f"backbone {path.name}, for its first use,", extra="keras")
        with _without_log_lines():
            from headstart.backbones.keras_stages import export_model

        return export_model(path, key=key, size=size, pixels=pixels)

    return from_record(path.stem, identity=f"keras:{parts}", size=size, export=export, weights=None)


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
    try:
        terminal = os.dup(2)
    except OSError:  # there is no such descriptor
        yield
        return
    with tempfile.TemporaryFile() as written:
        sys.stderr.flush()
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            sys.stderr.flush()
            os.dup2(terminal, 2)
            os.close(terminal)
            written.seek(0)
            for line in written:
                if not _INFORMATION.match(line):
                    os.write(2, line)


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


def _objects(config: Any, *, outermost: bool = True) -> Iterator[Mapping[str, Any]]:
    """Everything in a configuration that Keras would make an object of, outermost first.

    The outermost model's losses and metrics are not loaded; those of a model inside it are.
    """
    if isinstance(config, dict):
        if "class_name" in config:
            yield config
        for key, value in config.items():
            if not (outermost and key == "compile_config"):
                yield from _objects(value, outermost=False)
    elif isinstance(config, list):
        for value in config:
            yield from _objects(value, outermost=False)


def _refuse_code(config: Any, *, path: Path) -> None:
    """Refuse a file that names any code but Keras's.

    Raises:
        BackboneError: Names the layer.
    """
    for item in _objects(config):
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


def _pixels(config: Any, *, asked: str | None, path: Path) -> Pixels:
    """What the pixels must be: as asked, as the model's first layers say, or as its family's are."""
    if asked is not None:
        return _asked(asked, path=path)
    if _scales_itself(config):
        return Pixels(*_BYTES, note=f"{path.name} scales its pixels itself, so it is given 0 to 255")
    names = {str(item.get("name")) for item in _objects(config)}
    for family, (mark, _) in _FAMILIES.items():
        if mark in names:
            return _family(family, note=f"{path.name} is a {family}: took the pixels of its preprocess_input")
    raise BackboneError(
        f"backbone {path}: does not say what its pixels are; give --architecture with a range "
        f"({', '.join(RANGES)}), MEAN/STD (0.5,0.5,0.5/0.5,0.5,0.5) or a family ({', '.join(_FAMILIES)})"
    )


def _asked(asked: str, *, path: Path) -> Pixels:
    if asked in _FAMILIES:
        return _family(asked)
    if asked in RANGES:
        return Pixels(*RANGES[asked])
    try:
        mean, std = (tuple(float(number) for number in part.split(",")) for part in asked.split("/"))
        (red, green, blue), (red_std, green_std, blue_std) = mean, std
    except ValueError as error:
        raise BackboneError(
            f"backbone {path}: architecture {asked!r}: expected a range ({', '.join(RANGES)}), MEAN/STD of "
            f"pixel / 255 (three numbers each), or a family of Keras's ({', '.join(_FAMILIES)})"
        ) from error
    return Pixels((red, green, blue), (red_std, green_std, blue_std))


def _family(family: str, *, note: str = "") -> Pixels:
    return Pixels(*_FAMILIES[family][1], blue_first=family in _BLUE_FIRST, note=note)


def _scales_itself(config: Any) -> bool:
    """Whether a layer in front of every layer with weights scales the pixels."""
    for item in _objects(config):
        kind, settings = str(item["class_name"]), item.get("config")
        if kind in _SCALING:
            return True
        if isinstance(settings, dict) and ("kernel_initializer" in settings or "filters" in settings):
            return False
    return False
