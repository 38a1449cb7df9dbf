"""Heat maps as pictures: the photograph, glowing where the evidence is, with a bar that says what glows."""

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from headstart.classifier import Classifier
from headstart.data.preprocess import Preprocess
from headstart.data.sources import Source
from headstart.errors import ImageError, OptionError, printable
from headstart.explanations.heat import Explainer, HeatMap
from headstart.files import OUTPUT_MARKER, mark_output

# Nine even steps of the map "inferno" by Smith and van der Walt (matplotlib, 2015, CC0): its lightness rises
# evenly from black to pale yellow, so the order is seen by everyone, and in print without colours too.
_INFERNO = np.array(
    [
        (0, 0, 4),
        (33, 12, 74),
        (87, 16, 110),
        (138, 34, 106),
        (188, 55, 84),
        (228, 90, 49),
        (249, 142, 9),
        (249, 203, 53),
        (252, 255, 164),
    ],
    np.float32,
)
_DIMMED = 0.35
"""Of the photograph's brightness where there is no heat: visible, and darker than anything that glows."""
_STRONGEST = 0.72
"""Of the colour where the heat is full: the photograph still shows through."""

_ENDING = ".heat.png"

_MARGIN, _BAR = 10, 10  # pixels
_PAPER, _INK = (255, 255, 255), (32, 32, 32)


def overlay(heat: HeatMap, *, side: int = 448, legend: bool = True) -> Image.Image:
    """The heat over what the classifier saw.

    Args:
        heat: of `heat_map`.
        side: pixels a side of the picture.
        legend: add a strip with the colours' order and a sentence below.

    Returns:
        RGB, side x side, and higher by the strip.
    """
    photograph = Image.fromarray(heat.pixels).resize((side, side), Image.Resampling.BICUBIC)
    values = Image.fromarray(heat.values).resize((side, side), Image.Resampling.BILINEAR)
    strength = np.asarray(values, np.float32).clip(0, 1)
    picture = Image.fromarray(_blended(np.asarray(photograph, np.float32), strength))
    return _with_legend(picture, heat.legend()) if legend else picture


def outlined(photograph: Image.Image, preprocess: Preprocess) -> Image.Image:
    """The photograph with a frame around what the classifier saw of it, in light and dark lines."""
    framed = photograph.convert("RGB")
    left, top, right, bottom = preprocess.crop_box(*framed.size)
    pen = ImageDraw.Draw(framed)
    for inset, colour in ((0, _INK), (2, _PAPER), (4, _INK)):
        box = (left + inset, top + inset, right - 1 - inset, bottom - 1 - inset)
        pen.rectangle(box, outline=colour, width=2)
    return framed


def colours(strength: NDArray[np.float32]) -> NDArray[np.float32]:
    """Heat, 0 to 1, as colours 0 to 255, [..., 3]."""
    places = np.linspace(0, 1, len(_INFERNO))
    return np.stack([np.interp(strength, places, channel) for channel in _INFERNO.T], axis=-1).astype(
        np.float32
    )


def _blended(photograph: NDArray[np.float32], strength: NDArray[np.float32]) -> NDArray[np.uint8]:
    grey = photograph.mean(axis=2, keepdims=True)
    heat = strength[..., None]
    dimmed = (_DIMMED + (1 - _DIMMED) * heat) * (grey + heat * (photograph - grey))
    share = _STRONGEST * heat
    blended = (1 - share) * dimmed + share * colours(strength)
    return np.asarray(blended.round().clip(0, 255), np.uint8)


def _with_legend(picture: Image.Image, sentence: str) -> Image.Image:
    font = ImageFont.load_default(max(11, picture.width // 32))
    lines = _wrapped(sentence, font, picture.width - 2 * _MARGIN)
    height = round(sum(font.getbbox("Ag")[1::2])) + 2
    strip = 3 * _MARGIN + _BAR + height * len(lines)
    page = Image.new("RGB", (picture.width, picture.height + strip), _PAPER)
    page.paste(picture, (0, 0))
    bar = colours(np.linspace(0, 1, picture.width - 2 * _MARGIN, dtype=np.float32))
    bar = np.repeat(bar[None], _BAR, axis=0).round().astype(np.uint8)
    page.paste(Image.fromarray(bar), (_MARGIN, picture.height + _MARGIN))
    pen = ImageDraw.Draw(page)
    for number, line in enumerate(lines):
        top = picture.height + 2 * _MARGIN + _BAR + number * height
        pen.text((_MARGIN, top), line, fill=_INK, font=font)
    return page


def _wrapped(sentence: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    lines = [""]
    for word in sentence.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and font.getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines


def explain(
    classifier: Classifier, named: Sequence[tuple[str, Source]], folder: Path, *, method: str = "auto"
) -> dict[str, tuple[Path, HeatMap]]:
    """Write a picture of the likeliest label's heat for each image that can be read.

    Args:
        classifier: a trained one.
        named: what to call each image, and where it comes from.
        folder: made if need be.
        method: see `heat_map`.

    Returns:
        By the image's name: its picture, and what is in it.

    Raises:
        OptionError: the folder cannot be written, or holds other files.
    """
    explainer = Explainer(classifier)
    try:
        _own_folder(folder)
        written: dict[str, tuple[Path, HeatMap]] = {}
        for name, source in named:
            try:
                heat = explainer.heat_map(source.read(), method=method)
            except ImageError:
                continue  # the prediction has said so
            path = _free(folder, name, taken={path for path, _ in written.values()})
            overlay(heat).save(path)
            written[name] = path, heat
    except OSError as error:
        raise OptionError(
            f"{folder}: {error.strerror or error}; name a folder that can be written with --explain-to"
        ) from error
    return written


def _own_folder(folder: Path) -> None:
    """Make the folder and mark it; among other files heat maps would be taken for photographs of a class."""
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / OUTPUT_MARKER).exists():
        return
    names = sorted(each.name for each in folder.iterdir())
    other = next((name for name in names if not name.startswith(".") and not name.endswith(_ENDING)), None)
    if other is not None:
        raise OptionError(
            f"{printable(folder)} holds other files ({printable(other)}); heat maps go into a folder of "
            "their own: name a new one with --explain-to"
        )
    mark_output(folder)


def _free(folder: Path, name: str, *, taken: set[Path]) -> Path:
    """A name of its own for each picture; pictures of an earlier call are replaced."""
    stem = re.sub(r"[^\w.-]+", "-", Path(name).stem).strip("-.") or "image"
    path, number = folder / f"{stem}{_ENDING}", 1
    while path in taken:
        number += 1
        path = folder / f"{stem}-{number}{_ENDING}"
    return path
