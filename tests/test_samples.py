"""Public photographs fetched by name, from a server of the test's own."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from PIL import Image

from headstart.cli import cli
from headstart.data import samples
from headstart.errors import DatasetError, OptionError
from headstart.lesson.experiments.data import images_of


def an_archive() -> bytes:
    """A .tgz as photographs are published: one folder at the top, one per class in it, and a licence."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        members = [("photos/LICENSE.txt", b"by their photographers")]
        for place, name in enumerate(("daisy", "tulip")):
            for number in range(12):
                image = io.BytesIO()
                Image.new("RGB", (16, 16), (20 * number, 120 * place, 90)).save(image, "PNG")
                members.append((f"photos/{name}/{number}.png", image.getvalue()))
        for member, content in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(content)
            archive.addfile(entry, io.BytesIO(content))
    return packed.getvalue()


CONTENT = an_archive()


@dataclass
class Published:
    """What the server sends, and what it was asked for."""

    sample: samples.Sample
    content: bytes = CONTENT
    cut_after: int | None = None
    ranges: bool = True
    asked: list[str | None] = field(default_factory=list)


@pytest.fixture
def published() -> Iterator[Published]:
    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked = self.headers.get("Range")
            found.asked.append(asked)
            start = int(asked.split("=")[1].rstrip("-")) if asked and found.ranges else 0
            rest = found.content[start:]
            self.send_response(206 if start else 200)
            if start:
                self.send_header(
                    "Content-Range", f"bytes {start}-{len(found.content) - 1}/{len(found.content)}"
                )
            self.send_header("Content-Length", str(len(rest)))
            self.end_headers()
            self.wfile.write(rest if found.cut_after is None else rest[: found.cut_after])

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    address = f"http://127.0.0.1:{server.server_address[1]}/sets/photos.tgz"
    digest = hashlib.sha256(CONTENT).hexdigest()
    found = Published(samples.Sample("flowers", "two kinds", address, len(CONTENT), digest, "free"))
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def test_what_is_published_arrives_whole_and_is_not_fetched_twice(
    published: Published, tmp_path: Path
) -> None:
    told: list[tuple[int, int]] = []
    path = samples.fetch(published.sample, tmp_path / "new", told=lambda *at: told.append(at))
    assert path == tmp_path / "new" / "photos.tgz" and path.read_bytes() == CONTENT
    assert told[-1] == (len(CONTENT), len(CONTENT)) and list(path.parent.iterdir()) == [path]
    assert samples.fetch(published.sample, tmp_path / "new") == path and len(published.asked) == 1


@pytest.mark.parametrize("ranges", [True, False])
def test_a_fetch_that_was_cut_goes_on_where_it_ended(
    published: Published, tmp_path: Path, ranges: bool
) -> None:
    published.cut_after, published.ranges = 700, ranges
    with pytest.raises(
        DatasetError, match=r"ended early.*goes on from there; three ways out: \(1\) with a network"
    ):
        samples.fetch(published.sample, tmp_path)
    assert (tmp_path / "photos.tgz.part").read_bytes() == CONTENT[:700]
    published.cut_after = None
    assert samples.fetch(published.sample, tmp_path).read_bytes() == CONTENT
    assert published.asked == [None, "bytes=700-"]
    assert not (tmp_path / "photos.tgz.part").exists()


def test_what_is_not_what_was_published_is_thrown_away(published: Published, tmp_path: Path) -> None:
    for wrong in (b"x" * len(CONTENT), CONTENT + b"more" * 100_000):
        published.content = wrong
        with pytest.raises(DatasetError, match=r"not the published photos\.tgz .* what came was removed"):
            samples.fetch(published.sample, tmp_path)
        assert list(tmp_path.iterdir()) == [], "nothing is left, and nothing beyond the known size was kept"
    (tmp_path / "photos.tgz").write_bytes(b"something else of the same name")
    with pytest.raises(DatasetError, match="move it away"):
        samples.fetch(published.sample, tmp_path)
    assert (tmp_path / "photos.tgz").read_bytes() == b"something else of the same name", (
        "the user's file stays"
    )


def test_a_part_that_leads_elsewhere_is_not_followed(published: Published, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.write_bytes(b"mine")
    (tmp_path / "photos.tgz.part").symlink_to(other)
    with pytest.raises(DatasetError, match="could not be fetched"):
        samples.fetch(published.sample, tmp_path)
    assert other.read_bytes() == b"mine"


def test_without_a_network_the_error_names_the_ways_out(published: Published, tmp_path: Path) -> None:
    nobody = replace(published.sample, address="http://127.0.0.1:9/photos.tgz")
    with pytest.raises(DatasetError) as found:
        samples.fetch(nobody, tmp_path)
    assert "Connection refused" in str(found.value) and "urlopen" not in str(found.value)
    assert nobody.address in str(found.value) and str(tmp_path / "photos.tgz") in str(found.value)
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(OptionError, match="there are flowers, ants-and-bees"):
        samples.sample_named("cats")


def test_the_command_says_what_it_fetches_before_and_where_it_is_after(
    published: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(samples.SAMPLES, "flowers", published.sample)
    done = CliRunner().invoke(cli, ["sample", "flowers", str(tmp_path)])
    assert done.exit_code == 0 and done.stdout == f"{tmp_path / 'photos.tgz'}\n"
    for fact in (published.sample.address, published.sample.sha256, "free", f"{len(CONTENT)} bytes"):
        assert fact in done.stderr
    listed = CliRunner().invoke(cli, ["sample", "--json"])
    assert {each["name"] for each in json.loads(listed.stdout)} == {"flowers", "ants-and-bees"}


def test_an_experiment_reads_the_archive_as_it_is(published: Published, tmp_path: Path) -> None:
    path = samples.fetch(published.sample, tmp_path)
    found = images_of(str(path), per_class=10, seed=0)
    assert found.classes == ("daisy", "tulip") and len(found.samples) == 20


def test_every_sample_has_a_checksum_a_size_and_a_licence() -> None:
    for sample in samples.SAMPLES.values():
        assert len(bytes.fromhex(sample.sha256)) == 32 and sample.bytes > 0 and sample.licence
        assert sample.address.startswith("https://") and sample.file in sample.address
