"""The feature cache and the extraction that fills it."""

import contextlib
import multiprocessing
import os
import re
import shutil
import signal
import sqlite3
import threading
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path
from queue import Queue
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headstart.backbones import Backbone, load_backbone
from headstart.backbones.runtimes import select
from headstart.data.dataset import Dataset, read_dataset
from headstart.data.images import CENTRE, parse_views
from headstart.errors import CacheError, OptionError
from headstart.features import CachePartition, FeatureCache, FeatureSpec, cache_bytes, extract
from headstart.features import cache as cache_module
from headstart.features import database as database_module
from headstart.features import extraction as extraction_module
from headstart.features.cache import pack, unpack
from headstart.features.writer_lock import writer_lock

SIZE = 64


@pytest.fixture(autouse=True)
def nothing_said_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_module, "_warned", set())


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return load_backbone("builtin", size=SIZE)


@pytest.fixture
def dataset(photos: Path) -> Dataset:
    return read_dataset(photos)


def run(dataset: Dataset, backbone: Backbone, cache: FeatureCache, **options: Any) -> Any:
    spec = FeatureSpec(
        depth=options.pop("depth", len(backbone.stages)),
        views=options.pop("views", (CENTRE,)),
        pooled=options.pop("pooled", True),
        layers=options.pop("layers", False),
        also=options.pop("also", ()),
    )
    runtime = select("openvino", precision=options.pop("precision", "f32"))
    return extract(dataset.samples, backbone, spec=spec, runtime=runtime, cache=cache, **options)


# --- the store


@given(
    st.sampled_from(["<f2", "<f4", "u1"]),
    st.lists(st.integers(0, 5), max_size=4),
    st.integers(0, 2**32 - 1),
)
@settings(deadline=None)
def test_an_array_survives_packing(dtype: str, shape: list[int], seed: int) -> None:
    array = np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
    back = unpack(pack(array))
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_any_part_of_the_description_makes_another_partition(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    first = cache.partition({"weights": "a", "size": 96})
    first.put_many([(b"key", b"value")])
    assert cache.partition({"size": 96, "weights": "a"}).get_many([b"key", b"other"]) == [b"value", None]
    for other in ({"weights": "b", "size": 96}, {"weights": "a", "size": 97}, {"weights": "a"}):
        assert cache.partition(other).get_many([b"key"]) == [None]


def fill(partition: CachePartition, *, entries: int = 300) -> dict[bytes, bytes]:
    """Records of small and large sizes, of which some take several pages."""
    random = np.random.default_rng(0)
    records = {random.bytes(24): random.bytes(40_000 if i % 30 == 0 else 500) for i in range(entries)}
    partition.put_many(records.items())
    return records


def damaged(data: bytes, *, seed: int) -> bytes:
    """A file as a failing disk, a power cut or a stray program leaves it."""
    random, page = np.random.default_rng(seed), 4096
    found = bytearray(data)
    kind = ("flip", "zero", "cut", "noise", "swap", "longer")[seed % 6]
    first, second = (int(i) * page for i in random.integers(0, len(data) // page, 2))
    if kind == "flip":
        for place in random.integers(0, len(found), int(random.integers(1, 200))):
            found[place] ^= 1 << int(random.integers(8))
    elif kind == "cut":
        del found[int(random.integers(0, len(found))) :]
    elif kind == "swap":
        found[first : first + page], found[second : second + page] = (
            found[second : second + page],
            found[first : first + page],
        )
    elif kind == "longer":
        found += random.bytes(int(random.integers(1, 3 * page)))
    else:
        size = page * int(random.integers(1, 5))
        found[first : first + size] = (bytes(size) if kind == "zero" else random.bytes(size))[
            : max(0, len(found) - first)
        ]
    return bytes(found)


@pytest.mark.parametrize("seed", range(24))
def test_a_damaged_partition_gives_its_values_or_none_and_takes_new_ones(seed: int, tmp_path: Path) -> None:
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    records = fill(partition)
    file = partition.path / database_module.FILE
    del partition
    file.write_bytes(damaged(file.read_bytes(), seed=seed))
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    assert all(
        value in (None, records[key])
        for key, value in zip(records, partition.get_many([*records]), strict=True)
    )
    partition.put_many([*records.items()])
    assert partition.get_many([*records]) == [*records.values()]


def test_a_file_that_is_cut_while_it_is_open_is_noticed_and_nobody_dies(tmp_path: Path) -> None:
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    records = fill(partition)
    os.truncate(partition.path / database_module.FILE, 20_000)
    assert set(partition.get_many([*records])) <= {None, *records.values()}
    partition.put_many([*records.items()])
    assert partition.get_many([*records]) == [*records.values()]


@pytest.mark.parametrize("content", [b"\x17" * 100_000, b"SQLite format 3\0" + bytes(100_000)])
def test_what_is_no_partition_is_set_aside_in_a_sentence(
    content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = FeatureCache(tmp_path).partition({"weights": "a"}).path
    (path / database_module.FILE).write_bytes(content)
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    partition.put_many([(b"key", b"value")])
    assert partition.get_many([b"key"]) == [b"value"]
    (aside,) = path.parent.glob("*.damaged-*")
    assert (aside / database_module.FILE).read_bytes() == content
    assert len(caplog.messages) == 1 and f"set aside as {aside.name}" in caplog.text
    FeatureCache(tmp_path).prune(keep_bytes=1 << 30)
    assert not aside.exists() and partition.get_many([b"key"]) == [b"value"]


def test_a_database_of_another_schema_is_no_partition(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = FeatureCache(tmp_path).partition({"weights": "a"}).path
    with contextlib.closing(sqlite3.connect(path / database_module.FILE)) as connection:
        connection.execute("CREATE TRIGGER sly AFTER INSERT ON records BEGIN DELETE FROM records; END")
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    partition.put_many([(b"key", b"value")])
    assert partition.get_many([b"key"]) == [b"value"] and "another schema" in caplog.text


def test_a_partition_of_the_earlier_format_is_set_aside_in_a_sentence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = FeatureCache(tmp_path).partition({"weights": "a"}).path
    (path / database_module.FILE).rename(path / "data.mdb")
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    assert partition.get_many([b"key"]) == [None]
    assert "written by an earlier version; set aside as" in caplog.text and len(caplog.messages) == 1
    assert len([*path.parent.glob("*.outdated-*/data.mdb")]) == 1


def test_damage_that_one_process_set_aside_is_not_set_aside_again_by_another(tmp_path: Path) -> None:
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    records = fill(partition)
    file = partition.path / database_module.FILE
    others = partition.path.with_name("set aside by another")
    partition.path.rename(others)
    partition.path.mkdir()
    fresh = database_module.Database(file)
    fresh.put([(b"key", b"value")])
    os.truncate(others / database_module.FILE, 20_000)
    assert partition.get_many([*records]) == [None] * len(records)
    assert partition.get_many([b"key"]) == [b"value"]
    assert not [*partition.path.parent.glob("*.damaged-*")]


def test_a_cache_that_cannot_be_written_names_the_way_out(tmp_path: Path) -> None:
    (tmp_path / "features").write_text("a file where a folder should be")
    with pytest.raises(OptionError, match="HEADSTART_CACHE"):
        FeatureCache(tmp_path).partition({"weights": "a"})


def test_pruning_drops_the_least_recently_used_first(tmp_path: Path) -> None:
    cache = FeatureCache(tmp_path)
    for age, name in ((300, "old"), (200, "middle"), (100, "new")):
        partition = cache.partition({"backbone": name})
        partition.put_many([(b"%d" % number, os.urandom(1000)) for number in range(100)])
        when = time.time() - age
        os.utime(partition.path / "about.json", (when, when))
        del partition
    sizes = {str(info.description["backbone"]): info.bytes for info in cache.partitions()}
    dropped = cache.prune(keep_bytes=sizes["new"] + sizes["middle"])
    assert [info.description["backbone"] for info in dropped] == ["old"]
    assert [info.description["backbone"] for info in cache.prune(older_than=150)] == ["middle"]
    assert [info.description["backbone"] for info in cache.partitions()] == ["new"]
    assert cache.prune() and cache.partitions() == []


def _write_forever(root: str, first: int) -> None:
    partition = FeatureCache(Path(root)).partition({"weights": "a"})
    for number in count(first):
        value = number.to_bytes(8, "little") * 512
        partition.put_many([(f"{number}-{part}".encode(), value) for part in range(8)])


def _whole_transactions(partition: CachePartition) -> int:
    """How many were written, each of which must be there whole."""
    for number in count():
        values = partition.get_many([f"{number}-{part}".encode() for part in range(8)])
        if values != [number.to_bytes(8, "little") * 512] * 8:
            assert values == [None] * 8
            return number
    raise AssertionError


def test_a_writer_killed_at_any_moment_leaves_whole_transactions(tmp_path: Path) -> None:
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    context = multiprocessing.get_context("spawn")
    before = 0
    for attempt in range(3):
        writer = context.Process(target=_write_forever, args=(str(tmp_path), before))
        writer.start()
        while partition.get_many([f"{before}-0".encode()]) == [None]:
            time.sleep(0.01)
        time.sleep(0.02 * attempt)
        assert writer.pid is not None
        os.kill(writer.pid, signal.SIGKILL)
        writer.join()
        before = _whole_transactions(partition)


def _hold_the_lock(root: str, ready: Any) -> None:
    with writer_lock(FeatureCache(Path(root)).partition({"weights": "a"}).path):
        ready.set()
        time.sleep(600)


@pytest.fixture
def sleeper(tmp_path: Path) -> Iterator[int]:
    """A process that was stopped in the middle of writing to the partition "a"."""
    context = multiprocessing.get_context("spawn")
    ready = context.Event()
    process = context.Process(target=_hold_the_lock, args=(str(tmp_path), ready))
    process.start()
    assert ready.wait(60) and process.pid is not None
    os.kill(process.pid, signal.SIGSTOP)
    yield process.pid
    process.kill()
    process.join()


def test_a_stopped_writer_is_named_and_writing_goes_on_when_it_is_gone(
    tmp_path: Path, sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: Queue[str] = Queue()
    monkeypatch.setattr("headstart.features.writer_lock.PATIENCE", 0.05)
    monkeypatch.setattr(
        "headstart.features.writer_lock._log.warning", lambda text, *about: said.put(text % about)
    )
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    writer = threading.Thread(target=lambda: partition.put_many([(b"key", b"value")]))
    writer.start()
    assert f"waiting for process {sleeper} (stopped; kill -CONT {sleeper}" in said.get(timeout=60)
    assert writer.is_alive() and partition.get_many([b"key"]) == [None]
    os.kill(sleeper, signal.SIGKILL)
    writer.join(60)
    assert partition.get_many([b"key"]) == [b"value"]


def test_a_writer_in_a_hurry_does_not_wait_for_a_stopped_one(
    tmp_path: Path, sleeper: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.features.writer_lock.LAST_PATIENCE", 0.05)
    hurry = threading.Event()
    hurry.set()
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    with pytest.raises(CacheError, match=f"process {sleeper} .*is writing to it and does not end"):
        partition.put_many([(b"key", b"value")], hurry=hurry)


def test_threads_may_open_and_leave_the_same_partition_at_once(tmp_path: Path) -> None:
    problems: list[Exception] = []

    def come_and_go() -> None:
        try:
            for _ in range(400):
                FeatureCache(tmp_path).partition({"weights": "a"}).get_many([b"key"])
        except CacheError as error:
            problems.append(error)

    threads = [threading.Thread(target=come_and_go) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not problems


# --- extraction


def test_a_second_pass_finds_everything_and_computes_nothing(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    first = run(dataset, backbone, cache, layers=True)
    assert (first.use.hits, first.use.misses) == (0, 48) and first.use.bytes > 0

    def never(*_: Any, **__: Any) -> None:
        raise AssertionError("decoded an image that was cached")

    monkeypatch.setattr(extraction_module, "decode", never)
    second = run(dataset, backbone, cache, layers=True)
    assert (second.use.hits, second.use.misses, second.use.bytes) == (48, 0, 0)
    names = [layer.name for layer in backbone.feature_layers()]
    np.testing.assert_array_equal(
        first.features(range(48), layers=names, view=CENTRE),
        second.features(range(48), layers=names, view=CENTRE),
    )


def test_cached_features_are_what_the_prefix_computes(
    dataset: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    from headstart.data.images import open_image, render

    found = run(dataset, backbone, FeatureCache(tmp_path / "cache"), layers=True)
    prefix = select("openvino", precision="f32").compile(
        backbone, depth=len(backbone.stages), layers=backbone.feature_layers(), batch_size=1
    )
    for number in (0, 17, 47):
        image, _ = open_image(dataset.samples[number].source.read(), shortest_side=SIZE)
        pixels = render(image, backbone.preprocess, CENTRE)[None]
        (_, outputs), *_ = prefix.stream([(None, pixels)])
        for layer in backbone.feature_layers():
            cached = found.features([number], layers=[layer.name], view=CENTRE)
            np.testing.assert_allclose(
                cached, outputs[layer.name], rtol=2e-3, atol=2e-3 * np.abs(cached).max()
            )


def test_identical_images_share_an_entry_and_a_changed_one_misses(
    dataset: Dataset, backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    run(dataset, backbone, cache)
    (photos / "bars" / "000.jpg").rename(photos / "bars" / "renamed.jpg")
    (photos / "discs" / "000.jpg").write_bytes((photos / "discs" / "001.jpg").read_bytes() + b"\0")
    again = run(read_dataset(photos), backbone, cache)
    assert (again.use.hits, again.use.misses) == (47, 1)


@pytest.mark.parametrize("change", ["size", "precision", "view", "weights", "pixels"])
def test_whatever_could_change_a_value_is_a_miss(
    change: str, dataset: Dataset, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import dataclasses

    cache = FeatureCache(tmp_path / "cache")
    run(dataset, backbone, cache)
    options: dict[str, Any] = {}
    other = backbone
    if change == "size":
        other = load_backbone("builtin", size=SIZE + 8)
    elif change == "weights":
        other = dataclasses.replace(backbone, weights_hash="0" * len(backbone.weights_hash))
    elif change == "view":
        options["views"] = parse_views("flip")[1:]
    elif change == "pixels":
        monkeypatch.setattr(extraction_module, "pixels_version", lambda: "of an earlier version")
    elif select("openvino").precision == "bf16":
        options["precision"] = "bf16"
    else:
        pytest.skip("this processor has no bf16, so there is no other precision")
    assert run(dataset, other, cache, **options).use.misses == 48


def test_a_cut_in_the_middle_caches_the_activation_and_shares_the_pooled_features(
    dataset: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    found = run(dataset, backbone, cache, depth=4)
    assert found.activations(range(3), view=CENTRE).shape == (3, *backbone.stages[3].shape)
    assert run(dataset, backbone, cache).use.misses == 0  # everything frozen reads what depth 4 stored


def test_one_pass_stores_several_cuts_and_each_is_what_a_pass_of_its_own_stores(
    dataset: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    together = run(dataset, backbone, FeatureCache(tmp_path / "together"), also=(5, 0, 2))
    assert together.use.misses == 48
    for depth in (0, 2, 5):
        alone = run(dataset, backbone, FeatureCache(tmp_path / str(depth)), depth=depth)
        expected = alone.activations(range(48), view=CENTRE)
        found = together.at(depth).activations(range(48), view=CENTRE)
        assert found.shape == expected.shape
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(OptionError, match="depth 3"):
        together.at(3)


def test_depth_zero_without_pooling_stores_pixels_and_runs_no_network(
    dataset: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    found = run(dataset, backbone, FeatureCache(tmp_path / "cache"), depth=0, pooled=False)
    pixels = found.activations(range(48), view=CENTRE)
    assert pixels.shape == (48, SIZE, SIZE, 3) and pixels.dtype == np.uint8 and pixels.std() > 10


def test_features_that_are_damaged_or_pruned_after_the_pass_are_computed_again(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found = run(dataset, backbone, FeatureCache(tmp_path / "cache"), depth=4, layers=True)
    whole = found.features(range(48), view=CENTRE), found.activations(range(48), view=CENTRE)
    file = found.partition.path / database_module.FILE
    data = bytearray(file.read_bytes())
    data[20_000::997] = bytes(value ^ 0x5A for value in data[20_000::997])
    file.write_bytes(data)
    found.partition._stored._reader.execute("PRAGMA shrink_memory")  # as in a process that opens it
    np.testing.assert_array_equal(found.features(range(48), view=CENTRE), whole[0])
    np.testing.assert_array_equal(found.activations(range(48), view=CENTRE), whole[1])
    assert "set aside" in caplog.text
    FeatureCache(tmp_path / "cache").prune()
    np.testing.assert_array_equal(found.activations([7], view=CENTRE), whole[1][7:8])


def test_rows_hold_records_of_both_precisions(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half precision ends at 65,504: a map with a larger value is stored in single, its neighbours not."""
    large = np.full((2, 2), 70_000.0, np.float32)
    small = np.full((2, 2), 0.5, np.float32)
    odd = np.array([[np.nan, 1e6], [-np.inf, 2.0]], np.float32)
    half = np.dtype(np.float16)
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    values = {b"small": small, b"large": -large, b"odd": odd}
    stored = {key: pack(extraction_module._narrow(value, half)) for key, value in values.items()}
    assert [unpack(value).dtype.char for value in stored.values()] == ["e", "f", "f"]
    partition.put_many(stored.items())
    for order in ([b"small", b"large", b"odd"], [b"odd", b"large", b"small"], [b"large"]):
        rows = partition.read(order)
        np.testing.assert_array_equal(rows, [values[key] for key in order])
    assert partition.read([b"small"] * 3).dtype == np.float16


def test_views_are_cached_apart(dataset: Dataset, backbone: Backbone, tmp_path: Path) -> None:
    views = parse_views("flip")
    found = run(dataset, backbone, FeatureCache(tmp_path / "cache"), views=views, depth=0, pooled=False)
    centre, flipped = (found.activations(range(4), view=view) for view in views)
    np.testing.assert_array_equal(flipped, centre[:, :, ::-1])
    assert found.use.misses == 96


def test_an_unreadable_file_is_named_and_the_rest_is_kept(
    dataset: Dataset, backbone: Backbone, photos: Path, tmp_path: Path
) -> None:
    (photos / "bars" / "003.jpg").write_bytes(b"\xff\xd8 no image")
    found = run(read_dataset(photos), backbone, FeatureCache(tmp_path / "cache"))
    assert [item.name for item in found.skipped] == [str(Path("bars") / "003.jpg")]
    assert sum(content is None for content in found.hashes) == 1
    assert found.use.misses == 47


@pytest.fixture
def full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr("headstart.features.cache.shutil.disk_usage", lambda _: usage)


def test_a_cache_on_a_full_disk_says_so_and_the_features_last_as_long_as_the_process(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, full_disk: None, caplog: pytest.LogCaptureFixture
) -> None:
    cache = FeatureCache(tmp_path / "cache")
    found = run(dataset, backbone, cache, layers=True)
    assert len(caplog.messages) == 1
    assert re.search("MB are needed, 0.0 MB are free; going on without storing", caplog.text)
    assert found.features(range(48), view=CENTRE).shape == (48, backbone.dimensions)
    assert run(dataset, backbone, cache, layers=True).use.misses == 0


def test_what_no_place_has_room_for_is_refused_before_anything_is_written(
    dataset: Dataset, backbone: Backbone, tmp_path: Path, full_disk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("headstart.features.cache.IN_MEMORY", 1000)
    with pytest.raises(OptionError, match=r"need up to .* MB, which neither .* prune"):
        run(dataset, backbone, FeatureCache(tmp_path / "cache"))


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (sqlite3.SQLITE_FULL, "the disk is full"),
        (sqlite3.SQLITE_READONLY, "it cannot be written"),
        (sqlite3.SQLITE_BUSY, "its file system has no locks"),
        (sqlite3.SQLITE_IOERR_WRITE, "the disk cannot be read or written"),
    ],
)
def test_what_cannot_be_stored_is_kept_and_what_was_stored_is_still_read(
    code: int, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    partition.put_many([(b"before", b"1")])
    real = database_module.transaction

    def failing(connection: sqlite3.Connection, *, writes: bool) -> Any:
        if connection is partition._stored._writer:  # type: ignore[union-attr]
            error = sqlite3.OperationalError("as the system says it")
            error.sqlite_errorcode = code
            raise error
        return real(connection, writes=writes)

    monkeypatch.setattr(database_module, "transaction", failing)
    partition.put_many([(b"after", b"2")])
    partition.put_many([(b"later", b"3")])
    assert partition.get_many([b"before", b"after", b"later", b"never"]) == [b"1", b"2", b"3", None]
    assert partition.present([b"before", b"later", b"never"]) == {b"before", b"later"}
    assert len(caplog.messages) == 1 and reason in caplog.text and "HEADSTART_CACHE" in caplog.text


def test_a_cache_that_another_process_keeps_locked_is_gone_without(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(database_module, "BUSY", 0.05)
    partition = FeatureCache(tmp_path).partition({"weights": "a"})
    partition.put_many([(b"key", b"value")])
    other = sqlite3.connect(partition.path / database_module.FILE, isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    assert partition.get_many([b"key"]) == [None]
    partition.put_many([(b"other", b"value")])
    assert partition.get_many([b"other"]) == [b"value"]
    other.close()
    assert "locked" in caplog.text and len(caplog.messages) == 1


def test_the_bytes_announced_bound_the_bytes_written(
    dataset: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    if select("openvino").precision != "bf16":
        pytest.skip("without bf16 features are stored at four bytes a value")
    for depth in (0, 3, len(backbone.stages)):
        spec = FeatureSpec(depth=depth, views=(CENTRE,), layers=True)
        cache = FeatureCache(tmp_path / str(depth))
        found = run(dataset, backbone, cache, depth=depth, layers=True, precision="bf16")
        announced = cache_bytes(backbone, spec=spec, images=48)
        assert 0.8 * announced <= found.use.bytes <= announced


def test_an_interruption_keeps_what_was_computed(
    backbone: Backbone, make_photos: Any, tmp_path: Path
) -> None:
    cache, dataset = (
        FeatureCache(tmp_path / "cache"),
        read_dataset(make_photos(tmp_path / "many", per_class=80)),
    )

    def stop(phase: str, done: int, total: int) -> None:
        if done >= 200:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(dataset, backbone, cache, progress=stop)
    again = run(dataset, backbone, cache)
    assert again.use.hits >= 32 and again.use.hits + again.use.misses == 240


def test_several_threads_extract_on_one_cache_and_agree(
    dataset: Dataset, backbone: Backbone, tmp_path: Path
) -> None:
    cache, found = FeatureCache(tmp_path / "cache"), []
    threads = [threading.Thread(target=lambda: found.append(run(dataset, backbone, cache))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    features = [item.features(range(48), view=CENTRE) for item in found]
    assert len(features) == 3
    for other in features[1:]:
        np.testing.assert_allclose(other, features[0], rtol=1e-5)
