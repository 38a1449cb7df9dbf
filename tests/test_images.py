import io
import struct
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import imagehash
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from headstart.data.images import (
    CENTRE,
    NO_HASH,
    ImageFacts,
    Preprocess,
    View,
    decode,
    jpeg,
    open_image,
    parse_views,
    render,
    rendering,
    resampling,
    shortest_side_needed,
)
from headstart.errors import ImageError, OptionError
from made_images import encoded

PLAIN = Preprocess(96, 0.875, "bicubic", "center", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def scene(width, height, seed=0):
    """Smooth shapes with some texture: compresses and resizes as photographs do."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    noise = rng.integers(-6, 7, (height, width, 1))
    return Image.fromarray(np.clip(smooth + noise, 0, 255).astype(np.uint8))


def difference(a, b):
    return np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int))


# --- decoding ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
def test_every_format_decodes_to_the_same_picture(file_format):
    picture = scene(80, 60)
    data = encoded(picture, file_format)
    image, facts = open_image(data)
    assert (image.mode, image.size) == ("RGB", (80, 60))
    assert (facts.width, facts.height, facts.format, facts.frames) == (80, 60, file_format, 1)
    assert difference(image, picture).mean() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(file_format, orientation):
    from PIL import ImageOps

    exif = Image.Exif()
    exif[274] = orientation
    data = encoded(scene(120, 80), file_format, exif=exif)
    image, facts = open_image(data)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
    assert image.size == (facts.width, facts.height) == expected.size
    assert difference(image, expected).max() == 0


def test_a_reduced_decode_keeps_orientation_and_tells_the_files_own_size():
    exif = Image.Exif()
    exif[274] = 6
    image, facts = open_image(encoded(scene(800, 600), "JPEG", exif=exif), shortest_side=140)
    assert image.size == (150, 200)
    assert (facts.width, facts.height) == (600, 800)


@pytest.mark.parametrize("side", [1, 37, 60, 100, 149, 150, 151, 299, 300, 301, 600, 5000])
def test_a_reduced_decode_never_falls_below_the_side_needed(side):
    image, _ = open_image(encoded(scene(641, 600), "JPEG"), shortest_side=side)
    assert min(image.size) >= min(side, 600)


def test_unreadable_exif_leaves_the_picture_as_it_is():
    data = encoded(scene(40, 30), "JPEG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff garbage")
    image, _ = open_image(data)
    assert image.size == (40, 30)


def test_alpha_is_composited_on_white():
    pixels = np.zeros((4, 4, 4), dtype=np.uint8)
    pixels[:, :2] = (255, 0, 0, 255)
    pixels[:, 2:] = (0, 0, 0, 0)
    pixels[0, 2] = (0, 0, 0, 127)
    image, facts = open_image(encoded(Image.fromarray(pixels), "PNG"))
    assert facts.mode == "RGBA"
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert image.getpixel((3, 3)) == (255, 255, 255)
    assert image.getpixel((2, 0)) == (128, 128, 128)


def test_grey_alpha_palette_transparency_and_colour_keys_become_white():
    grey = Image.merge("LA", (Image.new("L", (4, 4), 10), Image.new("L", (4, 4), 0)))
    palette = Image.new("P", (4, 4), 0)
    palette.putpalette([0, 0, 0, 200, 100, 50])
    keyed = Image.new("RGB", (4, 4), (1, 2, 3))
    assert open_image(encoded(grey, "PNG"))[0].getpixel((1, 1)) == (255, 255, 255)
    assert open_image(encoded(palette, "PNG", transparency=0))[0].getpixel((1, 1)) == (255, 255, 255)
    assert open_image(encoded(palette, "PNG", transparency=b"\0\xff"))[0].getpixel((1, 1)) == (255, 255, 255)
    assert open_image(encoded(palette, "GIF", transparency=0))[0].getpixel((1, 1)) == (255, 255, 255)
    assert open_image(encoded(keyed, "PNG", transparency=(1, 2, 3)))[0].getpixel((1, 1)) == (255, 255, 255)


@pytest.mark.parametrize("file_format", ["PNG", "TIFF"])
def test_sixteen_bit_grey_is_scaled_and_not_clipped(file_format):
    values = np.array([[0, 257, 32896, 65535]], dtype=np.uint16)
    image, facts = open_image(encoded(Image.fromarray(values), file_format))
    assert facts.mode.startswith("I")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 1, 128, 255]


@pytest.mark.parametrize("dtype", [np.int32, np.float32])
def test_grey_without_an_agreed_white_is_stretched_over_its_own_range(dtype):
    values = np.array([[-1000, 0, 1000]], dtype=dtype)
    image, _ = open_image(encoded(Image.fromarray(values), "TIFF"))
    assert np.asarray(image)[0, :, 0].tolist() == [0, 128, 255]


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "YCbCr"])
def test_other_modes_become_rgb_as_pillow_converts_them(mode):
    data = encoded(scene(40, 30).convert(mode), "TIFF")
    image, facts = open_image(data)
    assert facts.mode == mode
    assert difference(image, Image.open(io.BytesIO(data)).convert("RGB")).max() == 0


def test_a_cmyk_jpeg_keeps_its_colours():
    picture = Image.new("RGB", (32, 32), (200, 40, 90))
    image, facts = open_image(encoded(picture.convert("CMYK"), "JPEG", quality=95))
    assert facts.mode == "CMYK"
    assert difference(image, picture).max() <= 4


def test_an_animation_gives_its_first_frame_and_says_there_are_more():
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "blue", "green")]
    for file_format in ("GIF", "WEBP", "PNG", "TIFF"):
        data = encoded(frames[0], file_format, save_all=True, append_images=frames[1:])
        image, facts = open_image(data)
        assert facts.frames == 2, file_format
        assert difference(image, frames[0]).max() <= 4, file_format


@pytest.mark.parametrize("shape", [(30, 40), (30, 40, 1), (30, 40, 3), (30, 40, 4)])
def test_arrays_are_images_too(shape):
    array = np.full(shape, 255, dtype=np.uint8)
    array[:10, ..., :3] = 7
    image, facts = open_image(array)
    assert (image.size, facts.format) == ((40, 30), "array")
    assert image.getpixel((0, 29)) == (255, 255, 255)


@pytest.mark.parametrize(
    "array", [np.zeros((4, 4), np.float32), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4), np.uint8)]
)
def test_arrays_that_are_no_images_are_refused(array):
    with pytest.raises(ImageError):
        open_image(array)


# --- refusals ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello world, this is text", "not an image"),
        (b"\0" * 4096, "not an image"),
        (b"%PDF-1.7 ...", "PDF"),
        (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\xff\xd8\xff", "damaged"),
        (b"\x89PNG\r\n\x1a\n", "damaged"),
        (b"GIF89a", "damaged"),
        (b"BM", "damaged"),
        (b"II*\0", "damaged"),
    ],
)
def test_what_is_no_image_is_named_with_its_reason(data, reason):
    with pytest.raises(ImageError, match=reason):
        open_image(data)


@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "BMP", "TIFF", "GIF", "WEBP", "AVIF"])
def test_truncated_files_are_refused(file_format):
    data = encoded(scene(200, 150), file_format)
    with pytest.raises(ImageError):
        open_image(data[: len(data) // 2])


def test_a_bomb_is_refused_before_it_is_decoded():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    import zlib

    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    data += struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
    with pytest.raises(ImageError, match="too large: 60000 x 60000"):
        open_image(data)


def test_pillows_warnings_do_not_leak_even_where_warnings_are_errors(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)  # Pillow would warn of a bomb from here on
    wide = Image.new("P", (12, 12))
    wide.putpalette([0, 0, 0, 9, 9, 9])
    exif = b"Exif\0\0II*\0\x08\0\0\0\x02\0\x0e\x01\x02\0\xff\0\0\0\xff\xff\0\0"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in (
            encoded(wide, "GIF"),
            encoded(wide, "PNG", transparency=b"\0\x7f"),
            encoded(scene(12, 12), "JPEG", exif=exif),
        ):
            assert open_image(data)[0].size == (12, 12)


def test_many_threads_decode_what_one_does():
    files = [encoded(scene(90 + k, 70, seed=k), ("JPEG", "PNG", "WEBP", "GIF")[k % 4]) for k in range(40)]
    alone = [render(open_image(data, shortest_side=50)[0], PLAIN) for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda data: render(open_image(data, shortest_side=50)[0], PLAIN), files))
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one, other)


def test_importing_the_room_is_cheap():
    code = (
        "import sys, headstart.data.images; "
        "print([m for m in ('torch', 'timm', 'scipy', 'imagehash', 'openvino') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


# --- faster libraries, and Pillow where they have no wheel ------------------------------------------------


def without(monkeypatch, *modules):
    for module in modules:
        monkeypatch.setattr(module, "library", lambda: None)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("side", [None, 40, 109])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_has_the_same_pixels_and_facts_without_simplejpeg(mode, side, progressive, monkeypatch):
    pytest.importorskip("simplejpeg")
    exif = Image.Exif()
    exif[274] = 6
    data = encoded(scene(331, 230).convert(mode), "JPEG", progressive=progressive, exif=exif)
    image, facts = open_image(data, shortest_side=side)
    without(monkeypatch, jpeg)
    plain, plain_facts = open_image(data, shortest_side=side)
    assert (image.mode, facts, image.info) == (plain.mode, plain_facts, plain.info)
    assert difference(image, plain).max() == 0


def test_a_damaged_jpeg_is_refused_or_read_alike_without_simplejpeg(monkeypatch):
    pytest.importorskip("simplejpeg")
    whole, rng = encoded(scene(200, 150), "JPEG"), np.random.default_rng(0)
    files = [whole[:size] for size in rng.integers(3, len(whole), 20)]
    for _ in range(40):
        damaged = bytearray(whole)
        damaged[rng.integers(2, len(whole))] = rng.integers(256)
        files.append(bytes(damaged))

    def outcome(data):
        try:
            image, facts = open_image(data, shortest_side=50)
        except ImageError as error:
            return str(error)
        return image.tobytes(), facts

    found = [outcome(data) for data in files]
    assert {type(each) for each in found} == {str, tuple}
    without(monkeypatch, jpeg)
    assert found == [outcome(data) for data in files]


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "hamming"])
@pytest.mark.parametrize("view", ["centre", "crop3-flip"])
def test_pixels_are_the_same_but_for_a_level_without_the_simd_library(interpolation, view, monkeypatch):
    pytest.importorskip("cykooz_resizer")
    preprocess = replace(PLAIN, interpolation=interpolation)
    images = [decode(encoded(scene(*size), "JPEG")) for size in ((320, 240), (97, 131), (60, 70), (641, 480))]
    fast = np.stack([image.render(preprocess, View(view)) for image in images])
    without(monkeypatch, resampling)
    off = difference(fast, np.stack([image.render(preprocess, View(view)) for image in images]))
    assert off.max() <= 2
    assert off.mean() < 0.02


def test_features_know_which_library_made_their_pixels(monkeypatch):
    monkeypatch.setattr(resampling, "library", object)
    fast = resampling.pixels_version()
    without(monkeypatch, resampling)
    assert resampling.pixels_version() != fast


# --- facts ------------------------------------------------------------------------------------------------


@given(
    st.integers(1, 2**31),
    st.integers(1, 2**31),
    st.sampled_from(["JPEG", "array"]),
    st.binary(min_size=32, max_size=32),
)
def test_facts_survive_their_binary_form(width, height, file_format, digest):
    facts = ImageFacts(width, height, file_format, "I;16", 2, digest)
    assert ImageFacts.from_bytes(facts.to_bytes()) == facts


def test_the_perceptual_hash_is_the_librarys_but_for_a_few_bits():
    for seed in range(5):
        picture = scene(640, 480, seed)
        _, facts = open_image(encoded(picture, "PNG"))
        theirs = np.packbits(imagehash.dhash(picture, hash_size=16).hash)
        ours = np.frombuffer(facts.perceptual_hash, np.uint8)
        assert np.bitwise_count(theirs ^ ours).sum() <= 8


def test_the_perceptual_hash_survives_a_reduced_decode():
    for seed in range(5):
        data = encoded(scene(643, 481, seed), "JPEG", quality=90)
        full = np.frombuffer(open_image(data)[1].perceptual_hash, np.uint8)
        reduced = np.frombuffer(open_image(data, shortest_side=60)[1].perceptual_hash, np.uint8)
        assert np.bitwise_count(full ^ reduced).sum() <= 16


def test_tiny_and_flat_pictures_have_no_perceptual_hash():
    assert open_image(encoded(scene(31, 200), "PNG"))[1].perceptual_hash == NO_HASH
    assert open_image(encoded(Image.new("RGB", (200, 200), "navy"), "PNG"))[1].perceptual_hash == NO_HASH
    assert open_image(encoded(scene(64, 64), "PNG"))[1].perceptual_hash != NO_HASH


# --- rendering --------------------------------------------------------------------------------------------


def timm_pixels(image, preprocess):
    from timm.data import create_transform

    transform = create_transform(
        (3, preprocess.size, preprocess.size),
        is_training=False,
        crop_pct=preprocess.crop_fraction,
        crop_mode=preprocess.crop_mode,
        interpolation=preprocess.interpolation,
        normalize=False,
    )
    return np.asarray(transform(image)).transpose(1, 2, 0)


@pytest.mark.parametrize("crop_mode", ["center", "squash"])
@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear", "lanczos", "nearest", "box", "hamming"])
@pytest.mark.parametrize(
    ("width", "height"), [(320, 240), (240, 320), (171, 240), (100, 100), (37, 53), (500, 130), (121, 420)]
)
def test_pixels_are_those_of_timms_evaluation_transform(width, height, interpolation, crop_mode):
    image = scene(width, height)
    for size, fraction in ((96, 0.875), (128, 0.95), (64, 1.0), (224, 0.9)):
        preprocess = replace(
            PLAIN, size=size, crop_fraction=fraction, interpolation=interpolation, crop_mode=crop_mode
        )
        off = difference(render(image, preprocess), timm_pixels(image, preprocess))
        # Pillow takes a region's edges in single precision, so sums that end in a half round either way.
        assert off.max() <= 2
        assert off.mean() < 0.05


@pytest.mark.parametrize("mode", ["L", "CMYK", "P", "1"])
def test_parity_holds_for_other_modes(mode, monkeypatch):
    data = encoded(scene(150, 110).convert(mode), "TIFF")
    expected = timm_pixels(Image.open(io.BytesIO(data)).convert("RGB"), PLAIN)
    off = difference(render(open_image(data)[0], PLAIN), expected)
    assert off.max() <= 2
    assert off.mean() < 0.05
    without(monkeypatch, resampling)
    assert difference(render(open_image(data)[0], PLAIN), expected).max() <= 1


@pytest.mark.parametrize(("width", "height"), [(320, 240), (241, 323), (1023, 769), (333, 500)])
def test_a_reduced_decode_gives_nearly_the_same_pixels(width, height):
    data = encoded(scene(width, height), "JPEG", quality=90)
    image, _ = open_image(data, shortest_side=shortest_side_needed(PLAIN))
    assert image.width < width
    expected = timm_pixels(Image.open(io.BytesIO(data)).convert("RGB"), PLAIN)
    assert difference(render(image, PLAIN), expected).mean() < 2


@settings(deadline=None, max_examples=60)
@given(
    st.integers(1, 300),
    st.integers(1, 300),
    st.integers(1, 64),
    st.floats(0.3, 1.0),
    st.sampled_from(["bicubic", "nearest", "bilinear", "lanczos"]),
    st.sampled_from(["center", "squash"]),
    st.sampled_from(["centre", "flip", "crop1", "crop2-flip", "crop40"]),
)
def test_every_size_renders(width, height, size, fraction, interpolation, crop_mode, view):
    preprocess = replace(
        PLAIN, size=size, crop_fraction=fraction, interpolation=interpolation, crop_mode=crop_mode
    )
    pixels = render(Image.new("RGB", (width, height), (9, 99, 199)), preprocess, View(view))
    assert (pixels.shape, pixels.dtype) == ((size, size, 3), np.uint8)
    assert (pixels == (9, 99, 199)).all()


def test_a_very_long_strip_renders_in_bounded_memory():
    pixels = render(Image.new("RGB", (3, 60_000), (9, 99, 199)), PLAIN)
    assert (pixels == (9, 99, 199)).all()


def test_flips_mirror_and_crops_differ():
    image = scene(200, 160)
    for name in ("centre", "crop1", "crop7"):
        mirrored = "flip" if name == "centre" else f"{name}-flip"
        np.testing.assert_array_equal(
            render(image, PLAIN, View(name))[:, ::-1], render(image, PLAIN, View(mirrored))
        )
    rendered = {render(image, PLAIN, view).tobytes() for view in parse_views(10)}
    assert len(rendered) == 10


def test_crops_lie_inside_and_keep_most_of_the_picture():
    for number in range(1, 40):
        for width, height in ((320, 240), (100, 300)):
            left, top, right, bottom = rendering._crop_box(width, height, PLAIN, View(f"crop{number}"))
            assert 0 <= left < right <= width
            assert 0 <= top < bottom <= height
            assert (right - left) * (bottom - top) >= 0.6 * min(width, height) ** 2 - 1e-6


def test_the_side_needed_serves_every_view():
    assert shortest_side_needed(PLAIN) == 109
    views = parse_views(12)
    assert shortest_side_needed(PLAIN, views) >= shortest_side_needed(PLAIN, [CENTRE])
    wide = replace(PLAIN, crop_fraction=1.0)
    for view in views:
        side = shortest_side_needed(wide, [view])
        if view.crop:
            left, _, right, _ = rendering._crop_box(side, side, wide, view)
            assert right - left >= wide.size - 1e-6


# --- values -----------------------------------------------------------------------------------------------


def names(spec):
    return [view.name for view in parse_views(spec)]


def test_views_are_parsed():
    assert names("1") == names(1) == ["centre"]
    assert names("flip") == ["centre", "flip"]
    assert names("5") == ["centre", "flip", "crop1", "crop1-flip", "crop2"]
    assert names("centre, crop3") == ["centre", "crop3"]
    assert (View("crop12-flip").crop, View("crop12-flip").flipped) == (12, True)
    assert (CENTRE.crop, CENTRE.flipped) == (0, False)


@pytest.mark.parametrize("spec", ["0", "65", "-1", "", "center", "crop0", "crop", "flip,flip", "2.5"])
def test_unknown_views_are_refused(spec):
    with pytest.raises(OptionError):
        parse_views(spec)


def test_preprocess_survives_json_and_its_fingerprint_follows_every_field():
    import json

    assert Preprocess.from_dict(json.loads(json.dumps(PLAIN.to_dict()))) == PLAIN
    changed = [
        replace(PLAIN, size=97),
        replace(PLAIN, crop_fraction=0.9),
        replace(PLAIN, interpolation="bilinear"),
        replace(PLAIN, crop_mode="squash"),
        replace(PLAIN, mean=(0.5, 0.5, 0.5)),
        replace(PLAIN, std=(0.5, 0.5, 0.5)),
    ]
    assert len({one.fingerprint() for one in [PLAIN, *changed]}) == 7
    assert PLAIN.fingerprint() == replace(PLAIN).fingerprint()


@pytest.mark.parametrize(
    "change",
    [
        {"size": 0},
        {"crop_fraction": 0.0},
        {"crop_fraction": 1.5},
        {"interpolation": "cubic"},
        {"crop_mode": "border"},
        {"std": (0.0, 1.0, 1.0)},
    ],
)
def test_a_preprocess_that_cannot_work_is_refused(change):
    with pytest.raises(OptionError):
        replace(PLAIN, **change)
