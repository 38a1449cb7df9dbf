"""Formats and depths: whatever a camera, scanner or program wrote, the same picture comes out."""

import itertools
import struct
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import IMAGE_SUFFIXES, formats, looks_like_an_image, open_image
from headstart.errors import ImageError
from made_images import encoded

RNG = np.random.default_rng(3)
GREY = RNG.integers(0, 256, (20, 30), dtype=np.uint8)
COLOUR = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)
CLEAR = RNG.integers(0, 256, (20, 30, 4), dtype=np.uint8)


def pixels(data):
    return np.asarray(open_image(data)[0]).astype(int)


def deep(picture):
    """The 16-bit twin: every value times 257, so that white is white."""
    return picture.astype(np.uint16) * 257


def tiff(array, *, photometric, order="<", sample=1, planes=1, compression=1, bits=None, colours=None):
    """A TIFF of one strip for each plane, written field by field: Pillow writes few of these."""
    height, width = array.shape[:2]
    channels = 1 if array.ndim == 2 else array.shape[2]
    swapped = array.astype(array.dtype.newbyteorder(order))
    parts = [swapped] if planes == 1 else [swapped[:, :, k] for k in range(channels)]
    strips = [np.ascontiguousarray(part).tobytes() for part in parts]
    if compression == 8:
        strips = [zlib.compress(strip) for strip in strips]
    tags = {
        256: [width],
        257: [height],
        258: [bits or array.dtype.itemsize * 8] * channels,
        259: [compression],
        262: [photometric],
        273: [0] * len(strips),
        277: [channels],
        278: [height],
        279: [len(strip) for strip in strips],
        284: [planes],
        339: [sample] * channels,
    }
    if channels in (2, 4):
        tags[338] = [2]
    if colours is not None:
        tags[320] = colours
    codes = {tag: "I" if tag in (273, 279) else "H" for tag in tags}
    sizes = {tag: struct.calcsize(f"{order}{len(values)}{codes[tag]}") for tag, values in tags.items()}
    beside = 8 + 2 + 12 * len(tags) + 4
    start = beside + sum(size for size in sizes.values() if size > 4)
    tags[273] = [start + sum(map(len, strips[:k])) for k in range(len(strips))]
    entries, outside = b"", b""
    for tag in sorted(tags):
        value = struct.pack(f"{order}{len(tags[tag])}{codes[tag]}", *tags[tag])
        if len(value) > 4:
            value, outside = struct.pack(order + "I", beside + len(outside)), outside + value
        kind = 4 if codes[tag] == "I" else 3
        entries += struct.pack(order + "HHI", tag, kind, len(tags[tag])) + value.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    head = magic + struct.pack(order + "IH", 8, len(tags))
    return head + entries + bytes(4) + outside + b"".join(strips)


# --- depth ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("order", "compression"), [*itertools.product("<>", (1, 8))])
def test_sixteen_bit_grey_tiffs_decode_as_their_8_bit_twins_whichever_end_is_white(order, compression):
    for photometric in (0, 1):
        layout = {"photometric": photometric, "order": order, "compression": compression}
        twin = pixels(tiff(GREY, **layout))
        assert np.array_equal(twin[..., 0], GREY if photometric else 255 - GREY)
        assert np.array_equal(pixels(tiff(deep(GREY), **layout)), twin)


@pytest.mark.parametrize(("order", "compression", "planes"), [*itertools.product("<>", (1, 8), (1, 2))])
def test_sixteen_bit_colour_tiffs_decode_as_their_8_bit_twins_in_planes_too(order, compression, planes):
    layout = {"photometric": 2, "order": order, "compression": compression, "planes": planes}
    for picture in (COLOUR, CLEAR):
        assert np.array_equal(pixels(tiff(deep(picture), **layout)), pixels(tiff(picture, **layout)))


@pytest.mark.parametrize(("order", "compression"), [*itertools.product("<>", (1, 8))])
@pytest.mark.parametrize(
    ("dtype", "sample", "scale", "offset"),
    [("u4", 1, 16843009, 0), ("i2", 2, 256, -128), ("i4", 2, 65536, -128), ("f4", 3, 1.5, 0.25)],
)
def test_grey_without_an_agreed_white_keeps_its_order_in_every_layout(
    order, compression, dtype, sample, scale, offset
):
    picture = GREY.copy()
    picture[0, :2] = 0, 255  # it is stretched over its own range: let that be the whole one
    values = ((picture.astype(np.float64) + offset) * scale).astype(dtype)
    for photometric in (0, 1):
        data = tiff(values, photometric=photometric, order=order, compression=compression, sample=sample)
        assert (
            np.abs(pixels(data)[..., 0] - (picture if photometric else 255 - picture.astype(int))).max() <= 1
        )


def test_twelve_bit_tiffs_are_scaled_to_their_own_white():
    values = np.array([0, 2048, 4095, 4095], dtype=np.uint16)
    packed = bytearray()
    for left, right in values.reshape(2, 2).tolist():
        packed += ((left << 12) | right).to_bytes(3, "big")
    data = tiff(np.frombuffer(packed, np.uint8).reshape(1, 6), photometric=1, bits=12)
    data = data.replace(struct.pack("<HHIHH", 256, 3, 1, 6, 0), struct.pack("<HHIHH", 256, 3, 1, 4, 0))
    assert pixels(data)[0, :, 0].tolist() == [0, 128, 255, 255]


def test_a_palette_of_8_bit_values_where_16_bit_ones_belong_is_read_as_meant():
    colours = [0, 255] + [0] * 254 + [0, 128] + [0] * 254 + [0, 64] + [0] * 254
    data = tiff(np.array([[0, 1]], dtype=np.uint8), photometric=3, colours=colours)
    assert pixels(data)[0].tolist() == [[0, 0, 0], [255, 128, 64]]


def test_sixteen_bit_pngs_decode_as_their_8_bit_twins():
    assert np.array_equal(pixels(png(deep(GREY), 0)), pixels(png(GREY, 0)))
    assert np.array_equal(pixels(png(deep(COLOUR), 2)), pixels(png(COLOUR, 2)))
    assert np.array_equal(pixels(png(deep(CLEAR), 6)), pixels(png(CLEAR, 6)))
    two = np.dstack([GREY, CLEAR[..., 3]])
    assert np.array_equal(pixels(png(deep(two), 4)), pixels(png(two, 4)))


def png(array, kind, *, depth=None, key=b""):
    """A PNG of any kind and depth; Pillow writes no colour of 16 bits."""

    def chunk(name, body):
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    height, width = array.shape[:2]
    depth = depth or array.dtype.itemsize * 8
    rows = array.astype(array.dtype.newbyteorder(">")).reshape(height, -1)
    if depth < 8:
        bits = np.unpackbits(rows[..., None], axis=2)[..., 8 - depth :].reshape(height, -1)
        lines = [b"\0" + row.tobytes() for row in np.packbits(bits, axis=1)]
    else:
        lines = [b"\0" + row.tobytes() for row in rows]
    body = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0))
    body += chunk(b"tRNS", key) if key else b""
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IDAT", zlib.compress(b"".join(lines))) + chunk(b"IEND", b"")


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_a_colour_key_clears_its_grey_at_every_depth(depth):
    most = 2**depth - 1
    array = np.array([[0, most, 0, most]], dtype=np.uint16 if depth == 16 else np.uint8)
    for key, clear in ((0, [255, 255, 255, 255]), (most, [0, 255, 0, 255])):
        found = pixels(png(array, 0, depth=depth, key=struct.pack(">H", key)))
        assert found[0, :, 0].tolist() == clear
    dark = np.array([[0, 1]], dtype=array.dtype)
    shown = pixels(png(dark, 0, depth=depth, key=struct.pack(">H", 1)))
    assert shown[0, :, 0].tolist() == [0, 255], "the key's grey is white and the other one is kept"


def test_a_colour_key_clears_its_colour_in_16_bits():
    array = deep(np.array([[[1, 2, 3], [4, 5, 6]]], dtype=np.uint8))
    found = pixels(png(array, 2, key=struct.pack(">HHH", 257, 514, 771)))
    assert found[0].tolist() == [[255, 255, 255], [4, 5, 6]]


def test_deep_jpeg_2000_decodes_as_its_8_bit_twin():
    twin = pixels(encoded(GREY, "JPEG2000", quality_layers=[0]))
    assert np.abs(pixels(encoded(deep(GREY), "JPEG2000", quality_layers=[0])) - twin).max() <= 1


# --- formats ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file_format", "picture"),
    [(name, COLOUR) for name in ("PPM", "JPEG2000", "TGA", "ICO", "PCX", "SGI", "QOI", "DDS")]
    + [(name, GREY) for name in ("PPM", "JPEG2000", "TGA", "PCX", "SGI")],
)
def test_formats_without_loss_give_back_every_pixel(file_format, picture):
    picture = np.kron(picture, np.ones((2, 2, 1) if picture.ndim == 3 else (2, 2), np.uint8))
    options = {"sizes": [(60, 40)]} if file_format == "ICO" else {}
    image, facts = open_image(encoded(picture, file_format, **options))
    assert (facts.format, facts.width, facts.height) == (file_format, 60, 40)
    expected = picture if picture.ndim == 3 else np.dstack([picture] * 3)
    assert np.array_equal(np.asarray(image), expected)


@pytest.mark.parametrize("white", [1, 15, 255, 1023, 4095, 65535])
@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("channels", [1, 3])
def test_netpbm_of_every_depth_is_scaled_to_its_own_white(white, text, channels):
    values = RNG.integers(0, white + 1, (7, 9, channels))
    kind = {(1, True): 2, (3, True): 3, (1, False): 5, (3, False): 6}[channels, text]
    head = f"P{kind} # a comment\n9 7\n# another\n{white}\n".encode()
    body = " ".join(map(str, values.ravel())).encode()
    if not text:
        body = values.astype(">u2" if white > 255 else "u1").tobytes()
    expected = np.broadcast_to((values * 255 + white // 2) // white, (7, 9, 3))
    assert np.array_equal(pixels(head + body), expected)


def test_netpbm_bitmaps_pams_and_floats():
    bits = np.array([[0, 1, 1, 0, 1, 0, 0, 0, 1], [1, 0, 0, 1, 0, 1, 1, 1, 0]], dtype=np.uint8)
    ink = np.dstack([(1 - bits) * 255] * 3)
    assert np.array_equal(pixels(b"P4\n9 2\n" + np.packbits(bits, axis=1).tobytes()), ink)
    assert np.array_equal(pixels(b"P1\n9 2\n" + b"\n".join(map(bytes, bits + ord("0")))), ink)
    for channels, name in ((1, "GRAYSCALE"), (3, "RGB")):
        head = f"P7\nWIDTH 30\nHEIGHT 20\nDEPTH {channels}\nMAXVAL 255\nTUPLTYPE {name}\nENDHDR\n".encode()
        picture = COLOUR[..., :channels]
        assert np.array_equal(pixels(head + picture.tobytes()), np.broadcast_to(picture, (20, 30, 3)))
    clear = b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 4\nMAXVAL 255\nTUPLTYPE RGB_ALPHA\nENDHDR\n" + bytes(4)
    assert pixels(clear).tolist() == [[[255, 255, 255]]]
    rising = np.array([[0, 1], [2, 4]], dtype="<f4")
    assert pixels(b"Pf\n2 2\n-1.0\n" + rising.tobytes())[..., 0].tolist() == [[128, 255], [0, 64]]
    assert pixels(b"PF\n2 2\n-1.0\n" + np.dstack([rising] * 3).tobytes())[..., 1].tolist() == [
        [128, 255],
        [0, 64],
    ]


@pytest.mark.parametrize(
    "data",
    [
        b"P5\n30 20\n255\n" + bytes(599),
        b"P2\n3 1\n255\n1 2",
        b"P2\n3 1\n255\n1 2 x",
        b"P1\n3 1\n01",
        b"P4\n9 2\n\0\0\0",
        b"P5\n30 20\n0\n",
        b"P5\n30",
        b"P6\n-3 -3\n255\n" + bytes(27),
        b"P7\nWIDTH 1\nHEIGHT 1\nDEPTH 9\nMAXVAL 255\nENDHDR\n" + bytes(9),
        b"PF\n1 1\n1.0\n" + b"\x7f\xc0\0\0" * 3,
        b"P5\n99999999999999999999 1\n255\n",
    ],
)
def test_damaged_netpbm_files_are_refused(data):
    with pytest.raises(ImageError):
        open_image(data)


def test_a_targas_fourth_byte_is_alpha_only_where_the_header_says_so():
    plain = bytearray(encoded(CLEAR, "TGA"))
    assert plain[17] & 15 == 0 or plain[16] == 32
    plain[17] &= 0xF0
    for row in range(20):
        for column in range(30):
            plain[18 + 4 * (30 * row + column) + 3] = 0
    assert np.array_equal(pixels(bytes(plain)), CLEAR[..., :3])


def test_an_icon_whose_picture_is_larger_than_an_icon_can_be_is_refused_before_it_is_decoded():
    inner = png(np.zeros((1, 1), np.uint8), 0)
    inner = inner[:16] + struct.pack(">II", 60_000, 60_000) + inner[24:]
    data = b"\0\0\1\0\1\0" + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(ImageError, match="too large"):
        open_image(data)


def test_content_decides_and_not_what_a_file_is_called():
    for data in (encoded(COLOUR, "TGA"), encoded(COLOUR, "PPM"), encoded(COLOUR, "JPEG2000")):
        assert looks_like_an_image(data[:64])
    for text in (
        b"Path,label\n",
        b"P is a letter\n",
        b"\0" * 64,
        b"%!PS-Adobe\n",
        b"\x89HDF\r\n",
        bytes(range(64)),
    ):
        assert not looks_like_an_image(text.ljust(64, b" "))


def test_heic_without_its_extra_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    formats._reader.cache_clear()
    with pytest.raises(ImageError, match=r"pip install 'headstart\[heif\]'"):
        open_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    formats._reader.cache_clear()


def test_heic_decodes_upright_and_once_turned_is_not_turned_again():
    pytest.importorskip("pillow_heif").register_heif_opener()
    smooth = np.asarray(Image.fromarray(COLOUR).resize((128, 96), Image.Resampling.BICUBIC, box=(0, 0, 4, 3)))
    image, facts = open_image(encoded(smooth, "HEIF", quality=90))
    assert (facts.format, facts.width, facts.height) == ("HEIF", 128, 96)
    assert np.abs(np.asarray(image).astype(int) - smooth).mean() < 3
    exif = Image.Exif()
    exif[274] = 6
    turned, facts = open_image(encoded(smooth, "HEIF", quality=90, exif=exif.tobytes()))
    assert (facts.width, facts.height) == (96, 128)
    assert np.abs(np.asarray(turned).astype(int) - np.rot90(smooth, -1)).mean() < 3


def test_suffixes_are_lower_case_and_have_their_dot():
    assert {".jpg", ".ppm", ".heic", ".jp2", ".tga"} <= IMAGE_SUFFIXES
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in IMAGE_SUFFIXES)


def test_formats_that_run_programs_or_guess_are_named_and_refused():
    for head, name in ((b"%!PS-Adobe-3.0 EPSF", "PostScript"), (b"8BPS", "Photoshop"), (b"%PDF-1.4", "PDF")):
        with pytest.raises(ImageError, match=name):
            open_image(head.ljust(64))
    with pytest.raises(ImageError, match="git lfs pull"):
        open_image(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n")
