"""What a file may cost: told from its header, refused before a pixel is decoded, true to what it takes."""

import os
import struct
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from PIL import Image

from headstart.data.images import decode, open_image
from headstart.data.images.bounds import Room
from headstart.errors import ImageError
from made_images import encoded


def refused_soon(data, reason):
    """The message; it comes within seconds of the process's own time."""
    started = time.process_time()
    with pytest.raises(ImageError, match=reason) as caught:
        open_image(data)
    assert time.process_time() - started < 2
    return str(caught.value)


def progressive(width, height, *, empty_scans=0):
    """A progressive JPEG with scans at its end that refine nothing."""
    whole = encoded(Image.new("RGB", (width, height), "gray"), "JPEG", progressive=True)
    return whole[:-2] + b"\xff\xda\0\x08\1\1\0\1\x3f\x10" * empty_scans + whole[-2:]


def test_a_progressive_jpeg_of_empty_scans_is_refused_and_an_ordinary_one_is_read():
    assert open_image(progressive(640, 480))[0].size == (640, 480)
    assert open_image(progressive(640, 480, empty_scans=20))[0].size == (640, 480)
    refused_soon(progressive(64, 48, empty_scans=700), "7.. scans")
    # As many scans over a larger picture cost more.
    large = bytearray(progressive(64, 48, empty_scans=90))
    at = large.index(b"\xff\xc2") + 5
    large[at : at + 4] = struct.pack(">HH", 6000, 6000)
    refused_soon(bytes(large), "scans over 36.0 megapixels")


def test_a_reduced_decode_of_many_scans_is_refused_too():
    with pytest.raises(ImageError, match="scans"):
        open_image(progressive(640, 480, empty_scans=700), shortest_side=10)


def test_scans_of_thumbnails_and_profiles_are_no_scans_of_the_picture():
    plain = encoded(Image.new("RGB", (64, 48), "gray"), "JPEG")
    profile = b"\xff\xe2" + struct.pack(">H", 2 + 400) + b"\xff\xda" * 200
    image, _ = open_image(plain[:2] + profile + plain[2:])
    assert image.size == (64, 48)
    assert open_image(plain + b"\xff\xda" * 500)[0].size == (64, 48)


def test_thirty_bytes_of_webp_take_no_gigabytes():
    bits = (10_000 - 1) | (10_000 - 1) << 14
    body = b"\x2f" + struct.pack("<I", bits) + bytes(5)
    data = b"RIFF" + struct.pack("<I", 12 + len(body)) + b"WEBPVP8L" + struct.pack("<I", len(body)) + body
    message = refused_soon(data, "too large")
    assert "MiB" in message


@pytest.mark.parametrize("mode", ["F", "I"])
def test_deep_tiffs_are_bounded_by_what_their_conversion_takes(mode):
    small = encoded(Image.new(mode, (64, 48)), "TIFF")
    large = small
    for tag, side in ((256, 64), (257, 48)):
        entry = struct.pack("<HHII", tag, 4, 1, side)
        assert entry in large
        large = large.replace(entry, struct.pack("<HHII", tag, 4, 1, 10_000))
    refused_soon(large, "takes 11.. MiB")


def test_a_jpeg_2000_of_very_many_tiles_or_layers_is_refused():
    whole = bytearray(encoded(Image.new("L", (256, 256)), "JPEG2000", no_jp2=True))
    siz = whole.index(b"\xff\x51")
    tiles = bytearray(whole)
    tiles[siz + 22 : siz + 30] = struct.pack(">II", 1, 1)
    refused_soon(bytes(tiles), "too large")
    layers = bytearray(whole)
    cod = whole.index(b"\xff\x52")
    layers[cod + 6 : cod + 8] = b"\xff\xff"
    refused_soon(bytes(layers), "layers")
    box = bytearray(encoded(Image.new("L", (256, 256)), "JPEG2000"))
    siz = box.index(b"\xff\x51")
    box[siz + 6 : siz + 14] = struct.pack(">II", 60_000, 60_000)  # the box around it still says 256 x 256
    refused_soon(bytes(box), "too large: 60000")


@pytest.mark.parametrize("file_format", ["QOI", "DDS"])
def test_formats_that_are_read_in_python_are_small(file_format):
    data = bytearray(encoded(Image.new("RGB", (8, 8)), file_format))
    at, code = (4, ">II") if file_format == "QOI" else (12, "<II")
    data[at : at + 8] = struct.pack(code, 3000, 3000)
    refused_soon(bytes(data), "limit is 2 megapixels")


def test_a_large_file_may_take_what_a_small_one_may_not():
    header = encoded(Image.new("RGB", (1, 1)), "BMP")
    large = header[:18] + struct.pack("<ii", 8000, 8000) + header[26:]
    refused_soon(large, "may take 256")
    with pytest.raises(ImageError, match="truncated"):
        open_image(large + bytes(1_000_000))  # let in, and found to break off


MEASURE = """
import io, sys
import numpy as np
from PIL import Image
import headstart.data.images.decoding as decoding

def memory(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024

noise = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
picture = Image.fromarray(noise).resize((1100, 900))
deep = np.asarray(picture.convert("L"))
cases = [("JPEG", "RGB", {}), ("JPEG", "RGB", {"progressive": True, "subsampling": 0}), ("JPEG", "CMYK", {})]
cases += [("PNG", mode, {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")]
cases += [("WEBP", "RGB", {"method": 0}), ("WEBP", "RGBA", {"method": 0}), ("AVIF", "RGB", {"speed": 10})]
cases += [("TIFF", mode, {"compression": "tiff_lzw"}) for mode in ("RGB", "L", "F", "I;16", "CMYK")]
cases += [("GIF", "P", {}), ("JPEG2000", "RGB", {}), ("JPEG2000", "L", {})]
cases += [("PPM", "RGB", {}), ("SGI", "RGB", {})]
needed = []
ask = decoding.bytes_needed
decoding.bytes_needed = lambda *a, **k: needed.append(ask(*a, **k)) or needed[-1]
for name, mode, options in cases:
    kind = {"F": np.float32, "I;16": np.uint16}.get(mode)
    image = Image.fromarray(kind(deep)) if kind else picture.convert(mode)
    buffer = io.BytesIO()
    image.save(buffer, name, **options)
    data = buffer.getvalue()
    decoding.decode(data)  # readers and tables are loaded
    del image, buffer
    open("/proc/self/clear_refs", "w").write("5")
    before = memory("VmRSS")
    decoding.decode(data)
    print(name, mode, needed[-1], memory("VmHWM") - before)
"""


@pytest.mark.skipif(not os.access("/proc/self/clear_refs", os.W_OK), reason="no peak memory told here")
def test_the_bytes_that_are_counted_are_those_that_decoding_takes():
    run = subprocess.run([sys.executable, "-c", MEASURE], capture_output=True, text=True, check=True)
    rows = [line.split() for line in run.stdout.splitlines()]
    assert len(rows) == 23
    for name, mode, needed, taken in rows:
        assert int(taken) <= int(needed) * 1.1 + 2e6, (name, mode)


# --- together ---------------------------------------------------------------------------------------------


def test_large_images_wait_for_each_other_and_small_ones_for_nobody():
    room, inside, leave = Room(total=100 << 20), threading.Event(), threading.Event()
    order = []

    def first():
        with room.taken(60 << 20):
            inside.set()
            leave.wait(20)
            order.append("first")

    def second():
        with room.taken(60 << 20):
            order.append("second")

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    inside.wait(20)
    threads[1].start()
    with room.taken(1 << 20):
        order.append("small")
    leave.set()
    for thread in threads:
        thread.join(20)
    assert order == ["small", "first", "second"]
    with room.taken(2**40):  # one alone is let in: it is bounded by itself
        pass


def test_a_failed_decoding_gives_its_room_back():
    room = Room(total=1)
    half = encoded(Image.new("RGB", (4000, 2500)), "BMP")[:20_000_000]
    for _ in range(2):
        with pytest.raises(ImageError):
            decode(half, room=room)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_process_forked_while_a_large_image_is_decoded_decodes_large_images():
    code = """
import io, os, threading
from PIL import Image
from headstart.data.images import bounds, decode
buffer = io.BytesIO()
Image.new("RGB", (4000, 2500)).save(buffer, "BMP")
held, done = threading.Event(), threading.Event()

def hold():
    with bounds.ROOM.taken(bounds.MAX_BYTES), bounds.ROOM._changed:
        held.set()
        done.wait()

threading.Thread(target=hold, daemon=True).start()
held.wait()
child = os.fork()
if child == 0:
    os._exit(decode(buffer.getvalue()).pixels.size != (4000, 2500))
print(os.waitpid(child, 0)[1])
done.set()
"""
    command = [sys.executable, "-W", "ignore", "-c", code]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "0"


def test_arrays_are_bounded_by_their_pixels():
    with pytest.raises(ImageError, match="too large"):
        open_image(np.broadcast_to(np.zeros((1, 1), np.uint8), (20_000, 20_000)))
