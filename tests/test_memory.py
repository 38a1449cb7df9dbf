"""Memory: the bound while a file of others is read holds and goes; a pass over images keeps little."""

from __future__ import annotations

import subprocess
import sys
import threading

import pytest

from headstart.files import bounded_memory

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="bounds of memory are Linux's")


def limit() -> tuple[int, int]:
    import resource

    return resource.getrlimit(resource.RLIMIT_DATA)


HELD = """
import resource
resource.setrlimit(resource.RLIMIT_DATA, (256 << 20, resource.getrlimit(resource.RLIMIT_DATA)[1]))
bytearray(1 << 30)
"""
OURS = """
import resource
from headstart.files import bounded_memory

before = resource.getrlimit(resource.RLIMIT_DATA)
try:
    with bounded_memory(64 << 20):
        held = resource.getrlimit(resource.RLIMIT_DATA) != before
        bytearray(1 << 30)
except MemoryError:
    gone = resource.getrlimit(resource.RLIMIT_DATA) == before
    print("refused", held, gone, len(bytearray(80 << 20)) == 80 << 20)
"""


def fresh(program: str) -> subprocess.CompletedProcess[str]:
    """Run it in a new process: after a thousand tests one has a free gigabyte, and asks nobody for it."""
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)


def test_what_takes_more_than_its_share_gets_a_memory_error_and_the_bound_goes() -> None:
    if fresh(HELD).returncode == 0:
        pytest.skip("this kernel lets a process pass its RLIMIT_DATA")
    assert fresh(OURS).stdout.split() == ["refused", "True", "True", "True"]


def test_readings_in_two_threads_leave_no_bound_behind() -> None:
    before, entered = limit(), threading.Event()
    first_may_leave, second_may_leave = threading.Event(), threading.Event()

    def first() -> None:
        with bounded_memory(1 << 30):
            entered.set()
            assert first_may_leave.wait(30)

    def second() -> None:
        with bounded_memory(2 << 30):
            assert second_may_leave.wait(30)

    threads = [threading.Thread(target=first), threading.Thread(target=second)]
    threads[0].start()
    assert entered.wait(30)
    threads[1].start()
    threads[1].join(0.2)  # were it let in here, it would leave the first one's bound behind
    first_may_leave.set()
    threads[0].join()
    second_may_leave.set()
    threads[1].join()
    assert limit() == before


PASS = """
import io, sys, tempfile
from pathlib import Path
from PIL import Image
from headstart.backbones import load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Sample
from headstart.data.images import CENTRE
from headstart.data.sources import FileSource
from headstart.features import FeatureCache, FeatureSpec, extract
from headstart.runs import write_images

folder = Path(tempfile.mkdtemp())
Image.new("RGB", (40, 40), "navy").save(folder / "one.jpg")
backbone, runtime, cache = load_backbone("builtin", size=32), select(), FeatureCache(folder)
spec = FeatureSpec(depth=0, views=(CENTRE,), pooled=False)  # pixels alone: no network is compiled

def anonymous():
    return int(Path("/proc/self/smaps_rollup").read_text().partition("Anonymous:")[2].split()[0])

def passed(count):
    samples = [Sample(f"class/{i}.jpg", 0, None, FileSource(f"{folder}/one.jpg")) for i in range(count)]
    found = extract(samples, backbone, spec=spec, runtime=runtime, cache=cache, workers=2)
    rows = ({"path": each.name, "label": "class", "file": each.source.path} for each in samples)
    write_images(folder, rows, skipped=[])
    return samples, found

first = passed(500)
before = anonymous()
second = passed(6500)
print((anonymous() - before) / 6000)
"""


def test_each_image_of_a_pass_leaves_less_than_two_kilobytes_of_memory_behind() -> None:
    ended = fresh(PASS)
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 2.0
