"""Images that show next to nothing, and class names that may be meant as one."""

import numpy as np
import pytest
from PIL import Image, ImageFilter

from headstart.data.appearance import alike_names, appearance, shows_nothing


def _scene(seed: int) -> Image.Image:
    """Shapes with edges, as photographs have them."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(rng.integers(0, 256, (12, 12, 3), dtype=np.uint8))
    return picture.resize((240, 200), Image.Resampling.NEAREST)


def test_black_white_empty_and_blurred_images_are_told_from_those_that_show_something() -> None:
    scenes = [_scene(seed) for seed in range(8)]
    odd = [
        Image.new("RGB", (200, 200), (4, 6, 3)),
        Image.new("RGB", (200, 200), (250, 251, 249)),
        Image.new("RGB", (200, 200), (90, 140, 60)),
        scenes[0].filter(ImageFilter.GaussianBlur(18)),
    ]
    found = shows_nothing([*map(appearance, [*scenes, *odd]), None])
    assert found == [None] * 8 + ["black", "white", "nearly empty, of one colour", "blurred", None]


def test_of_data_that_are_smooth_throughout_nothing_is_called_blurred() -> None:
    smooth = [_scene(seed).filter(ImageFilter.GaussianBlur(18)) for seed in range(8)]
    assert shows_nothing(list(map(appearance, smooth))) == [None] * 8


@pytest.mark.parametrize(
    ("names", "alike"),
    [
        (("Daisy", "daisy", "rose"), (("Daisy", "daisy"),)),
        (("red rose", "red_rose", "roses"), (("red rose", "red_rose"),)),
        (("dandelion", "dandelon", "tulip"), (("dandelion", "dandelon"),)),
        (("sunflower", "sunfolwer"), (("sunflower", "sunfolwer"),)),
        (("class001", "class011", "type A", "type B", "cat", "cut"), ()),
    ],
)
def test_names_that_differ_in_case_signs_or_a_letter(
    names: tuple[str, ...], alike: tuple[tuple[str, ...], ...]
) -> None:
    assert alike_names(names) == alike
