"""What others send is read as regular files alone, and never further than the bound."""

from __future__ import annotations

import json
import os
import stat
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headstart.errors import printable
from headstart.files import Unreadable, is_below, parse_json, read_regular, whole, write_new, write_whole
from headstart.files.descriptors import standard_error_without


def test_a_regular_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_regular(file, limit=5) == b"12345"
    with pytest.raises(Unreadable, match="larger than 4 bytes"):
        read_regular(file, limit=4)


@pytest.mark.skipif(sys.platform != "linux", reason="needs files that are larger than they say")
def test_a_file_that_is_larger_than_it_says_is_read_whole_or_refused() -> None:
    assert Path("/proc/self/maps").stat().st_size == 0
    assert read_regular("/proc/self/maps", limit=2**20).count(b"\n") > 10
    with pytest.raises(Unreadable, match="larger than 100 bytes"):
        read_regular("/proc/self/maps", limit=100)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs pipes with names")
def test_a_pipe_a_device_and_a_folder_neither_block_nor_fill_the_memory(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "endless").symlink_to("/dev/zero")
    for name in ("pipe", "endless", ""):
        with pytest.raises(Unreadable):
            read_regular(tmp_path / name, limit=10)
    with pytest.raises(Unreadable, match="No such file"):
        read_regular(tmp_path / "absent", limit=10)


def test_a_link_is_followed_below_its_root_alone(tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    (tmp_path / "outside").write_bytes(b"secret")
    (root / "own").write_bytes(b"own")
    (root / "in").symlink_to("own")
    (root / "out").symlink_to("../outside")
    assert read_regular(root / "in", limit=10, below=root) == b"own"
    with pytest.raises(Unreadable, match="not in its folder"):
        read_regular(root / "out", limit=10, below=root)


@pytest.mark.skipif(sys.platform == "win32", reason="links and steps of POSIX")
@pytest.mark.parametrize(
    "name", ["up/a", "../outside", "in/../../outside", "circle", "absolute", "folder/a", "absent", "own/more"]
)
def test_what_lies_outside_a_root_and_what_is_absent_get_one_answer(tmp_path: Path, name: str) -> None:
    root = tmp_path / "root"
    (root / "in").mkdir(parents=True)
    (root / "own").write_bytes(b"own")
    (tmp_path / "outside").write_bytes(b"secret")
    (tmp_path / "a").write_bytes(b"secret")
    (root / "up").symlink_to("..")
    (root / "circle").symlink_to("circle")
    (root / "absolute").symlink_to(tmp_path / "outside")
    (root / "folder").symlink_to(tmp_path)
    with pytest.raises(Unreadable, match=r"^not in its folder, or not there$"):
        read_regular(root / name, limit=10, below=root)
    assert not is_below(root / name, root)


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_links_that_stay_below_the_root_are_followed(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "a" / "b").mkdir(parents=True)
    (root / "a" / "file").write_bytes(b"own")
    (root / "a" / "b" / "up").symlink_to("../file")
    (root / "whole").symlink_to(root / "a")
    (tmp_path / "other").symlink_to(root)
    for name in ("a/b/up", "whole/b/../file", "a/./file"):
        assert read_regular(root / name, limit=10, below=root) == b"own"
    assert read_regular(tmp_path / "other" / "a" / "file", limit=10, below=tmp_path / "other") == b"own"


def test_a_root_may_be_named_by_a_way_up(tmp_path, monkeypatch):
    for name in ("here", "there/run"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "there/run/file").write_bytes(b"own")
    (tmp_path / "file").write_bytes(b"theirs")
    monkeypatch.chdir(tmp_path / "here")
    for root in ("../there/run", "../here/../there/run", "./../there/run/"):
        assert read_regular(Path(f"{root}/file"), limit=10, below=Path(root)) == b"own"
        with pytest.raises(Unreadable):
            read_regular(Path(f"{root}/../../file"), limit=10, below=Path(root))


@pytest.mark.skipif(sys.platform == "win32", reason="links of POSIX")
def test_a_folder_swapped_for_a_link_while_a_path_is_opened_leads_nowhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    for folder in (root / "a", elsewhere):
        folder.mkdir(parents=True)
        (folder / "file").write_bytes(folder.name.encode())
    look = os.readlink

    def swapping(name: str, *, dir_fd: int | None = None) -> str:
        try:
            return look(name, dir_fd=dir_fd)
        finally:
            if name == "a":  # it has just been seen to be no link
                (root / "a").rename(root / "b")
                (root / "a").symlink_to(elsewhere)

    monkeypatch.setattr(os, "readlink", swapping)
    monkeypatch.setattr(os, "supports_dir_fd", {os.open, swapping})
    with pytest.raises(Unreadable):
        read_regular(root / "a" / "file", limit=10, below=root)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (b"[" * 100_000, "nested"),
        (b"[" * 40 + b"]" * 40, "nested"),
        (b'{"a":' * 900 + b"1" + b"}" * 900, "nested"),
        (b"[" + b"[]," * 1_100_000 + b"1]", "more lists"),
        (b"1" * 5000, "digits"),
        (b"[-9223372036854775809]", "digits"),
        (b'"\xff"', "no JSON"),
        (b"\xff\xfe", "UTF-8"),
        (b"", "no JSON"),
    ],
)
def test_json_of_others_is_bounded(text: bytes, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        parse_json(text)


def test_json_of_ours_is_read_as_it_is() -> None:
    value = {"a": [1, -(2**63), 2**63 - 1, 0.1, None, True, "1" * 30, [[[{}]]]], "é": "\udcff"}
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value).encode()) == value


def test_a_file_is_on_the_disk_before_it_gets_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    flush, name = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        told.append("folder" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "file")
        flush(descriptor)

    def replace(self: Path, target: Path) -> Path:
        told.append("named")
        return name(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    write_whole(tmp_path / "a", "text")
    assert told == ["file", "named", "folder"] and (tmp_path / "a").read_text() == "text"


def test_a_draft_that_fails_leaves_what_was_there(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("before")
    with pytest.raises(ZeroDivisionError), whole(tmp_path / "a") as draft:
        draft.write_text("half")
        raise ZeroDivisionError
    assert [each.name for each in tmp_path.iterdir()] == ["a"] and (tmp_path / "a").read_text() == "before"


@pytest.mark.skipif(sys.platform == "win32", reason="permissions of POSIX")
def test_a_file_for_its_owner_alone_is_never_open_to_others(tmp_path: Path) -> None:
    write_whole(tmp_path / "a", b"secret", mode=0o600)
    with whole(tmp_path / "b", mode=0o600) as draft:
        assert stat.S_IMODE(draft.stat().st_mode) == 0o600
    assert {stat.S_IMODE(each.stat().st_mode) for each in tmp_path.iterdir()} == {0o600}


def test_names_cannot_break_a_line_colour_a_terminal_or_run_backwards() -> None:
    assert printable("a\n\x1b[31m\u202eb\udcff") == "a\\n\\x1b[31m\\u202eb\\xff"
    assert printable("Käfer 中") == "Käfer 中"


def test_of_several_that_write_a_new_file_at_once_one_stays_and_nothing_else(tmp_path: Path) -> None:
    file = tmp_path / "key"

    def write(number: int) -> bytes:
        write_new(file, bytes([number]) * 9, mode=0o600)
        return file.read_bytes()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(write, range(16)))
    assert len(set(found)) == 1 and len(found[0]) == 9
    assert list(tmp_path.iterdir()) == [file]
    assert os.name != "posix" or file.stat().st_mode & 0o777 == 0o600


def test_what_cannot_be_written_is_named_as_it_was_asked_for(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    for target in (tmp_path / "nowhere" / "a", tmp_path / "file" / "a", tmp_path / "folder"):
        with pytest.raises(OSError) as refused:
            write_whole(target, "text")
        assert refused.value.filename == str(target)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_standard_error_is_itself_again_after_threads_held_it_back_at_once(
    capfd: pytest.CaptureFixture[str],
) -> None:
    both = threading.Barrier(2)

    def hold(text: bytes) -> None:
        both.wait(10)
        with standard_error_without(lambda line: line.startswith(b"no")):
            os.write(2, b"no\n" + text)

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(hold, [b"one\n", b"two\n"]))
    os.write(2, b"afterwards\n")
    assert sorted(capfd.readouterr().err.split()) == ["afterwards", "one", "two"]
