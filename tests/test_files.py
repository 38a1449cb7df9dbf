"""What others send is read as regular files alone, and never further than the bound."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from headstart.errors import printable
from headstart.files import Unreadable, read_regular


def test_a_regular_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "a"
    file.write_bytes(b"12345")
    assert read_regular(file, limit=5) == b"12345"
    with pytest.raises(Unreadable, match="larger than 4 bytes"):
        read_regular(file, limit=4)


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
    with pytest.raises(Unreadable, match="out of its folder"):
        read_regular(root / "out", limit=10, below=root)


def test_names_cannot_break_a_line_colour_a_terminal_or_run_backwards() -> None:
    assert printable("a\n\x1b[31m\u202eb\udcff") == "a\\n\\x1b[31m\\u202eb\\xff"
    assert printable("Käfer 中") == "Käfer 中"
