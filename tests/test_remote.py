"""Photographs at addresses: the data set of the disk, nothing lost where requests fail, no secret told."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headstart
from conftest import write_photos
from headstart.data.checks import check
from headstart.data.dataset import Dataset, content_hash, list_unlabelled, place_of, read_dataset
from headstart.data.sources import source_at
from headstart.data.sources.remote import shown
from headstart.errors import DatasetError, HeadstartError, ImageError, MissingExtra
from headstart.files import held_below
from headstart.training.planning import plan
from web_folders import web_folder

fsspec = pytest.importorskip("fsspec", reason="needs headstart[remote]")
pytest.importorskip("aiohttp", reason="needs headstart[remote]")

remote_module = sys.modules["headstart.data.sources.remote"]


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tries come at once."""
    monkeypatch.setattr(remote_module, "FIRST_PAUSE", 0.0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A few photographs in class folders, the same in archives, and a table beside the folders."""
    root = tmp_path_factory.mktemp("remote")
    rows = ["file,label"]
    files = sorted(write_photos(tmp_path_factory.mktemp("drawn"), per_class=10).rglob("*.jpg"))
    with (
        zipfile.ZipFile(root / "all.zip", "w") as zipped,
        tarfile.open(root / "all.tar", "w") as plain,
        tarfile.open(root / "all.tgz", "w:gz") as packed,
        tarfile.open(root / "shards-0.tar", "w") as shard,
    ):
        for number, each in enumerate(files):
            inner = f"{each.parent.name}/{number} of all{each.suffix}"
            place = root / "photos" / inner
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(each.read_bytes())
            rows.append(f"{inner},{each.parent.name}")
            zipped.write(place, inner)
            plain.add(place, inner)
            packed.add(place, inner)
            shard.add(place, f"{number:04}{each.suffix}")
            label = root / "label"
            label.write_text(each.parent.name)
            shard.add(label, f"{number:04}.cls")
    (root / "photos" / "list.csv").write_text("\n".join(rows))
    return root


@pytest.fixture
def memory(folder: Path) -> Iterator[str]:
    """The same in a store of fsspec's own."""
    store = fsspec.filesystem("memory")
    store.store.clear()
    store.put(f"{folder}/", "/bucket/", recursive=True)
    yield "memory://bucket"
    store.store.clear()


def facts(dataset: Dataset) -> list[tuple[str, str, bytes]]:
    return sorted(
        (sample.name, dataset.classes[sample.label], content_hash(sample.source.read()))
        for sample in dataset.samples
    )


# --------------------------------------------------------------------------------------- the same data sets


NAMES = ["photos", "photos/list.csv", "all.zip", "all.tar", "all.tgz", "shards-0.tar", "shards-{0..0}.tar"]


@pytest.mark.parametrize("name", NAMES)
def test_a_data_set_at_an_address_is_the_one_on_disk(folder: Path, memory: str, name: str) -> None:
    here, there = read_dataset(str(folder / name)), read_dataset(f"{memory}/{name}")
    assert facts(here) == facts(there) and here.classes == there.classes and len(here) > 20
    assert [each.to_dict() for each in here.skipped] == [each.to_dict() for each in there.skipped]
    assert there.origin == f"{memory}/{name}"
    assert place_of(there.samples[0])["file"].startswith("memory://")


@pytest.mark.parametrize("name", ["photos/", "all.zip", "all.tar"])
def test_a_web_server_gives_the_same_data_sets(folder: Path, name: str) -> None:
    with web_folder(folder) as web:
        assert facts(read_dataset(web.address + name)) == facts(read_dataset(folder / name))


def test_a_table_on_a_web_server_that_lists_nothing_finds_its_images(folder: Path) -> None:
    with web_folder(folder, lists=False) as web:
        found = read_dataset(f"{web.address}photos/list.csv")
        assert facts(found) == facts(read_dataset(folder / "photos/list.csv"))


def test_of_an_archive_only_what_is_read_is_fetched(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "_BLOCK", 4096)
    with zipfile.ZipFile(tmp_path / "large.zip", "w") as archive:
        for each in sorted((folder / "photos").rglob("*.*g")):
            archive.write(each, each.relative_to(folder / "photos"))
        archive.writestr("zebra/huge.bmp", bytes(2_000_000))
    with web_folder(tmp_path) as web:
        read_dataset(f"{web.address}large.zip").samples[0].source.read()
        assert web.bytes_sent < 200_000


def test_rows_may_name_whole_addresses_of_the_same_store(memory: str) -> None:
    store = fsspec.filesystem("memory")
    first = sorted(each for each in store.find("/bucket/photos") if not each.endswith(".csv"))
    rows = ["file,label", *(f"memory:/{each},{each.split('/')[3]}" for each in first)]
    store.pipe("/other/list.csv", "\n".join(rows).encode())
    found = read_dataset("memory://other/list.csv")
    assert len(found) == len(first) and len(found.samples[0].source.read()) > 100
    assert found.samples[0].name.startswith("memory://bucket/photos/")


def test_training_judging_checking_planning_and_predicting_take_addresses(
    folder: Path, memory: str, tmp_path: Path
) -> None:
    options: dict[str, Any] = {"backbone": "builtin", "size": 32}
    _, here = headstart.fit(str(folder / "photos"), out=tmp_path / "here", **options)
    model, there = headstart.fit(f"{memory}/photos", out=tmp_path / "there", **options)
    assert there.accuracy == here.accuracy and there.cache["misses"] == 0  # the content is the key
    assert there.source == f"{memory}/photos"
    assert headstart.evaluate(model, f"{memory}/all.zip")
    assert check(f"{memory}/all.tar").images == 30
    assert plan(f"{memory}/photos", backbones=["builtin"])
    found = list_unlabelled([f"{memory}/photos", f"{memory}/photos/bars/0 of all.jpg"]).samples
    said = list(model.predict_each(found))
    assert len(said) == 31 and said[-1].path == f"{memory}/photos/bars/0 of all.jpg"


def test_an_image_that_was_exchanged_is_another_image(memory: str, folder: Path) -> None:
    """Of the same size, at the same address: neither listing nor cache may take it for the old one."""
    store = fsspec.filesystem("memory")
    first, *others = [each for each in store.find("/bucket/photos") if not each.endswith(".csv")]
    before = {name: content for name, _, content in facts(read_dataset(f"{memory}/photos"))}
    store.pipe(first, store.cat(others[-1]).ljust(len(store.cat(first)), b"\0")[: len(store.cat(first))])
    store.pipe("/bucket/photos/bars/new one.jpg", store.cat(others[0]))
    after = {name: content for name, _, content in facts(read_dataset(f"{memory}/photos"))}
    changed = {name for name in after if after[name] != before.get(name)}
    assert changed == {first.removeprefix("/bucket/photos/"), "bars/new one.jpg"}


# ------------------------------------------------------------------------------------------ what goes wrong


def test_requests_that_fail_now_and_then_lose_nothing(folder: Path) -> None:
    """Every fifth request fails, listings and stretches of archives too."""
    with web_folder(folder, fails=lambda path, number: number % 5 == 0) as web:
        for name in ("photos/", "all.zip"):
            assert facts(read_dataset(web.address + name)) == facts(read_dataset(folder / name))


def test_what_never_comes_is_named_with_its_tries_and_the_rest_is_used(folder: Path) -> None:
    with web_folder(folder, fails=lambda path, number: "/3 of all" in path) as web:
        dataset = read_dataset(f"{web.address}photos/")
        bad = [sample for sample in dataset.samples if "/3 of all" in sample.name]
        with pytest.raises(ImageError, match=r"cannot be read: .*503.*\(5 tries\)"):
            bad[0].source.read()
        assert sum("/3 of all" in path for path in web.asked) == remote_module.TRIES
        assert len(bad) == 1 and all(each.source.read() for each in dataset.samples if each is not bad[0])


def test_what_is_refused_or_absent_is_asked_for_once(folder: Path) -> None:
    with web_folder(folder) as web:
        with pytest.raises(DatasetError, match="nothing is there"):
            read_dataset(f"{web.address}absent.zip")
        assert len(web.asked) <= 2  # HEAD, and GET where a server knows no HEAD


def test_images_are_bounded_also_where_nobody_tells_their_size(
    folder: Path, memory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "MAX_FILE_BYTES", 50)
    with web_folder(folder) as web:
        for address in (f"{memory}/photos", f"{web.address}photos/"):
            with pytest.raises(ImageError, match="larger than"):
                read_dataset(address).samples[0].source.read()


def test_a_server_that_sends_more_than_it_was_asked_for_is_not_read_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(remote_module, "MAX_FILE_BYTES", 2**16)
    (tmp_path / "endless.zip").write_bytes(bytes(2**25))
    with web_folder(tmp_path, stretches=False, claims=100) as web:
        place = remote_module.remote(f"{web.address}endless.zip")
        assert place is not None and len(place.head(10)) == 10
        with pytest.raises(ImageError, match="larger than"):
            place.source().read()
        for read in (place.open, lambda: read_dataset(f"{web.address}endless.zip")):
            with pytest.raises(DatasetError, match=r"sends whole files alone \(no Range\); fetch it"):
                read()
        assert web.bytes_sent < 3 * 2**24  # of three times as much: the rest was never taken


def test_names_that_are_long_deep_hidden_or_lead_out_are_left_out(memory: str) -> None:
    store = fsspec.filesystem("memory")
    image = store.cat(next(each for each in store.find("/bucket/photos") if not each.endswith(".csv")))
    for name in (f"bars/{'x' * 1100}.jpg", f"bars/{'d/' * 40}x.jpg", "bars/.hidden.jpg", "bars/a\nb.jpg"):
        store.pipe(f"/bucket/photos/{name}", image)
    dataset = read_dataset(f"{memory}/photos/list.csv".removesuffix("/list.csv"))
    told = " ".join(each.reason for each in dataset.skipped)
    assert "has 1,109 characters" in told and "folders deep" in told and "hidden" in told
    assert all("\n" not in each.name for each in (*dataset.samples, *dataset.skipped))


@pytest.mark.parametrize(
    ("address", "said"),
    [
        ("memory://absent", "memory://absent: nothing is there"),
        ("ftp://host/photos", "addresses of this kind are not read"),
        ("file:///etc", "addresses of this kind are not read"),
        ("memory://a::zip://b", "addresses of this kind are not read"),
        ("s3://key:secret@bucket/photos", r"s3://\*\*\*@bucket/photos: an account does not belong"),
        ("az://container/photos", "pip install adlfs"),
    ],
)
def test_addresses_that_cannot_be_read_are_one_line(address: str, said: str) -> None:
    with pytest.raises(HeadstartError, match=said) as caught:
        read_dataset(address)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_without_fsspec_the_extra_is_named_and_nothing_else_imports_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "fsspec.core", None)
        with pytest.raises(MissingExtra, match=r"headstart\[remote\]"):
            read_dataset("s3://bucket/photos")
    script = "import sys, headstart.data.dataset, headstart.cli; assert 'fsspec' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True)


# ------------------------------------------------------------------------------------------------- secrets


def test_passwords_and_signatures_are_used_and_never_shown_or_saved(folder: Path, tmp_path: Path) -> None:
    with web_folder(folder) as web:
        secret = f"http://ada:pass1234@127.0.0.1:{web.port}/all.zip?X-Signature=sig5678"
        _, run = headstart.fit(secret, out=tmp_path / "run", backbone="builtin", size=32)
        assert any(each.startswith("Basic ") for each in web.authorised)
        told: list[object] = [run, *list_unlabelled([secret]).samples]
        web.fails = lambda path, number: True
        with pytest.raises(HeadstartError) as caught:
            read_dataset(secret)
        told += [str(caught.value), repr(caught.value.__cause__)]
    saved = [each.read_bytes() for each in (tmp_path / "run").rglob("*") if each.is_file()]
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["source"] == f"http://***@127.0.0.1:{web.port}/all.zip?…"
    for text in (*map(str, told), *(each.decode("latin-1") for each in saved)):
        assert "pass1234" not in text and "sig5678" not in text


def test_addresses_are_shown_without_secrets() -> None:
    for address, told in (
        ("https://a:b@h/x?sig=1", "https://***@h/x?…"),
        ("https://token@h/x", "https://***@h/x"),
        ("https://h/x#access_token=1", "https://h/x"),
        ("az://container/x?sig=1", "az://container/x?…"),
        ("HTTP://h?sig=1", "HTTP://h?…"),
        ("s3://b/what? #1.jpg", "s3://b/what? #1.jpg"),
    ):
        assert shown(address) == told
    with pytest.raises(DatasetError) as caught:
        read_dataset("http://token5678@127.0.0.1:1/photos/")
    assert "token5678" not in str(caught.value)


def test_addresses_may_be_spelt_in_capitals_and_of_ipv6(folder: Path) -> None:
    with web_folder(folder) as web:
        assert facts(read_dataset(f"HTTP://127.0.0.1:{web.port}/photos/")) == facts(
            read_dataset(folder / "photos")
        )
    with pytest.raises(DatasetError, match=r"http://\[::1\]:1/photos/: cannot be listed"):
        read_dataset("http://[::1]:1/photos/")


# ------------------------------------------------------------------------------------ pages that list folders


def test_a_listing_ends_whatever_its_links_lead_to(folder: Path) -> None:
    with web_folder(
        folder, links=("./../", "../", "/", "?C=N;O=D", "#top", "./", "javascript:x", "//")
    ) as web:
        for address in (f"{web.address}photos/", f"{web.address}photos/?signature=sig5678"):
            web.asked.clear()
            assert facts(read_dataset(address)) == facts(read_dataset(folder / "photos"))
            assert len([each for each in web.asked if each.endswith("/")]) == 4  # the root and three classes


@pytest.mark.parametrize("status", [None, 404, 500])
def test_a_folder_whose_page_does_not_come_is_not_an_empty_one(folder: Path, status: int | None) -> None:
    fails = lambda path, _: path == "/photos/discs/"  # noqa: E731
    with web_folder(folder, fails=fails, status=status) as web, pytest.raises(DatasetError) as caught:
        read_dataset(f"{web.address}photos/")
    assert "photos/discs/" in str(caught.value) and "cannot be listed" in str(caught.value)


def test_a_server_that_never_answers_is_not_waited_for_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_module, "_SILENT_SECONDS", 0.05)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(DatasetError, match=r"\(5 tries\)"):
        read_dataset(f"http://127.0.0.1:{silent.getsockname()[1]}/photos/")


@pytest.mark.parametrize("status", [403, 503])
def test_a_row_whose_file_nobody_can_tell_of_is_named_with_the_reason(folder: Path, status: int) -> None:
    fails = lambda path, _: path.startswith("/photos/bars/1 of")  # noqa: E731
    with web_folder(folder, lists=False, fails=fails, status=status) as web:
        dataset = read_dataset(f"{web.address}photos/list.csv")
        assert len(dataset) == 30 and not dataset.skipped
        found = next(each for each in dataset.samples if each.name.endswith("bars/1 of all.jpg"))
        with pytest.raises(ImageError, match={403: "access is refused", 503: "answers 503"}[status]):
            found.source.read()


# ------------------------------------------------------------------- nobody else makes us send requests


def test_a_table_on_disk_and_one_of_another_host_send_no_request(folder: Path, tmp_path: Path) -> None:
    with web_folder(folder) as other:
        rows = ["file,label"] + [f"{other.address}photos/bars/{n} of all.jpg,bars" for n in range(3)]
        (tmp_path / "list.csv").write_text("\n".join(rows))
        with pytest.raises(DatasetError):
            read_dataset(str(tmp_path / "list.csv"))
        with web_folder(tmp_path) as theirs, pytest.raises(DatasetError):
            read_dataset(f"{theirs.address}list.csv")
        assert other.asked == []


def test_a_record_that_names_an_address_sends_no_request(folder: Path) -> None:
    with web_folder(folder) as web:
        for member in (None, "bars/0.jpg"):
            with pytest.raises(ImageError, match="lies at an address"):
                source_at(f"{web.address}all.zip", member).read()
        assert web.asked == []


def test_servers_that_keep_to_their_folders_read_no_address(folder: Path, tmp_path: Path) -> None:
    with web_folder(folder) as web, held_below(tmp_path):
        for address in (f"{web.address}photos/", "memory://bucket/photos", f"{web.address}s-{{0..1}}.tar"):
            with pytest.raises(DatasetError, match="only files of this machine are read here"):
                read_dataset(address)
            with pytest.raises(DatasetError, match="only files of this machine are read here"):
                list_unlabelled([address])
        assert web.asked == []
